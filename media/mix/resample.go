package mix

import "math"

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
			k[p][i] = float32(sinc(x) * kaiser(x/(taps/2)))
		}
	}
	return k
}()

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	if x == math.Trunc(x) {
		return 0
	}
	return math.Sin(math.Pi*x) / (math.Pi * x)
}

// kaiser is the Kaiser window with beta 9 (about 90 dB), x from -1 to 1.
func kaiser(x float64) float64 {
	if x <= -1 || x >= 1 {
		return 0
	}
	const beta = 9
	return bessel(beta*math.Sqrt(1-x*x)) / bessel(beta)
}

// bessel is the modified Bessel function of the first kind and order zero.
func bessel(x float64) float64 {
	sum, term := 1.0, 1.0
	for i := 1.0; i < 40; i++ {
		term *= x / (2 * i) * x / (2 * i)
		sum += term
	}
	return sum
}

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
