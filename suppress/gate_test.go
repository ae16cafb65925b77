package suppress

import (
	"slices"
	"testing"
)

func ramp(n int) []int16 {
	s := make([]int16, n)
	for i := range s {
		s[i] = int16(i + 1)
	}
	return s
}

func TestGatePass(t *testing.T) {
	for _, c := range []struct {
		name  string
		spans []Span
		rate  int
		from  int64
		n     int
		want  []int16 // the samples that are kept
	}{
		{"all", []Span{{0, 2, false, false}}, 1000, 0, 2, []int16{1, 2}},
		{"none", []Span{{0, 2, true, false}}, 1000, 0, 2, nil},
		{"middle", []Span{{0, 1, false, false}, {1, 3, true, false}, {3, 4, false, false}}, 1000, 0, 4, []int16{1, 4}},
		{"two samples a millisecond", []Span{{5, 6, true, false}, {6, 7, false, false}}, 2000, 5, 4, []int16{3, 4}},
		{"beyond the spans", []Span{{0, 1, false, false}}, 1000, 0, 3, []int16{1}},
		{"before the spans", []Span{{2, 3, false, false}}, 1000, 0, 3, []int16{3}},
		{"spans beyond the samples", []Span{{0, 9, false, false}}, 1000, 4, 2, []int16{1, 2}},
		{"spans before the samples", []Span{{0, 4, false, false}, {4, 5, true, false}, {5, 6, false, false}}, 1000, 4, 2, []int16{2}},
		{"no spans", nil, 1000, 0, 2, nil},
		{"lying order", []Span{{0, 2, false, false}, {1, 3, false, false}}, 1000, 0, 3, []int16{1, 2, 3}},
		{"a rate that is no multiple rounds inward", []Span{{0, 1, true, false}, {1, 2, false, false}}, 1500, 0, 3, []int16{3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := NewGate(Cut)
			a, b := ramp(c.n), ramp(c.n)
			kept := g.Pass(c.spans, c.rate, c.from, [2][]int16{a, b})
			if !slices.Equal(kept[0], c.want) || !slices.Equal(kept[1], c.want) {
				t.Errorf("cut: %v, want %v", kept, c.want)
			}
			if slices.ContainsFunc(a[len(kept[0]):], func(s int16) bool { return s != 0 }) {
				t.Errorf("cut: the rest is not wiped: %v", a)
			}
			want := ramp(c.n)
			for i, s := range want {
				if !slices.Contains(c.want, s) {
					want[i] = 0
				}
			}
			kept = NewGate(Silence).Pass(c.spans, c.rate, c.from, [2][]int16{ramp(c.n), nil})
			if !slices.Equal(kept[0], want) || len(kept[1]) != 0 {
				t.Errorf("silence: %v, want %v", kept, want)
			}
		})
	}
}

func TestGatePositions(t *testing.T) {
	spans := []Span{{10, 20, false, false}, {20, 30, true, false}, {30, 40, false, false}, {40, 50, true, false}}
	for mode, want := range map[Mode]map[int64]int64{
		Cut:     {-5: 0, 0: 0, 10: 0, 15: 5, 20: 10, 25: 10, 30: 10, 35: 15, 45: 20, 50: 20, 99: 20},
		Silence: {0: 0, 25: 25, 99: 99},
	} {
		g := NewGate(mode)
		g.Pass(spans, 8000, 10, [2][]int16{})
		g.Pass(spans[2:], 8000, 30, [2][]int16{}) // again: counts once
		for real, audio := range want {
			if got := g.AudioMS(real); got != audio {
				t.Errorf("mode %d: AudioMS(%d) = %d, want %d", g.Mode(), real, got, audio)
			}
		}
		for real, kept := range map[int64]bool{-1: false, 0: false, 10: true, 19: true, 20: false, 29: false, 30: true, 49: false, 50: false} {
			if g.Kept(real) != kept {
				t.Errorf("mode %d: Kept(%d) = %v", mode, real, !kept)
			}
		}
	}
}

func TestGateDoesNotAllocate(t *testing.T) {
	for _, mode := range []Mode{Cut, Silence} {
		g := NewGate(mode)
		a, b := make([]int16, 160), make([]int16, 160)
		spans := []Span{{0, 5, false, false}, {5, 10, true, false}, {10, 20, false, true}}
		if n := testing.AllocsPerRun(1000, func() {
			g.Pass(spans, 8000, spans[0].FromMS, [2][]int16{a, b})
			for i := range spans {
				spans[i].FromMS += 20
				spans[i].ToMS += 20
			}
		}); n != 0 {
			t.Errorf("mode %d: Pass allocates %v times", mode, n)
		}
	}
}

func BenchmarkGatePass(b *testing.B) {
	g := NewGate(Cut)
	x, y := make([]int16, 160), make([]int16, 160)
	spans := []Span{{0, 20, false, false}}
	b.ReportAllocs()
	for b.Loop() {
		g.Pass(spans, 8000, spans[0].FromMS, [2][]int16{x, y})
		spans[0].FromMS += 20
		spans[0].ToMS += 20
	}
}

func TestGateMic(t *testing.T) {
	mic := func(from, to int64) Span { return Span{FromMS: from, ToMS: to, Mic: true} }
	for _, c := range []struct {
		name            string
		spans           []Span
		rate            int
		from            int64
		n               int
		both            []int16 // what Cut keeps of channel 0
		station         []int16 // and of channel 1
		silent, quieter []int16 // the same with Silence
	}{
		{"all", []Span{mic(0, 2)}, 1000, 0, 2, []int16{1, 2}, []int16{0, 0}, []int16{1, 2}, []int16{0, 0}},
		{
			"in the middle",
			[]Span{{0, 1, false, false}, mic(1, 2), {2, 3, true, false}, {3, 4, false, false}},
			1000, 0, 4,
			[]int16{1, 2, 4},
			[]int16{1, 0, 4},
			[]int16{1, 2, 0, 4},
			[]int16{1, 0, 0, 4},
		},
		{"begun before", []Span{mic(0, 11), {11, 12, false, false}}, 2000, 10, 4, []int16{1, 2, 3, 4}, []int16{0, 0, 3, 4}, []int16{1, 2, 3, 4}, []int16{0, 0, 3, 4}},
		{"beyond the samples", []Span{mic(4, 9)}, 1000, 0, 3, nil, nil, []int16{0, 0, 0}, []int16{0, 0, 0}},
		{"a rate that is no multiple silences more, and keeps all", []Span{mic(0, 1), {1, 2, false, false}}, 1500, 0, 3, []int16{1, 2, 3}, []int16{0, 0, 3}, []int16{1, 2, 3}, []int16{0, 0, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			kept := NewGate(Cut).Pass(c.spans, c.rate, c.from, [2][]int16{ramp(c.n), ramp(c.n)})
			if !slices.Equal(kept[0], c.both) || !slices.Equal(kept[1], c.station) {
				t.Errorf("cut: %v, want %v and %v", kept, c.both, c.station)
			}
			kept = NewGate(Silence).Pass(c.spans, c.rate, c.from, [2][]int16{ramp(c.n), ramp(c.n)})
			if !slices.Equal(kept[0], c.silent) || !slices.Equal(kept[1], c.quieter) {
				t.Errorf("silence: %v, want %v and %v", kept, c.silent, c.quieter)
			}
		})
	}
}

func TestGateHeard(t *testing.T) {
	g := NewGate(Cut)
	g.Pass([]Span{{10, 20, false, false}, {20, 30, false, true}, {30, 40, true, false}, {40, 50, false, true}}, 8000, 10, [2][]int16{})
	for ms, want := range map[int64][2]bool{
		-1: {}, 5: {}, 10: {true, true}, 19: {true, true}, 20: {true, false}, 29: {true, false}, 30: {}, 39: {}, 40: {true, false}, 50: {},
	} {
		if got := [2]bool{g.Heard(0, ms), g.Heard(1, ms)}; got != want || g.Kept(ms) != want[0] {
			t.Errorf("at %d: heard %v, kept %v; want %v", ms, got, g.Kept(ms), want)
		}
	}
	if g.AudioMS(50) != 30 {
		t.Errorf("audio %d ms: a silent microphone takes no time", g.AudioMS(50))
	}
}
