package recorder

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// conference is several live calls of one recorder.
type conference struct {
	t     *testing.T
	shelf *shelf
	rec   *Recorder
	taps  map[string]media.SessionTap
}

func newConference(t *testing.T, plan Plan) *conference {
	sh := &shelf{sinks: map[string]*memSink{}}
	return &conference{t, sh, mustRecorder(t, Config{Policy: fixedPolicy{plan}, NewSink: sh.open}), map[string]media.SessionTap{}}
}

func (c *conference) call(id string, links ...string) {
	s := testSession(id)
	s.Start, s.Links = time.Now(), append([]string{"call-id:" + s.SIPCallID}, links...)
	tap, err := c.rec.SessionStarted(context.Background(), s)
	if err != nil {
		c.t.Fatal(err)
	}
	tap.Answered(time.Now())
	c.taps[id] = tap
}

// as places a call with another's Call-ID.
func (c *conference) as(id, callID, tag string) {
	s := testSession(id)
	s.Start, s.SIPCallID, s.FromTag = time.Now(), callID, tag
	tap, err := c.rec.SessionStarted(context.Background(), s)
	if err != nil {
		c.t.Fatal(err)
	}
	tap.Answered(time.Now())
	c.taps[id] = tap
}

func (c *conference) signal(id string, s suppress.Signal) {
	s.V, s.At, s.Source = 1, time.Now(), "test"
	c.taps[id].Signal(s)
	time.Sleep(300 * time.Millisecond)
}

func (c *conference) conversations() map[string]string {
	out := map[string]string{}
	for _, l := range c.rec.Calls() {
		out[l.ID] = l.Conversation
	}
	return out
}

func (c *conference) end() {
	for _, tap := range c.taps {
		tap.Ended(time.Now(), media.CauseBye)
	}
	time.Sleep(time.Second)
	if err := c.rec.Close(context.Background()); err != nil {
		c.t.Error(err)
	}
}

// TestConversations: calls that share a key are one conversation, whenever that shows.
func TestConversations(t *testing.T) {
	plan := kindsPlan()
	plan.Stations = nil
	first := media.ConversationID("a@test")
	for name, tc := range map[string]struct {
		run  func(c *conference)
		want [3]string // of a, b and c
	}{
		"strangers": {
			func(c *conference) { c.call("a"); c.call("b"); c.call("c") },
			[3]string{first, media.ConversationID("b@test"), media.ConversationID("c@test")},
		},
		"replaces": {
			func(c *conference) { c.call("a"); c.call("b", "call-id:a@test"); c.call("c", "call-id:b@test") },
			[3]string{first, first, first},
		},
		"another dialog with the same Call-ID": {func(c *conference) {
			c.call("a")
			c.as("b", "a@test", "another tag")
			c.call("c", "dialog:a@test;a")
		}, [3]string{first, media.ConversationID("a@test;another tag"), first}},
		"a header that all carry": {
			func(c *conference) { c.call("a", "header:x:1"); c.call("b", "header:x:2"); c.call("c", "header:x:1") },
			[3]string{first, media.ConversationID("b@test"), first},
		},
		"a link found later": {func(c *conference) {
			c.call("a")
			time.Sleep(time.Second)
			c.call("b")
			c.call("c", "call-id:b@test")
			c.signal("c", suppress.Signal{Event: suppress.CallLinked, Links: []string{"call-id:a@test"}})
		}, [3]string{first, first, first}},
		"named by a signal": {func(c *conference) {
			c.call("a")
			c.call("b", "call-id:a@test")
			c.call("c")
			c.signal("a", suppress.Signal{Event: suppress.QueueStart, Conversation: "case-7"})
			c.signal("c", suppress.Signal{Event: suppress.QueueStart, Conversation: "case-7"})
		}, [3]string{"case-7", "case-7", "case-7"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newConference(t, plan)
				tc.run(c)
				got := c.conversations()
				c.end()
				for i, id := range []string{"a", "b", "c"} {
					if got[id] != tc.want[i] {
						t.Errorf("call %s is in %s, want %s", id, got[id], tc.want[i])
					}
					if m := c.shelf.sinks[id].manifest; m.Conversation != tc.want[i] {
						t.Errorf("the manifest of %s says %s, want %s", id, m.Conversation, tc.want[i])
					}
				}
			})
		})
	}
}

// TestPauseHoldsForTheConversation: for all its calls, for one that joins while
// it lasts, and for nobody else.
func TestPauseHoldsForTheConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := kindsPlan()
		plan.Stations = nil
		c := newConference(t, plan)
		c.call("a")
		c.call("b", "call-id:a@test")
		c.call("other")
		c.signal("b", suppress.Signal{Event: suppress.PauseStart})
		c.call("late", "call-id:b@test")
		time.Sleep(300 * time.Millisecond)
		for _, l := range c.rec.Calls() {
			if paused := slices.Contains(l.Reasons, "pause"); paused != (l.ID != "other") {
				t.Errorf("call %s: reasons %v", l.ID, l.Reasons)
			}
		}
		c.signal("late", suppress.Signal{Event: suppress.PauseEnd})
		for _, l := range c.rec.Calls() {
			if len(l.Reasons) > 0 {
				t.Errorf("call %s: reasons %v after the end", l.ID, l.Reasons)
			}
		}
		c.end()
	})
}

// TestConsentHoldsForTheConversation: a call of it that asks nobody follows the
// one that must ask.
func TestConsentHoldsForTheConversation(t *testing.T) {
	for _, verdict := range []suppress.Event{suppress.ConsentGranted, suppress.ConsentDenied, suppress.AttrsSet} {
		synctest.Test(t, func(t *testing.T) {
			asks, follows := kindsPlan(), kindsPlan()
			asks.Rules.ConsentRequired, asks.Stations = true, nil
			follows.NoTrunk = true
			c := newConference(t, asks)
			c.call("a")
			c.rec.SetPolicy(fixedPolicy{follows})
			c.call("b", "call-id:a@test")
			c.signal("a", suppress.Signal{Event: verdict})
			c.call("late", "call-id:a@test")
			time.Sleep(2 * time.Second)
			c.end()
			granted := verdict == suppress.ConsentGranted
			for _, id := range []string{"b-st1", "late-st1"} {
				x := c.shelf.sinks[id]
				if kept := x != nil && x.manifest != nil && x.manifest.AudioMS > 1000; kept != granted {
					t.Errorf("%s: the station %s is kept: %v", verdict, id, kept)
				}
			}
		})
	}
}

// TestExternalBridge: when a call is bridged to another external party, the
// first call's recording has both and the second leg has none beside it.
func TestExternalBridge(t *testing.T) {
	for _, stop := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			plan := kindsPlan()
			plan.Stations, plan.Rules.ExternalTransferStop = nil, stop
			c := newConference(t, plan)
			c.call("a")
			c.call("b", "call-id:a@test")
			time.Sleep(time.Second)
			c.signal("b", suppress.Signal{Event: suppress.TransferExternal})
			time.Sleep(2 * time.Second)
			s := testSession("c")
			s.Start, s.Direction, s.Links = time.Now(), media.Outbound, []string{"call-id:a@test"}
			tap, err := c.rec.SessionStarted(context.Background(), s)
			if err != nil {
				t.Fatal(err)
			}
			tap.Answered(time.Now())
			c.taps["c"] = tap
			time.Sleep(time.Second)
			c.end()
			a, b := c.shelf.sinks["a"].manifest, c.shelf.sinks["b"].manifest
			if want := int64(4300); stop && a.AudioMS != 1000 || !stop && a.AudioMS != want || b.RealMS != 1000 || b.Call.EndCause != "bridged" {
				t.Errorf("stop %v: the first has %d ms of %d, the second lasts %d (%s)", stop, a.AudioMS, a.RealMS, b.RealMS, b.Call.EndCause)
			}
			if x := c.shelf.sinks["c"]; x != nil && x.manifest != nil {
				t.Errorf("stop %v: the second leg has a recording of its own", stop)
			}
		})
	}
}

// TestAdhocOverAllCalls: a user has one adhoc recording at a time, wherever.
func TestAdhocOverAllCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConference(t, kindsPlan())
		c.call("a")
		c.call("b")
		adhoc := func(call string, e suppress.Event) error {
			_, err := c.rec.Signal(context.Background(), suppress.Signal{V: 1, Event: e, At: time.Now(), Source: "http", Call: call, User: "desk"})
			return err
		}
		for i, step := range []struct {
			call string
			e    suppress.Event
			ok   bool
		}{
			{"a", suppress.AdhocStart, true},
			{"b", suppress.AdhocStart, false},
			{"a", suppress.AdhocStart, false},
			{"b", suppress.AdhocEnd, false},
			{"a", suppress.AdhocEnd, true},
			{"b", suppress.AdhocStart, true},
		} {
			if err := adhoc(step.call, step.e); (err == nil) != step.ok {
				t.Errorf("step %d: %v", i, err)
			}
		}
		c.taps["b"].Ended(time.Now(), media.CauseBye)
		time.Sleep(time.Second)
		if err := adhoc("a", suppress.AdhocStart); err != nil {
			t.Errorf("after the call with the user's recording ended: %v", err)
		}
		c.end()
	})
}

// TestConversationsAgainstModel joins calls by random keys and compares the
// groups with those of a naive union.
func TestConversationsAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		convs, group := newConversations(), map[string]int{}
		sessions := map[int]media.Session{}
		for i := range rapid.IntRange(1, 30).Draw(rt, "calls") {
			s := testSession(fmt.Sprint(i))
			s.Start = t0.Add(time.Duration(i) * time.Second)
			for range rapid.IntRange(0, 3).Draw(rt, "links") {
				s.Links = append(s.Links, fmt.Sprintf("call-id:%d@test", rapid.IntRange(0, 40).Draw(rt, "other")))
			}
			sessions[i] = s
			convs.join(s)
			mine := keysOf(s)
			for _, k := range mine {
				if g, ok := group[k]; ok {
					for other, x := range group {
						if x == g {
							group[other] = i
						}
					}
				}
				group[k] = i
			}
			for _, k := range mine {
				group[k] = i
			}
		}
		for i, a := range sessions {
			for k, b := range sessions {
				same := group["call-id:"+a.SIPCallID] == group["call-id:"+b.SIPCallID]
				if got := convs.of(a) == convs.of(b) && convs.of(a) != nil; got != same {
					rt.Fatalf("calls %d and %d: together %v, want %v", i, k, got, same)
				}
			}
		}
	})
}

// TestPrerollAlarm: whoever runs the daemon hears that nothing can wait for consent.
func TestPrerollAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := testPlan()
		plan.Rules.ConsentRequired, plan.ConsentPreroll, plan.ConsentTimeout = true, true, time.Minute
		sh := &shelf{sinks: map[string]*memSink{}}
		c := &conference{t, sh, mustRecorder(t, Config{Policy: fixedPolicy{plan}, NewSink: sh.open, PrerollBudgetBytes: 1}), map[string]media.SessionTap{}}
		events, cancel := c.rec.Subscribe()
		defer cancel()
		c.call("a")
		time.Sleep(2 * time.Second)
		c.end()
		alarms := 0
		for e := range events {
			if data, ok := e.Data.(map[string]string); ok && data["alarm"] == "consent-preroll" {
				alarms++
			}
		}
		if alarms != 1 {
			t.Errorf("%d alarms, want 1", alarms)
		}
	})
}
