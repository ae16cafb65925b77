package suppress

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func from(source string, e Event, ms float64) step { return step{event: e, ms: ms, source: source} }

func of(source string, r Reason, from, to int64) Window {
	return Window{Reason: r, RealMS: from, EndRealMS: to, Source: source}
}

func micWin(from, to int64) Window {
	return Window{Reason: ReasonHold, RealMS: from, EndRealMS: to, Mic: true}
}

func TestRulesByName(t *testing.T) {
	flow := func(on bool, flows map[string]bool) Rules { return Rules{IVR: on, Flows: flows} }
	queue := func(on bool, queues map[string]bool) Rules { return Rules{Queue: on, Queues: queues} }
	for _, c := range []struct {
		name  string
		rules Rules
		steps []step
		want  []Window
	}{
		{
			"a flow that is not suppressed", flow(true, map[string]bool{"a": false}),
			[]step{ev(IVRStart, 100, "a"), ev(IVRStart, 200, "b"), ev(IVREnd, 300, "b"), ev(IVREnd, 400, "a")},
			[]Window{win(ReasonIVR, 200, 300)},
		},
		{
			"its end leaves the others", flow(true, map[string]bool{"a": false}),
			[]step{ev(IVRStart, 100, "b"), ev(IVREnd, 300, "a")},
			[]Window{win(ReasonIVR, 100, 1000)},
		},
		{
			"a flow that alone is suppressed", flow(false, map[string]bool{"a": true}),
			[]step{ev(IVRStart, 100, "b"), ev(IVRStart, 200, "a"), ev(IVREnd, 300, "b"), ev(IVREnd, 400, "a")},
			[]Window{win(ReasonIVR, 200, 400)},
		},
		{
			"an end without name ends it", flow(false, map[string]bool{"a": true}),
			[]step{ev(IVRStart, 200, "a"), ev(IVREnd, 300, "")},
			[]Window{win(ReasonIVR, 200, 300)},
		},
		{"a start without name follows the default", flow(false, map[string]bool{"a": true, "": true}), []step{ev(IVRStart, 200, "")}, nil},
		{"and opens by it", flow(true, map[string]bool{"a": false}), []step{ev(IVRStart, 200, "")}, []Window{win(ReasonIVR, 200, 1000)}},
		{
			"a queue that is not suppressed", queue(true, map[string]bool{"a": false}),
			[]step{ev(QueueStart, 100, "a"), ev(QueueStart, 200, "b"), ev(QueueEnd, 300, "")},
			[]Window{win(ReasonQueue, 200, 300)},
		},
		{
			"a queue that alone is suppressed", queue(false, map[string]bool{"a": true}),
			[]step{ev(QueueStart, 100, "b"), ev(QueueStart, 200, "a"), ev(QueueEnd, 300, "")},
			[]Window{win(ReasonQueue, 200, 300)},
		},
		{"flows say nothing of queues", Rules{Flows: map[string]bool{"a": true}}, []step{ev(QueueStart, 100, "a")}, nil},
		{
			"digits need no rule",
			Rules{},
			[]step{ev(DTMFStart, 100, "x"), ev(DTMFStart, 150, "y"), ev(DTMFEnd, 200, "x"), ev(DTMFEnd, 300, "y")},
			[]Window{win(ReasonDTMF, 100, 300)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tl := New(c.rules)
			tl.SetOrigin(epoch)
			_, _ = play(tl, c.steps)
			if diff := cmp.Diff(c.want, tl.Windows(1000)); diff != "" {
				t.Errorf("windows (-want +got):\n%s", diff)
			}
			checkSpans(t, tl.Seal(1000, nil), 1000, c.want)
		})
	}
}

func TestHoldMic(t *testing.T) {
	const kept, mic, cut = levelKept, levelMic, levelSuppressed
	span := func(from, to int64, level int) Span {
		return Span{FromMS: from, ToMS: to, Suppressed: level == cut, Mic: level == mic}
	}
	for _, c := range []struct {
		name    string
		steps   []step
		windows []Window
		spans   []Span
	}{
		{
			"hold",
			[]step{ev(HoldStart, 100, "a"), ev(HoldEnd, 300, "a")},
			[]Window{micWin(100, 300)},
			[]Span{span(0, 100, kept), span(100, 300, mic), span(300, 1000, kept)},
		},
		{
			"opens at floor and closes at ceil",
			[]step{ev(HoldStart, 100.5, "a"), ev(HoldEnd, 300.5, "a")},
			[]Window{micWin(100, 301)},
			[]Span{span(0, 100, kept), span(100, 301, mic), span(301, 1000, kept)},
		},
		{
			"pause within",
			[]step{ev(HoldStart, 100, ""), ev(PauseStart, 200, ""), ev(PauseEnd, 250, ""), ev(HoldEnd, 300, "")},
			[]Window{micWin(100, 300), win(ReasonPause, 200, 250)},
			[]Span{span(0, 100, kept), span(100, 200, mic), span(200, 250, cut), span(250, 300, mic), span(300, 1000, kept)},
		},
		{
			"pause around",
			[]step{ev(PauseStart, 100, ""), ev(HoldStart, 200, ""), ev(HoldEnd, 300, ""), ev(PauseEnd, 400, "")},
			[]Window{win(ReasonPause, 100, 400), micWin(200, 300)},
			[]Span{span(0, 100, kept), span(100, 400, cut), span(400, 1000, kept)},
		},
		{
			"a pause begins in the millisecond in which hold ends",
			[]step{ev(HoldStart, 100, ""), ev(HoldEnd, 200.2, ""), ev(PauseStart, 200.6, ""), ev(PauseEnd, 300, "")},
			[]Window{micWin(100, 201), win(ReasonPause, 200, 300)},
			[]Span{span(0, 100, kept), span(100, 200, mic), span(200, 300, cut), span(300, 1000, kept)},
		},
		{
			"hold, then a pause, within one millisecond",
			[]step{ev(HoldStart, 100.1, ""), ev(HoldEnd, 100.2, ""), ev(PauseStart, 100.3, ""), ev(PauseEnd, 100.4, "")},
			[]Window{micWin(100, 101), win(ReasonPause, 100, 101)},
			[]Span{span(0, 100, kept), span(100, 101, cut), span(101, 1000, kept)},
		},
		{
			"a pause ends in the millisecond in which hold begins",
			[]step{ev(PauseStart, 100, ""), ev(PauseEnd, 200.2, ""), ev(HoldStart, 200.6, ""), ev(HoldEnd, 300, "")},
			[]Window{win(ReasonPause, 100, 201), micWin(200, 300)},
			[]Span{span(0, 100, kept), span(100, 201, cut), span(201, 300, mic), span(300, 1000, kept)},
		},
		{
			"late",
			[]step{{seal: 500}, ev(HoldStart, 200, "a"), ev(HoldStart, 100, "b"), ev(HoldEnd, 600, "")},
			[]Window{{Reason: ReasonHold, RealMS: 500, EndRealMS: 600, MissedMS: 400, Mic: true}},
			[]Span{span(0, 500, kept), span(500, 600, mic), span(600, 1000, kept)},
		},
		{
			"late, when another holds the microphone already",
			[]step{ev(HoldStart, 200, "a"), {seal: 500}, ev(HoldStart, 100, "b"), ev(HoldEnd, 600, "")},
			[]Window{{Reason: ReasonHold, RealMS: 200, EndRealMS: 600, MissedMS: 100, Mic: true}},
			[]Span{span(0, 200, kept), span(200, 500, mic), span(500, 600, mic), span(600, 1000, kept)},
		},
		{
			"a late pause misses what the external party said",
			[]step{ev(HoldStart, 200, "a"), {seal: 500}, ev(PauseStart, 300, ""), ev(PauseEnd, 700, "")},
			[]Window{micWin(200, 1000), {Reason: ReasonPause, RealMS: 500, EndRealMS: 700, MissedMS: 200}},
			[]Span{span(0, 200, kept), span(200, 500, mic), span(500, 700, cut), span(700, 1000, mic)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tl := New(Rules{Hold: true, HoldMic: true})
			tl.SetOrigin(epoch)
			_, spans := play(tl, c.steps)
			for _, when := range []string{"before", "after"} {
				if diff := cmp.Diff(c.windows, tl.Windows(1000)); diff != "" {
					t.Errorf("windows %s sealing (-want +got):\n%s", when, diff)
				}
				for _, s := range c.spans {
					if got := tl.Captured(s.FromMS); got == s.Suppressed {
						t.Errorf("captured(%d) %s sealing: %v", s.FromMS, when, got)
					}
					if got := slices.Contains(tl.Reasons(s.FromMS), ReasonHold); s.Mic && !got {
						t.Errorf("at %d %s sealing hold is no reason", s.FromMS, when)
					}
				}
				if when == "before" {
					spans = tl.Seal(1000, spans)
				}
			}
			if diff := cmp.Diff(c.spans, spans); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
		})
	}
	tl := New(Rules{HoldMic: true}) // without Hold
	tl.SetOrigin(epoch)
	if eff := tl.Apply(ev(HoldStart, 100, "").signal()); eff.Changed || len(eff.Reasons) != 0 {
		t.Errorf("HoldMic without Hold: %+v", eff)
	}
}

func TestCapturedEdges(t *testing.T) {
	tl := New(all)
	if tl.Captured(0) {
		t.Error("captured without an origin")
	}
	tl.SetOrigin(epoch)
	tl.End(100)
	for ms, want := range map[int64]bool{-1: false, 0: true, 99: true, 100: false, 1 << 62: false} {
		if tl.Captured(ms) != want {
			t.Errorf("captured(%d) = %v", ms, !want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { tl.Captured(50) }); n != 0 {
		t.Errorf("Captured allocates %v times", n)
	}
}

func TestPauseAutoResume(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []step
		want  []Window
	}{
		{"ends by itself", []step{from("a", PauseStart, 100)}, []Window{of("a", ReasonPause, 100, 200)}},
		{"exact to the millisecond", []step{from("a", PauseStart, 100.25)}, []Window{of("a", ReasonPause, 100, 201)}},
		{"ends before that", []step{from("a", PauseStart, 100), from("a", PauseEnd, 150)}, []Window{of("a", ReasonPause, 100, 150)}},
		{"an end at that", []step{from("a", PauseStart, 100), from("a", PauseEnd, 200)}, []Window{of("a", ReasonPause, 100, 200)}},
		{"an end after that", []step{from("a", PauseStart, 100), from("a", PauseEnd, 300)}, []Window{of("a", ReasonPause, 100, 200)}},
		{"renewed", []step{from("a", PauseStart, 100), from("b", PauseStart, 150)}, []Window{of("a", ReasonPause, 100, 250)}},
		{"renewed in the last moment", []step{from("a", PauseStart, 100), from("a", PauseStart, 200)}, []Window{of("a", ReasonPause, 100, 300)}},
		{"renewed out of order", []step{from("a", PauseStart, 180), from("a", PauseStart, 100)}, []Window{of("a", ReasonPause, 100, 280)}},
		{"a new one later", []step{from("a", PauseStart, 100), from("b", PauseStart, 300)}, []Window{of("a", ReasonPause, 100, 200), of("b", ReasonPause, 300, 400)}},
		{"before the origin", []step{from("a", PauseStart, -50)}, []Window{of("a", ReasonPause, 0, 50)}},
		{"over before the origin", []step{from("a", PauseStart, -100)}, nil},
		{"other reasons go on", []step{ev(HoldStart, 100, ""), from("a", PauseStart, 100)}, []Window{win(ReasonHold, 100, 1000), of("a", ReasonPause, 100, 200)}},
		{"lost", []step{from("a", PauseStart, 100), from("a", SourceLost, 150)}, []Window{of("a", ReasonPause, 100, 1000)}},
		{"lost in the last moment", []step{from("a", PauseStart, 100), from("a", SourceLost, 200)}, []Window{of("a", ReasonPause, 100, 1000)}},
		{"lost before", []step{from("a", SourceLost, 90), from("a", PauseStart, 100)}, []Window{of("a", ReasonPause, 100, 200)}},
		{"lost after", []step{from("a", PauseStart, 100), from("a", SourceLost, 201)}, []Window{of("a", ReasonPause, 100, 200)}},
		{"another source lost", []step{from("a", PauseStart, 100), from("b", SourceLost, 150)}, []Window{of("a", ReasonPause, 100, 200)}},
		{"lost and restored", []step{from("a", PauseStart, 100), from("a", SourceLost, 150), from("a", SourceRestored, 160)}, []Window{of("a", ReasonPause, 100, 1000)}},
		{"lost, then ended", []step{from("a", PauseStart, 100), from("a", SourceLost, 150), from("b", PauseEnd, 500)}, []Window{of("a", ReasonPause, 100, 500)}},
		{"lost, then begun anew", []step{from("a", PauseStart, 100), from("a", SourceLost, 150), from("b", PauseStart, 500)}, []Window{of("a", ReasonPause, 100, 600)}},
		{
			"lost, ended, begun anew",
			[]step{from("a", PauseStart, 100), from("a", SourceLost, 150), from("b", PauseEnd, 300), from("b", PauseStart, 500)},
			[]Window{of("a", ReasonPause, 100, 300), of("b", ReasonPause, 500, 600)},
		},
		{"the first of two lost", []step{from("a", PauseStart, 100), from("b", PauseStart, 150), from("a", SourceLost, 220)}, []Window{of("a", ReasonPause, 100, 1000)}},
		{
			"one of before lost",
			[]step{from("a", PauseStart, 100), from("b", PauseStart, 300), from("a", SourceLost, 350)},
			[]Window{of("a", ReasonPause, 100, 200), of("b", ReasonPause, 300, 400)},
		},
		{"loss told first", []step{from("a", SourceLost, 150), from("a", PauseStart, 100)}, []Window{of("a", ReasonPause, 100, 1000)}},
		{"nothing after the end", []step{{end: 150}, from("a", PauseStart, 100)}, []Window{of("a", ReasonPause, 100, 150)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, originAt := range []int{0, len(c.steps)} {
				for _, sealEvery := range []int64{1, 7, 1000} {
					tl := New(Rules{Hold: true, PauseAutoResume: 100 * time.Millisecond})
					play(tl, slices.Insert(slices.Clone(c.steps), originAt, step{origin: true}))
					name := fmt.Sprintf("origin as step %d, sealed by %d", originAt, sealEvery)
					if diff := cmp.Diff(c.want, tl.Windows(1000)); diff != "" {
						t.Errorf("%s, before (-want +got):\n%s", name, diff)
					}
					var spans []Span
					falls := 0
					for to := sealEvery; to < 1000+sealEvery; to += sealEvery {
						pending := tl.Pending()
						spans = tl.Seal(min(to, 1000), spans)
						if tl.Pending() < pending {
							falls++
						}
					}
					if sealEvery == 1 && falls < countEdges(c.want, min(tl.endMS, 1000)) {
						t.Errorf("%s: the pending fell %d times, with windows %+v", name, falls, c.want)
					}
					if diff := cmp.Diff(c.want, tl.Windows(1000)); diff != "" {
						t.Errorf("%s, after (-want +got):\n%s", name, diff)
					}
				}
			}
		})
	}
}

// countEdges is at how many positions between 0 and the end windows begin or end.
func countEdges(ws []Window, endMS int64) int {
	at := map[int64]bool{}
	for _, w := range ws {
		at[w.RealMS], at[w.EndRealMS] = true, true
	}
	delete(at, 0)
	delete(at, endMS)
	return len(at)
}

func TestPauseAutoResumeLate(t *testing.T) {
	for _, c := range []struct {
		name   string
		steps  []step
		missed int64 // by the last signal
		want   []Window
	}{
		{
			"start, of which a rest is to come",
			[]step{{seal: 150}, from("a", PauseStart, 100)},
			50,
			[]Window{{Reason: ReasonPause, RealMS: 150, EndRealMS: 200, MissedMS: 50, Source: "a"}},
		},
		{
			"start, over when it comes",
			[]step{{seal: 500}, from("a", PauseStart, 100)},
			100,
			[]Window{{Reason: ReasonPause, RealMS: 500, EndRealMS: 500, MissedMS: 100, Source: "a"}},
		},
		{
			"start, over just when it comes",
			[]step{{seal: 200}, from("a", PauseStart, 100)},
			100,
			[]Window{{Reason: ReasonPause, RealMS: 200, EndRealMS: 200, MissedMS: 100, Source: "a"}},
		},
		{
			"renewal after the end",
			[]step{from("a", PauseStart, 100), {seal: 250}, from("a", PauseStart, 180)},
			50,
			[]Window{of("a", ReasonPause, 100, 200), {Reason: ReasonPause, RealMS: 250, EndRealMS: 280, MissedMS: 50, Source: "a"}},
		},
		{"repeat after the end", []step{from("a", PauseStart, 100), {seal: 250}, from("a", PauseStart, 100)}, 0, []Window{of("a", ReasonPause, 100, 200)}},
		{"renewal in time", []step{from("a", PauseStart, 100), {seal: 190}, from("a", PauseStart, 180)}, 0, []Window{of("a", ReasonPause, 100, 280)}},
		{
			"earlier start",
			[]step{from("a", PauseStart, 100), {seal: 150}, from("a", PauseStart, 80)},
			20,
			[]Window{{Reason: ReasonPause, RealMS: 100, EndRealMS: 200, MissedMS: 20, Source: "a"}},
		},
		{
			"two late starts",
			[]step{{seal: 150}, from("a", PauseStart, 100), from("b", PauseStart, 80)},
			70,
			[]Window{{Reason: ReasonPause, RealMS: 150, EndRealMS: 200, MissedMS: 70, Source: "a"}},
		},
		{"loss in time", []step{from("a", PauseStart, 100), {seal: 190}, from("a", SourceLost, 150)}, 0, []Window{of("a", ReasonPause, 100, 1000)}},
		{
			"loss, told after the end",
			[]step{from("a", PauseStart, 100), {seal: 250}, from("a", SourceLost, 150)},
			50,
			[]Window{of("a", ReasonPause, 100, 200), {Reason: ReasonPause, RealMS: 250, EndRealMS: 1000, MissedMS: 50, Source: "a"}},
		},
		{"loss after the end", []step{from("a", PauseStart, 100), {seal: 250}, from("a", SourceLost, 220)}, 0, []Window{of("a", ReasonPause, 100, 200)}},
		{
			"start of a source lost since",
			[]step{from("a", SourceLost, 150), {seal: 500}, from("a", PauseStart, 100)},
			400,
			[]Window{{Reason: ReasonPause, RealMS: 500, EndRealMS: 1000, MissedMS: 400, Source: "a"}},
		},
		{
			"end of one that is lost",
			[]step{from("a", PauseStart, 100), from("a", SourceLost, 150), {seal: 500}, from("a", PauseEnd, 300)},
			0,
			[]Window{of("a", ReasonPause, 100, 500)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tl := New(Rules{PauseAutoResume: 100 * time.Millisecond})
			tl.SetOrigin(epoch)
			effects, _ := play(tl, c.steps)
			if got := effects[len(effects)-1].MissedMS; got != c.missed {
				t.Errorf("missed %d, want %d", got, c.missed)
			}
			for range 2 {
				if diff := cmp.Diff(c.want, tl.Windows(1000)); diff != "" {
					t.Errorf("windows (-want +got):\n%s", diff)
				}
				tl.Seal(1000, nil)
			}
		})
	}
}

func TestPausedBy(t *testing.T) {
	tl := New(Rules{PauseAutoResume: 100 * time.Millisecond})
	check := func(when string, a, b bool) {
		t.Helper()
		if tl.PausedBy("a") != a || tl.PausedBy("b") != b {
			t.Errorf("%s: %v %v, want %v %v", when, tl.PausedBy("a"), tl.PausedBy("b"), a, b)
		}
	}
	check("at first", false, false)
	tl.Apply(from("a", PauseStart, 100).signal())
	check("without origin", true, false)
	tl.SetOrigin(epoch.Add(-time.Second))
	check("with the origin", true, false)
	tl.Apply(from("b", PauseStart, 150).signal())
	check("both", true, true)
	tl.Apply(from("b", SourceLost, 260).signal())
	check("ended by itself", false, false)
	tl.Apply(from("b", PauseStart, 300).signal())
	check("anew", false, true)
	tl.Seal(1600, nil)
	check("sealed", false, false)
	tl.Apply(from("b", SourceLost, 350).signal())
	check("a late loss", false, true)
	tl.Apply(from("a", PauseEnd, 700).signal())
	check("ended", false, false)
	tl.Apply(from("a", PauseStart, 800).signal())
	tl.End(2000)
	check("begun", true, false)
	tl.Apply(from("c", AgentJoin, 1500).signal())
	check("after the recording", false, false)
}

func TestPauseLimits(t *testing.T) {
	tl := New(Rules{PauseAutoResume: 100 * time.Millisecond})
	tl.SetOrigin(epoch)
	for i := range pauseSourcesMax + 1 {
		tl.Apply(from(fmt.Sprint("s", i), PauseStart, 100).signal())
	}
	if !tl.PausedBy("no such") || len(tl.Reasons(250)) != 0 {
		t.Error("with too many sources each counts")
	}
	tl.Apply(from("no such", SourceLost, 150).signal())
	if len(tl.Reasons(250)) != 1 {
		t.Error("with too many sources the loss of any keeps the pause")
	}
	tl = New(Rules{PauseAutoResume: 100 * time.Millisecond})
	tl.SetOrigin(epoch)
	for i := range lossesMax + 1 {
		tl.Apply(from("a", SourceLost, float64(1000+i)).signal())
	}
	if n := len(tl.resume.losses); n != lossesMax {
		t.Errorf("%d losses remembered", n)
	}
	tl.Apply(from("b", PauseStart, 1000).signal())
	if len(tl.Reasons(5000)) != 1 {
		t.Error("a pause that began before a forgotten loss ends by itself")
	}
	tl.Apply(from("b", PauseStart, 1200).signal())
	if len(tl.Reasons(5000)) != 0 {
		t.Error("one that began after it does not")
	}
}

func TestValidateEvents(t *testing.T) {
	for e, want := range map[Event]string{
		DTMFStart: "", DTMFEnd: "", AgentJoin: "", AgentLeave: "", CallLinked: "event", SourceLost: "event", SourceRestored: "event",
		SnippetStart: "user", SnippetEnd: "user", AdhocStart: "user", AdhocEnd: "user",
	} {
		field := ""
		if err := (Signal{Event: e, At: epoch}).Validate(); err != nil {
			field = err.(*FieldError).Field
		}
		if field != want {
			t.Errorf("%s without user: %q, want %q", e, field, want)
		}
		if err := (Signal{Event: e, At: epoch, User: "u"}).Validate(); (err == nil) != (want != "event") {
			t.Errorf("%s with user: %v", e, err)
		}
	}
}
