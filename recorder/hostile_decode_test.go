package recorder

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// loudUntil is a packet of the tone while it lies in a window that ends at ms, and
// of silence behind it.
func loudUntil(ms, end int) []byte {
	if ms < end {
		return toneBytes(ms, 8000, inMuLaw)
	}
	b := make([]byte, 160)
	for i := range b {
		b[i] = 0xff
	}
	return b
}

func heardIn(t *testing.T, steps []step, fromMS, toMS int) float64 {
	t.Helper()
	p := concealing()
	p.Suppressed = SuppressedSilence
	sink, m := replayed(t, p, steps)
	checkAccount(t, m, sink)
	return energy(sink.pcm()[0][fromMS*8 : toMS*8])
}

// TestConcealmentBehindPause: a loss behind a pause of the sender is not made up
// for with what was heard before the pause, inside a window.
func TestConcealmentBehindPause(t *testing.T) {
	var steps []step
	put := func(seq, ms int) {
		wire, when := packet(0, uint16(seq), uint32(8*ms), 0x2000, loudUntil(ms, 1000)), at(ms)
		steps = append(steps, step{at: when, do: func(c *testCall) { c.put(media.External, when, wire) }})
	}
	for n := range 50 {
		put(n, 20*n)
	}
	for n := 51; n < 90; n++ {
		put(n, 3020+20*(n-51))
	}
	if e := heardIn(t, script(answered(4000), steps, []step{signalAt(700, suppress.PauseStart), signalAt(1000, suppress.PauseEnd)}), 1000, 4000); e != 0 {
		t.Errorf("energy %.0f behind the window", e)
	}
}

// TestLatePacketIsNotContinued: what a late packet of a window says is not what
// the next loss is made up of.
func TestLatePacketIsNotContinued(t *testing.T) {
	const late = 48 // of 960 ms
	steps := speak(media.External, 0, 3000, 0, 160, func(_, ms int) []byte { return loudUntil(ms, 1000) },
		func(n int) bool { return n == late || n == 71 || n == 72 })
	wire := packet(0, late, 160*late, 0x2000, loudUntil(20*late, 1000))
	steps = append(steps, step{at: at(1410), do: func(c *testCall) { c.put(media.External, at(1410), wire) }})
	if e := heardIn(t, script(answered(3000), steps, []step{signalAt(700, suppress.PauseStart), signalAt(1000, suppress.PauseEnd)}), 1000, 3000); e != 0 {
		t.Errorf("energy %.0f behind the window", e)
	}
}

// TestReadyStaysShort: writers that are never all served take no more room with
// each that waits.
func TestReadyStaysShort(t *testing.T) {
	s := newScribes(0)
	for range 100_000 {
		s.enqueue(&writer{})
		if len(s.ready)-s.head > 2 { // a scribe takes the first
			s.ready[s.head] = nil
			s.head++
		}
	}
	if cap(s.ready) > 1024 {
		t.Errorf("room for %d where 2 wait", cap(s.ready))
	}
}

// TestPanicInTheEnd: a pipeline that breaks over the end of its call ends all the same.
func TestPanicInTheEnd(t *testing.T) {
	sink := newMemSink()
	r := mustRecorder(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: sink.open, Workers: 1})
	tap, err := r.SessionStarted(t.Context(), testSession("call-1"))
	if err != nil {
		t.Fatal(err)
	}
	s := tap.(*session)
	for _, x := range s.core.recs {
		x.streams = func() []Stream { panic("injected") }
	}
	tap.Answered(time.Now())
	tap.Ended(time.Now().Add(time.Millisecond), media.CauseBye)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if len(r.sessions) != 0 || r.QueuedBytes() != 0 || sink.manifest == nil && !sink.discarded {
		t.Errorf("%d sessions left, %d bytes queued, manifest %v", len(r.sessions), r.QueuedBytes(), sink.manifest)
	}
}

// TestNothingOfAWindowIsHeard: a party that speaks inside windows alone is never
// heard, whatever is lost, comes late or comes again (RFC 2198); the account holds.
func TestNothingOfAWindowIsHeard(t *testing.T) {
	red := media.Format{PayloadType: 97, Name: "RED", ClockRate: 8000, Params: "0/0"}
	rapid.Check(t, func(rt *rapid.T) {
		p := concealing()
		p.Suppressed = rapid.SampledFrom([]string{SuppressedCut, SuppressedSilence}).Draw(rt, "mode")
		shut := make([]bool, 200) // by packet
		var signals []step
		for n, on := 10, false; n < 190; n += rapid.IntRange(2, 40).Draw(rt, "length") {
			event := suppress.PauseStart
			if on {
				event = suppress.PauseEnd
			}
			on = !on
			signals = append(signals, signalAt(20*n, event))
			for i := n; i < len(shut); i++ {
				shut[i] = on
			}
		}
		said := func(n int) []byte {
			if shut[n] {
				return loudUntil(20*n, 20*n+1)
			}
			return loudUntil(20*n, 0)
		}
		var steps []step
		for n := range shut {
			delay := 0
			fate := 9 // the first packets place the stream
			if n > 4 {
				fate = rapid.IntRange(0, 9).Draw(rt, "fate")
			}
			switch fate {
			case 0, 1, 2:
				continue
			case 3:
				delay = rapid.IntRange(0, 600).Draw(rt, "delay")
			}
			pt, payload := byte(0), said(n)
			if n > 0 && rapid.Bool().Draw(rt, "red") {
				before := said(n - 1)
				head := binary.BigEndian.AppendUint32(nil, 0x80<<24|160<<10|uint32(len(before)))
				pt, payload = 97, append(append(append(head, 0), before...), payload...)
			}
			wire, when := packet(pt, uint16(n), uint32(160*n), 0x2000, payload), at(20*n+delay)
			if 20*n+delay < 4000 {
				steps = append(steps, step{at: when, do: func(c *testCall) { c.put(media.External, when, wire) }})
			}
		}
		sink, m := replayed(t, p, script(inFormats(4000, red, g711Formats[0]), signals, steps))
		if err := accountFault(m, sink); err != nil {
			rt.Fatal(err)
		}
		for i, x := range sink.pcm()[0] {
			if x != 0 {
				rt.Fatalf("sample %d at %d ms of audio is %d, windows %+v, gaps %+v", i, i/8, x, m.Windows, m.Gaps)
			}
		}
	})
}
