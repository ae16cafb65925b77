package resample

import (
	"fmt"
	"math"
	"sync"
)

// The prototype is a Kaiser-windowed sinc. Bands are in parts of the lower of
// the two rates.
const (
	stopDB   = 86.0 // of the design: 80 dB and something for rounding and for ripple
	passBand = 0.45 // flat up to here

	// Upwards the response is symmetrical about half the rate: samples of the
	// input stay as they are, and what lies above passBand is mirrored into
	// 0.5 to 0.55. Downwards nothing may fold, so the stop band begins at 0.5.
	stopUp   = 1 - passBand
	stopDown = 0.5
)

// q is the number of fractional bits of a coefficient.
const q = 30

// filter is the table of one ratio; read-only once made.
type filter struct {
	up, down int     // output and input rate by their greatest common divisor
	half     int     // samples of the input on either side of an output
	taps     int     // 2*half
	coef     []int32 // up rows of taps: row p is for outputs p/up behind a sample
	exact    bool    // row 0 is the identity
}

func (f *filter) row(phase int) []int32 { return f.coef[phase*f.taps : (phase+1)*f.taps] }

// filters are the tables made so far, by ratio; they depend on nothing else
// and are never given up: Rates has few members.
var filters struct {
	sync.Mutex
	byRatio map[[2]int]*filter
}

// Rates that are understood, in Hz.
var rates = [...]int{8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000}

// Supported tells whether New takes a rate (Hz).
func Supported(rate int) bool {
	for _, r := range rates {
		if r == rate {
			return true
		}
	}
	return false
}

func filterOf(in, out int) (*filter, error) {
	if !Supported(in) || !Supported(out) {
		return nil, fmt.Errorf("resample from %d to %d Hz: want rates of %v", in, out, rates)
	}
	g := gcd(in, out)
	ratio := [2]int{out / g, in / g}
	filters.Lock()
	defer filters.Unlock()
	f := filters.byRatio[ratio]
	if f == nil {
		f = newFilter(ratio[0], ratio[1])
		if filters.byRatio == nil {
			filters.byRatio = make(map[[2]int]*filter)
		}
		filters.byRatio[ratio] = f
	}
	return f, nil
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// newFilter makes the table for outputs every down/up samples of the input.
func newFilter(up, down int) *filter {
	stop, lower := stopUp, 1.0 // lower: the lower rate by that of the input
	if down > up {
		stop, lower = stopDown, float64(up)/float64(down)
	}
	cut := (passBand + stop) * lower // twice the cut-off, by the rate of the input
	width := (stop - passBand) * lower
	half := int(math.Ceil((stopDB - 7.95) / (14.36 * width) / 2))
	half = (half + 1) / 2 * 2 // taps in fours
	f := &filter{up: up, down: down, half: half, taps: 2 * half, exact: down <= up}
	if up == down {
		f.half, f.taps = 2, 4 // the identity
	}
	f.coef = make([]int32, up*f.taps)
	for p := range up {
		f.design(f.row(p), float64(p)/float64(up), cut)
	}
	return f
}

// design fills the row for outputs frac behind a sample, with a gain of one at
// 0 Hz to the last bit, so that no row is louder than another.
func (f *filter) design(row []int32, frac, cut float64) {
	h := make([]float64, len(row))
	sum := 0.0
	for i := range h {
		x := float64(i-f.half+1) - frac
		h[i] = Sinc(cut*x) * Kaiser(x/float64(f.half), beta)
		sum += h[i]
	}
	left, largest := int64(1)<<q, 0
	for i, v := range h {
		row[i] = int32(math.Round(v / sum * (1 << q)))
		left -= int64(row[i])
		if v > h[largest] {
			largest = i
		}
	}
	row[largest] += int32(left)
}

// Sinc is sin(πx)/(πx).
func Sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	if x == math.Trunc(x) {
		return 0
	}
	return math.Sin(math.Pi*x) / (math.Pi * x)
}

// beta is that of the window for stopDB (Kaiser 1974).
const beta = 0.1102 * (stopDB - 8.7)

// Kaiser is the Kaiser window, x from -1 to 1. Beta 9 is good for about 90 dB.
func Kaiser(x, beta float64) float64 {
	if x < -1 || x > 1 {
		return 0
	}
	return bessel(beta*math.Sqrt(1-x*x)) / bessel(beta)
}

// bessel is the modified Bessel function of the first kind and order zero.
func bessel(x float64) float64 {
	sum, term := 1.0, 1.0
	for i := 1.0; i < 50; i++ {
		term *= x / (2 * i) * x / (2 * i)
		sum += term
	}
	return sum
}
