package codec

import "math"

// g729LSF decodes line spectral frequencies (3.2.4): two stages of vectors behind a
// moving average predictor, one of two.
type g729LSF struct {
	past [4][10]float64 // vectors, newest first
	last [10]float64    // frequencies of the frame before, radians
	mode int            // its predictor
}

const (
	g729GapWide   = 0.0012 // between neighbours of a vector
	g729GapNarrow = 0.0006
	g729GapLast   = 0.0391 // between neighbouring frequencies
	g729LSFMin    = 0.005
	g729LSFMax    = 3.135
)

func (l *g729LSF) reset() {
	for i := range l.last {
		l.last[i] = float64(i+1) * math.Pi / 11
	}
	for i := range l.past {
		l.past[i] = l.last
	}
}

func (l *g729LSF) decode(r *bitReader) {
	mode, first, low, high := r.take(1), r.take(7), r.take(5), r.take(5)
	v := g729Vector(first, low, high)
	g729Spread(&v, g729GapWide)
	g729Spread(&v, g729GapNarrow)
	l.mode = mode
	l.compose(v, g729Weight)
}

// silence decodes the frequencies of a silence description (Annex B): fewer vectors,
// and one predictor that is a mixture.
func (l *g729LSF) silence(r *bitReader) {
	mode, first, second := r.take(1), r.take(5), r.take(4)
	v := g729Vector(int(g729SID1[first]), int(g729SID2[0][second]), int(g729SID2[1][second]))
	g729Spread(&v, g729GapWide)
	l.mode = mode
	l.compose(v, g729NoiseWeight)
}

// g729Vector adds up the stages.
func g729Vector(first, low, high int) (v [10]float64) {
	for i := range v {
		second := low
		if i >= 5 {
			second = high
		}
		v[i] = float64(int(g729LSF1[first][i])+int(g729LSF2[second][i])) / 8192
	}
	return v
}

// g729Spread moves neighbours apart that are nearer than gap.
func g729Spread(v *[10]float64, gap float64) {
	for i := 1; i < len(v); i++ {
		if by := (v[i-1] - v[i] + gap) / 2; by > 0 {
			v[i-1] -= by
			v[i] += by
		}
	}
}

// g729Weight is the k-th coefficient of a predictor.
func g729Weight(mode, k, i int) float64 { return float64(g729LSFPredictor[mode][k][i]) / 32768 }

func g729NoiseWeight(mode, k, i int) float64 {
	if mode == 0 {
		return g729Weight(0, k, i)
	}
	return 0.6*g729Weight(0, k, i) + 0.4*g729Weight(1, k, i)
}

// compose predicts, and keeps the frequencies apart and in bounds, so that the filter
// is stable.
func (l *g729LSF) compose(v [10]float64, weight func(mode, k, i int) float64) {
	for i := range v {
		rest, f := 1.0, 0.0
		for k := range l.past {
			w := weight(l.mode, k, i)
			rest -= w
			f += w * l.past[k][i]
		}
		l.last[i] = f + rest*v[i]
	}
	l.remember(v)
	for i := 1; i < 10; i++ {
		if l.last[i] < l.last[i-1] {
			l.last[i], l.last[i-1] = l.last[i-1], l.last[i]
		}
	}
	l.last[0] = max(l.last[0], g729LSFMin)
	for i := 1; i < 10; i++ {
		l.last[i] = max(l.last[i], l.last[i-1]+g729GapLast)
	}
	l.last[9] = min(l.last[9], g729LSFMax)
}

// erased keeps the frequencies, and takes into the predictor the vector that they
// would have come from (4.4.1).
func (l *g729LSF) erased() {
	var v [10]float64
	for i := range v {
		rest, f := 1.0, l.last[i]
		for k := range l.past {
			w := g729Weight(l.mode, k, i)
			rest -= w
			f -= w * l.past[k][i]
		}
		v[i] = f / rest
	}
	l.remember(v)
}

func (l *g729LSF) remember(v [10]float64) {
	copy(l.past[1:], l.past[:3])
	l.past[0] = v
}

// g729Noise is what is known of the noise while nobody speaks (Annex B).
type g729Noise struct {
	on         bool // the last frame was one of noise
	lsf        [10]float64
	told, gain float64 // of the excitation: by the last description, and now
	seed       uint32
}

// describe reads a silence description.
func (n *g729Noise) describe(l *g729LSF, r *bitReader) {
	l.silence(r)
	n.lsf = l.last
	n.told = g729NoiseGain(r.take(5))
}

// g729NoiseGain decodes the root mean square of the excitation: in steps of 4 dB, from
// 16 dB on of 2 dB.
func g729NoiseGain(code int) float64 {
	db := float64(16 + 2*(code-6))
	switch {
	case code == 0:
		db = -12
	case code < 6:
		db = float64(4*code - 8)
	}
	return math.Pow(10, db/20)
}

// white returns a random number of mean 0 and variance 1.
func (n *g729Noise) white() float64 {
	v := 0.0
	for range 3 {
		n.seed = n.seed*1664525 + 1013904223
		v += float64(n.seed>>8)/(1<<23) - 1
	}
	return v
}

// comfort makes a frame of noise; its level passes over slowly to that of a new
// description.
func (d *g729) comfort() {
	n := &d.noise
	if n.on {
		n.gain = 0.875*n.gain + 0.125*n.told
	} else {
		n.gain = n.told
	}
	n.on = true
	a := d.filters(n.lsf)
	d.sharp = 0.2
	for sub := range 2 {
		for i := range g729Subframe {
			d.exc[g729Past+sub*g729Subframe+i] = n.gain * n.white()
		}
		d.synthesize(sub, a[sub], false)
	}
	d.shift()
}
