package suppress

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var epoch = time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)

var all = Rules{IVR: true, Queue: true, Hold: true, ExternalTransferStop: true}

// at is a time some milliseconds after the origin.
func at(ms float64) time.Time { return epoch.Add(time.Duration(ms * 1e6)) }

// step is one thing that happens to a timeline: a seal, the end, the origin or a signal.
type step struct {
	seal   int64
	end    int64
	origin bool

	event    Event
	ms       float64 // at
	received float64 // 0: as at
	who      string  // party, flow and queue
	source   string
	seq      uint64
}

func (s step) signal() Signal {
	sig := Signal{V: 1, Event: s.event, At: at(s.ms), Party: s.who, Flow: s.who, Queue: s.who, Source: s.source, Seq: s.seq}
	if s.received != 0 {
		sig.Received = at(s.received)
	}
	return sig
}

func play(tl *Timeline, steps []step) (effects []Effect, spans []Span) {
	for _, s := range steps {
		switch {
		case s.origin:
			tl.SetOrigin(epoch)
		case s.event != "":
			effects = append(effects, tl.Apply(s.signal()))
		case s.end > 0:
			tl.End(s.end)
		default:
			spans = tl.Seal(s.seal, spans)
		}
	}
	return effects, spans
}

func ev(e Event, ms float64, who string) step { return step{event: e, ms: ms, who: who} }

func win(r Reason, from, to int64) Window { return Window{Reason: r, RealMS: from, EndRealMS: to} }

func TestWindows(t *testing.T) {
	consent := all
	consent.ConsentRequired = true
	for _, c := range []struct {
		name  string
		rules Rules
		steps []step
		want  []Window
	}{
		{"nothing", all, nil, nil},
		{"hold", all, []step{ev(HoldStart, 100, "a"), ev(HoldEnd, 300, "a")}, []Window{win(ReasonHold, 100, 300)}},
		{"opens at floor and closes at ceil", all, []step{ev(HoldStart, 100.9, "a"), ev(HoldEnd, 300.1, "a")}, []Window{win(ReasonHold, 100, 301)}},
		{"within one millisecond", all, []step{ev(PauseStart, 100.2, ""), ev(PauseEnd, 100.4, "")}, []Window{win(ReasonPause, 100, 101)}},
		{"no time at all", all, []step{ev(PauseStart, 100.2, ""), ev(PauseEnd, 100.2, "")}, nil},
		{
			"one ends and the next begins in one millisecond", all,
			[]step{ev(HoldStart, 100, ""), ev(HoldEnd, 200.3, ""), ev(HoldStart, 200.6, ""), ev(HoldEnd, 300, "")},
			[]Window{win(ReasonHold, 100, 300)},
		},
		{
			"handed over at one instant", all,
			[]step{ev(HoldStart, 100, "a"), ev(HoldEnd, 200, "a"), ev(HoldStart, 200, "b"), ev(HoldEnd, 300, "b")},
			[]Window{win(ReasonHold, 100, 300)},
		},
		{"open to the end", all, []step{ev(PauseStart, 100, "")}, []Window{win(ReasonPause, 100, 1000)}},
		{"before the origin", all, []step{ev(IVRStart, -50, ""), ev(IVREnd, 200, "")}, []Window{win(ReasonIVR, 0, 200)}},
		{"over before the origin", all, []step{ev(IVRStart, -50, ""), ev(IVREnd, -20, "")}, nil},
		{
			"union of both parties", all,
			[]step{ev(HoldStart, 100, "a"), ev(HoldStart, 200, "b"), ev(HoldEnd, 300, "a"), ev(HoldEnd, 400, "b")},
			[]Window{win(ReasonHold, 100, 400)},
		},
		{
			"end without party ends all", all,
			[]step{ev(HoldStart, 100, "a"), ev(HoldStart, 200, "b"), ev(HoldEnd, 300, "")},
			[]Window{win(ReasonHold, 100, 300)},
		},
		{
			"end without flow ends all", all,
			[]step{ev(IVRStart, 100, "a"), ev(IVRStart, 200, "b"), ev(IVREnd, 300, "")},
			[]Window{win(ReasonIVR, 100, 300)},
		},
		{
			"end without queue ends all", all,
			[]step{ev(QueueStart, 100, "a"), ev(QueueStart, 200, "b"), ev(QueueEnd, 300, "")},
			[]Window{win(ReasonQueue, 100, 300)},
		},
		{
			"end of one flow", all,
			[]step{ev(IVRStart, 100, "a"), ev(IVRStart, 200, "b"), ev(IVREnd, 300, "b")},
			[]Window{win(ReasonIVR, 100, 1000)},
		},
		{
			"end of an unknown party", all,
			[]step{ev(HoldStart, 100, "a"), ev(HoldEnd, 300, "x")},
			[]Window{win(ReasonHold, 100, 1000)},
		},
		{
			"a named end leaves the nameless", all,
			[]step{ev(HoldStart, 100, ""), ev(HoldEnd, 300, "a")},
			[]Window{win(ReasonHold, 100, 1000)},
		},
		{
			"hold.end leaves the pause", all,
			[]step{ev(PauseStart, 100, ""), ev(HoldStart, 150, "a"), ev(HoldEnd, 300, "")},
			[]Window{win(ReasonPause, 100, 1000), win(ReasonHold, 150, 300)},
		},
		{
			"order of start, then reason", all,
			[]step{ev(QueueStart, 100, ""), ev(PauseStart, 100, ""), ev(HoldStart, 100, ""), ev(IVRStart, 50, "")},
			[]Window{win(ReasonIVR, 50, 1000), win(ReasonHold, 100, 1000), win(ReasonPause, 100, 1000), win(ReasonQueue, 100, 1000)},
		},
		{
			"rules off",
			Rules{},
			[]step{ev(IVRStart, 100, ""), ev(QueueStart, 100, ""), ev(HoldStart, 100, ""), ev(TransferExternal, 100, "")},
			nil,
		},
		{"pause needs no rule", Rules{}, []step{ev(PauseStart, 100, ""), ev(PauseEnd, 200, "")}, []Window{win(ReasonPause, 100, 200)}},
		{
			"events without windows", all,
			[]step{
				ev(AgentJoin, 1, ""), ev(AgentLeave, 2, ""), ev(ConsultStart, 3, ""), ev(ConsultEnd, 4, ""), ev(TransferInternal, 5, ""),
				ev(SnippetStart, 6, ""), ev(SnippetEnd, 7, ""), ev(AdhocStart, 8, ""), ev(AdhocEnd, 9, ""), ev(AttrsSet, 10, ""), ev("no.such", 11, ""),
			},
			nil,
		},
		{"consent required", consent, nil, []Window{{Reason: ReasonConsent, EndRealMS: 1000, Source: "rules"}}},
		{"consent given", consent, []step{ev(ConsentGranted, 300, "")}, []Window{{Reason: ReasonConsent, EndRealMS: 300, Source: "rules"}}},
		{"consent given before the answer", consent, []step{ev(ConsentGranted, -300, "")}, nil},
		{
			"consent given, withdrawn, given", consent,
			[]step{ev(ConsentGranted, 300, ""), ev(ConsentDenied, 400, ""), ev(ConsentGranted, 600, "")},
			[]Window{{Reason: ReasonConsent, EndRealMS: 300, Source: "rules"}, win(ReasonConsent, 400, 600)},
		},
		{"consent refused without a rule", Rules{}, []step{ev(ConsentDenied, 400, "")}, []Window{win(ReasonConsent, 400, 1000)}},
		{
			"external transfer", all,
			[]step{ev(TransferExternal, 400, ""), ev(TransferInternal, 500, ""), ev(HoldEnd, 600, ""), ev(PauseEnd, 600, "")},
			[]Window{win(ReasonExternalTransfer, 400, 1000)},
		},
		{"same instant by sequence number", all, // the end arrives first but is numbered later
			[]step{{event: PauseEnd, ms: 100, source: "s", seq: 2}, {event: PauseStart, ms: 100, source: "s", seq: 1}}, nil},
		{
			"same instant by arrival", all,
			[]step{{event: PauseEnd, ms: 100, source: "s", seq: 2}, {event: PauseStart, ms: 100, source: "t", seq: 1}},
			[]Window{{Reason: ReasonPause, RealMS: 100, EndRealMS: 1000, Source: "t"}},
		},
		{
			"out of order", all,
			[]step{ev(HoldEnd, 400, ""), ev(HoldStart, 300, ""), ev(HoldEnd, 200, ""), ev(HoldStart, 100, "")},
			[]Window{win(ReasonHold, 100, 200), win(ReasonHold, 300, 400)},
		},
		{
			"repeated starts", all,
			[]step{ev(HoldStart, 100, "a"), ev(HoldStart, 200, "a"), ev(HoldEnd, 300, "a")},
			[]Window{win(ReasonHold, 100, 300)},
		},
		{
			"nothing after the end", all,
			[]step{{end: 500}, ev(HoldStart, 400, ""), ev(PauseStart, 600, "")},
			[]Window{win(ReasonHold, 400, 500)},
		},
		{"after the end of the list", all, []step{ev(HoldStart, 1000, ""), ev(PauseStart, 5000, "")}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, originAt := range []int{0, len(c.steps)} { // before all signals, and after them
				for _, sealEvery := range []int64{1, 7, 1000} {
					tl := New(c.rules)
					steps := slices.Insert(slices.Clone(c.steps), originAt, step{origin: true})
					play(tl, steps)
					if diff := cmp.Diff(c.want, tl.Windows(1000)); diff != "" {
						t.Errorf("origin as step %d, nothing sealed (-want +got):\n%s", originAt, diff)
					}
					var spans []Span
					for to := sealEvery; to <= 1000+sealEvery; to += sealEvery {
						spans = tl.Seal(min(to, 1000), spans)
					}
					if diff := cmp.Diff(c.want, tl.Windows(1000)); diff != "" {
						t.Errorf("origin as step %d, sealed by %d (-want +got):\n%s", originAt, sealEvery, diff)
					}
					checkSpans(t, spans, tl.Sealed(), c.want)
				}
			}
		})
	}
}

// checkSpans demands that spans cover [0, to) without a hole and suppress what the windows say.
func checkSpans(t *testing.T, spans []Span, to int64, windows []Window) {
	t.Helper()
	pos := int64(0)
	for _, s := range spans {
		if s.FromMS != pos || s.ToMS <= s.FromMS {
			t.Fatalf("span %v does not begin at %d", s, pos)
		}
		pos = s.ToMS
		for ms := s.FromMS; ms < s.ToMS; ms++ {
			in := slices.ContainsFunc(windows, func(w Window) bool { return w.RealMS <= ms && ms < w.EndRealMS })
			if in != s.Suppressed {
				t.Fatalf("ms %d: suppressed %v, in a window %v", ms, s.Suppressed, in)
			}
		}
	}
	if pos != to {
		t.Fatalf("spans end at %d, sealed is %d", pos, to)
	}
}

// Who opened a window matters to no end of it: the name does. Who sees the end is
// seldom who saw the start.
func TestEndsOfAnotherSource(t *testing.T) {
	of := func(source string, e Event, ms float64, who string) step {
		return step{event: e, ms: ms, who: who, source: source}
	}
	for _, c := range []struct {
		name  string
		steps []step
		want  []Window
	}{
		{"the same name", []step{of("a", IVRStart, 100, "main"), of("b", IVREnd, 300, "main")}, []Window{{Reason: ReasonIVR, RealMS: 100, EndRealMS: 300, Source: "a"}}},
		{"no name, for all", []step{of("a", IVRStart, 100, "main"), of("b", IVREnd, 300, "")}, []Window{{Reason: ReasonIVR, RealMS: 100, EndRealMS: 300, Source: "a"}}},
		{"another name", []step{of("a", IVRStart, 100, "main"), of("b", IVREnd, 300, "other")}, []Window{{Reason: ReasonIVR, RealMS: 100, EndRealMS: 1000, Source: "a"}}},
		{
			"a second start is the same flow",
			[]step{of("a", IVRStart, 100, "main"), of("b", IVRStart, 200, "main"), of("b", IVREnd, 300, "main")},
			[]Window{{Reason: ReasonIVR, RealMS: 100, EndRealMS: 300, Source: "a"}},
		},
		{
			"named apart they are two",
			[]step{of("a", IVRStart, 100, "a main"), of("b", IVRStart, 200, "b main"), of("b", IVREnd, 300, "b main"), of("a", IVREnd, 400, "a main")},
			[]Window{{Reason: ReasonIVR, RealMS: 100, EndRealMS: 400, Source: "a"}},
		},
		{"another reason", []step{of("a", IVRStart, 100, ""), of("b", HoldEnd, 300, "")}, []Window{{Reason: ReasonIVR, RealMS: 100, EndRealMS: 1000, Source: "a"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tl := New(all)
			play(tl, slices.Insert(c.steps, 0, step{origin: true}))
			if d := cmp.Diff(c.want, tl.Windows(1000)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestLate(t *testing.T) {
	late := func(e Event, ms, received float64, source string, seq uint64) step {
		return step{event: e, ms: ms, received: received, source: source, seq: seq}
	}
	for _, c := range []struct {
		name    string
		steps   []step
		effects []Effect // of the last signals
		want    []Window
	}{
		{
			"within the look-back",
			[]step{{seal: 500}, late(PauseStart, 700, 1000, "", 0), {seal: 1000}},
			[]Effect{{AppliedAt: at(700), LateMS: 300, Reasons: []Reason{ReasonPause}, Changed: true}},
			[]Window{{Reason: ReasonPause, RealMS: 700, EndRealMS: 2000, LateMS: 300}},
		},
		{
			"start from the frontier",
			[]step{{seal: 500}, late(PauseStart, 200, 1000, "http", 0), {seal: 1000}},
			[]Effect{{AppliedAt: at(500), LateMS: 800, MissedMS: 300, Reasons: []Reason{ReasonPause}, Changed: true}},
			[]Window{{Reason: ReasonPause, RealMS: 500, EndRealMS: 2000, LateMS: 800, MissedMS: 300, Source: "http"}},
		},
		{
			"missed counts what was captured",
			[]step{ev(HoldStart, 250, ""), ev(HoldEnd, 350, ""), {seal: 500}, late(PauseStart, 200.5, 1000, "", 0)},
			[]Effect{{AppliedAt: at(500), LateMS: 799, MissedMS: 200, Reasons: []Reason{ReasonPause}, Changed: true}},
			[]Window{win(ReasonHold, 250, 350), {Reason: ReasonPause, RealMS: 500, EndRealMS: 2000, LateMS: 799, MissedMS: 200}},
		},
		{
			"end from the frontier",
			[]step{ev(PauseStart, 100, ""), {seal: 500}, late(PauseEnd, 200, 1000, "", 0)},
			[]Effect{{AppliedAt: at(500), LateMS: 800, Reasons: []Reason{}, Changed: true}},
			[]Window{win(ReasonPause, 100, 500)},
		},
		{
			"start and end late, in order",
			[]step{{seal: 500}, late(PauseStart, 100, 900, "", 0), late(PauseEnd, 200, 950, "", 0)},
			[]Effect{{AppliedAt: at(500), LateMS: 750, Reasons: []Reason{}, Changed: true}},
			[]Window{{Reason: ReasonPause, RealMS: 500, EndRealMS: 500, LateMS: 800, MissedMS: 100}},
		},
		{
			"start and end late, seal between",
			[]step{{seal: 500}, late(PauseStart, 100, 900, "", 0), {seal: 600}, late(PauseEnd, 200, 950, "", 0)},
			[]Effect{{AppliedAt: at(600), LateMS: 750, Reasons: []Reason{}, Changed: true}},
			[]Window{{Reason: ReasonPause, RealMS: 500, EndRealMS: 600, LateMS: 800, MissedMS: 100}},
		},
		{
			"start after its end, one source",
			[]step{{seal: 500}, late(PauseEnd, 300, 900, "s", 0), late(PauseStart, 100, 950, "s", 0)},
			[]Effect{{AppliedAt: at(500), LateMS: 850, MissedMS: 200, Reasons: []Reason{}}},
			[]Window{{Reason: ReasonPause, RealMS: 500, EndRealMS: 500, LateMS: 850, MissedMS: 200, Source: "s"}},
		},
		{
			"start after its end, sealed both",
			[]step{late(PauseEnd, 300, 0, "s", 0), {seal: 500}, late(PauseStart, 100, 950, "s", 0)},
			[]Effect{{AppliedAt: at(500), LateMS: 850, MissedMS: 200, Reasons: []Reason{}}},
			[]Window{{Reason: ReasonPause, RealMS: 500, EndRealMS: 500, LateMS: 850, MissedMS: 200, Source: "s"}},
		},
		{
			"start after the end of another source stays closed",
			[]step{{seal: 500}, late(PauseEnd, 300, 900, "s", 0), late(PauseStart, 100, 950, "t", 0)},
			[]Effect{{AppliedAt: at(500), LateMS: 850, MissedMS: 400, Reasons: []Reason{ReasonPause}, Changed: true}},
			[]Window{{Reason: ReasonPause, RealMS: 500, EndRealMS: 2000, LateMS: 850, MissedMS: 400, Source: "t"}},
		},
		{
			"numbers contradict times: stays closed",
			[]step{{seal: 500}, late(PauseEnd, 300, 900, "s", 1), late(PauseStart, 100, 950, "s", 2)},
			[]Effect{{AppliedAt: at(500), LateMS: 850, MissedMS: 400, Reasons: []Reason{ReasonPause}, Changed: true}},
			[]Window{{Reason: ReasonPause, RealMS: 500, EndRealMS: 2000, LateMS: 850, MissedMS: 400, Source: "s"}},
		},
		{
			"an end older than the start does nothing",
			[]step{ev(PauseStart, 300, ""), {seal: 500}, late(PauseEnd, 200, 900, "", 0)},
			[]Effect{{AppliedAt: at(500), LateMS: 700, Reasons: []Reason{ReasonPause}}},
			[]Window{win(ReasonPause, 300, 2000)},
		},
		{
			"late hold of the other party",
			[]step{ev(HoldStart, 300, "a"), {seal: 500}, {event: HoldStart, ms: 100, received: 600, who: "b"}, ev(HoldEnd, 700, "a"), ev(HoldEnd, 800, "b")},
			nil,
			[]Window{{Reason: ReasonHold, RealMS: 300, EndRealMS: 800, MissedMS: 200}},
		},
		{
			"two late holds",
			[]step{{seal: 500}, {event: HoldStart, ms: 300, who: "a"}, {event: HoldStart, ms: 100, who: "b"}, {event: HoldStart, ms: 200, who: "c"}},
			nil,
			[]Window{{Reason: ReasonHold, RealMS: 500, EndRealMS: 2000, MissedMS: 400}},
		},
		{
			"in the future",
			[]step{{seal: 500}, late(PauseStart, 1500, 600, "", 0), {seal: 1000}},
			[]Effect{{AppliedAt: at(1500), Reasons: []Reason{ReasonPause}, Changed: true}},
			[]Window{win(ReasonPause, 1500, 2000)},
		},
		{
			"duplicate",
			[]step{late(PauseStart, 100, 0, "s", 7), late(PauseEnd, 200, 0, "s", 8), late(PauseStart, 300, 0, "s", 7)},
			[]Effect{{AppliedAt: at(300), Reasons: []Reason{}, Duplicate: true}},
			[]Window{{Reason: ReasonPause, RealMS: 100, EndRealMS: 200, Source: "s"}},
		},
		{
			"the same number of another source",
			[]step{late(PauseEnd, 200, 0, "s", 7), late(PauseStart, 300, 0, "t", 7)},
			[]Effect{{AppliedAt: at(300), Reasons: []Reason{ReasonPause}, Changed: true}},
			[]Window{{Reason: ReasonPause, RealMS: 300, EndRealMS: 2000, Source: "t"}},
		},
		{
			"after the end",
			[]step{{end: 500}, late(PauseStart, 500, 0, "", 0)},
			[]Effect{{AppliedAt: at(500), Reasons: []Reason{}}},
			nil,
		},
		{
			"no change",
			[]step{ev(HoldStart, 100, "a"), ev(HoldStart, 200, "b")},
			[]Effect{{AppliedAt: at(200), Reasons: []Reason{ReasonHold}}},
			[]Window{win(ReasonHold, 100, 2000)},
		},
		{
			"a stale repeat",
			[]step{ev(PauseStart, 100, ""), ev(PauseEnd, 200, ""), {seal: 500}, late(PauseStart, 100, 700, "", 0)},
			[]Effect{{AppliedAt: at(500), LateMS: 600, Reasons: []Reason{}}},
			[]Window{win(ReasonPause, 100, 200)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tl := New(all)
			tl.SetOrigin(epoch)
			effects, spans := play(tl, c.steps)
			if len(c.effects) > 0 {
				if diff := cmp.Diff(c.effects, effects[len(effects)-len(c.effects):]); diff != "" {
					t.Errorf("effects (-want +got):\n%s", diff)
				}
			}
			if diff := cmp.Diff(c.want, tl.Windows(2000)); diff != "" {
				t.Errorf("windows (-want +got):\n%s", diff)
			}
			spans = tl.Seal(2000, spans)
			if diff := cmp.Diff(c.want, tl.Windows(2000)); diff != "" {
				t.Errorf("windows once sealed (-want +got):\n%s", diff)
			}
			checkSpans(t, spans, tl.Sealed(), c.want)
		})
	}
}

func TestReasons(t *testing.T) {
	tl := New(all)
	tl.Apply(ev(PauseStart, -10, "").signal())
	if got := tl.Reasons(0); !slices.Equal(got, []Reason{ReasonPause}) {
		t.Errorf("without origin: %v", got)
	}
	tl.SetOrigin(epoch)
	tl.SetOrigin(at(500)) // counts no more
	play(tl, []step{ev(HoldStart, 50, ""), ev(QueueStart, 60, ""), ev(PauseEnd, 100, ""), ev(HoldEnd, 200, ""), {seal: 150}})
	for ms, want := range map[int64][]Reason{
		0: {ReasonPause}, 55: {ReasonHold, ReasonPause}, 99: {ReasonHold, ReasonPause, ReasonQueue}, 100: {ReasonHold, ReasonQueue},
		199: {ReasonHold, ReasonQueue}, 200: {ReasonQueue}, -1: {}, math.MaxInt64: {ReasonQueue},
	} {
		if got := tl.Reasons(ms); !slices.Equal(got, want) {
			t.Errorf("at %d: %v, want %v", ms, got, want)
		}
	}
}

func TestEnd(t *testing.T) {
	tl := New(all)
	tl.SetOrigin(epoch)
	_, spans := play(tl, []step{ev(HoldStart, 200, ""), {seal: 300}})
	tl.End(250) // sealed already: nothing lies after 300
	tl.End(900) // counts no more
	spans = tl.Seal(1000, spans)
	if want := []Span{{0, 200, false, false}, {200, 300, true, false}}; !slices.Equal(spans, want) || tl.Sealed() != 300 {
		t.Errorf("spans %v up to %d, want %v", spans, tl.Sealed(), want)
	}
	if got := tl.Windows(math.MaxInt64); len(got) != 1 || got[0].EndRealMS != 300 {
		t.Errorf("windows %v, want one to 300", got)
	}
}

func TestNothingWithoutOrigin(t *testing.T) {
	tl := New(Rules{ConsentRequired: true})
	if s := tl.Seal(100, nil); s != nil || tl.Sealed() != 0 || tl.Windows(100) != nil {
		t.Errorf("sealed %v without an origin", s)
	}
}
