package recorder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// frames checks that audio is handed on without holes or overlaps.
type frames struct {
	collected
	next  int64 // samples of the recording
	seg   int64
	fault error
	open  bool
	skips bool // silence before consent has no frames
}

func (o *frames) begin(i SegmentInfo) {
	if o.open {
		o.fault = errors.New("begin while open")
	}
	o.open, o.seg = true, 0
}

func (o *frames) audio(a Audio, m *Manifest) bool {
	if !o.open {
		o.fault = errors.New("audio while closed")
	}
	if skipped := a.SegMS*8 - o.seg; o.skips && skipped > 0 {
		o.next, o.seg = o.next+skipped, a.SegMS*8
	}
	if a.Samples > 0 && (a.AudioMS != o.next/8 || a.SegMS != o.seg/8) {
		o.fault = fmt.Errorf("audio at %d/%d, want %d/%d", a.AudioMS, a.SegMS, o.next/8, o.seg/8)
	}
	if a.Samples > 8000 {
		o.fault = fmt.Errorf("frame of %d samples", a.Samples)
	}
	o.next += int64(a.Samples)
	o.seg += int64(a.Samples)
	return true
}

func (o *frames) finish(s Segment, m *Manifest) {
	o.open = false
	if s.DurationMS != o.seg/8 {
		o.fault = fmt.Errorf("segment %+v has %d ms", s, o.seg/8)
	}
}

func (o *frames) abandon() {
	if o.seg > 0 {
		o.fault = errors.New("abandon with audio")
	}
	o.open = false
}

func TestHostileOddPackets(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		rng := rand.New(rand.NewPCG(seed, 3))
		length := 200 + rng.IntN(8000)
		plan := testPlan()
		plan.Format = []string{FormatWAVPCM16, FormatOggOpus, FormatWAVPCMA}[rng.IntN(3)]
		plan.SegmentMax = time.Duration(1000+rng.IntN(3000)) * time.Millisecond
		plan.Lookback = time.Duration(rng.IntN(800)) * time.Millisecond
		plan.EarlyMedia = rng.IntN(3) == 0
		plan.Rules.ConsentRequired = rng.IntN(4) == 0
		if rng.IntN(2) == 0 {
			plan.Suppressed = SuppressedSilence
		}
		var ev []coreEvent
		if rng.IntN(2) == 0 {
			ev = randomCall(rng, length+600)
			ev = slices.DeleteFunc(ev, func(e coreEvent) bool { return e.ns > int64(time.Second)+int64(length)*1e6 })
		}
		add := func(ms int, f func(c *core)) { ev = append(ev, coreEvent{int64(time.Second) + int64(ms)*1e6, f}) }
		for id := range media.StreamID(4) {
			side := media.Side(id & 1)
			for k := range 1 + rng.IntN(4) {
				ms := -900
				if k > 0 {
					ms = rng.IntN(length)
				}
				f := [][]media.Format{g711Formats, nil, g711Formats[4:], g711Formats[2:3]}[rng.IntN(4)]
				st := media.Stream{ID: id, Side: side, At: at(ms), Formats: f, Sending: rng.IntN(3) > 0, Secure: rng.IntN(8) == 0}
				if rng.IntN(5) == 0 && k > 0 {
					add(ms, func(c *core) { c.streamEnded(id, at(ms)) })
					continue
				}
				add(ms, func(c *core) { c.stream(st) })
			}
			ssrcs := 1 + rng.IntN(3)*rng.IntN(40)
			ptime := []int{10, 20, 30, 40, 60, 5}[rng.IntN(6)]
			seq, ts := uint16(rng.Uint32()), rng.Uint32()
			for ms := -900; ms < length; ms += ptime {
				seq, ts = seq+1, ts+uint32(ptime*8)
				if rng.IntN(100) == 0 {
					ts += rng.Uint32() >> rng.IntN(32)
				}
				if rng.IntN(100) == 0 {
					seq += uint16(rng.Uint32() >> rng.IntN(32))
				}
				pt := []byte{0, 8, 0, 8, 13, 101, 18, 99}[rng.IntN(8)]
				n := ptime * 8
				switch rng.IntN(60) {
				case 0:
					n = 0
				case 1:
					n = 8000
				case 2:
					n = rng.IntN(400)
				}
				if pt == 101 {
					n = 4
				}
				payload := make([]byte, n)
				for i := range payload {
					payload[i] = byte(rng.Uint32())
				}
				wire := packet(pt, seq, ts, uint32(rng.IntN(ssrcs)), payload)
				copies := 1
				if rng.IntN(50) == 0 {
					copies = rng.IntN(30)
				}
				jit := rng.Int64N(80e6)
				for range copies {
					ns := int64(time.Second) + int64(ms)*1e6 + jit
					ev = append(ev, coreEvent{ns, func(c *core) { c.packet(id, ns, slices.Clone(wire), uint32(rng.IntN(40)/39)) }})
				}
			}
		}
		for range rng.IntN(30) {
			ms := rng.IntN(length+1000) - 900
			e := []suppress.Event{
				suppress.HoldStart, suppress.HoldEnd, suppress.PauseStart, suppress.PauseEnd, suppress.AgentJoin, suppress.AgentLeave,
				suppress.ConsentGranted, suppress.ConsentDenied, suppress.TransferExternal,
			}[rng.IntN(9)]
			lag := rng.IntN(1500) - 300
			add(ms, func(c *core) {
				c.signal(suppress.Signal{V: 1, Event: e, At: at(ms - lag), Received: at(ms), Source: fmt.Sprint(rng.IntN(2)), User: fmt.Sprint(rng.IntN(3)), Role: suppress.RoleAgent})
			})
		}
		an := rng.IntN(300)
		add(an, func(c *core) { c.answer(at(an)) })
		slices.SortStableFunc(ev, func(a, b coreEvent) int { return int(a.ns - b.ns) })
		out := &frames{skips: plan.Suppressed == SuppressedSilence}
		c := newCore(testSession("x"), plan, "", plainMemory{}, func(recordingInfo) output { return out })
		for _, e := range ev {
			e.do(c)
		}
		c.end(at(length-rng.IntN(3)*rng.IntN(200)), media.CauseBye)
		if out.fault != nil {
			rt.Fatal(out.fault)
		}
		m := out.manifest
		if m == nil {
			rt.Fatal("nothing published")
		}
		if out.next != m.AudioMS*8 {
			rt.Fatalf("%d ms handed on, %d", out.next/8, m.AudioMS)
		}
		sink := newMemSink()
		sink.infos[1] = SegmentInfo{}
		sink.segments[1] = []Audio{{Data: make([]byte, m.AudioMS*32)}}
		if err := accountFault(m, sink); err != nil {
			rt.Fatal(err)
		}
		for _, d := range m.DTMF {
			for _, w := range m.Windows {
				if d.RealMS >= w.RealMS && d.RealMS < w.EndRealMS {
					rt.Fatalf("digit %+v in window %+v", d, w)
				}
			}
		}
		end := int64(0)
		for _, s := range m.Segments {
			if s.RealMS < end || s.EndRealMS > m.RealMS || s.DurationMS <= 0 {
				rt.Fatalf("segments %+v of %d", m.Segments, m.RealMS)
			}
			end = s.EndRealMS
		}
	})
}

func TestHostileQueuedAccountsCountInTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newMemSink()
		var broken atomic.Bool
		sink.failWrite = func() error {
			if broken.Load() {
				return errors.New("stuck")
			}
			return nil
		}
		// Every fifth packet is lost: 10 gaps a second.
		ext := talk(media.External, 0, 400000, constant(0x30))
		kept := ext[:0]
		for i, s := range ext {
			if i%5 != 0 {
				kept = append(kept, s)
			}
		}
		plan := testPlan()
		plan.Format = FormatOggOpus
		var before, after runtime.MemStats
		steps := script(answered(400000), kept, []step{
			{at: at(200001), do: func(*testCall) { broken.Store(true); runtime.GC(); runtime.ReadMemStats(&before) }},
			{at: at(399900), do: func(*testCall) { runtime.GC(); runtime.ReadMemStats(&after); broken.Store(false) }},
		})
		recordedLive(t, Config{Policy: fixedPolicy{plan}, NewSink: sink.open, CallBudgetBytes: 1 << 20}, steps)
		t.Logf("heap grew by %d KiB in 200 s; budget 1024 KiB", (int64(after.HeapAlloc)-int64(before.HeapAlloc))>>10)
		if int64(after.HeapAlloc)-int64(before.HeapAlloc) > 8<<20 {
			t.Error("far beyond the budget")
		}
	})
}

func TestHostileManyRenegotiations(t *testing.T) {
	steps := script(answered(40000), talk(media.External, 0, 40000, constant(0x30)))
	for i := range 150 { // the internal side sends for 100 ms of every 200, then never again
		ms := 100 + 200*i
		steps = append(steps, step{at: at(ms), do: func(c *testCall) { c.stream(media.Internal, at(ms), false) }},
			step{at: at(ms + 100), do: func(c *testCall) { c.stream(media.Internal, at(ms+100), i < 149) }})
	}
	sink, m := replayed(t, testPlan(), script(steps))
	checkAccount(t, m, sink)
	var sum, last int64
	for _, g := range m.Gaps {
		if g.Channel == 1 {
			sum, last = sum+g.DurationMS, max(last, g.RealMS+g.DurationMS)
		}
	}
	if sum != 15000 || last > 30000 {
		t.Errorf("%d ms of absence up to %d, want 15000 up to 29900", sum, last)
	}
}

func TestHostileCloseRaces(t *testing.T) {
	for range 300 {
		r := mustRecorder(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: func(context.Context, string, string) (Sink, error) { return newMemSink(), nil }, Workers: 2})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 50 {
				s := testSession(fmt.Sprint("c", i))
				s.Start = time.Now()
				tap, err := r.SessionStarted(context.Background(), s)
				if err == nil && tap != nil {
					tap.Answered(time.Now())
				}
			}
		}()
		runtime.Gosched()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = r.Close(ctx)
		cancel()
		<-done
		if st := r.Stats(); st.Started.Load() != st.Published.Load()+st.Discarded.Load() {
			t.Fatalf("started %d, published %d, discarded %d", st.Started.Load(), st.Published.Load(), st.Discarded.Load())
		}
	}
}

// Several sources at once on one port (a conference that does not mix) must not end the recording.
func TestHostileInterleavedSourcesDoNotPanic(t *testing.T) {
	for _, sources := range []int{2, 5, 6, 7, 8, 12, 20} {
		for seed := range uint64(20) {
			func() {
				defer func() {
					if p := recover(); p != nil {
						t.Errorf("%d sources: %v", sources, p)
					}
				}()
				rng := rand.New(rand.NewPCG(seed, 9))
				c := newCore(testSession("x"), testPlan(), "", plainMemory{}, func(recordingInfo) output { return &frames{} })
				c.answer(at(0))
				c.stream(media.Stream{ID: 0, Side: 0, At: at(0), Formats: g711Formats, Sending: true})
				for ms := 0; ms < 8000; ms += 20 {
					for k := range sources {
						if rng.IntN(10) == 0 {
							continue
						}
						c.packet(0, c.ns(at(ms+k)), packet(0, uint16(ms/20), uint32(8*ms), uint32(k), make([]byte, 160)), 0)
					}
				}
				c.end(at(8000), media.CauseBye)
			}()
		}
	}
}
