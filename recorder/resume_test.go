package recorder

import (
	"context"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// goneOn records a call whose daemon dies at diesMS, the last durable sample, and is
// back at backMS.
func goneOn(t testing.TB, plan Plan, diesMS, backMS int, noted []suppress.Signal, before, after []step) (*memSink, *Manifest) {
	t.Helper()
	return goneOnHeard(t, nil, plan, diesMS, backMS, noted, before, after)
}

// goneOnHeard is goneOn with a monitor, nil: none, of what is recorded then.
func goneOnHeard(t testing.TB, e *ear, plan Plan, diesMS, backMS int, noted []suppress.Signal, before, after []step) (*memSink, *Manifest) {
	t.Helper()
	sink, first := replayed(t, plan, script(answered(diesMS), before))
	first.Call.EndCause = ""
	r := mustRecorder(t, Config{
		Policy: fixedPolicy{plan}, Synchronous: true, Monitor: func(media.Session) Monitor {
			if e == nil {
				return nil
			}
			e.heard = map[int64][2]int16{}
			return e
		},
		NewSink: func(context.Context, string, string) (Sink, error) {
			return nil, errors.New("it is a recording that goes on")
		},
		Restart: Restart{
			Recordings: func(media.Session) ([]*Manifest, bool) { return []*Manifest{first}, true },
			Signals:    func(string) []suppress.Signal { return noted },
			Sink:       func(context.Context, string) (Sink, error) { return sink, nil },
		},
	})
	s := testSession("call-1")
	s.Resumed = &media.Resumed{Answered: at(0), At: at(backMS), Restarts: 1}
	tap, err := r.SessionStarted(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	c := &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}}
	tap.Answered(at(0))
	for _, side := range []media.Side{media.External, media.Internal} {
		c.stream(side, at(0), true)
	}
	for _, s := range script(after) {
		s.do(c)
	}
	if _, err := r.Results(); err != nil {
		t.Fatal(err)
	}
	return sink, sink.manifest
}

func endAt(ms int) []step {
	return []step{{at: at(ms), last: true, do: func(c *testCall) { c.tap.Ended(at(ms), media.CauseBye) }}}
}

func TestGoesOn(t *testing.T) {
	sink, m := goneOn(t, testPlan(), 4000, 6000, nil,
		script(talk(media.External, 0, 4000, constant(0x10)), talk(media.Internal, 0, 4000, constant(0x20))),
		script(talk(media.External, 6100, 9000, constant(0x10)), talk(media.Internal, 6200, 9000, constant(0x20)), endAt(9000)))
	checkAccount(t, m, sink)
	if m.RealMS != 9000 || m.AudioMS != 9000 || len(m.Segments) != 2 || m.Call.EndCause != "bye" || !m.Origin.Equal(at(0)) {
		t.Errorf("%+v", m)
	}
	want := []Gap{
		{Channel: 0, RealMS: 4000, AudioMS: 4000, DurationMS: 2100, Cause: GapRestart, Filled: "silence"},
		{Channel: 1, RealMS: 4000, AudioMS: 4000, DurationMS: 2200, Cause: GapRestart, Filled: "silence"},
	}
	if len(m.Gaps) != 2 || m.Gaps[0] != want[0] || m.Gaps[1] != want[1] {
		t.Errorf("gaps %+v, want %+v", m.Gaps, want)
	}
	if len(m.Streams) != 2 || m.Streams[0].Packets != 200+145 {
		t.Errorf("streams %+v", m.Streams)
	}
}

// A pause that was on stays on, also one whose signal was in no account yet.
func TestGoesOnSuppressed(t *testing.T) {
	for _, startMS := range []int{3000, 4200} {
		start := suppress.Signal{V: 1, Event: suppress.PauseStart, At: at(startMS), Source: "http", Seq: 1}
		end := suppress.Signal{V: 1, Event: suppress.PauseEnd, At: at(7000), Source: "http", Seq: 2}
		var before []step
		if startMS < 4000 {
			before = []step{{at: at(startMS), do: func(c *testCall) { c.tap.Signal(start) }}}
		}
		sink, m := goneOn(t, testPlan(), 4000, 5000, []suppress.Signal{start},
			script(talk(media.External, 0, 4000, constant(0x10)), before),
			script(talk(media.External, 5000, 9000, constant(0x10)), endAt(9000), []step{{at: at(7000), do: func(c *testCall) { c.tap.Signal(end) }}}))
		checkAccount(t, m, sink)
		if len(m.Windows) != 1 || m.Windows[0].RealMS != int64(startMS) || m.Windows[0].EndRealMS != 7000 {
			t.Errorf("pause at %d ms: windows %+v", startMS, m.Windows)
		}
		if len(m.Signals) != 2 {
			t.Errorf("pause at %d ms: signals %+v", startMS, m.Signals)
		}
	}
}

// The monitor of a recording that goes on hears what is recorded from then on, and
// nothing of a pause that was on.
func TestGoesOnMonitored(t *testing.T) {
	start := suppress.Signal{V: 1, Event: suppress.PauseStart, At: at(3000), Source: "http", Seq: 1}
	end := suppress.Signal{V: 1, Event: suppress.PauseEnd, At: at(7000), Source: "http", Seq: 2}
	e := &ear{}
	goneOnHeard(t, e, testPlan(), 4000, 5000, []suppress.Signal{start},
		script(talk(media.External, 0, 4000, constant(0x10)), []step{{at: at(3000), do: func(c *testCall) { c.tap.Signal(start) }}}),
		script(talk(media.External, 5000, 9000, constant(0x10)), endAt(9000), []step{{at: at(7000), do: func(c *testCall) { c.tap.Signal(end) }}}))
	loud := 0
	for ms, pcm := range e.heard { // by the time since the last durable sample
		if ms < 3000 {
			t.Fatalf("the pause is heard at %d ms", ms)
		}
		if pcm[0] != 0 {
			loud++
		}
	}
	if loud < 1900 {
		t.Errorf("%d ms are heard", loud)
	}
	if !slices.Contains(e.said, "suppressed") || !slices.Contains(e.said, "end") {
		t.Errorf("told %q", e.said)
	}
}

// Which trunk recordings have a monitor after a restart.
func TestRecordsAfterRestart(t *testing.T) {
	trunk, agent := &Manifest{Kind: KindTrunk}, &Manifest{Kind: KindSnippet}
	for _, c := range []struct {
		x       resumption
		noTrunk bool
		want    bool
	}{
		{resumption{held: []*Manifest{agent, trunk}, known: true}, false, true},
		{resumption{held: []*Manifest{agent, trunk}, known: true}, true, true}, // it was begun
		{resumption{held: []*Manifest{agent}, known: true}, false, false},
		{resumption{known: true}, false, false}, // it is over
		{resumption{}, false, true},             // it begins
		{resumption{}, true, false},
	} {
		if got := c.x.records(Plan{NoTrunk: c.noTrunk}); got != c.want {
			t.Errorf("%+v, no trunk %v: %v", c.x, c.noTrunk, got)
		}
	}
}

// The account holds wherever the daemon dies and comes back, and whatever was on.
func TestGoesOnAccount(t *testing.T) {
	events := []suppress.Event{suppress.PauseStart, suppress.PauseEnd, suppress.IVRStart, suppress.IVREnd, suppress.QueueStart, suppress.QueueEnd}
	rapid.Check(t, func(rt *rapid.T) {
		dies := rapid.IntRange(1, 3000).Draw(rt, "dies")
		back := dies + rapid.IntRange(0, 3000).Draw(rt, "away")
		ends := back + rapid.IntRange(0, 3000).Draw(rt, "rest")
		plan := testPlan()
		if rapid.Bool().Draw(rt, "silence") {
			plan.Suppressed = SuppressedSilence
		}
		var before, after []step
		var noted []suppress.Signal
		for i := range rapid.IntRange(0, 6).Draw(rt, "signals") {
			ms := rapid.IntRange(0, ends).Draw(rt, "at")
			sig := suppress.Signal{V: 1, Event: rapid.SampledFrom(events).Draw(rt, "event"), At: at(ms), Source: "http", Seq: uint64(i + 1)}
			st := step{at: at(ms), do: func(c *testCall) { c.tap.Signal(sig) }}
			switch {
			case ms < dies:
				before, noted = append(before, st), append(noted, sig)
			case ms < back:
				noted = append(noted, sig)
			default:
				after = append(after, st)
			}
		}
		sink, m := goneOn(t, plan, dies, back, noted,
			script(talk(media.External, 0, dies, constant(0x10)), before),
			script(talk(media.External, back, ends, constant(0x10)), after, endAt(ends)))
		if err := accountFault(m, sink); err != nil {
			rt.Fatal(err)
		}
		if m.RealMS != int64(ends) {
			rt.Fatalf("real %d ms, want %d", m.RealMS, ends)
		}
	})
}
