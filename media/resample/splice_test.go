package resample

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// TestSplice: what lies on the far side of a change of rate, for every pair of
// rates, is the tone that went on.
func TestSplice(t *testing.T) {
	const hz, n = 500.0, 40
	at := func(rate, i int) float64 { return 20000 * math.Sin(2*math.Pi*hz*float64(i)/float64(rate)) }
	for _, p := range pairs() {
		from, to := p[0], p[1]
		past, pcm := make([]int16, from/50), make([]int16, to/50)
		for i := range past {
			past[i] = int16(math.Round(at(from, i-len(past))))
		}
		for i := range pcm {
			pcm[i] = int16(math.Round(at(to, i)))
		}
		after, before, err := Splice(past, from, pcm, to, n)
		if err != nil || len(after) != n || len(before) != n {
			t.Fatalf("%v: %d after, %d before, %v", p, len(after), len(before), err)
		}
		worst := 0.0
		for i := range n {
			worst = max(worst, math.Abs(float64(after[i])-at(from, i)), math.Abs(float64(before[i])-at(to, i-n)))
		}
		if worst > 20000*0.02 { // 44.1 kHz and its parts lie on lines between samples
			t.Errorf("%v: %.0f off", p, worst)
		}
	}
}

// TestSpliceOfLittle: any lengths, none included, give no more than asked for.
func TestSpliceOfLittle(t *testing.T) {
	all := pairs()
	rapid.Check(t, func(rt *rapid.T) {
		p := rapid.SampledFrom(all).Draw(rt, "rates")
		past := rapid.SliceOfN(rapid.Int16(), 0, 300).Draw(rt, "past")
		pcm := rapid.SliceOfN(rapid.Int16(), 0, 300).Draw(rt, "pcm")
		n := rapid.IntRange(0, 400).Draw(rt, "n")
		after, before, err := Splice(past, p[0], pcm, p[1], n)
		if err != nil || len(after) > n || len(before) > n {
			rt.Fatalf("%d after, %d before, %v", len(after), len(before), err)
		}
	})
	if _, _, err := Splice(nil, 8000, nil, 12345, 1); err == nil {
		t.Error("an unknown rate was taken")
	}
}
