package recorder

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// stations are the users "desk" and "agent…", recorded by plan.
type stations struct {
	plan    Plan
	byState bool
}

func (s stations) Station(p media.Participant) (string, bool) {
	user := userOf(p.URI)
	return user, user == "desk" || strings.HasPrefix(user, "agent")
}

func (s stations) Plan(user string) (Plan, bool) {
	return s.plan, user == "desk" || strings.HasPrefix(user, "agent")
}
func (s stations) ByState() bool { return s.byState }

func stationPlan() Plan {
	p := testPlan()
	p.Rules.HoldMic, p.Rules.ExternalTransferStop = true, false
	return p
}

// kindsPlan lets every kind of recording be made.
func kindsPlan() Plan {
	p := testPlan()
	p.Consult, p.Adhoc, p.Snippets = true, true, true
	p.Stations = stations{stationPlan(), true}
	return p
}

// shelf keeps the recordings of a test by id.
type shelf struct {
	mu    sync.Mutex
	sinks map[string]*memSink
}

func (s *shelf) open(_ context.Context, id, _ string) (Sink, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sinks[id] != nil {
		return nil, fmt.Errorf("%s: %w", id, ErrExists)
	}
	s.sinks[id] = newMemSink()
	return s.sinks[id], nil
}

// kept lists what was published, by id.
func (s *shelf) kept() []string {
	var out []string
	for id, m := range s.sinks {
		if m.manifest != nil {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// recordedBy runs a script through a synchronous recorder.
func recordedBy(t testing.TB, plan Plan, s media.Session, steps []step) *shelf {
	t.Helper()
	sh := &shelf{sinks: map[string]*memSink{}}
	r := mustRecorder(t, Config{Policy: fixedPolicy{plan}, NewSink: sh.open, Synchronous: true})
	tap, err := r.SessionStarted(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	c := &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}}
	for _, x := range steps {
		x.do(c)
	}
	if _, err := r.Results(); err != nil {
		t.Fatal(err)
	}
	for id, m := range sh.sinks {
		if m.manifest == nil {
			continue
		}
		if err := accountFault(m.manifest, m); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	return sh
}

func sig(ms int, s suppress.Signal) step {
	s.V, s.At, s.Source = 1, at(ms), "test"
	return step{at: at(ms), do: func(c *testCall) { c.tap.Signal(s) }}
}

// twoVoices is a call of 6 s in which the sides send different bytes all along.
func twoVoices(steps ...step) []step {
	return script(answered(6000), talk(media.External, 0, 6000, constant(0x20)), talk(media.Internal, 0, 6000, constant(0x30)), steps)
}

// spans tells from when to when a channel holds each value, in ms of audio.
func spans(ch []int16) string {
	var b strings.Builder
	for from := 0; from < len(ch); {
		to := from
		for to < len(ch) && ch[to] == ch[from] {
			to++
		}
		fmt.Fprintf(&b, "%d:%d–%d ", ch[from], from/8, to/8)
		from = to
	}
	return strings.TrimSpace(b.String())
}

// The values of the bytes that the voices send.
const extPCM, intPCM = -7932, -3900

func TestKindsOfRecordings(t *testing.T) {
	join := func(ms int, user string, role suppress.Role) step {
		return sig(ms, suppress.Signal{Event: suppress.AgentJoin, User: user, Role: role})
	}
	leave := func(ms int, user string) step {
		return sig(ms, suppress.Signal{Event: suppress.AgentLeave, User: user})
	}
	of := func(ms int, e suppress.Event, user string) step {
		return sig(ms, suppress.Signal{Event: e, User: user})
	}
	both := func(fromMS, toMS int) [2]string {
		return [2]string{fmt.Sprintf("%d:0–%d", extPCM, toMS-fromMS), fmt.Sprintf("%d:0–%d", intPCM, toMS-fromMS)}
	}
	for name, tc := range map[string]struct {
		plan  func(*Plan)
		to    string
		steps []step
		want  map[string][2]string // audio by id
	}{
		"trunk alone": {
			plan: func(p *Plan) { p.Stations = nil },
			want: map[string][2]string{"call": both(0, 6000)},
		},
		"the called party is a station": {
			to:   "sip:desk@pbx.example",
			want: map[string][2]string{"call": both(0, 6000), "call-st1": both(0, 6000)},
		},
		"a queue, then two agents one after the other": {
			steps: []step{
				sig(0, suppress.Signal{Event: suppress.QueueStart, Queue: "sales"}), sig(1000, suppress.Signal{Event: suppress.QueueEnd, Queue: "sales"}),
				join(1000, "agent1", suppress.RoleAgent), join(3000, "agent2", suppress.RoleAgent), leave(3000, "agent1"),
			},
			want: map[string][2]string{"call": both(1000, 6000), "call-st1": both(1000, 3000), "call-st2": both(3000, 6000)},
		},
		"monitors and coaches are no parties": {
			steps: []step{join(1000, "agent1", suppress.RoleAgent), join(2000, "agent2", suppress.RoleMonitor), join(2000, "agent3", suppress.RoleCoach)},
			want:  map[string][2]string{"call": both(0, 6000), "call-st1": both(1000, 6000)},
		},
		"a station's hold silences its microphone": {
			to:    "sip:desk@pbx.example",
			steps: []step{of(2000, suppress.HoldStart, ""), of(4000, suppress.HoldEnd, "")},
			want: map[string][2]string{
				"call":     both(0, 4000),
				"call-st1": {fmt.Sprintf("%d:0–6000", extPCM), fmt.Sprintf("%d:0–2000 0:2000–4000 %d:4000–6000", intPCM, intPCM)},
			},
		},
		"snippets want an agent and keep out the pause": {
			steps: []step{
				of(200, suppress.SnippetStart, "agent1"), join(500, "agent1", suppress.RoleAgent),
				of(1003, suppress.SnippetStart, "agent1"), of(1500, suppress.PauseStart, ""), of(2500, suppress.PauseEnd, ""), of(3011, suppress.SnippetEnd, "agent1"),
				of(4000, suppress.SnippetStart, "agent1"), of(4100, suppress.SnippetStart, "agent1"), of(4500, suppress.SnippetEnd, "agent1"),
			},
			want: map[string][2]string{
				"call": both(0, 5000), "call-st1": both(0, 4500), "call-sn1": both(1003, 2011), "call-sn2": both(4000, 4500),
			},
		},
		"one adhoc recording a user at a time": {
			plan: func(p *Plan) { p.Stations = nil },
			steps: []step{
				of(1000, suppress.AdhocStart, "desk"), of(1500, suppress.AdhocStart, "desk"), of(2000, suppress.AdhocEnd, "desk"),
				of(3000, suppress.AdhocStart, "desk"), of(3500, suppress.PauseStart, ""),
			},
			want: map[string][2]string{"call": both(0, 3500), "call-ad1": both(0, 1000), "call-ad2": both(0, 500)},
		},
		"a recording begun in a pause is paused": {
			plan: func(p *Plan) { p.Stations = nil },
			steps: []step{
				of(500, suppress.PauseStart, ""), of(1000, suppress.AdhocStart, "desk"), of(2000, suppress.PauseEnd, ""), of(3000, suppress.AdhocEnd, "desk"),
			},
			want: map[string][2]string{"call": both(0, 4500), "call-ad1": both(0, 1000)},
		},
		"recordings that are too short are not kept": {
			plan:  func(p *Plan) { p.Stations, p.DiscardBelow = nil, 2*time.Second },
			steps: []step{of(1000, suppress.AdhocStart, "desk"), of(2500, suppress.AdhocEnd, "desk")},
			want:  map[string][2]string{"call": both(0, 6000)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			plan, s := kindsPlan(), testSession("call")
			if tc.plan != nil {
				tc.plan(&plan)
			}
			s.To, s.Parties = "sip:sales@pbx.example", s.Parties[:1]
			if tc.to != "" {
				s.To, s.Parties = tc.to, append(s.Parties, media.Participant{Side: media.Internal, URI: tc.to})
			}
			if plan.Stations == nil {
				s.Parties = append(s.Parties, media.Participant{Side: media.Internal, URI: "sip:desk@pbx.example"})
			}
			sh := recordedBy(t, plan, s, twoVoices(tc.steps...))
			got := map[string][2]string{}
			for _, id := range sh.kept() {
				pcm := sh.sinks[id].pcm()
				got[id] = [2]string{spans(pcm[0]), spans(pcm[1])}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestAdhocIsForWhoIsThere: on a phone's leg nobody else is, and who refused
// consent is not recorded at a user's wish either.
func TestAdhocIsForWhoIsThere(t *testing.T) {
	adhoc := sig(1000, suppress.Signal{Event: suppress.AdhocStart, User: "bob"})
	legs := kindsPlan()
	legs.NoTrunk = true
	if got := recordedBy(t, legs, testSession("call"), twoVoices(adhoc)).kept(); !slices.Equal(got, []string{"call-st1"}) {
		t.Errorf("a stranger to the leg: kept %v", got)
	}
	for _, required := range []bool{false, true} {
		plan := kindsPlan()
		plan.Stations, plan.Rules.ConsentRequired = nil, required
		sh := recordedBy(t, plan, testSession("call"), twoVoices(sig(500, suppress.Signal{Event: suppress.ConsentDenied}), adhoc))
		m := sh.sinks["call"].manifest
		if last := m.Signals[len(m.Signals)-1]; last.Refused == "" || len(sh.kept()) != 1 {
			t.Errorf("refused consent, required %v: %+v, kept %v", required, last, sh.kept())
		}
	}
}

// TestBothPartiesAreStations: an internal call gives a recording from each side.
func TestBothPartiesAreStations(t *testing.T) {
	plan, s := kindsPlan(), testSession("call")
	plan.NoTrunk = true
	s.Parties = []media.Participant{{Side: media.External, URI: "sip:agent1@pbx"}, {Side: media.Internal, URI: "sip:agent2@pbx"}}
	sh := recordedBy(t, plan, s, twoVoices())
	if got := sh.kept(); !slices.Equal(got, []string{"call-st1", "call-st2"}) {
		t.Fatalf("kept %v", got)
	}
	first, second := sh.sinks["call-st1"], sh.sinks["call-st2"]
	if first.pcm()[1][100] != extPCM || first.pcm()[0][100] != intPCM || second.pcm()[1][100] != intPCM {
		t.Error("channel 1 is not the station's own voice")
	}
	m := first.manifest
	if m.Kind != KindStation || m.User != "agent1" || m.Channels[1].Party != "sip:agent1@pbx" || m.Channels[0].Party != "sip:agent2@pbx" {
		t.Errorf("%+v", m)
	}
	for _, row := range m.Streams {
		if (row.SSRC == 0x1000) != (row.Channel == 1) {
			t.Errorf("stream %+v on the wrong channel", row)
		}
	}
}

// TestConsultation: a call that is one from its beginning is no call of its trunk.
func TestConsultation(t *testing.T) {
	for _, tc := range []struct {
		name      string
		direction media.Direction
		atMS      int
		consult   bool
		want      []string
	}{
		{"from the beginning", media.Outbound, -500, true, []string{"call-co1"}},
		{"told at the answer", media.Outbound, 0, true, []string{"call-co1"}},
		{"told a moment later", media.Outbound, 900, true, []string{"call-co1"}},
		{"not to be recorded", media.Outbound, -500, false, []string{}},
		{"in the middle, beside the main one", media.Outbound, 2000, true, []string{"call", "call-co1"}},
		{"a call from outside is none", media.Inbound, -500, false, []string{"call"}},
	} {
		plan, s := kindsPlan(), testSession("call")
		plan.Consult, plan.Stations, s.Direction = tc.consult, nil, tc.direction
		start := sig(tc.atMS, suppress.Signal{Event: suppress.ConsultStart, User: "agent1", Other: "agent2"})
		sh := recordedBy(t, plan, s, twoVoices(start, sig(5000, suppress.Signal{Event: suppress.ConsultEnd})))
		if got := sh.kept(); !slices.Equal(got, tc.want) && len(got)+len(tc.want) > 0 {
			t.Errorf("%s: kept %v, want %v", tc.name, got, tc.want)
		}
		if m := sh.sinks["call-co1"]; m != nil && m.manifest != nil && (m.manifest.User != "agent1" || m.manifest.Other != "agent2" || m.manifest.Call.EndCause != "stopped") {
			t.Errorf("%s: %+v", tc.name, m.manifest)
		}
	}
}

// TestSignalsAreListed: every signal and its effect, but for what must leave no trace.
func TestSignalsAreListed(t *testing.T) {
	plan := kindsPlan()
	of := func(ms int, e suppress.Event, user string, role suppress.Role) step {
		return sig(ms, suppress.Signal{Event: e, User: user, Role: role})
	}
	sh := recordedBy(t, plan, testSession("call"), twoVoices(
		of(500, suppress.AgentJoin, "agent1", suppress.RoleAgent), of(600, suppress.AgentJoin, "boss", suppress.RoleMonitor),
		of(700, suppress.AgentJoin, "coach", suppress.RoleCoach), of(1000, suppress.PauseStart, "", ""), of(2000, suppress.AgentLeave, "boss", ""),
		of(2000, suppress.PauseEnd, "", ""), of(3000, suppress.AdhocStart, "nobody", ""),
	))
	told := map[string][]string{}
	for id, m := range sh.sinks {
		for _, s := range m.manifest.Signals {
			told[id] = append(told[id], strings.Trim(fmt.Sprint(s.Event, s.Reasons, s.Refused), "[]"))
		}
	}
	trunk := []string{"agent.join[]", "pause.start[pause]", "pause.end[]", "adhoc.start[]the user is not on the call"}
	for i := range trunk {
		trunk[i] = strings.Trim(trunk[i], "[]")
	}
	if d := cmp.Diff(trunk, told["call"]); d != "" {
		t.Error(d)
	}
	if got := told["call-st1"]; !slices.Contains(got, "agent.join") || len(got) != 5 {
		t.Errorf("the coached station lists %v of %v", got, slices.Sorted(maps.Keys(told)))
	}
}

// TestStationsByState: a station that is told of by call state is recorded from
// the time it joined to the time it left, in whatever order that is told.
func TestStationsByState(t *testing.T) {
	told := func(atMS, receivedMS int, e suppress.Event, user string, role suppress.Role) step {
		s := suppress.Signal{V: 1, Event: e, At: at(atMS), Received: at(receivedMS), Source: "test", User: user, Role: role}
		return step{at: at(receivedMS), do: func(c *testCall) { c.tap.Signal(s) }}
	}
	join := func(atMS, receivedMS int, user string) step {
		return told(atMS, receivedMS, suppress.AgentJoin, user, suppress.RoleAgent)
	}
	leave := func(atMS, receivedMS int, user string) step {
		return told(atMS, receivedMS, suppress.AgentLeave, user, "")
	}
	for name, tc := range map[string]struct {
		steps []step
		want  []string // user from–to
	}{
		"joined before the answer":       {[]step{join(-500, -500, "agent1")}, []string{"agent1 0–6000"}},
		"two of them":                    {[]step{join(-500, -500, "agent2"), join(-400, -400, "agent1")}, []string{"agent2 0–6000", "agent1 0–6000"}},
		"and left before it":             {[]step{join(-500, -500, "agent1"), leave(-100, -100, "agent1")}, nil},
		"monitors are none":              {[]step{told(-500, -500, suppress.AgentJoin, "agent1", suppress.RoleMonitor)}, nil},
		"joined twice":                   {[]step{join(1000, 1000, "agent1"), join(2000, 2000, "agent1")}, []string{"agent1 1000–6000"}},
		"left, and joined again":         {[]step{join(1000, 1000, "agent1"), leave(2000, 2000, "agent1"), join(3000, 3000, "agent1")}, []string{"agent1 1000–2000", "agent1 3000–6000"}},
		"left before joined, by arrival": {[]step{leave(1400, 1410, "agent1"), join(1200, 1420, "agent1")}, []string{"agent1 1200–1400"}},
		"that of long ago":               {[]step{leave(1400, 1410, "agent1"), join(1200, 3000, "agent1")}, nil},
		"an old leave does not end it":   {[]step{join(1000, 1000, "agent1"), leave(900, 1100, "agent1")}, []string{"agent1 1000–6000"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := testSession("call")
			s.To, s.Parties = "sip:sales@pbx.example", s.Parties[:1]
			sh := recordedBy(t, kindsPlan(), s, twoVoices(tc.steps...))
			var got []string
			for _, id := range sh.kept() {
				if m := sh.sinks[id].manifest; m.Kind == KindStation {
					from := m.Origin.Sub(at(0)).Milliseconds()
					got = append(got, fmt.Sprintf("%s %d–%d", m.User, from, from+m.RealMS))
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestManyAgentsBeforeASnippet: who was there before it does not count.
func TestManyAgentsBeforeASnippet(t *testing.T) {
	plan := kindsPlan()
	plan.Stations = nil
	var steps []step
	for i := range 100 {
		user := fmt.Sprint("user", i)
		steps = append(steps, sig(10*i, suppress.Signal{Event: suppress.AgentJoin, User: user, Role: suppress.RoleAgent}))
		if i < 99 {
			steps = append(steps, sig(10*i+5, suppress.Signal{Event: suppress.AgentLeave, User: user}))
		}
	}
	sh := recordedBy(t, plan, testSession("call"), twoVoices(append(steps, sig(3000, suppress.Signal{Event: suppress.SnippetStart, User: "user99"}))...))
	for _, s := range sh.sinks["call-sn1"].manifest.Segments {
		if !slices.Equal(s.Parties, []string{"user99"}) {
			t.Errorf("parties %v", s.Parties)
		}
	}
}

// TestRowsCountNoLessThanNothing: sources come, are retired and come again.
func TestRowsCountNoLessThanNothing(t *testing.T) {
	plan := kindsPlan()
	plan.Stations = nil
	steps := answered(9000)
	n := 0
	for ms := 0; ms < 8000; ms += 20 {
		wire := packet(0, uint16(n), uint32(160*n), uint32(n%90), slices.Repeat([]byte{0x30}, 160))
		t := at(ms)
		steps = append(steps, step{at: t, do: func(c *testCall) { c.put(media.External, t, wire) }})
		if n++; n%50 == 0 {
			steps = append(steps, sig(ms, suppress.Signal{Event: suppress.AdhocStart, User: "desk"}), sig(ms+300, suppress.Signal{Event: suppress.AdhocEnd, User: "desk"}))
		}
	}
	sh := recordedBy(t, plan, testSession("call"), script(steps))
	if len(sh.kept()) < 5 {
		t.Fatalf("kept %v", sh.kept())
	}
	for id, m := range sh.sinks {
		sum := int64(0)
		for _, s := range m.manifest.Streams {
			sum += s.Packets
			if min(s.Packets, s.Lost, s.Late, s.Duplicate, s.Reordered, s.Overrun, s.Rejected) < 0 {
				t.Errorf("%s: %+v", id, s)
			}
		}
		if m.manifest.Kind == KindAdhoc && sum > 60 {
			t.Errorf("%s: %d packets in 300 ms", id, sum)
		}
	}
}
