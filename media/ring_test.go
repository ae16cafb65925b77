package media

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var _ Tap = (*Ring)(nil)

func TestRingKeepsOrderBytesAndArrival(t *testing.T) {
	base := time.Now()
	r := NewRing(4096, base)
	at := base.Add(20 * time.Millisecond)
	r.Put(at, []byte("one"))
	r.Put(at.Add(time.Nanosecond), nil)
	if r.Len() != 2 {
		t.Fatalf("Len = %d, want 2", r.Len())
	}
	got, wire, dropped, ok := r.Next()
	if !ok || string(wire) != "one" || dropped != 0 || got.Sub(base) != 20*time.Millisecond {
		t.Fatalf("first = %v %q %d %v", got.Sub(base), wire, dropped, ok)
	}
	got, wire, _, ok = r.Next()
	if !ok || len(wire) != 0 || got.Sub(at) != time.Nanosecond {
		t.Fatalf("second = %v %q %v", got.Sub(at), wire, ok)
	}
	if _, _, _, ok := r.Next(); ok {
		t.Fatal("a third packet came out")
	}
}

// The monotonic reading must come through: == compares wall clock and
// monotonic reading alike.
func TestRingKeepsMonotonicReading(t *testing.T) {
	base := time.Now()
	r := NewRing(4096, base)
	at := base.Add(123456789)
	r.Put(at, []byte{1})
	if got, _, _, _ := r.Next(); got != at {
		t.Fatalf("arrival %#v, want %#v", got, at)
	}
	capture := time.Unix(1700000000, 42).UTC()
	r = NewRing(4096, capture)
	r.Put(capture.Add(time.Hour), []byte{1})
	if got, _, _, _ := r.Next(); got != capture.Add(time.Hour) {
		t.Fatalf("arrival of a capture: %v", got)
	}
}

func TestRingCountsWhatItDrops(t *testing.T) {
	r := NewRing(256, time.Now())
	at := time.Now()
	for range 100 {
		r.Put(at, make([]byte, 48)) // 64 each: four fit
	}
	if r.Dropped() != 96 || r.Len() != 4 {
		t.Fatalf("dropped %d, waiting %d; want 96 and 4", r.Dropped(), r.Len())
	}
	for range 4 {
		if _, _, dropped, ok := r.Next(); !ok || dropped != 0 {
			t.Fatalf("a packet from before the drop: dropped %d, ok %v", dropped, ok)
		}
	}
	r.Release()
	r.Put(at, make([]byte, 200)) // larger than half the ring
	r.Put(at, []byte{7})
	_, wire, dropped, ok := r.Next()
	if !ok || dropped != 97 || !bytes.Equal(wire, []byte{7}) {
		t.Fatalf("dropped %d, wire %v, ok %v; want 97, [7]", dropped, wire, ok)
	}
}

// A packet handed out must not be overwritten before it is released.
func TestRingHoldsWhatIsHandedOut(t *testing.T) {
	r := NewRing(256, time.Now())
	at := time.Now()
	r.Put(at, bytes.Repeat([]byte{1}, 100))
	_, wire, _, _ := r.Next()
	for i := range 50 {
		r.Put(at, bytes.Repeat([]byte{byte(2 + i)}, 100))
	}
	if !bytes.Equal(wire, bytes.Repeat([]byte{1}, 100)) {
		t.Fatal("the packet changed while it was in use")
	}
}

// TestRingAgainstQueue compares the ring with a plain queue: order, bytes,
// times, every dropped packet accounted for, and the promise of when there is room.
func TestRingAgainstQueue(t *testing.T) {
	type packet struct {
		at   time.Time
		wire []byte
		lost uint32
	}
	rapid.Check(t, func(t *rapid.T) {
		base := time.Unix(1700000000, 0)
		size := rapid.IntRange(0, 3000).Draw(t, "size")
		r := NewRing(size, base)
		size = max(size, ringBytesMin) / recordAlign * recordAlign
		var queue []packet
		var held, used, largest int
		var lost uint32
		var total uint64
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				wire := rapid.SliceOfN(rapid.Byte(), 0, size/2+20).Draw(t, "wire")
				p := packet{base.Add(time.Duration(rapid.Int64Range(-1e12, 1e15).Draw(t, "at"))), wire, lost}
				need := int(recordBytes(len(wire)))
				before := r.Dropped()
				r.Put(p.at, wire)
				if r.Dropped() != before {
					lost++
					total++
					if need <= size/2 && used+held+2*max(need, largest) <= size {
						t.Fatalf("dropped %d bytes though %d of %d were used", need, used+held, size)
					}
					return
				}
				if need > size/2 || used+held+need > size {
					t.Fatalf("took %d bytes though %d of %d were used", need, used+held, size)
				}
				lost, used, largest = 0, used+need, max(largest, need)
				queue = append(queue, p)
			},
			"next": func(t *rapid.T) {
				at, wire, dropped, ok := r.Next()
				held = 0
				if ok != (len(queue) > 0) {
					t.Fatalf("ok = %v with %d queued", ok, len(queue))
				}
				if !ok {
					return
				}
				want := queue[0]
				queue = queue[1:]
				held = int(recordBytes(len(want.wire)))
				used -= held
				if !at.Equal(want.at) || !bytes.Equal(wire, want.wire) || dropped != want.lost {
					t.Fatalf("got %v %x %d, want %v %x %d", at, wire, dropped, want.at, want.wire, want.lost)
				}
			},
			"release": func(*rapid.T) { r.Release(); held = 0 },
			"": func(t *rapid.T) {
				if r.Len() != len(queue) || r.Dropped() != total {
					t.Fatalf("Len %d, Dropped %d; want %d, %d", r.Len(), r.Dropped(), len(queue), total)
				}
			},
		})
	})
}

// TestRingConcurrent runs producer and consumer against each other: each packet
// carries its number, so every one must come out or be counted.
func TestRingConcurrent(t *testing.T) {
	const packets = 200_000
	base := time.Now()
	r := NewRing(8192, base)
	done := make(chan struct{})
	go func() {
		defer close(done)
		wire := make([]byte, 300)
		for i := range packets {
			binary.LittleEndian.PutUint64(wire, uint64(i))
			wire[8+i%290] = byte(i)
			r.Put(base.Add(time.Duration(i)), wire[:9+i%290])
			if i%64 == 0 {
				runtime.Gosched()
			}
		}
	}()
	var want uint64
	for finished := false; ; {
		at, wire, dropped, ok := r.Next()
		if !ok {
			if finished {
				break
			}
			select {
			case <-done:
				finished = true
			default:
				runtime.Gosched()
			}
			continue
		}
		want += uint64(dropped)
		if i := binary.LittleEndian.Uint64(wire); i != want || at != base.Add(time.Duration(i)) ||
			len(wire) != 9+int(i%290) || wire[len(wire)-1] != byte(i) {
			t.Fatalf("packet %d (%d bytes, %v) came where %d was due", i, len(wire), at.Sub(base), want)
		}
		want++
	}
	if r.Len() != 0 || want > packets || packets-want > r.Dropped() {
		t.Fatalf("%d accounted for of %d, %d dropped, %d waiting", want, packets, r.Dropped(), r.Len())
	}
}

func TestRingDoesNotAllocate(t *testing.T) {
	base := time.Now()
	r := NewRing(4096, base)
	wire := make([]byte, 172)
	if n := testing.AllocsPerRun(1000, func() { r.Put(base, wire); r.Put(base, wire); r.Next() }); n != 0 {
		t.Fatalf("%v allocations per packet", n)
	}
}

func BenchmarkRing(b *testing.B) {
	base := time.Now()
	r := NewRing(1<<20, base)
	wire := make([]byte, 172)
	at := base.Add(time.Second)
	b.ReportAllocs()
	for b.Loop() {
		r.Put(at, wire)
		r.Next()
	}
}

// TestRingRefused: what is told of packets that are not there comes in its place, and
// no packet reads as it.
func TestRingRefused(t *testing.T) {
	base := time.Now()
	r := NewRing(4096, base)
	r.Put(base, []byte{0x80, 1, 2, 3, 4})
	r.Refused(base.Add(time.Second), 70_000)
	_, wire, _, _ := r.Next()
	if _, ok := RefusedIn(wire); ok {
		t.Error("a packet reads as none")
	}
	arrival, wire, _, ok := r.Next()
	if n, is := RefusedIn(wire); !ok || !is || n != 70_000 || arrival.Sub(base) != time.Second {
		t.Errorf("%d %v %v", n, is, arrival.Sub(base))
	}
	if n := testing.AllocsPerRun(100, func() { r.Refused(base, 1); r.Next(); r.Release() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
