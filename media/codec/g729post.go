package codec

import "math"

// g729Post is the postfilter of Annex A (clause A.4.2): it makes the pitch and the
// formants stand out, levels the tilt that this causes, and keeps the power.
type g729Post struct {
	residual [g729LagMax + g729Subframe]float64
	tilt     float64     // the sample before
	out      [10]float64 // of the formant filter, oldest first
	gain     float64
}

const (
	g729PostZeros = 0.55 // how far the formants are flattened
	g729PostPoles = 0.70
	g729PostPitch = 0.5
	g729PostTilt  = 0.8
	g729PostTaps  = 22 // of the response that tells of the tilt
	g729PostGain  = 0.9
)

// widen moves the poles of a filter towards the origin.
func (a lpc) widen(by float64) lpc {
	f := by
	for i := 1; i < len(a); i++ {
		a[i] *= f
		f *= by
	}
	return a
}

// filter enhances a subframe of syn, which lies behind ten samples of the past; the
// pitch lag is 0 where there is no pitch.
func (p *g729Post) filter(pcm, syn []float64, a lpc, lag int) {
	zeros, poles := a.widen(g729PostZeros), a.widen(g729PostPoles)
	now := p.residual[g729LagMax:]
	for n := range now {
		v := 0.0
		for i, c := range zeros {
			v += c * syn[10+n-i]
		}
		now[n] = v
	}
	p.pitch(pcm, lag)
	copy(p.residual[:], p.residual[g729Subframe:])

	mu := g729Tilt(zeros, poles)
	for n, v := range pcm {
		pcm[n], p.tilt = v-mu*p.tilt, v
	}
	var out [10 + g729Subframe]float64
	copy(out[:], p.out[:])
	for n := range pcm {
		v := pcm[n]
		for i := 1; i <= 10; i++ {
			v -= poles[i] * out[10+n-i]
		}
		out[10+n], pcm[n] = v, v
	}
	copy(p.out[:], out[g729Subframe:])
	p.level(pcm, syn[10:])
}

// pitch adds to the residual what was a period before (A.4.2.1), with the lag near
// the decoded one at which they are most alike.
func (p *g729Post) pitch(pcm []float64, lag int) {
	now := p.residual[g729LagMax:]
	copy(pcm, now)
	if lag == 0 {
		return
	}
	best, most := 0, math.Inf(-1)
	high := min(lag+3, g729LagMax)
	for k := high - 6; k <= high; k++ {
		c := 0.0
		for n, v := range now {
			c += v * p.residual[g729LagMax+n-k]
		}
		if c > most {
			best, most = k, c
		}
	}
	before := p.residual[g729LagMax-best:]
	var energy, power float64
	for n, v := range now {
		energy += before[n] * before[n]
		power += v * v
	}
	if most <= 0 || most*most < energy*power/2 {
		return
	}
	g := g729PostPitch * min(most/energy, 1)
	for n := range pcm {
		pcm[n] = (now[n] + g*before[n]) / (1 + g)
	}
}

// g729Tilt is by how much the formant filter lowers the highs (A.4.2.3).
func g729Tilt(zeros, poles lpc) float64 {
	var h [g729PostTaps]float64
	for n := range h {
		if n < len(zeros) {
			h[n] = zeros[n]
		}
		for i := 1; i <= min(n, 10); i++ {
			h[n] -= poles[i] * h[n-i]
		}
	}
	var r0, r1 float64
	for n, v := range h {
		r0 += v * v
		if n > 0 {
			r1 += v * h[n-1]
		}
	}
	return g729PostTilt * max(r1, 0) / r0
}

// level gives the samples the power of what was not filtered (A.4.2.4).
func (p *g729Post) level(pcm, syn []float64) {
	var in, out float64
	for n, v := range pcm {
		in += syn[n] * syn[n]
		out += v * v
	}
	g := 0.0
	if out > 0 {
		g = math.Sqrt(in / out)
	}
	for n := range pcm {
		p.gain = g729PostGain*p.gain + (1-g729PostGain)*g
		pcm[n] *= p.gain
	}
}
