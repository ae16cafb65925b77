package ami

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/suppress"
)

// snapshot is the state of all calls after each event of an unbroken run.
type snapshot struct {
	calls  map[string]state
	onRing bool // a queue gave a call to an agent who is not bridged yet: no list tells that
}

func (s snapshot) held() bool {
	for _, c := range s.calls {
		if len(c.holders) > 0 {
			return true
		}
	}
	return false
}

func copyStates(calls map[string]state) map[string]state {
	out := map[string]state{}
	for id, s := range calls {
		c := newState()
		for k := range s.queues {
			c.queues[k] = struct{}{}
		}
		for k := range s.holders {
			c.holders[k] = struct{}{}
		}
		for k, v := range s.agents {
			c.agents[k] = v
		}
		for k, v := range s.consults {
			c.consults[k] = v
		}
		if len(c.queues)+len(c.holders)+len(c.agents)+len(c.consults) > 0 {
			out[id] = c
		}
	}
	return out
}

func unbroken(t *testing.T, d dialogue) []snapshot {
	b := newBench(t, d)
	b.take(b.tr.Connected(b.now))
	var list []snapshot
	for _, e := range d.events {
		b.feed(e)
		s := snapshot{calls: copyStates(b.folded)}
		for _, c := range b.tr.model.channels {
			s.onRing = s.onRing || c.connecting != nil && (c.bridge == nil || c.connecting.bridge == nil)
		}
		list = append(list, s)
	}
	return list
}

// TestResume breaks the connection after every event and misses some: what the
// signals amount to once the source is back is what they would without a break.
func TestResume(t *testing.T) {
	breaks := 0
	for _, file := range []string{"whole.txt", "attended.txt", "attended_external.txt", "abandoned.txt", "confbridge.txt"} {
		d := mustDialogue(t, file)
		want := unbroken(t, d)
		for from := range d.events {
			for _, missed := range []int{0, 1, 2, 4, 9, 20} {
				if from+missed > len(d.events) || from == 0 && missed == 0 {
					continue
				}
				breaks++
				if diff := resumeAt(t, d, want, from, missed); diff != "" {
					t.Fatalf("%s: broken before event %d, %d missed: %s", file, from, missed, diff)
				}
			}
		}
	}
	t.Logf("%d breaks", breaks)
}

func resumeAt(t *testing.T, d dialogue, want []snapshot, from, missed int) string {
	b := newBench(t, d)
	b.take(b.tr.Connected(b.now))
	for _, e := range d.events[:from] {
		b.feed(e)
	}
	b.take(b.tr.Lost(b.now))
	for _, e := range d.events[from : from+missed] {
		for _, m := range mustParse(t, e) {
			b.pbx.happen(m)
			b.advance(m)
		}
	}
	b.now = b.now.Add(time.Millisecond)
	b.take(b.tr.Connected(b.now))
	if last := want[from+missed-1]; !last.onRing && !(last.held() && resumesMidMerge(b.tr)) {
		if diff := cmp.Diff(last.calls, copyStates(b.folded), cmp.AllowUnexported(state{})); diff != "" {
			return "once back (-want +got):\n" + diff
		}
	}
	for _, e := range d.events[from+missed:] {
		b.feed(e)
	}
	if diff := cmp.Diff(want[len(want)-1].calls, copyStates(b.folded), cmp.AllowUnexported(state{})); diff != "" {
		return "at the end (-want +got):\n" + diff
	}
	lost, restored := 0, 0
	for i, s := range b.signals {
		switch s.Event {
		case suppress.SourceLost:
			lost++
		case suppress.SourceRestored:
			restored++
		default:
			if s.SIPCall == "" {
				return fmt.Sprintf("signal %d has no call", i)
			}
		}
	}
	if lost != 1 || restored != 1 {
		return fmt.Sprintf("lost %d times, restored %d times", lost, restored)
	}
	checkOrder(t, b.signals)
	checkEmpty(t, b.tr)
	return ""
}

// resumesMidMerge tells whether a call is in the moment between the bridge
// with another outside party and the end of its transfer, in which a hold goes
// on only for who saw it begin.
func resumesMidMerge(tr *Translator) bool {
	for _, c := range tr.model.channels {
		if c.call == nil || !c.trunk {
			continue
		}
		for _, o := range tr.model.group(c) {
			if o != c && o.trunk {
				return true
			}
		}
	}
	return false
}

func TestMissedExternalTransfer(t *testing.T) {
	d := mustDialogue(t, "attended_external.txt")
	b := newBench(t, d)
	b.take(b.tr.Connected(b.now))
	n := 0
	for n < len(d.events) && mustParse(t, d.events[n])[0].Get("Event") != "BridgeMerge" {
		b.feed(d.events[n])
		n++
	}
	b.take(b.tr.Lost(b.now))
	hangups := 0
	for ; hangups < 2; n++ {
		m := mustParse(t, d.events[n])[0]
		b.pbx.happen(m)
		b.advance(m)
		if m.Get("Event") == "Hangup" {
			hangups++
		}
	}
	b.signals = nil
	b.take(b.tr.Connected(b.now))
	external := map[string]bool{}
	for _, s := range b.signals {
		if s.Event == suppress.TransferExternal {
			external[s.SIPCall] = true
		}
	}
	if !external["c1@carrier.example"] || !external["c2@carrier.example"] {
		t.Errorf("told of %v, want both calls: %v", external, b.signals)
	}
}

// TestListRefused: without the right to list channels nothing is taken back.
func TestListRefused(t *testing.T) {
	d := mustDialogue(t, "whole.txt")
	b := newBench(t, d)
	b.take(b.tr.Connected(b.now))
	for _, e := range d.events[:8] {
		b.feed(e)
	}
	before := copyStates(b.folded)
	if len(before) == 0 {
		t.Fatal("nothing is on yet")
	}
	b.take(b.tr.Lost(b.now))
	out := b.tr.Connected(b.now)
	if len(out.Actions) != 2 {
		t.Fatalf("%d questions, want 2", len(out.Actions))
	}
	for _, a := range out.Actions {
		for _, m := range mustParse(t, "Response: Error\r\nActionID: "+a.Headers[0].Value+"\r\nMessage: Permission denied\r\n\r\n") {
			b.take(b.tr.Handle(m, b.now))
		}
	}
	if last := b.signals[len(b.signals)-1]; last.Event != suppress.SourceRestored {
		t.Errorf("last is %v, want that the source is back", last.Event)
	}
	if diff := cmp.Diff(before, copyStates(b.folded), cmp.AllowUnexported(state{})); diff != "" {
		t.Errorf("state changed (-want +got):\n%s", diff)
	}
	if b.tr.Refusal() != "Permission denied" {
		t.Errorf("refusal %q", b.tr.Refusal())
	}
}

// TestListUnanswered: a list that does not come ends nothing and delays the
// rest no longer than its limit.
func TestListUnanswered(t *testing.T) {
	d := mustDialogue(t, "whole.txt")
	b := newBench(t, d)
	b.tr.Connected(b.now) // nobody answers
	for _, e := range d.events[:8] {
		for _, m := range mustParse(t, e) {
			b.take(b.tr.Handle(m, b.now))
		}
	}
	for _, s := range b.signals {
		if s.Event == suppress.QueueStart {
			t.Fatal("told before the state is known")
		}
	}
	due, ok := b.tr.Deadline()
	if !ok || due.After(baseTime.Add(syncTimeout)) {
		t.Fatalf("deadline %v %v", due, ok)
	}
	b.take(b.tr.Tick(baseTime.Add(syncTimeout)))
	if last := b.signals[len(b.signals)-1]; last.Event != suppress.QueueStart {
		t.Errorf("last is %v, want queue.start", last.Event)
	}
}

// TestQuestionsAreAskedAgain: what was asked before a break is asked after it.
func TestQuestionsAreAskedAgain(t *testing.T) {
	b := smallBench(t, nil)
	b.pbx.silent = true
	b.feed(event("Newchannel", trunkName, 1))
	b.feed(event("QueueCallerJoin", trunkName, 1, "Queue: q"))
	b.take(b.tr.Lost(b.now))
	b.pbx.silent = false
	b.take(b.tr.Connected(b.now))
	b.want("source.lost", "c1@x queue.start q", "source.restored")
}

// TestSpyAndMusicMissed: neither has a list of its own; the spy's application
// and who is on the call tell.
func TestSpyAndMusicMissed(t *testing.T) {
	b := smallBench(t, nil)
	b.talk()
	b.feed("Event: ChanSpyStart\r\nSpyerChannel: PJSIP/sue-00000003\r\nSpyerUniqueid: 1.3\r\nSpyerLinkedid: 1.3\r\nSpyeeChannel: " +
		agentName + "\r\nSpyeeUniqueid: 1.2\r\nSpyeeLinkedid: 1.1\r\n\r\n")
	b.feed(event("Newchannel", "PJSIP/sue-00000003", 3))
	b.feed(event("MusicOnHoldStart", trunkName, 1))
	b.signals = nil
	b.take(b.tr.Lost(b.now))
	b.take(b.tr.Connected(b.now))
	b.want("source.lost", "c1@x hold.end music", "c1@x agent.leave sue", "source.restored")
}
