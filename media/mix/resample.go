package mix

import (
	"math"

	"github.com/trunktap/trunktap/media/resample"
)

// The fractional resampler: a windowed sinc of taps samples in phases steps
// between two samples, with linear interpolation between neighbouring phases.
// At phase 0 it is the identity, so that copying and resampling join seamlessly.
const (
	taps   = 32
	phases = 256
	before = taps/2 - 1 // taps before the sample that the phase counts from
)

var kernel = func() (k [phases + 1][taps]float32) {
	for p := range k {
		frac := float64(p) / phases
		for i := range k[p] {
			x := float64(i-before) - frac
			k[p][i] = float32(resample.Sinc(x) * resample.Kaiser(x/(taps/2), 9))
		}
	}
	return k
}()

// interpolate returns the sample frac/2^32 after x[before].
func interpolate(x *[taps]int16, frac uint32) int16 {
	const step = 1 << 32 / phases
	p, part := frac/step, float32(frac%step)/step
	a, b := &kernel[p], &kernel[p+1]
	var sa, sb float32
	for i, v := range x {
		f := float32(v)
		sa += a[i] * f
		sb += b[i] * f
	}
	y := sa + (sb-sa)*part
	y = max(min(y, math.MaxInt16), math.MinInt16)
	return int16(math.RoundToEven(float64(y)))
}
