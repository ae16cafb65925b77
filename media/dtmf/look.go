package dtmf

import "math"

// look fills now with what the window shows; before is the look one hop ago.
func (d *Detector) look(now, before *look) {
	now.loose, now.sure = 0, false
	var all float64
	for i, s := range d.window {
		s *= d.hann[i]
		d.windowed[i] = s
		all += s * s
	}
	all *= d.energy
	if all < gatePower {
		now.power, now.re, now.im = [tones]float64{}, [tones]float64{}, [tones]float64{}
		return
	}
	d.filter(now, 0)
	d.filter(now, rows)

	row, column := strongest(now.power[:rows]), rows+strongest(now.power[rows:])
	low, high := now.power[row], now.power[column]
	if low+high < pureLoose*all {
		return
	}
	now.loose = digits[row*rows+column-rows]
	if low < tonePower || high < tonePower || high > highAboveMax*low || low > lowAboveMax*high {
		return
	}
	now.low, now.high = d.deviation(now, before, row), d.deviation(now, before, column)
	if math.Abs(now.low) > deviationMax || math.Abs(now.high) > deviationMax {
		return
	}
	now.sure = low/d.passed(row, now.low)+high/d.passed(column, now.high) >= pureStrict*all
}

// filter runs the Goertzel filters of four tones side by side, which hides the
// latency of each one's recursion.
func (d *Detector) filter(l *look, k int) {
	ca, cb, cc, cd := d.coef[k], d.coef[k+1], d.coef[k+2], d.coef[k+3]
	var a1, a2, b1, b2, c1, c2, d1, d2 float64
	for _, x := range d.windowed {
		a1, a2 = (x-a2)+ca*a1, a1
		b1, b2 = (x-b2)+cb*b1, b1
		c1, c2 = (x-c2)+cc*c1, c1
		d1, d2 = (x-d2)+cd*d1, d1
	}
	for i, s := range [rows][2]float64{{a1, a2}, {b1, b2}, {c1, c2}, {d1, d2}} {
		re, im := s[0]-s[1]*d.cos[k+i], s[1]*d.sin[k+i]
		l.re[k+i], l.im[k+i] = re, im
		l.power[k+i] = (re*re + im*im) * d.gain[k+i]
	}
}

func strongest(power []float64) int {
	best := 0
	for i, p := range power {
		if p > power[best] {
			best = i
		}
	}
	return best
}

// deviation is how far the frequency of a tone is from the nominal one, relative
// to that, by the phase that the tone gained in a hop.
func (d *Detector) deviation(now, before *look, k int) float64 {
	re := now.re[k]*before.re[k] + now.im[k]*before.im[k]
	im := now.im[k]*before.re[k] - now.re[k]*before.im[k]
	if re == 0 && im == 0 { // the first look after silence has nothing to compare with
		return 1
	}
	return math.Remainder(math.Atan2(im, re)-d.turn[k], 2*math.Pi) / d.turn[k]
}

// passed is the part of a tone's power that the filter passes when the tone is
// so far off its middle: (sinc(u)/(1-u²))² for a Hann window, u being in units
// of one period per window.
func (d *Detector) passed(k int, deviation float64) float64 {
	u := deviation * d.turn[k] * windowHops / (2 * math.Pi)
	if math.Abs(u) < 1e-3 {
		return 1
	}
	g := math.Sin(math.Pi*u) / (math.Pi * u * (1 - u*u))
	return g * g
}

// steadiness is how one tone behaves from look to look.
type steadiness struct {
	n, sum          float64 // of the deviations
	lowest, highest float64 // deviation
	least, most     float64 // power
}

func (s *steadiness) add(deviation, power float64) {
	if s.n == 0 {
		s.lowest, s.highest, s.least, s.most = deviation, deviation, power, power
	}
	s.n++
	s.sum += deviation
	s.lowest, s.highest = min(s.lowest, deviation), max(s.highest, deviation)
	s.least, s.most = min(s.least, power), max(s.most, power)
}

func (s *steadiness) good() bool {
	return math.Abs(s.sum) <= s.n*meanMax && s.highest-s.lowest <= wanderMax && s.most <= swellMax*s.least
}
