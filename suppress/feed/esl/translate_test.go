package esl

import (
	"cmp"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/suppress"
)

var update = flag.Bool("update", false, "rewrite testdata/*.want")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// mustBodies returns the bodies of the events of a dialogue.
func mustBodies(t testing.TB, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var bodies []string
	for _, b := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
		bodies = append(bodies, b+"\n\n")
	}
	return bodies
}

// framed puts the outer header in front of a body, as mod_event_socket does.
func framed(contentType, body string) string {
	return fmt.Sprintf("Content-Length: %d\nContent-Type: %s\n\n%s", len(body), contentType, body)
}

func mustEvent(t testing.TB, body string) Event {
	t.Helper()
	e, err := parsePlainEvent([]byte(body))
	if err != nil {
		t.Fatalf("%v:\n%s", err, body)
	}
	return e
}

// arrivalOf is when the tests take an event: 5 ms after its time.
func arrivalOf(e Event) time.Time { return e.micros("Event-Date-Timestamp").Add(5 * time.Millisecond) }

func describe(s suppress.Signal) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%6d %s", s.At.Sub(noon).Milliseconds(), s.Event)
	for _, f := range [][2]string{
		{"call", s.SIPCall},
		{"flow", s.Flow},
		{"queue", s.Queue},
		{"user", s.User},
		{"role", string(s.Role)},
		{"party", s.Party},
		{"other", s.Other},
		{"links", strings.Join(s.Links, ",")},
	} {
		if f[1] != "" {
			fmt.Fprintf(&b, " %s=%s", f[0], f[1])
		}
	}
	if len(s.Attrs) > 0 {
		fmt.Fprintf(&b, " attrs=%v", s.Attrs)
	}
	return b.String()
}

func describeAll(signals []suppress.Signal) string {
	var b strings.Builder
	for _, s := range signals {
		b.WriteString(describe(s) + "\n")
	}
	return b.String()
}

// translate runs a dialogue; the numbers of the events that come twice say
// whether anything is told twice.
func translate(t testing.TB, tr *Translator, bodies []string) (signals []suppress.Signal) {
	for _, b := range bodies {
		e := mustEvent(t, b)
		s, ask := tr.Event(e, arrivalOf(e))
		if len(ask) > 0 {
			t.Errorf("asks %q though everything was told", ask)
		}
		signals = append(signals, s...)
	}
	return signals
}

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.esl")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			tr := NewTranslator("esl:pbx1", Trunks{})
			signals := translate(t, tr, mustBodies(t, file))
			got := describeAll(signals)
			wantFile := strings.TrimSuffix(file, ".esl") + ".want"
			if *update {
				if err := os.WriteFile(wantFile, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(wantFile)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("signals\n%swant\n%s", got, want)
			}
			if n := len(tr.channels) + len(tr.conferences); n != 0 {
				t.Errorf("%d channels and conferences are remembered after their end", n)
			}
			checkSignals(t, signals)
		})
	}
}

// checkSignals holds what is so of any signals: valid, with a source and a
// number of its own, ordered as the times are.
func checkSignals(t testing.TB, signals []suppress.Signal) {
	t.Helper()
	bySeq := slices.Clone(signals)
	slices.SortStableFunc(bySeq, func(a, b suppress.Signal) int { return cmp.Compare(a.Seq, b.Seq) })
	for i, s := range bySeq {
		if s.V != 1 || s.Source != "esl:pbx1" || s.Seq == 0 || s.Received.IsZero() {
			t.Errorf("signal without version, source, number or arrival: %+v", s)
		}
		if i > 0 && bySeq[i-1].Seq == s.Seq {
			t.Errorf("one number twice: %s and %s", describe(bySeq[i-1]), describe(s))
		}
		if i > 0 && bySeq[i-1].At.Sub(s.At) > time.Millisecond {
			t.Errorf("numbers order other than times: %s before %s", describe(bySeq[i-1]), describe(s))
		}
		if s.Event != suppress.CallLinked && s.Validate() != nil {
			t.Errorf("%s: %v", describe(s), s.Validate())
		}
	}
}

// TestJSONIsPlain: an event says the same in both forms.
func TestJSONIsPlain(t *testing.T) {
	plain := mustBodies(t, "testdata/queue.esl")[2]
	e := mustEvent(t, plain)
	j := `{"Event-Name":"CUSTOM","Event-Subclass":"trunktap::signal","event":"ivr.start","flow":"main menu","variable_uuid":["` +
		e["variable_uuid"] + `","x"],"Content-Length":"2","_body":"hi","Event-Date-Timestamp":"` + e["Event-Date-Timestamp"] + `"}`
	got, err := ParseEvent(Message{Type: typeJSON, Body: []byte(j)})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range got {
		if e[name] != v {
			t.Errorf("%s is %q, and %q in the plain form", name, v, e[name])
		}
	}
	if len(got) != 6 {
		t.Errorf("%d fields: %v", len(got), got)
	}
}

// TestRestartedFreeSWITCH: its event numbers begin anew; no signal looks like a repeat.
func TestRestartedFreeSWITCH(t *testing.T) {
	tr := NewTranslator("esl:pbx1", Trunks{})
	bodies := mustBodies(t, "testdata/abandoned.esl")
	signals := translate(t, tr, bodies)
	for i, b := range bodies {
		b = strings.ReplaceAll(b, "5f1a9a7c-", "00000000-")
		b = strings.ReplaceAll(b, "Event-Date-Timestamp: 1772366", "Event-Date-Timestamp: 1772367")
		bodies[i] = strings.ReplaceAll(b, "12%3A0", "12%3A2")
	}
	signals = append(signals, translate(t, tr, bodies)...)
	if len(signals) != 4 {
		t.Fatalf("%d signals, want 4", len(signals))
	}
	checkSignals(t, signals)
}

func TestTrunks(t *testing.T) {
	in := Event{"variable_sip_gateway": "carrier", "variable_sofia_profile_name": "internal", "variable_sip_received_ip": "10.0.0.9"}
	out := Event{"variable_sip_gateway_name": "carrier", "variable_sip_reply_host": "::ffff:10.0.0.9"}
	phone := Event{"variable_sofia_profile_name": "internal", "variable_sip_network_ip": "10.0.1.2"}
	for _, c := range []struct {
		name           string
		rule           Trunks
		in, out, phone bool
	}{
		{"no rule", Trunks{}, true, true, false},
		{"gateway", Trunks{Gateways: []string{"carrier"}}, true, true, false},
		{"other gateway", Trunks{Gateways: []string{"x"}}, false, false, false},
		{"profile", Trunks{Profiles: []string{"internal"}}, true, false, true},
		{"prefix", Trunks{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}, true, true, false},
		{"any of them", Trunks{Gateways: []string{"x"}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.1.2/32")}}, false, false, true},
	} {
		if c.rule.match(in) != c.in || c.rule.match(out) != c.out || c.rule.match(phone) != c.phone {
			t.Errorf("%s: in %v out %v phone %v", c.name, c.rule.match(in), c.rule.match(out), c.rule.match(phone))
		}
	}
	if ext := (Event{"variable_sofia_profile_name": "external"}); !(Trunks{}).match(ext) || (Trunks{}).match(Event{}) {
		t.Error("the profile external is a trunk without a rule, and no other")
	}
}

// leg makes the variables of a channel.
func leg(uuid, call, profile, user string) Event {
	return Event{
		"Event-Name": "CHANNEL_ANSWER", "Unique-ID": uuid, "variable_uuid": uuid, "variable_sip_call_id": call,
		"variable_sofia_profile_name": profile, "variable_user_name": user,
	}
}

// with returns the event under another name, with more fields.
func with(e Event, name string, pairs ...string) Event {
	c := Event{}
	for k, v := range e {
		c[k] = v
	}
	c["Event-Name"] = name
	for i := 0; i < len(pairs); i += 2 {
		c[pairs[i]] = pairs[i+1]
	}
	return c
}

// run gives events a second apart and returns the signals as text, and what was asked.
func run(tr *Translator, events ...Event) (string, []string) {
	var b strings.Builder
	var asked []string
	for i, e := range events {
		s, ask := tr.Event(e, noon.Add(time.Duration(i+1)*time.Second))
		b.WriteString(describeAll(s))
		asked = append(asked, ask...)
	}
	return b.String(), asked
}

// TestStandingAgentLeg: an agent's channel that serves one caller after the
// other does not make one conversation of them.
func TestStandingAgentLeg(t *testing.T) {
	tr := NewTranslator("esl:pbx1", Trunks{})
	a, t1, t2 := leg("A", "agent", "internal", "1000"), leg("T1", "one", "external", ""), leg("T2", "two", "external", "")
	got, _ := run(tr, a, t1, with(t1, "CHANNEL_BRIDGE", "Bridge-A-Unique-ID", "T1", "Bridge-B-Unique-ID", "A"), with(t1, "CHANNEL_HANGUP_COMPLETE"),
		t2, with(t2, "CHANNEL_BRIDGE", "Bridge-A-Unique-ID", "T2", "Bridge-B-Unique-ID", "A"))
	if n := strings.Count(got, "call.linked"); n != 2 || strings.Contains(got, "links=call-id:two") {
		t.Errorf("links:\n%s", got)
	}
	if !strings.Contains(got, "agent.join call=two user=1000") {
		t.Errorf("the second caller has no agent:\n%s", got)
	}
}

// TestUnknownChannels: what cannot be told yet is told when the dump arrives.
func TestUnknownChannels(t *testing.T) {
	tr := NewTranslator("esl:pbx1", Trunks{})
	trunk := leg("T", "one", "external", "")
	got, asked := run(tr, with(trunk, "CHANNEL_BRIDGE", "Bridge-A-Unique-ID", "T", "Bridge-B-Unique-ID", "A"),
		Event{"Event-Name": "CHANNEL_HOLD", "Unique-ID": "A"})
	if !slices.Equal(asked, []string{"api uuid_dump A json"}) {
		t.Fatalf("asked %q", asked)
	}
	if got != "  2000 hold.start call=one party=A\n" {
		t.Errorf("before the dump:\n%s", got)
	}
	dump := `{"Event-Name":"CHANNEL_DATA","Unique-ID":"A","variable_sip_call_id":"leg","variable_sofia_profile_name":"internal","variable_user_name":"1000"}`
	signals, _ := tr.Reply(asked[0], []byte(dump), noon.Add(3*time.Second))
	want := `  2000 hold.start call=leg party=A
  1000 call.linked call=leg links=call-id:one
  1000 call.linked call=one links=call-id:leg
  1000 agent.join call=leg user=1000 role=agent
  1000 agent.join call=one user=1000 role=agent
`
	if got := describeAll(signals); got != want {
		t.Errorf("after the dump\n%swant\n%s", got, want)
	}
	signals, _ = tr.Event(Event{"Event-Name": "CHANNEL_UNHOLD", "Unique-ID": "A"}, noon.Add(4*time.Second))
	want = "  4000 hold.end call=one party=A\n  4000 hold.end call=leg party=A\n"
	if got := describeAll(signals); got != want {
		t.Errorf("end\n%swant\n%s", got, want)
	}
	if signals, _ := tr.Reply("api uuid_dump A json", []byte("-ERR No such channel!\n"), noon.Add(5*time.Second)); len(tr.channels) != 1 {
		t.Errorf("a channel that is gone is remembered: %s", describeAll(signals))
	}
}

// TestHoldEndsWithTheBridge: who is not at the other end any more is not on hold.
func TestHoldEndsWithTheBridge(t *testing.T) {
	tr := NewTranslator("esl:pbx1", Trunks{})
	a, trunk := leg("A", "leg", "internal", "1000"), leg("T", "one", "external", "")
	got, _ := run(tr, a, trunk, with(trunk, "CHANNEL_BRIDGE", "Bridge-A-Unique-ID", "T", "Bridge-B-Unique-ID", "A"),
		Event{"Event-Name": "CHANNEL_HOLD", "Unique-ID": "A"}, with(trunk, "CHANNEL_UNBRIDGE"), with(a, "CHANNEL_HANGUP_COMPLETE"))
	if !strings.Contains(got, "5000 hold.end call=one party=1000") || !strings.Contains(got, "6000 hold.end call=leg party=1000") {
		t.Error(got)
	}
	tr = NewTranslator("esl:pbx1", Trunks{})
	got, _ = run(tr, a, Event{"Event-Name": "CHANNEL_UNHOLD", "Unique-ID": "A"})
	if got != "  2000 hold.end call=leg party=1000\n" {
		t.Errorf("the end of a hold whose start was missed:\n%s", got)
	}
}

func TestDialplanSignals(t *testing.T) {
	a, trunk := leg("A", "leg", "internal", "1000"), leg("T", "one", "external", "")
	bridged := []Event{a, trunk, with(trunk, "CHANNEL_BRIDGE", "Bridge-A-Unique-ID", "T", "Bridge-B-Unique-ID", "A")}
	for _, c := range []struct {
		name, want string
		event      Event
		ignored    uint64
	}{
		{"both ends", "  4000 pause.start call=leg\n  4000 pause.start call=one\n", with(a, "CUSTOM", "event", "pause.start"), 0},
		{"the external party's", "  4000 adhoc.start call=one user=1000\n", with(a, "CUSTOM", "event", "adhoc.start", "user", "1000"), 0},
		{"of the trunk itself", "  4000 snippet.start call=one user=x\n", with(trunk, "CUSTOM", "event", "snippet.start", "user", "x"), 0},
		{"call given", "  4000 pause.start call=other\n", with(a, "CUSTOM", "event", "pause.start", "sip_call_id", "other"), 0},
		{"a conversation, for its own calls alone", "  4000 pause.start call=leg\n  4000 pause.start call=one\n", with(a, "CUSTOM", "event", "pause.start", "conversation", "c"), 0},
		{"a conversation and no channel", "", Event{"Event-Name": "CUSTOM", "event": "consent.granted", "conversation": "c"}, 1},
		{
			"attributes", "  4000 attrs.set call=one attrs=map[a:1 b:]\n",
			with(trunk, "CUSTOM", "event", "attrs.set", "attrs.a", "1", "attrs.b", "", "sip_call_id", "one"), 0,
		},
		{"session given, no channel", "  4000 consent.granted\n", Event{"Event-Name": "CUSTOM", "event": "consent.granted", "call": "s1"}, 0},
		{"no channel", "", Event{"Event-Name": "CUSTOM", "event": "pause.start"}, 1},
		{"no event", "", with(trunk, "CUSTOM", "event", "pause.begin", "sip_call_id", "one"), 1},
		{"lost is none of theirs", "", with(trunk, "CUSTOM", "event", "source.lost", "sip_call_id", "one"), 1},
		{"control character", "", with(trunk, "CUSTOM", "event", "ivr.start", "flow", "a\nb", "sip_call_id", "one"), 1},
	} {
		tr := NewTranslator("esl:pbx1", Trunks{})
		run(tr, bridged...)
		c.event["Event-Subclass"] = "trunktap::signal"
		signals, _ := tr.Event(c.event, noon.Add(4*time.Second))
		if got := describeAll(signals); got != c.want || tr.Ignored() != c.ignored {
			t.Errorf("%s: ignored %d, signals\n%swant\n%s", c.name, tr.Ignored(), got, c.want)
		}
	}
}

// TestBounded: beyond the limit the channel that was silent longest is forgotten.
func TestBounded(t *testing.T) {
	tr := NewTranslator("esl:pbx1", Trunks{})
	for i := range channelsMax + 10 {
		tr.Event(leg(fmt.Sprint("C", i), fmt.Sprint("call", i), "internal", "x"), noon.Add(time.Duration(i)*time.Millisecond))
	}
	if len(tr.channels) != channelsMax || tr.forgotten != 10 || tr.channels["C9"] != nil || tr.channels["C10"] == nil {
		t.Errorf("%d channels, %d forgotten", len(tr.channels), tr.forgotten)
	}
}

// TestNothingStays: whatever channels do, and in whatever order it is told,
// when all have hung up every hold and every presence has ended and nothing is
// remembered.
func TestNothingStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := NewTranslator("esl:pbx1", Trunks{})
		names := []string{"T1", "T2", "A", "B", "S"}
		channel := rapid.SampledFrom(names)
		legs := map[string]Event{}
		for _, n := range names {
			profile := "internal"
			if n[0] == 'T' {
				profile = "external"
			}
			legs[n] = leg(n, "call-"+n, profile, "user-"+n)
		}
		var signals []suppress.Signal
		now := noon
		give := func(e Event) {
			now = now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "gap")) * time.Microsecond)
			s, _ := tr.Event(e, now)
			signals = append(signals, s...)
		}
		conf := func(c, action, speak string) Event {
			return Event{
				"Event-Name": "CUSTOM", "Event-Subclass": "conference::maintenance", "Action": action, "Unique-ID": c,
				"Conference-Name": "3000", "Speak": speak,
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			c, o := channel.Draw(t, "channel"), channel.Draw(t, "other")
			e := legs[c]
			switch rapid.IntRange(0, 11).Draw(t, "kind") {
			case 0:
				give(e)
			case 1, 2:
				give(with(e, "CHANNEL_BRIDGE", "Bridge-A-Unique-ID", c, "Bridge-B-Unique-ID", o))
			case 3:
				give(with(e, "CHANNEL_UNBRIDGE"))
			case 4:
				give(Event{"Event-Name": "CHANNEL_HOLD", "Unique-ID": c})
			case 5:
				give(Event{"Event-Name": "CHANNEL_UNHOLD", "Unique-ID": c})
			case 6:
				give(with(e, "CHANNEL_EXECUTE", "Application", "eavesdrop", "Application-Data", o))
			case 7:
				give(with(e, "CHANNEL_EXECUTE_COMPLETE", "Application", "eavesdrop", "Application-Data", o))
			case 8:
				give(conf(c, rapid.SampledFrom([]string{"add-member", "del-member", "unmute-member", "conference-destroy"}).Draw(t, "action"),
					rapid.SampledFrom([]string{"true", "false"}).Draw(t, "speak")))
			case 9:
				give(with(e, "CUSTOM", "Event-Subclass", "callcenter::info", "CC-Queue", "q", "CC-Agent", "agent", "CC-Agent-UUID", c,
					"CC-Member-Session-UUID", o, "CC-Action", rapid.SampledFrom([]string{"bridge-agent-start", "bridge-agent-end"}).Draw(t, "action")))
			case 10:
				give(with(e, "CHANNEL_HANGUP_COMPLETE"))
			case 11:
				tr.begin(now)
				s, _ := tr.Reply(cmdDump+c+" json", []byte("-ERR No such channel!\n"), now)
				signals = append(signals, s...)
			}
		}
		for _, n := range names {
			give(with(legs[n], "CHANNEL_HANGUP_COMPLETE"))
		}
		balance(t, signals)
		if len(tr.channels) != 0 || len(tr.conferences) != 0 {
			t.Fatalf("%d channels and %d conferences are remembered", len(tr.channels), len(tr.conferences))
		}
	})
}

// balance fails unless all that began has ended.
func balance(t *rapid.T, signals []suppress.Signal) {
	open := map[string]bool{}
	for _, s := range signals {
		switch s.Event {
		case suppress.AgentJoin:
			open["agent "+s.SIPCall+s.User] = true
		case suppress.AgentLeave:
			delete(open, "agent "+s.SIPCall+s.User)
		case suppress.HoldStart:
			open["hold "+s.SIPCall+s.Party] = true
		case suppress.HoldEnd:
			delete(open, "hold "+s.SIPCall+s.Party)
		case suppress.ConsultStart:
			open["consult "+s.SIPCall+s.User+s.Other] = true
		case suppress.ConsultEnd:
			delete(open, "consult "+s.SIPCall+s.User+s.Other)
		}
	}
	for what := range open {
		t.Fatalf("%s stays for ever:\n%s", what, describeAll(signals))
	}
}

func FuzzTranslator(f *testing.F) {
	for _, file := range []string{"testdata/queue.esl", "testdata/conference.esl", "testdata/eavesdrop.esl"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[:min(len(text), 8000)])
	}
	f.Add([]byte("Event-Name: CHANNEL_BRIDGE\nUnique-ID: a\nvariable_uuid: a\nBridge-B-Unique-ID: a\n\nEvent-Name: CHANNEL_HOLD\nUnique-ID: a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		tr := NewTranslator("esl:pbx1", Trunks{})
		now := noon
		for _, b := range strings.Split(string(text), "\n\n") {
			e, err := parsePlainEvent([]byte(b))
			if err != nil {
				continue
			}
			now = now.Add(time.Second)
			signals, ask := tr.Event(e, now)
			for _, s := range signals {
				if s.Event != suppress.CallLinked && s.Validate() != nil || s.Event == suppress.SourceLost || s.Seq == 0 {
					t.Errorf("signal %+v", s)
				}
			}
			for _, c := range ask {
				if strings.ContainsAny(c, "\r\n") {
					t.Errorf("a question of two lines: %q", c)
				}
			}
		}
	})
}
