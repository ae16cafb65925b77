package ami

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// The names of a small Asterisk. A program is bytes of which each three are an
// event about one of its channels.
var (
	fuzzNames = []string{
		"PJSIP/carrier-a-00000001", "PJSIP/carrier-b-00000002", "PJSIP/alice-00000003", "PJSIP/alice-00000004", "PJSIP/bob-00000005",
		"Local/1@q-00000006;1", "Local/1@q-00000006;2", "SIP/station-00000007", "Recorder/ARI-00000008", "PJSIP/carrier-a-00000009",
	}
	fuzzEvents = []string{
		"Newchannel", "BridgeEnter", "BridgeLeave", "QueueCallerJoin", "QueueCallerLeave", "AgentConnect", "AgentComplete", "Hold", "Unhold",
		"MusicOnHoldStart", "MusicOnHoldStop", "BlindTransfer", "AttendedTransfer", "ChanSpyStart", "ChanSpyStop", "ConfbridgeJoin",
		"Hangup", "UserEvent", "Rename", "Newstate", "break", "tick",
	}
)

// fuzzEvent writes the event of three bytes.
func fuzzEvent(op, a, b byte) string {
	x, y := int(a)%len(fuzzNames), int(b)%len(fuzzNames)
	gen := int(a) / len(fuzzNames) % 3 // Uniqueids come again under one name, as after a hangup
	name := fuzzEvents[int(op)%len(fuzzEvents)]
	text := "Event: " + name + "\r\n"
	for prefix, n := range map[string]int{"": x, "Dest": y, "Transferer": x, "Transferee": y, "OrigTransferer": x, "SecondTransferer": y, "Spyer": x, "Spyee": y} {
		text += fmt.Sprintf("%[1]sChannel: %[2]s\r\n%[1]sUniqueid: %[3]d.%[4]d\r\n%[1]sLinkedid: 0.%[5]d\r\n", prefix, fuzzNames[n], gen, n, n/2)
	}
	return text + fmt.Sprintf("BridgeUniqueid: b%d\r\nOrigBridgeUniqueid: b%d\r\nQueue: q%d\r\nInterface: %s\r\nResult: Success\r\nNewname: PJSIP/carol-%08d\r\n"+
		"UserEvent: TrunktapSignal\r\nEvent: hold.start\r\nParty: p%d\r\n\r\n", b%4, a%4, b%3, deviceOf(fuzzNames[y]), b, b%2)
}

func runProgram(t testing.TB, program []byte) {
	d := dialogue{trunks: []string{"PJSIP/carrier-*"}, stations: []string{"PJSIP/alice", "SIP/"}, ids: map[string]string{}}
	for i, n := range fuzzNames {
		if i != 9 { // one Call-ID is never told
			d.ids[n] = fmt.Sprintf("id%d@x", i)
		}
	}
	b := newBench(t, d)
	b.take(b.tr.Connected(b.now))
	for ; len(program) >= 3; program = program[3:] {
		b.now = b.now.Add(time.Duration(program[1]) * 10 * time.Millisecond)
		switch name := fuzzEvents[int(program[0])%len(fuzzEvents)]; name {
		case "break":
			b.take(b.tr.Lost(b.now))
			for range program[2] % 3 {
				b.pbx.happen(mustParse(t, fuzzEvent(program[1], program[2], program[0]))[0])
			}
			b.take(b.tr.Connected(b.now))
		case "tick":
			b.take(b.tr.Tick(b.now))
		default:
			b.feed(fuzzEvent(program[0], program[1], program[2]))
		}
		checkModel(t, &b.tr.model)
	}
	for _, c := range b.tr.model.byOrder() {
		b.feed("Event: Hangup\r\nUniqueid: " + c.id + "\r\n\r\n")
	}
	for range 10 {
		b.now = b.now.Add(waitMax)
		b.take(b.tr.Tick(b.now))
	}
	checkEmpty(t, b.tr)
	checkOrder(t, b.signals)
	for _, s := range b.signals {
		checkSignal(t, s)
	}
	for id, s := range b.folded {
		delete(s.holders, "p0") // of the user events
		delete(s.holders, "p1")
		if len(s.queues)+len(s.holders)+len(s.agents)+len(s.consults) > 0 {
			t.Fatalf("call %s ended with %v", id, s)
		}
	}
}

func checkSignal(t testing.TB, s suppress.Signal) {
	t.Helper()
	inner := s.Event == suppress.CallLinked || s.Event == suppress.SourceLost || s.Event == suppress.SourceRestored
	if s.SIPCall == "" && s.Event != suppress.SourceLost && s.Event != suppress.SourceRestored {
		t.Fatalf("%v has no call", s)
	}
	for _, l := range s.Links {
		if l == "call-id:"+s.SIPCall {
			t.Fatalf("%v is linked with itself", s)
		}
	}
	if !inner {
		if err := s.Validate(); err != nil {
			t.Fatalf("%v: %v", s, err)
		}
	}
}

// checkModel demands that what points at each other agrees.
func checkModel(t testing.TB, m *model) {
	t.Helper()
	for id, b := range m.bridges {
		if len(b.members) == 0 || b.id != id {
			t.Fatalf("bridge %s with %d members", id, len(b.members))
		}
		for _, c := range b.members {
			if c.bridge != b || m.channels[c.id] != c {
				t.Fatalf("bridge %s has %s, which is not in it", id, c.name)
			}
		}
	}
	for _, c := range m.channels {
		if c.bridge != nil && !slices.Contains(c.bridge.members, c) {
			t.Fatalf("%s is in a bridge that does not have it", c.name)
		}
		for _, o := range []*channel{c.spying, c.connecting, c.caller} {
			if o != nil && m.channels[o.id] != o {
				t.Fatalf("%s points at %s, which hung up", c.name, o.name)
			}
		}
		for _, spy := range c.spies {
			if spy.spying != c {
				t.Fatalf("%s is spied on by %s, which is not", c.name, spy.name)
			}
		}
		if c.user != "" && c.user != externalUser && !slices.Contains(m.byUser[c.user], c) {
			t.Fatalf("%s is not found by its user %q", c.name, c.user)
		}
	}
}

func TestRandomPrograms(t *testing.T) {
	runs := 400
	if testing.Short() {
		runs = 40
	}
	for seed := range uint64(runs) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		program := make([]byte, 3*rnd.IntN(120))
		for i := range program {
			program[i] = byte(rnd.Uint32())
		}
		runProgram(t, program)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzTranslatorModel(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 0, 0, 0, 2, 0, 5, 0, 2, 1, 2, 0, 1, 0, 0, 7, 2, 0, 20, 1, 2, 8, 2, 0, 11, 2, 0, 16, 2, 0})
	f.Add([]byte{0, 0, 0, 0, 2, 0, 1, 0, 1, 1, 2, 1, 7, 2, 0, 0, 3, 0, 0, 4, 0, 1, 3, 2, 1, 4, 2, 12, 2, 3, 13, 4, 2, 14, 4, 2})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 3*400 {
			return
		}
		runProgram(t, program)
	})
}

// FuzzTranslatorWire feeds bytes as they may come, between breaks: no panic,
// and no signal that is not valid.
func FuzzTranslatorWire(f *testing.F) {
	for _, file := range dialogues {
		events := mustDialogue(f, file).events
		f.Add([]byte(strings.Join(events[len(events)/3:len(events)/3+6], "")), uint16(2000))
	}
	f.Add([]byte("Response: Success\r\nActionID: tt-channels-2\r\n\r\nEvent: CoreShowChannelsComplete\r\nActionID: tt-channels-2\r\n\r\n"), uint16(10))
	f.Add([]byte("Event: AttendedTransfer\nResult: Success\nOrigBridgeUniqueid: \n\nEvent: Status\nActionID: tt-1\n\n"), uint16(0))
	f.Fuzz(func(t *testing.T, wire []byte, breakAt uint16) {
		tr := NewTranslator(Config{Name: "ami:test", Trunks: []string{"PJSIP/carrier-*"}, Stations: []string{"PJSIP/", "SIP/"}}, 1)
		now := baseTime
		check := func(out Output) {
			for _, s := range out.Signals {
				checkSignal(t, s)
			}
			for _, a := range out.Actions {
				if got := strings.Count(string(a.Append(nil)), "\r\n"); got != len(a.Headers)+2 {
					t.Fatalf("action %v has %d lines", a, got)
				}
			}
		}
		for _, part := range [][]byte{wire[:min(len(wire), int(breakAt))], wire[min(len(wire), int(breakAt)):]} {
			check(tr.Connected(now))
			var p Parser
			p.Feed(part, func(m Message) {
				now = now.Add(100 * time.Millisecond)
				check(tr.Handle(m, now))
				check(tr.Tick(now))
			})
			checkModel(t, &tr.model)
			check(tr.Lost(now))
		}
	})
}
