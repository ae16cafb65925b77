package suppress

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPendingLimit(t *testing.T) {
	for _, origin := range []bool{true, false} {
		tl := New(all)
		if origin {
			tl.SetOrigin(epoch)
		}
		for i := range pendingEventsMax {
			tl.Apply(ev(HoldEnd, 100+float64(i), "x").signal())
		}
		if eff := tl.Apply(ev(PauseStart, 5000, "").signal()); !eff.Changed || !slices.Equal(eff.Reasons, []Reason{ReasonPause}) {
			t.Errorf("start beyond the limit: %+v", eff)
		}
		if eff := tl.Apply(ev(PauseEnd, 6000, "").signal()); eff.Changed {
			t.Errorf("end beyond the limit acted: %+v", eff)
		}
		tl.SetOrigin(epoch)
		if c := tl.Counts(); c.StartsEarly != 1 || c.EndsDropped != 1 {
			t.Errorf("counts %+v", c)
		}
		if diff := cmp.Diff([]Window{win(ReasonPause, 0, 9000)}, tl.Windows(9000)); diff != "" {
			t.Errorf("a start beyond the limit must act at once and its end not at all:\n%s", diff)
		}
		tl.Seal(4000, nil)
		tl.Apply(ev(PauseEnd, 4950, "").signal()) // older than the start: no end of it
		if got := tl.Reasons(4960); len(got) != 1 {
			t.Errorf("an end before the early start ended it")
		}
	}
}

func TestWindowLimit(t *testing.T) {
	tl := New(all)
	tl.SetOrigin(epoch)
	var spans []Span
	for i := range windowsMax + 50 {
		play(tl, []step{ev(PauseStart, float64(10*i), ""), ev(PauseEnd, float64(10*i+5), "")})
		spans = tl.Seal(int64(10*i+10), spans[:0])
	}
	to := tl.Sealed()
	ws := tl.Windows(to)
	if len(ws) != windowsMax || ws[windowsMax-1].EndRealMS != to {
		t.Fatalf("%d windows, the last %+v; want %d, the last to %d", len(ws), ws[len(ws)-1], windowsMax, to)
	}
	play(tl, []step{ev(HoldEnd, 9, ""), ev(HoldStart, 8, "")}) // over, but missed: there is no room to list it
	if n := len(tl.Windows(to)); n != windowsMax || tl.Counts().MissedDropped != 1 {
		t.Errorf("%d windows, %+v", n, tl.Counts())
	}
	if tl.Counts().WindowsStuck != 1 || !spans[0].Suppressed {
		t.Errorf("beyond the limit audio is kept: %+v %v", tl.Counts(), spans)
	}
}

func TestHolderLimit(t *testing.T) {
	tl := New(all)
	tl.SetOrigin(epoch)
	for i := range 3 * holdersMax {
		tl.Apply(ev(HoldStart, float64(i), fmt.Sprint(i)).signal())
	}
	for i := range 3 * holdersMax {
		tl.Apply(ev(HoldEnd, 1000, fmt.Sprint(i)).signal())
	}
	if len(tl.Reasons(2000)) != 1 {
		t.Error("holders beyond the limit were forgotten while they hold")
	}
	tl.Apply(ev(HoldEnd, 3000, "").signal())
	if len(tl.Reasons(3000)) != 0 {
		t.Error("the end for all did not end them")
	}
	tl.Seal(4000, nil)
	for i := range 3 * holdersMax { // ended ones make room
		play(tl, []step{ev(HoldStart, float64(4000+i), fmt.Sprint("n", i)), ev(HoldEnd, float64(4000+i)+0.5, fmt.Sprint("n", i))})
		tl.Seal(int64(4001+i), nil)
	}
	if last := fmt.Sprint("n", 3*holdersMax-2); tl.now[idHold].find(last) == nil || tl.now[idHold].find("n0") != nil {
		t.Error("a holder that ended late was forgotten before the first")
	}
	if n := len(tl.now[idHold].holders); n > holdersMax+1 || tl.now.active() != 0 {
		t.Errorf("%d holders remembered, active %b", n, tl.now.active())
	}
}

func TestSeenSlides(t *testing.T) {
	var s seen
	for seq := uint64(1); seq <= 3*seenPerSourceMax; seq++ {
		if s.repeat("a", seq) {
			t.Fatalf("%d was not there before", seq)
		}
		if seq > 1 && !s.repeat("a", seq-1) {
			t.Fatalf("%d was there before", seq-1)
		}
	}
	if src := s.sources["a"]; len(src.has) != seenPerSourceMax || len(src.ring) != seenPerSourceMax {
		t.Errorf("remembers %d and %d", len(src.has), len(src.ring))
	}
	for i := range 2 * seenSourcesMax {
		s.repeat(fmt.Sprint(i), 1)
	}
	if len(s.sources) != seenSourcesMax {
		t.Errorf("remembers %d sources", len(s.sources))
	}
}

func TestSealDoesNotAllocate(t *testing.T) {
	tl := New(all)
	tl.SetOrigin(epoch)
	tl.Apply(ev(PauseStart, 50, "").signal())
	spans := tl.Seal(100, make([]Span, 0, 8))
	to := tl.Sealed()
	if n := testing.AllocsPerRun(1000, func() {
		to += 20
		spans = tl.Seal(to, spans[:0])
	}); n != 0 {
		t.Errorf("Seal allocates %v times", n)
	}
}

func BenchmarkSeal(b *testing.B) {
	tl := New(all)
	tl.SetOrigin(epoch)
	spans := make([]Span, 0, 8)
	for i := range b.N {
		spans = tl.Seal(int64(i+1)*20, spans[:0])
	}
}
