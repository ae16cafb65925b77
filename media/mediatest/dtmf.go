package mediatest

import (
	"math"
	"strings"
)

// DTMF makes digits in band (ITU-T Q.23). The zero value of all but Rate is a
// digit with 0 dBm0 in each tone, on the nominal frequencies.
type DTMF struct {
	Rate      int     // Hz
	Low, High float64 // level of the row's and of the column's tone in dBm0, +3.17 being a full sine

	LowOff, HighOff float64 // deviation of the frequencies, 0.01 is 1 % too high
	Phase           float64 // of the row's tone at its first sample, radians; the column's is twice that
}

// Add adds the tones of digit, one of 0123456789*#ABCD, to all of dst. What
// goes beyond 16 bits is clipped.
func (g DTMF) Add(dst []int16, digit byte) {
	i := strings.IndexByte("123A456B789C*0#D", digit)
	low := []float64{697, 770, 852, 941}[i/4] * (1 + g.LowOff) * 2 * math.Pi / float64(g.Rate)
	high := []float64{1209, 1336, 1477, 1633}[i%4] * (1 + g.HighOff) * 2 * math.Pi / float64(g.Rate)
	a, b := Amplitude(g.Low), Amplitude(g.High)
	for n := range dst {
		t := float64(n)
		v := float64(dst[n]) + a*math.Sin(low*t+g.Phase) + b*math.Sin(high*t+2*g.Phase)
		dst[n] = int16(math.Round(max(math.MinInt16, min(math.MaxInt16, v))))
	}
}

// Amplitude returns the peak in sample units of a sine of so many dBm0, after
// G.711 μ-law, in which a full sine is +3.17 dBm0.
func Amplitude(dBm0 float64) float64 { return 32768 * math.Pow(10, (dBm0-3.17)/20) }
