package ami

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/suppress"
)

// event writes an event about a channel of the given number: its Uniqueid is
// "1.n" and so is its Linkedid unless a header says otherwise.
func event(name, channel string, n int, headers ...string) string {
	text := fmt.Sprintf("Event: %s\r\nPrivilege: call,all\r\nChannel: %s\r\nUniqueid: 1.%d\r\n", name, channel, n)
	if !strings.Contains(strings.Join(headers, "\n"), "Linkedid:") {
		text += fmt.Sprintf("Linkedid: 1.%d\r\n", n)
	}
	for _, h := range headers {
		text += h + "\r\n"
	}
	return text + "\r\n"
}

const (
	trunkName = "PJSIP/carrier-a-00000001"
	agentName = "PJSIP/alice-00000002"
)

func smallBench(t testing.TB, change func(*Config)) *bench {
	d := dialogue{trunks: []string{"PJSIP/carrier-a"}, ids: map[string]string{trunkName: "c1@x"}}
	b := newBench(t, d)
	if change != nil {
		cfg := d.config()
		change(&cfg)
		b.tr = NewTranslator(cfg, 1000)
	}
	b.take(b.tr.Connected(b.now))
	b.signals = nil
	return b
}

func (b *bench) words() []string {
	var list []string
	for _, s := range b.signals {
		_, words, _ := strings.Cut(describe(s), " ")
		list = append(list, words)
	}
	return list
}

func (b *bench) want(words ...string) {
	b.t.Helper()
	if diff := cmp.Diff(words, b.words()); diff != "" {
		b.t.Errorf("signals (-want +got):\n%s", diff)
	}
}

// talk brings the trunk's call and the agent together.
func (b *bench) talk() {
	b.feed(event("Newchannel", trunkName, 1))
	b.feed(event("Newchannel", agentName, 2, "Linkedid: 1.1"))
	b.feed(event("BridgeEnter", agentName, 2, "BridgeUniqueid: b1", "Linkedid: 1.1"))
	b.feed(event("BridgeEnter", trunkName, 1, "BridgeUniqueid: b1"))
}

func TestCallIDFromHeader(t *testing.T) {
	for name, header := range map[string]string{
		"variable of the dialplan": "ChanVariable: TRUNKTAP_CALLID=h1@x",
		"function":                 "ChanVariable: CHANNEL(pjsip,call-id)=h1@x",
		"chan_sip":                 "ChanVariable: SIPCALLID=h1@x",
	} {
		t.Run(name, func(t *testing.T) {
			b := smallBench(t, nil)
			b.pbx.silent = true
			b.feed(event("Newchannel", trunkName, 1, "ChanVariable: OTHER=no", "ChanVariable: SIPCALLID=", header))
			b.feed(event("QueueCallerJoin", trunkName, 1, "Queue: q"))
			b.want("h1@x queue.start q")
			if n := b.tr.asking.count; n != 0 {
				t.Errorf("%d questions, want none", n)
			}
		})
	}
	t.Run("of the other channel", func(t *testing.T) {
		b := smallBench(t, nil)
		b.pbx.silent = true
		b.feed(event("DialBegin", agentName, 2, "DestChannel: "+trunkName, "DestUniqueid: 1.1", "DestLinkedid: 1.2", "DestChanVariable: SIPCALLID=out@x"))
		b.feed(event("MusicOnHoldStart", trunkName, 1)) // nobody was on the call: no hold
		b.feed(event("Hold", trunkName, 1))
		b.want("out@x hold.start external")
	})
}

func TestSignalsWaitForCallID(t *testing.T) {
	b := smallBench(t, nil)
	b.pbx.silent = true
	b.feed(event("Newchannel", trunkName, 1))
	b.feed(event("QueueCallerJoin", trunkName, 1, "Queue: q"))
	joined := b.now
	b.now = b.now.Add(time.Second)
	b.feed(event("QueueCallerLeave", trunkName, 1, "Queue: q"))
	b.want()
	b.now = b.now.Add(time.Second)
	b.feed("Response: Success\r\nActionID: tt-1\r\nVariable: CHANNEL(pjsip,call-id)\r\nValue: late@x\r\n\r\n")
	b.want("late@x queue.start q", "late@x queue.end q")
	if s := b.signals[0]; !s.At.Equal(joined) || s.Received.Sub(s.At) != 2*time.Second {
		t.Errorf("at %v received %v, want its own time and that of the answer", s.At, s.Received)
	}
	checkOrder(t, b.signals)
}

func TestCallIDNeverComes(t *testing.T) {
	b := smallBench(t, nil)
	b.pbx.silent = true
	b.feed(event("Newchannel", trunkName, 1))
	b.feed(event("QueueCallerJoin", trunkName, 1, "Queue: q"))
	for range 10 {
		due, ok := b.tr.Deadline()
		if !ok {
			break
		}
		if due.After(b.now.Add(waitMax)) {
			t.Fatalf("deadline %v, more than %v ahead", due, waitMax)
		}
		b.now = due
		b.take(b.tr.Tick(due))
	}
	if _, ok := b.tr.Deadline(); ok {
		t.Error("it still wants to be called")
	}
	ignored := b.tr.Ignored()
	if ignored == 0 {
		t.Error("the signal that waited in vain is not counted")
	}
	b.want()
	// Should the Call-ID come yet, the call is told what is so now.
	b.feed(event("Newstate", trunkName, 1, "ChanVariable: SIPCALLID=late@x"))
	b.want("late@x queue.start q")
}

func TestPendingLimit(t *testing.T) {
	b := smallBench(t, nil)
	b.pbx.silent = true
	b.feed(event("Newchannel", trunkName, 1))
	for range pendingMax {
		b.feed(event("Hold", trunkName, 1))
		b.feed(event("Unhold", trunkName, 1))
	}
	b.feed(event("Hold", trunkName, 1))
	k := b.tr.model.channels["1.1"].call
	if len(k.pending) > pendingMax || b.tr.Ignored() == 0 {
		t.Errorf("%d wait, %d ignored", len(k.pending), b.tr.Ignored())
	}
	b.feed(event("Newstate", trunkName, 1, "ChanVariable: SIPCALLID=late@x"))
	b.want("late@x hold.start external")
}

func TestQuestionsAreFew(t *testing.T) {
	b := smallBench(t, func(c *Config) { c.Trunks = []string{"PJSIP/carrier-*"} })
	b.pbx.silent = true
	for n := range 3 * asksOpenMax {
		b.feed(event("Newchannel", fmt.Sprintf("PJSIP/carrier-a-%08x", n), n))
	}
	if n := len(b.tr.asking.open); n != asksOpenMax {
		t.Errorf("%d questions are open, want %d", n, asksOpenMax)
	}
	for range 3 * asksPerCallMax {
		b.now = b.now.Add(askTimeout)
		b.take(b.tr.Tick(b.now))
	}
	if n := len(b.tr.asking.open) + len(b.tr.asking.queue); n != 0 {
		t.Errorf("%d questions are left", n)
	}
}

func TestUserEvent(t *testing.T) {
	signal := func(headers ...string) string {
		return event("UserEvent", trunkName, 1, append([]string{"UserEvent: TrunktapSignal"}, headers...)...)
	}
	for _, tc := range []struct {
		name, wire string
		want       []string
	}{
		{"ivr", signal("Event: ivr.start", "Flow: main"), []string{"c1@x ivr.start main"}},
		{"pause", signal("Event: pause.start"), []string{"c1@x pause.start"}},
		{"consent", signal("Event: consent.denied"), []string{"c1@x consent.denied"}},
		{"barge", signal("User: sue", "Role: barge", "Event: agent.join"), []string{"c1@x agent.join sue barge"}},
		{"of another call", signal("Event: pause.end", "Call-ID: other@x"), []string{"other@x pause.end"}},
		{"from the agent's channel", event("UserEvent", agentName, 2, "Linkedid: 1.1", "UserEvent: TrunktapSignal", "Event: pause.start"), []string{"c1@x pause.start"}},
		{"by a manager", "Event: UserEvent\r\nUserEvent: TrunktapSignal\r\nEvent: hold.start\r\nParty: bob\r\nChannel: " + trunkName + "\r\n\r\n", []string{"c1@x hold.start bob"}},
		{"of no known channel", event("UserEvent", "PJSIP/x-1", 9, "UserEvent: TrunktapSignal", "Event: pause.start"), nil},
		{"unknown event", signal("Event: pause.begin"), nil},
		{"inner event", signal("Event: source.lost"), nil},
		{"no event", signal(), nil},
		{"unknown role", signal("Event: agent.join", "User: a", "Role: boss"), nil},
		{"not UTF-8", signal("Event: ivr.start", "Flow: \xff\xfe"), nil},
		{"too long", signal("Event: ivr.start", "Flow: "+strings.Repeat("x", 300)), nil},
		{"another name", event("UserEvent", trunkName, 1, "UserEvent: Weather", "Event: pause.start"), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := smallBench(t, nil)
			b.talk()
			b.signals = nil
			before := b.tr.Ignored()
			b.feed(tc.wire)
			b.want(tc.want...)
			if got := b.tr.Ignored() - before; (got == 0) != (len(tc.want) > 0) {
				t.Errorf("%d ignored", got)
			}
		})
	}
	b := smallBench(t, nil)
	b.talk()
	b.signals = nil
	b.feed(signal("Event: attrs.set", "Attr-Ticket: 4711", "attr-Topic: a b"))
	if diff := cmp.Diff(map[string]string{"ticket": "4711", "topic": "a b"}, b.signals[0].Attrs); diff != "" {
		t.Error(diff)
	}
}

func TestMusic(t *testing.T) {
	b := smallBench(t, nil)
	b.feed(event("Newchannel", trunkName, 1))
	b.feed(event("MusicOnHoldStart", trunkName, 1)) // while a phone rings: no agent was there yet
	b.feed(event("MusicOnHoldStop", trunkName, 1))
	b.talk()
	b.feed(event("BridgeLeave", agentName, 2, "BridgeUniqueid: b1", "Linkedid: 1.1"))
	b.feed(event("MusicOnHoldStart", trunkName, 1)) // parked
	b.feed(event("MusicOnHoldStop", trunkName, 1))
	b.feed(event("QueueCallerJoin", trunkName, 1, "Queue: q"))
	b.feed(event("MusicOnHoldStart", trunkName, 1)) // a queue's
	b.feed(event("QueueCallerLeave", trunkName, 1, "Queue: q"))
	b.feed(event("MusicOnHoldStop", trunkName, 1))
	b.want("c1@x agent.join alice agent", "c1@x agent.leave alice", "c1@x hold.start music", "c1@x hold.end music", "c1@x queue.start q", "c1@x queue.end q")
}

func TestSpyRole(t *testing.T) {
	for data, want := range map[string]suppress.Role{
		"":                    suppress.RoleMonitor,
		"PJSIP/alice":         suppress.RoleMonitor,
		"PJSIP/alice,q":       suppress.RoleMonitor,
		"PJSIP/alice,qw":      suppress.RoleCoach,
		"PJSIP/alice,W":       suppress.RoleCoach,
		"PJSIP/alice,qwB":     suppress.RoleBarge,
		"PJSIP/alice,Bw":      suppress.RoleBarge,
		"PJSIP/alice,g(wBd)q": suppress.RoleMonitor,
		"PJSIP/alice,dq":      suppress.RoleAgent, // stands for what is configured
		"200@spy,B":           suppress.RoleBarge,
		"PJSIP/alice,q)((w":   suppress.RoleMonitor,
	} {
		if got := spyRole(data, suppress.RoleAgent); got != want {
			t.Errorf("%q is %q, want %q", data, got, want)
		}
	}
}

// TestSpyUnanswered: a spy whose mode nobody tells counts as configured, from
// the time at which it began.
func TestSpyUnanswered(t *testing.T) {
	b := smallBench(t, func(c *Config) { c.SpyRole = suppress.RoleBarge })
	b.talk()
	b.signals = nil
	spied := "SpyeeChannel: " + agentName + "\r\nSpyeeUniqueid: 1.2\r\nSpyeeLinkedid: 1.1\r\n"
	spy := "SpyerChannel: PJSIP/sue-00000003\r\nSpyerUniqueid: 1.3\r\nSpyerLinkedid: 1.3\r\n"
	for _, m := range mustParse(t, "Event: ChanSpyStart\r\n"+spy+spied+"\r\n") {
		if out := b.tr.Handle(m, b.now); len(out.Actions) != 1 || out.Actions[0].Name != "Status" {
			t.Fatalf("asks %v", out.Actions)
		}
	}
	began := b.now
	b.now = b.now.Add(askTimeout)
	b.take(b.tr.Tick(b.now))
	b.feed("Event: ChanSpyStop\r\n" + spy + "\r\n") // Asterisk 13 says no more
	b.want("c1@x agent.join sue barge", "c1@x agent.leave sue")
	if !b.signals[0].At.Equal(began) {
		t.Errorf("at %v, want %v", b.signals[0].At, began)
	}
}

func TestUsers(t *testing.T) {
	connect := event("AgentConnect", trunkName, 1, "DestChannel: "+agentName, "DestUniqueid: 1.2", "DestLinkedid: 1.1",
		"Queue: q", "Interface: PJSIP/alice", "MemberName: Alice A.")
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"endpoint", nil, "alice"},
		{"mapped by endpoint", func(c *Config) { c.Users = map[string]string{"alice": "a.adams"} }, "a.adams"},
		{"mapped by interface", func(c *Config) { c.Users = map[string]string{"PJSIP/alice": "a.adams", "alice": "no"} }, "a.adams"},
		{"member's name", func(c *Config) { c.MemberNames = true }, "Alice A."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := smallBench(t, tc.change)
			b.feed(event("Newchannel", trunkName, 1))
			b.feed(event("Newchannel", agentName, 2, "Linkedid: 1.1"))
			b.feed(connect)
			b.talk()
			b.feed(event("Hangup", agentName, 2))
			b.want("c1@x agent.join "+tc.want+" agent", "c1@x agent.leave "+tc.want)
		})
	}
}

func TestQueueAgentsOnly(t *testing.T) {
	b := smallBench(t, func(c *Config) { c.QueueAgentsOnly = true })
	b.talk()
	b.want()
	b.feed(event("AgentConnect", trunkName, 1, "DestChannel: "+agentName, "DestUniqueid: 1.2", "DestLinkedid: 1.1", "Queue: q", "Interface: PJSIP/alice"))
	b.feed(event("AgentComplete", trunkName, 1, "DestChannel: "+agentName, "DestUniqueid: 1.2", "DestLinkedid: 1.1", "Queue: q", "Interface: PJSIP/alice"))
	b.want("c1@x agent.join alice agent", "c1@x agent.leave alice")
}

func TestTimes(t *testing.T) {
	b := smallBench(t, nil)
	b.feed(event("Newchannel", trunkName, 1))
	at := func(stamp string) time.Time {
		t.Helper()
		b.signals = nil
		b.now = b.now.Add(time.Minute)
		name := "Hold"
		if b.tr.model.channels["1.1"].held {
			name = "Unhold"
		}
		for _, m := range mustParse(t, event(name, trunkName, 1, "Timestamp: "+stamp)) {
			b.take(b.tr.Handle(m, b.now))
		}
		if len(b.signals) != 1 {
			t.Fatalf("signals %v", b.signals)
		}
		return b.signals[0].At
	}
	inTime := func() {
		t.Helper()
		if got := at(fmt.Sprintf("%d.0", b.now.Unix()+60)); !got.Equal(b.now) {
			t.Errorf("in time: at %v, want %v", got, b.now)
		}
	}
	inTime() // without any delay: the clock is right
	if got, want := at("1763800119.250000"), time.Unix(1763800119, 250e6); !got.Equal(want) {
		t.Errorf("its own time is %v, want %v", got, want)
	}
	for name, stamp := range map[string]string{
		"no number": "yesterday", "in the future": "1999999999.0", "long ago": "12.5", "negative": "-5.0", "odd": "1763800059.-1", "empty": "",
	} {
		if got := at(stamp); !got.Equal(b.now) {
			t.Errorf("%s: at %v, want that of arrival, %v", name, got, b.now)
		}
	}
	inTime()
	last := b.now
	b.now = last.Add(-55 * time.Second)
	if got := at(fmt.Sprintf("%d.0", last.Unix()-2)); !got.Equal(last) {
		t.Errorf("at %v is before that of the signal before, %v", got, last)
	}
}

// TestBelated: an event about a channel that hung up revives nothing.
func TestBelated(t *testing.T) {
	b := smallBench(t, nil)
	b.talk()
	b.feed(event("Hangup", trunkName, 1))
	b.feed(event("Hangup", agentName, 2))
	b.signals = nil
	b.feed(event("QueueCallerJoin", trunkName, 1, "Queue: q"))
	b.feed(event("BridgeEnter", trunkName, 1, "BridgeUniqueid: b1"))
	b.feed(event("Newstate", agentName, 2))
	b.want()
	checkEmpty(t, b.tr)
}

func TestChannelsLimit(t *testing.T) {
	b := smallBench(t, nil)
	for n := range channelsMax + 10 {
		for _, m := range mustParse(t, event("Newchannel", fmt.Sprintf("PJSIP/phone-%08x", n), n)) {
			b.take(b.tr.Handle(m, b.now))
		}
	}
	if n := len(b.tr.model.channels); n != channelsMax || b.tr.Ignored() != 10 {
		t.Errorf("%d channels, %d ignored", n, b.tr.Ignored())
	}
	for n := range deadIDsMax + 10 {
		b.tr.model.bury(fmt.Sprint("dead", n))
	}
	if n := len(b.tr.model.dead); n != deadIDsMax {
		t.Errorf("%d dead channels are remembered", n)
	}
}

func TestRename(t *testing.T) {
	b := smallBench(t, nil)
	b.feed(event("Newchannel", "PJSIP/anonymous-00000001", 1))
	b.feed(event("Rename", "PJSIP/anonymous-00000001", 1, "Newname: "+trunkName+"<MASQ>"))
	b.feed(event("Rename", "PJSIP/anonymous-00000001", 1, "Newname: "+trunkName))
	b.feed(event("QueueCallerJoin", trunkName, 1, "Queue: q"))
	b.want("c1@x queue.start q")
}

func TestFailedTransfer(t *testing.T) {
	b := smallBench(t, nil)
	b.talk()
	b.signals = nil
	b.feed("Event: BlindTransfer\r\nResult: Fail\r\nTransfererUniqueid: 1.2\r\nTransfererChannel: " + agentName + "\r\nBridgeUniqueid: b1\r\n\r\n")
	b.feed("Event: AttendedTransfer\r\nResult: Success\r\nDestType: Threeway\r\nOrigTransfererUniqueid: 1.2\r\nOrigTransfererChannel: " + agentName + "\r\nOrigBridgeUniqueid: b1\r\n\r\n")
	b.feed(event("BridgeEnter", "PJSIP/bob-00000003", 3, "BridgeUniqueid: b1"))
	b.feed(event("Newchannel", "PJSIP/bob-00000003", 3))
	b.feed(event("BridgeEnter", "PJSIP/bob-00000003", 3, "BridgeUniqueid: b1"))
	b.feed(event("BridgeLeave", agentName, 2, "BridgeUniqueid: b1", "Linkedid: 1.1"))
	b.want("c1@x agent.join bob agent", "c1@x agent.leave alice")
}

// TestTransferIntoQueue: the transfer event may follow what it reports.
func TestTransferIntoQueue(t *testing.T) {
	b := smallBench(t, nil)
	b.talk()
	b.signals = nil
	b.feed(event("BridgeLeave", agentName, 2, "BridgeUniqueid: b1", "Linkedid: 1.1"))
	b.feed(event("BridgeLeave", trunkName, 1, "BridgeUniqueid: b1"))
	b.feed("Event: BlindTransfer\r\nResult: Success\r\nTransfererUniqueid: 1.2\r\nTransfererChannel: " + agentName +
		"\r\nTransfereeUniqueid: 1.1\r\nTransfereeChannel: " + trunkName + "\r\nBridgeUniqueid: b1\r\n\r\n")
	b.feed(event("QueueCallerJoin", trunkName, 1, "Queue: q"))
	b.want("c1@x agent.leave alice", "c1@x transfer.internal", "c1@x queue.start q")
}

// TestTandem: a call that goes out again without an agent is no transfer.
func TestTandem(t *testing.T) {
	b := smallBench(t, func(c *Config) { c.Trunks = []string{"PJSIP/carrier-*"} })
	b.pbx.ids["PJSIP/carrier-b-00000002"] = "c2@x"
	b.feed(event("Newchannel", trunkName, 1))
	b.feed(event("Newchannel", "PJSIP/carrier-b-00000002", 2, "Linkedid: 1.1"))
	b.feed(event("BridgeEnter", "PJSIP/carrier-b-00000002", 2, "BridgeUniqueid: b1", "Linkedid: 1.1"))
	b.feed(event("BridgeEnter", trunkName, 1, "BridgeUniqueid: b1"))
	b.feed(event("Hangup", trunkName, 1))
	b.want("c1@x call.linked call-id:c2@x")
}

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		pattern, channel string
		want             bool
	}{
		{"PJSIP/carrier-a", "PJSIP/carrier-a-0000002a", true},
		{"PJSIP/carrier-a", "PJSIP/carrier-ab-0000002a", false},
		{"PJSIP/carrier-a", "PJSIP/carrier-a-b-0000002a", false},
		{"PJSIP/carrier-", "PJSIP/carrier-ab-0000002a", true},
		{"PJSIP/carrier*", "PJSIP/carrier-ab-0000002a", true},
		{"PJSIP/carrier", "SIP/carrier-0000002a", false},
		{"PJSIP/", "PJSIP/x-0000002a", true},
	} {
		if got := matches([]string{tc.pattern}, tc.channel); got != tc.want {
			t.Errorf("%s matches %s: %v", tc.pattern, tc.channel, got)
		}
	}
}

func TestValidate(t *testing.T) {
	good := mustDialogue(t, "whole.txt").config()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Config{Addr: "pbx", Secret: "s3cret", Stations: []string{"alice"}, SpyRole: "boss", PingInterval: -1}
	_, err := New(bad)
	if err == nil {
		t.Fatal("no error")
	}
	for _, word := range []string{"name", "addr", "username", "trunks", `"alice"`, "spy_role", "ping_interval"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is missing in: %v", word, err)
		}
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the secret is in: %v", err)
	}
}

func BenchmarkHandle(b *testing.B) {
	d := mustDialogue(b, "whole.txt")
	var events []Message
	for _, e := range d.events {
		events = append(events, mustParse(b, e)...)
	}
	tr := NewTranslator(d.config(), 1)
	tr.sync = resumption{}
	for i := 0; b.Loop(); i++ {
		tr.Handle(events[i%len(events)], baseTime)
		if i%len(events) == 0 {
			tr.model.dead, tr.model.deadRing = map[string]struct{}{}, nil
		}
	}
}
