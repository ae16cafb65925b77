package recorder

import (
	"testing"

	"pgregory.net/rapid"
)

// TestGapListModel compares the list with one cause per sample.
func TestGapListModel(t *testing.T) {
	const size = 200
	causes := []string{GapLoss, GapAbsent, GapLate}
	rapid.Check(t, func(t *rapid.T) {
		var l gapList
		model := make([]string, size)
		frontier := int64(0)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			from := rapid.Int64Range(0, size-1).Draw(t, "from")
			to := rapid.Int64Range(from, size).Draw(t, "to")
			cause := rapid.SampledFrom(causes).Draw(t, "cause")
			switch rapid.IntRange(0, 3).Draw(t, "op") {
			case 0:
				from = max(from, frontier)
				if from >= to {
					continue
				}
				l.add(gap{span: span{from, to}, cause: cause})
				fill(model, from, to, func(string) string { return cause })
				frontier = to
			case 1:
				l.recause(span{from, to}, cause, "")
				fill(model, from, to, func(was string) string {
					if was == "" {
						return ""
					}
					return cause
				})
			case 2:
				l.recause(span{from, to}, "", "")
				fill(model, from, to, func(string) string { return "" })
			case 3:
				to = min(to, frontier)
				if from >= to {
					continue
				}
				l.cover(span{from, to}, GapOverrun, "")
				fill(model, from, to, func(string) string { return GapOverrun })
			}
			check(t, l.gaps, model)
		}
	})
}

func fill(model []string, from, to int64, f func(string) string) {
	for i := from; i < to; i++ {
		model[i] = f(model[i])
	}
}

func check(t *rapid.T, gaps []gap, model []string) {
	got := make([]string, len(model))
	last := int64(0)
	for _, g := range gaps {
		if g.from < last || g.from >= g.to {
			t.Fatalf("gaps out of order or empty: %+v", gaps)
		}
		last = g.to
		for i := g.from; i < g.to; i++ {
			got[i] = g.cause
		}
	}
	for i := range model {
		if got[i] != model[i] {
			t.Fatalf("sample %d: cause %q, want %q in %+v", i, got[i], model[i], gaps)
		}
	}
}

func TestGapListOverflowKeepsDurations(t *testing.T) {
	var l gapList
	for i := range int64(gapsMax + 10) {
		l.add(gap{span: span{i * 10, i*10 + 4}, cause: GapLoss})
	}
	sum := l.overflowSamples
	for _, g := range l.gaps {
		sum += g.to - g.from
	}
	if len(l.gaps) != gapsMax || l.overflow != 10 || sum != 4*(gapsMax+10) {
		t.Fatalf("%d gaps, %d folded, %d samples; want %d, 10, %d", len(l.gaps), l.overflow, sum, gapsMax, 4*(gapsMax+10))
	}
}
