package recorder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// TestHostileSalvageAnywhere breaks the pipeline of a call with several
// recordings at many moments: what is kept of each has an exact account, and
// nothing is kept that nobody consented to.
func TestHostileSalvageAnywhere(t *testing.T) {
	for _, consent := range []suppress.Event{"", "none", suppress.ConsentGranted, suppress.ConsentDenied} {
		for round := 130; round < 330; round += 7 {
			for _, mode := range []string{SuppressedCut, SuppressedSilence} {
				synctest.Test(t, func(t *testing.T) { salvagedAt(t, round, mode, consent) })
			}
		}
	}
}

func salvagedAt(t *testing.T, round int, mode string, consent suppress.Event) {
	rounds := 0
	plan := kindsPlan()
	plan.Suppressed = mode
	plan.Rules.ConsentRequired, plan.ConsentPreroll, plan.ConsentTimeout = consent != "", true, time.Minute
	sh := &shelf{sinks: map[string]*memSink{}}
	steps := []step{
		signalAt(2213, suppress.HoldStart), signalAt(2707, suppress.HoldEnd), signalAt(3500, suppress.PauseStart), signalAt(4111, suppress.PauseEnd),
		sig(1000, suppress.Signal{Event: suppress.AdhocStart, User: "desk"}),
	}
	if consent != "" && consent != "none" {
		steps = append(steps, signalAt(2900, consent))
	}
	_, _, r := recordedLive(t, Config{Policy: fixedPolicy{plan}, NewSink: sh.open, Fault: func(string) {
		if rounds++; rounds == round {
			panic("injected")
		}
	}}, script(plainCall(7000), steps))
	if r.QueuedBytes() != 0 {
		t.Errorf("round %d: %d bytes are still charged to the budget", round, r.QueuedBytes())
	}
	if b := r.vault.(*lockedMemory).budget; b != 256<<20 {
		t.Errorf("round %d: %d bytes of locked memory are not given back", round, 256<<20-b)
	}
	name := fmt.Sprintf("%s, consent %q, broken in round %d", mode, consent, round)
	for id, sink := range sh.sinks {
		m := sink.manifest
		if m == nil {
			continue
		}
		if m.Consent == "none" || m.Consent == "denied" {
			if m.Kind != KindTrunk || len(m.Segments)+len(sink.segments)+len(m.Gaps) > 0 || m.AudioMS > 0 || cutBefore(m, m.RealMS) != m.RealMS {
				t.Errorf("%s: %s is kept though nobody consented: audio %d of %d ms, windows %+v, gaps %+v", name, id, m.AudioMS, m.RealMS, m.Windows, m.Gaps)
			}
			continue
		}
		union := cutBefore(m, m.RealMS)
		if mode == SuppressedSilence && m.Kind != KindStation {
			union = 0
		}
		if m.AudioMS+union != m.RealMS {
			t.Errorf("%s: %s: audio %d + windows %v (%d) is not real %d", name, id, m.AudioMS, m.Windows, union, m.RealMS)
		}
		for _, g := range m.Gaps {
			if n := cutBefore(m, g.RealMS+g.DurationMS) - cutBefore(m, g.RealMS); n > 0 || g.DurationMS <= 0 || g.RealMS+g.DurationMS > m.RealMS {
				t.Errorf("%s: %s: gap %+v reaches %d ms into %+v of %d", name, id, g, n, m.Windows, m.RealMS)
			}
		}
	}
	if sh.sinks["call-1"] == nil || sh.sinks["call-1"].manifest == nil {
		t.Errorf("%s: the call has no row", name)
	}
}

// TestHostileBrokenCall: a call whose pipeline failed captures nothing, frees
// its users, and passes on what holds for the other calls of its conversation.
func TestHostileBrokenCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		sh := &shelf{sinks: map[string]*memSink{}}
		c := &conference{t, sh, mustRecorder(t, Config{Policy: fixedPolicy{kindsPlan()}, NewSink: sh.open, Fault: func(id string) {
			if id == "a" && broken.Load() {
				panic("injected")
			}
		}}), map[string]media.SessionTap{}}
		c.call("a")
		c.call("b", "call-id:a@test")
		c.call("a1") // an id that begins like another one
		c.signal("a", suppress.Signal{Event: suppress.AdhocStart, User: "desk"})
		broken.Store(true)
		time.Sleep(time.Second)
		if c.taps["a"].(media.Capturing).Capturing() {
			t.Error("the broken call says that it captures")
		}
		c.signal("a1", suppress.Signal{Event: suppress.AdhocStart, User: "desk"})
		c.signal("a", suppress.Signal{Event: suppress.PauseStart})
		for _, l := range c.rec.Calls() {
			switch {
			case l.ID == "a" && (l.Recording || len(l.Recordings) > 0):
				t.Errorf("%+v", l)
			case l.ID == "b" && !slices.Contains(l.Reasons, "pause"):
				t.Error("a pause that came by the broken call does not hold for the conversation")
			}
		}
		c.taps["a"].Ended(time.Now(), media.CauseBye)
		time.Sleep(time.Second)
		_, err := c.rec.Signal(context.Background(), suppress.Signal{V: 1, Event: suppress.AdhocStart, At: time.Now(), Source: "http", Call: "b", User: "desk"})
		if err == nil {
			t.Error("a second adhoc recording of the user: that in a1 goes on")
		}
		c.end()
		if sh.sinks["a1-ad1"] == nil {
			t.Error("the user of the broken call may not begin another recording")
		}
	})
}

// stuckSink fails in all but discarding.
type stuckSink struct {
	*memSink
	closed int
}

func (s *stuckSink) Begin(SegmentInfo) (SegmentWriter, error) { return nil, errors.New("stuck") }
func (s *stuckSink) Close() error                             { s.closed++; return nil }

// TestHostileDiscardThroughAFailingSink: what must not be kept is removed though
// nothing can be written, and also when the daemon stops in between.
func TestHostileDiscardThroughAFailingSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &stuckSink{memSink: newMemSink()}
		plan := kindsPlan()
		plan.Stations, plan.Consult = nil, false
		r := mustRecorder(t, Config{Policy: fixedPolicy{plan}, NewSink: func(context.Context, string, string) (Sink, error) { return sink, nil }})
		s := testSession("a")
		s.Start, s.Direction = time.Now(), media.Outbound
		tap, err := r.SessionStarted(context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		answer := time.Now()
		tap.Answered(answer)
		time.Sleep(2 * time.Second)
		tap.Signal(suppress.Signal{V: 1, Event: suppress.ConsultStart, At: answer, Received: time.Now(), Source: "test"})
		time.Sleep(3 * time.Second)
		if n := r.Stats().Discarded.Load(); n != 1 {
			t.Errorf("%d recordings discarded", n)
		}
		tap.Ended(time.Now(), media.CauseBye)
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if !sink.discarded || sink.closed != 1 || r.QueuedBytes() != 0 {
			t.Errorf("discarded %v, closed %d times, %d bytes queued", sink.discarded, sink.closed, r.QueuedBytes())
		}
	})
}
