package codec

import (
	"fmt"
	"math"
	"math/bits"
)

// ITU-T G.729 with Annex A (reduced complexity: its postfilter) and Annex B (silence
// descriptions), CS-ACELP at 8 kbit/s, in floating point: what Annex C does for
// encoder and decoder. The numbers in comments are clauses of the Recommendation.

const (
	g729Bytes    = 10 // of a frame of 10 ms (RFC 3551 section 4.5.6)
	g729SIDBytes = 2
	g729Frame    = 80
	g729Subframe = 40
	g729LagMin   = 20
	g729LagMax   = 143
	g729Past     = g729LagMax + 11 // samples of excitation that a lag and its filter reach back
	g729ErasedMS = 200             // of a gap that the decoder continues
)

// lpc are the coefficients of a filter of order 10, the first of which is 1.
type lpc [11]float64

// g729 is the decoder of a stream.
type g729 struct {
	conceal bool

	lsf    g729LSF
	lsp    [10]float64 // of the frame before, as cosines
	exc    [g729Past + g729Frame]float64
	lag    int        // whole part, of the subframe before
	sharp  float64    // by which the pitch goes into the fixed codebook
	gp, gc float64    // gains of the subframe before
	u      [4]float64 // of the gain predictor, newest first, in dB
	seed   int16      // of what stands for an erased frame's pulses

	noise   g729Noise
	erased  int // frames in a row
	syn     [10 + g729Frame]float64
	post    g729Post
	highs   biquad
	decoded [g729Frame]float64
}

func newG729(o DecoderOptions) *g729 {
	d := &g729{
		conceal: o.Conceal, lag: 60, sharp: 0.2, seed: 21845,
		u: [4]float64{-14, -14, -14, -14},
		// a high-pass at 100 Hz (4.2.5)
		highs: biquad{b: [3]float64{0.93980581, -1.8795834, 0.93980581}, a: [2]float64{1.9330735, -0.93589199}},
	}
	d.lsf.reset()
	for i, v := range d.lsf.last {
		d.lsp[i] = math.Cos(v)
	}
	d.noise.seed = 11111
	d.post.gain = 1
	return d
}

func (*g729) Rate() int { return 8000 }

func (*g729) Close() {}

// Ticks counts speech frames, and a silence description behind them as one more.
func (*g729) Ticks(payload []byte) int {
	frames, rest := len(payload)/g729Bytes, len(payload)%g729Bytes
	if rest == g729SIDBytes {
		frames++
	} else if rest != 0 {
		return 0
	}
	if frames > SamplesMax/g729Frame {
		return 0
	}
	return frames * g729Frame
}

func (d *g729) Decode(dst []int16, payload []byte) ([]int16, error) {
	samples := d.Ticks(payload)
	if samples == 0 {
		return dst, fmt.Errorf("G.729 payload of %d bytes: %w", len(payload), errPayload)
	}
	dst, pcm := extend(dst, samples)
	d.erased = 0
	for ; len(pcm) > 0; pcm = pcm[g729Frame:] {
		if len(payload) >= g729Bytes {
			d.speech(&bitReader{b: payload[:g729Bytes]})
			payload = payload[g729Bytes:]
		} else {
			d.noise.describe(&d.lsf, &bitReader{b: payload})
			d.comfort()
		}
		d.write(pcm)
	}
	return dst, nil
}

// Conceal goes on with what the last good frame told (4.4), for g729ErasedMS, or with
// the noise of a silence description.
func (d *g729) Conceal(dst []int16, samples int) []int16 {
	dst, pcm := extend(dst, min(max(samples, 0), SamplesMax))
	for len(pcm) > 0 {
		var frame [g729Frame]int16
		switch {
		case d.noise.on:
			d.comfort()
			d.write(frame[:])
		case d.erased < g729ErasedMS/10:
			d.erased++
			d.speech(nil)
			d.write(frame[:])
		}
		if !d.conceal {
			clear(frame[:])
		}
		pcm = pcm[copy(pcm, frame[:]):]
	}
	return dst
}

// write filters what was decoded and rounds it; the codec works at half the level.
func (d *g729) write(pcm []int16) {
	for i, v := range &d.decoded {
		pcm[i] = toSample(2 * d.highs.filter(v))
	}
}

func toSample(v float64) int16 { return int16(max(-32768, min(math.RoundToEven(v), 32767))) }

// g729Subcode are the parameters of a subframe.
type g729Subcode struct {
	lag, third   int // the pitch lag is lag + third/3 samples
	pulses, sign int
	ga, gb       int
}

// speech decodes a frame of speech; without bits it was erased.
func (d *g729) speech(r *bitReader) {
	d.noise.on = false
	if r == nil {
		d.lsf.erased()
	} else {
		d.lsf.decode(r)
	}
	a := d.filters(d.lsf.last)
	for sub := range 2 {
		var c g729Subcode
		if r == nil {
			c.lag, c.pulses, c.sign = d.nextLag(), int(d.random())&0x1fff, int(d.random())&0xf
		} else {
			c = d.subcode(r, sub)
		}
		d.excite(d.exc[:g729Past+sub*g729Subframe+g729Subframe], c, r == nil)
		d.synthesize(sub, a[sub], true)
	}
	d.shift()
}

// filters returns the synthesis filters of both subframes: the first one's is half
// way from the frame before (3.2.5).
func (d *g729) filters(lsf [10]float64) (a [2]lpc) {
	var middle [10]float64
	for i, v := range lsf {
		q := math.Cos(v)
		middle[i] = (d.lsp[i] + q) / 2
		d.lsp[i] = q
	}
	return [2]lpc{lspToLPC(middle), lspToLPC(d.lsp)}
}

// lspToLPC turns line spectral pairs, as cosines, into the predictor (3.2.6).
func lspToLPC(lsp [10]float64) (a lpc) {
	half := func(from int) (f [6]float64) {
		f[0] = 1
		for i := 1; i <= 5; i++ {
			b := -2 * lsp[from+2*(i-1)]
			f[i] = b * f[i-1]
			if i > 1 {
				f[i] += 2 * f[i-2]
			}
			for j := i - 1; j > 1; j-- {
				f[j] += b*f[j-1] + f[j-2]
			}
			if i > 1 {
				f[1] += b
			}
		}
		return f
	}
	f1, f2 := half(0), half(1)
	a[0] = 1
	for i := 1; i <= 5; i++ {
		sum, difference := f1[i]+f1[i-1], f2[i]-f2[i-1]
		a[i], a[11-i] = (sum+difference)/2, (sum-difference)/2
	}
	return a
}

// nextLag is the lag of what is not known: that of before, a little longer each time.
func (d *g729) nextLag() int {
	lag := d.lag
	d.lag = min(d.lag+1, g729LagMax)
	return lag
}

func (d *g729) random() int16 {
	d.seed = int16(int32(d.seed)*31821 + 13849)
	return d.seed
}

// subcode reads the parameters of a subframe (table 8) and decodes the lag (4.1.3).
func (d *g729) subcode(r *bitReader, sub int) (c g729Subcode) {
	if sub == 0 {
		p := r.take(8)
		odd := bits.OnesCount(uint(p>>2)) + r.take(1)
		switch {
		case odd&1 == 0: // the parity bit is wrong
			c.lag = d.nextLag()
		case p < 197:
			c.lag = (p+2)/3 + 19
			c.third = p - 3*c.lag + 58
			d.lag = c.lag
		default:
			c.lag = p - 112
			d.lag = c.lag
		}
	} else {
		p := r.take(5)
		low := clamp(d.lag-5, g729LagMin, g729LagMax-9)
		step := (p+2)/3 - 1
		c.lag, c.third = step+low, p-2-3*step
		d.lag = c.lag
	}
	c.pulses, c.sign = r.take(13), r.take(4)
	c.ga, c.gb = r.take(3), r.take(4)
	return c
}

// excite makes the excitation of a subframe, the last of exc.
func (d *g729) excite(exc []float64, c g729Subcode, erased bool) {
	now := exc[len(exc)-g729Subframe:]
	g729Adaptive(exc, c.lag, c.third)
	var code [g729Subframe]float64
	for i := range 4 { // 3.8
		at := c.pulses >> (3 * i) & 7 * 5
		if i < 3 {
			at += i
		} else {
			at = c.pulses>>10&7*5 + 3 + c.pulses>>9&1
		}
		code[at]--
		if c.sign>>i&1 == 1 {
			code[at] += 2
		}
	}
	for i := c.lag; i < g729Subframe; i++ {
		code[i] += d.sharp * code[i-c.lag]
	}
	if erased {
		d.gp, d.gc = min(0.9, 0.9*d.gp), 0.98*d.gc // 4.4.2
		u := (d.u[0]+d.u[1]+d.u[2]+d.u[3])/4 - 4   // 4.4.3
		d.remember(max(u, -14))
	} else {
		d.gains(&code, c)
	}
	d.sharp = max(0.2, min(d.gp, 0.7945))
	for i := range now {
		now[i] = max(-32768, min(d.gp*now[i]+d.gc*code[i], 32767))
	}
}

// g729Adaptive fills the last subframe of exc with what was lag + third/3 samples
// before (3.7.1).
func g729Adaptive(exc []float64, lag, third int) {
	at := len(exc) - g729Subframe
	phase := -third
	from := at - lag
	if phase < 0 {
		phase += 3
		from--
	}
	for n := range g729Subframe {
		v := 0.0
		for i := range 10 {
			v += exc[from+n-i] * g729Interpolation[phase+3*i]
			v += exc[from+n+1+i] * g729Interpolation[3-phase+3*i]
		}
		exc[at+n] = v / 32768
	}
}

// gains decodes both gains; that of the fixed codebook is predicted from the energies
// before (3.9).
func (d *g729) gains(code *[g729Subframe]float64, c g729Subcode) {
	energy := 0.0
	for _, v := range code {
		energy += v * v
	}
	predicted := 30 - 10*math.Log10(energy/g729Subframe)
	for i, b := range [4]float64{0.68, 0.58, 0.34, 0.19} {
		predicted += b * d.u[i]
	}
	correction := float64(int(g729Gain1[c.ga][1])+int(g729Gain2[c.gb][1])) / 8192
	d.gp = float64(int(g729Gain1[c.ga][0])+int(g729Gain2[c.gb][0])) / 16384
	d.gc = correction * math.Pow(10, predicted/20)
	d.remember(20 * math.Log10(correction))
}

func (d *g729) remember(u float64) {
	copy(d.u[1:], d.u[:3])
	d.u[0] = u
}

// synthesize filters the excitation of a subframe and enhances it.
func (d *g729) synthesize(sub int, a lpc, voiced bool) {
	exc := d.exc[g729Past+sub*g729Subframe:]
	syn := d.syn[sub*g729Subframe : 10+(sub+1)*g729Subframe]
	for n := range g729Subframe {
		v := exc[n]
		for i := 1; i <= 10; i++ {
			v -= a[i] * syn[10+n-i]
		}
		syn[10+n] = max(-32768, min(v, 32767))
	}
	lag := d.lag
	if !voiced {
		lag = 0
	}
	d.post.filter(d.decoded[sub*g729Subframe:(sub+1)*g729Subframe], syn, a, lag)
}

// shift ends a frame.
func (d *g729) shift() {
	copy(d.exc[:], d.exc[g729Frame:])
	copy(d.syn[:10], d.syn[g729Frame:])
}

// biquad is a filter of second order; a are the coefficients of its feedback.
type biquad struct {
	b    [3]float64
	a, y [2]float64
	x    [2]float64
}

func (f *biquad) filter(x float64) float64 {
	y := f.b[0]*x + f.b[1]*f.x[0] + f.b[2]*f.x[1] + f.a[0]*f.y[0] + f.a[1]*f.y[1]
	f.x[1], f.x[0] = f.x[0], x
	f.y[1], f.y[0] = f.y[0], y
	return y
}
