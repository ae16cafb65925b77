package jitter

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media/source"
)

func packet(seq, arrival int64) source.Packet {
	return source.Packet{Seq: seq, Arrival: arrival, Payload: []byte{byte(seq)}}
}

// pop empties what is ready and returns the sequence numbers, and holes as
// negative counts before them.
func pop(b *Buffer, now int64) (got []int64) {
	for {
		p, lost, ok := b.Pop(now)
		if !ok {
			return got
		}
		if lost > 0 {
			got = append(got, -lost)
		}
		got = append(got, p.Seq)
	}
}

func equal(a, b []int64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestOrder(t *testing.T) {
	type step struct {
		seq, now int64
		result   Result
		got      []int64
	}
	const never = -1 // no packet, only time
	tests := []struct {
		name  string
		steps []step
	}{
		{"first waits, the rest flows", []step{{10, 0, Accepted, nil}, {never, 99, 0, nil}, {never, 100, 0, []int64{10}}, {11, 101, Accepted, []int64{11}}}},
		{"first ones reordered", []step{{11, 0, Accepted, nil}, {10, 20, Accepted, nil}, {never, 100, 0, []int64{10, 11}}}},
		{"reordered", []step{{1, 0, Accepted, nil}, {never, 100, 0, []int64{1}}, {3, 110, Accepted, nil}, {2, 120, Accepted, []int64{2, 3}}}},
		{"lost", []step{{1, 0, Accepted, nil}, {never, 100, 0, []int64{1}}, {4, 110, Accepted, nil}, {5, 130, Accepted, nil}, {never, 184, 0, nil}, {never, 185, 0, []int64{-2, 4, 5}}}},
		{"late", []step{{1, 0, Accepted, nil}, {never, 100, 0, []int64{1}}, {3, 110, Accepted, nil}, {never, 210, 0, []int64{-1, 3}}, {2, 211, Late, nil}}},
		{"duplicate", []step{{1, 0, Accepted, nil}, {1, 1, Duplicate, nil}, {never, 100, 0, []int64{1}}, {1, 101, Late, nil}}},
		{"full", []step{{1, 0, Accepted, nil}, {never, 100, 0, []int64{1}}, {3, 101, Accepted, nil}, {4, 102, Accepted, nil}, {5, 103, Accepted, nil}, {6, 104, Accepted, []int64{-1, 3, 4, 5, 6}}}},
		{"far ahead", []step{{1, 0, Accepted, nil}, {never, 100, 0, []int64{1}}, {1 << 40, 110, Accepted, nil}, {never, 210, 0, []int64{-(1<<40 - 2), 1 << 40}}}},
		{"flush", []step{{1, 0, Accepted, nil}, {3, 1, Accepted, nil}, {never, Flush, 0, []int64{1, -1, 3}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := New(100, 4)
			for i, s := range tt.steps {
				if s.seq != never {
					if r := b.Push(packet(s.seq, s.now)); r != s.result {
						t.Errorf("step %d: result %d, want %d", i, r, s.result)
					}
				}
				if got := pop(b, s.now); !equal(got, s.got) {
					t.Errorf("step %d: %v, want %v", i, got, s.got)
				}
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	b := New(100, 8)
	if _, ok := b.Deadline(); ok {
		t.Error("an empty buffer has a deadline")
	}
	b.Push(packet(5, 30))
	b.Push(packet(4, 50))
	if at, ok := b.Deadline(); !ok || at != 130 {
		t.Errorf("deadline %d, %v: the packet that waits longest decides", at, ok)
	}
	if got := pop(b, 130); !equal(got, []int64{4, 5}) {
		t.Error(got)
	}
}

func TestPayloadIsCopied(t *testing.T) {
	b := New(0, 4)
	wire := []byte{1, 2, 3}
	b.Push(source.Packet{Seq: 1, Payload: wire})
	wire[0] = 9
	p, _, ok := b.Pop(0)
	if !ok || p.Payload[0] != 1 {
		t.Error("the payload follows the caller's buffer")
	}
	if b.Push(source.Packet{Seq: 2, Payload: make([]byte, PayloadBytesMax+1)}) != TooLong {
		t.Error("an endless payload was taken")
	}
}

// What is pushed within three quarters of the window comes out once and in order, whatever was
// lost, repeated or overtaken; nothing waits longer than the window.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const window, spacing = 200, 20
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		loss := rapid.Float64Range(0, 0.5).Draw(rt, "loss")
		delay := rapid.Int64Range(1, window*3/4).Draw(rt, "delay")
		start := rapid.Int64Range(0, 1<<40).Draw(rt, "first")
		var packets []source.Packet
		for i := int64(0); i < 400; i++ {
			for copies := rng.IntN(3); copies >= 0 && rng.Float64() >= loss; copies-- {
				packets = append(packets, packet(start+i, i*spacing+rng.Int64N(delay)))
			}
		}
		b := New(window, 64)
		pushed, popped := map[int64]bool{}, map[int64]int64{}
		last, lost := int64(-1), int64(0)
		drain := func(now int64) {
			for {
				p, n, ok := b.Pop(now)
				if !ok {
					break
				}
				if p.Seq <= last {
					rt.Fatalf("%d after %d", p.Seq, last)
				}
				if last >= 0 && p.Seq-last-1 != n {
					rt.Fatalf("%d after %d: lost %d", p.Seq, last, n)
				}
				if byte(p.Seq) != p.Payload[0] {
					rt.Fatalf("%d has the payload of another", p.Seq)
				}
				last, popped[p.Seq], lost = p.Seq, now, lost+n
			}
			if at, ok := b.Deadline(); ok && at <= now {
				rt.Fatalf("stalls at %d, deadline %d", now, at)
			}
		}
		next := sortByArrival(packets)
		for now := int64(0); now <= 400*spacing+2*window; now++ {
			for len(next) > 0 && next[0].Arrival <= now {
				if b.Push(next[0]) == Accepted {
					pushed[next[0].Seq] = true
				}
				next = next[1:]
				drain(now)
			}
			drain(now)
		}
		distinct := map[int64]bool{}
		for _, p := range packets {
			distinct[p.Seq] = true
		}
		if len(popped) != len(distinct) || len(pushed) != len(distinct) || b.Len() != 0 {
			rt.Fatalf("%d of %d came out, %d wait", len(popped), len(distinct), b.Len())
		}
	})
}

func sortByArrival(p []source.Packet) []source.Packet {
	out := append([]source.Packet(nil), p...)
	for i := 1; i < len(out); i++ {
		for j := i; j > 0 && out[j].Arrival < out[j-1].Arrival; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	b := New(100, 64)
	p := source.Packet{Payload: make([]byte, 160)}
	seq := int64(0)
	step := func() {
		for _, i := range []int64{1, 0, 3} { // overtaken, one in four lost
			p.Seq, p.Arrival = 4*seq+i, 40*seq
			b.Push(p)
		}
		for {
			if _, _, ok := b.Pop(40 * seq); !ok {
				break
			}
		}
		seq++
	}
	for range 200 {
		step()
	}
	if got := testing.AllocsPerRun(1000, step); got != 0 {
		t.Errorf("%v allocations a round", got)
	}
}

func BenchmarkPushPop(b *testing.B) {
	buf := New(200e6, 64)
	p := source.Packet{Payload: make([]byte, 160)}
	b.ReportAllocs()
	for n := range b.N {
		p.Seq, p.Arrival = int64(n), int64(n)*20e6
		buf.Push(p)
		buf.Pop(p.Arrival)
	}
}
