package recorder

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// moment is one of a script of several calls of one conversation.
type moment struct {
	at time.Time
	do func(calls map[string]*testCall)
}

// play runs a script of several calls; wait lets the time pass.
func play(t *testing.T, r *Recorder, steps []moment, sessions []media.Session, wait func(time.Time)) {
	calls, steps := map[string]*testCall{}, slices.Clone(steps)
	for _, s := range sessions {
		steps = append(steps, moment{s.Start, func(calls map[string]*testCall) {
			tap, err := r.SessionStarted(context.Background(), s)
			if err != nil {
				t.Fatal(err)
			}
			calls[s.ID] = &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}}
		}})
	}
	slices.SortStableFunc(steps, func(a, b moment) int { return a.at.Compare(b.at) })
	for _, x := range steps {
		wait(x.at)
		x.do(calls)
	}
}

func of(id string, steps []step) (out []moment) {
	for _, x := range steps {
		out = append(out, moment{x.at, func(calls map[string]*testCall) { x.do(calls[id]) }})
	}
	return out
}

// TestHostileConversationLiveEqualsReplay: signals that hold for a conversation
// act alike on a running clock and out of a capture, also on calls in which
// nothing else happens for long.
func TestHostileConversationLiveEqualsReplay(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 9))
		const length = 9000
		var sessions []media.Session
		var steps []moment
		for i, id := range []string{"a", "b", "c"} {
			s := testSession(id)
			s.Start = t0.Add(time.Duration(i*100) * time.Millisecond)
			s.Links = []string{"header:x:1"}
			sessions = append(sessions, s)
			parts := [][]step{answered(length + 777*i)}
			for _, side := range []media.Side{media.External, media.Internal} {
				if rng.IntN(2) == 0 {
					parts = append(parts, impaired(rng, side, rng.IntN(1000), length, 0, 0.02, 60, 0x30))
				}
			}
			events := []suppress.Event{suppress.PauseStart, suppress.PauseEnd, suppress.ConsentGranted, suppress.ConsentDenied, suppress.AdhocStart}
			for range rng.IntN(5) {
				ms, lag := 500+rng.IntN(length-1500), rng.IntN(100)
				e := events[rng.IntN(len(events))]
				parts = append(parts, []step{{at: at(ms + lag), do: func(c *testCall) {
					c.tap.Signal(suppress.Signal{V: 1, Event: e, At: at(ms), Received: at(ms + lag), Source: "t", User: "desk"})
				}}})
			}
			steps = append(steps, of(id, script(parts...))...)
		}
		plan := kindsPlan()
		plan.Rules.ConsentRequired, plan.ConsentPreroll, plan.ConsentTimeout = seed%3 == 0, seed%2 == 0, 4*time.Second
		run := func(t *testing.T, live bool) *shelf {
			sh := &shelf{sinks: map[string]*memSink{}}
			cfg := Config{Policy: fixedPolicy{plan}, NewSink: sh.open, Synchronous: !live}
			if live {
				time.Sleep(time.Until(t0))
			}
			r := mustRecorder(t, cfg)
			wait := func(at time.Time) {}
			if live {
				wait = func(at time.Time) { time.Sleep(time.Until(at)) }
			}
			play(t, r, steps, sessions, wait)
			if live {
				time.Sleep(time.Second)
			}
			if err := r.Close(context.Background()); err != nil {
				t.Error(err)
			}
			return sh
		}
		want := run(t, false)
		synctest.Test(t, func(t *testing.T) {
			got := run(t, true)
			if d := cmp.Diff(want.kept(), got.kept()); d != "" {
				t.Errorf("seed %d: %s", seed, d)
			}
			for _, id := range want.kept() {
				w, g := want.sinks[id], got.sinks[id]
				if g == nil || g.manifest == nil {
					continue
				}
				if d := cmp.Diff(w.manifest, g.manifest); d != "" {
					t.Errorf("seed %d: %s (-replay +live): %s", seed, id, d)
				}
				if !slices.Equal(w.pcm()[0], g.pcm()[0]) || !slices.Equal(w.pcm()[1], g.pcm()[1]) {
					t.Errorf("seed %d: samples of %s differ", seed, id)
				}
			}
		})
	}
}

// TestHostileLateToEnd: what holds for a conversation reaches a call whose end is
// on its way already, for the time before it.
func TestHostileLateToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := kindsPlan()
		plan.Stations = nil
		c := newConference(t, plan)
		c.call("a")
		c.call("b", "call-id:a@test")
		time.Sleep(time.Second)
		c.taps["a"].Signal(suppress.Signal{V: 1, Event: suppress.PauseStart, At: time.Now(), Source: "test"})
		time.Sleep(50 * time.Millisecond)
		c.taps["b"].Ended(time.Now(), media.CauseBye)
		time.Sleep(time.Second)
		c.end()
		if m := c.shelf.sinks["b"].manifest; m.AudioMS != 1000 || m.RealMS != 1050 {
			t.Errorf("audio %d of %d ms, windows %+v", m.AudioMS, m.RealMS, m.Windows)
		}
	})
}

// TestHostileNumbersOfAnotherCall: calls may number their signals alike.
func TestHostileNumbersOfAnotherCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := kindsPlan()
		plan.Stations = nil
		c := newConference(t, plan)
		c.call("a")
		c.call("b", "call-id:a@test")
		c.signal("b", suppress.Signal{Event: suppress.QueueStart, Seq: 1})
		c.signal("b", suppress.Signal{Event: suppress.QueueEnd, Seq: 2})
		c.signal("a", suppress.Signal{Event: suppress.PauseStart, Seq: 1})
		for _, l := range c.rec.Calls() {
			if !slices.Contains(l.Reasons, "pause") {
				t.Errorf("call %s is not paused", l.ID)
			}
		}
		c.end()
	})
}

// TestHostileManyVerdicts: a pause is not forgotten over other news, nor the
// loss of who began it, when a call joins.
func TestHostileManyVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := kindsPlan()
		plan.Stations, plan.Rules.PauseAutoResume = nil, 20*time.Second
		c := newConference(t, plan)
		c.call("a")
		c.call("keeps the conversation", "call-id:a@test")
		c.signal("a", suppress.Signal{Event: suppress.PauseStart})
		for range stickyMax + 10 {
			c.taps["a"].Signal(suppress.Signal{V: 1, Event: suppress.ConsentGranted, At: time.Now(), Source: "test"})
			time.Sleep(10 * time.Millisecond)
		}
		c.rec.Post(suppress.Signal{V: 1, Event: suppress.SourceLost, At: time.Now(), Source: "test"})
		time.Sleep(time.Second)
		c.call("late", "call-id:a@test")
		time.Sleep(time.Minute)
		for _, l := range c.rec.Calls() {
			if !slices.Contains(l.Reasons, "pause") {
				t.Errorf("call %s is not paused", l.ID)
			}
		}
		c.end()
	})
}

// TestHostileConversationsAtOnce joins, links, names and ends calls from many
// goroutines; for the race detector, and for deadlocks.
func TestHostileConversationsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := &shelf{sinks: map[string]*memSink{}}
		r := mustRecorder(t, Config{Policy: fixedPolicy{kindsPlan()}, NewSink: sh.open, Workers: 4})
		done := make(chan struct{})
		for g := range 8 {
			go func() {
				defer func() { done <- struct{}{} }()
				rng := rand.New(rand.NewPCG(uint64(g), 1))
				for i := range 12 {
					s := testSession(fmt.Sprint("c", g, "-", i))
					s.Start, s.Links = time.Now(), []string{fmt.Sprint("header:x:", rng.IntN(20))}
					tap, err := r.SessionStarted(context.Background(), s)
					if err != nil {
						t.Error(err)
						return
					}
					tap.Answered(time.Now())
					for range 5 {
						time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
						sig := suppress.Signal{V: 1, At: time.Now(), Source: "t", User: "desk"}
						switch rng.IntN(5) {
						case 0:
							sig.Event, sig.Links = suppress.CallLinked, []string{fmt.Sprint("header:x:", rng.IntN(20))}
						case 1:
							sig.Event, sig.Conversation = suppress.AttrsSet, fmt.Sprint("case", rng.IntN(5))
						case 2:
							sig.Event = suppress.PauseStart
						case 3:
							sig.Event = suppress.AdhocStart
						case 4:
							sig.Event = suppress.TransferExternal
						}
						tap.Signal(sig)
						r.Calls()
					}
					tap.Ended(time.Now(), media.CauseBye)
				}
			}()
		}
		for range 8 {
			<-done
		}
		time.Sleep(time.Second)
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if len(r.adhoc) > 0 {
			t.Errorf("users that still have a recording: %v", r.adhoc)
		}
	})
}
