package codec

import "fmt"

// GSM 06.10 full rate (ETSI EN 300 961): regular pulse excitation with long-term
// prediction, in fixed point as the standard defines it bit by bit. The numbers in
// comments are its clauses.

const (
	gsmBytes   = 33 // of a frame (RFC 3551 section 4.5.8)
	gsmSamples = 160
)

var (
	gsmLARBits = [8]int{6, 6, 5, 5, 4, 4, 3, 3}
	gsmLARMin  = [8]int{-32, -32, -16, -16, -8, -8, -4, -4}                     // table 4.1
	gsmLARB    = [8]int{0, 0, 2048, -2560, 94, -1792, -341, -1144}              // table 4.1
	gsmLARInvA = [8]int{13107, 13107, 13107, 13107, 19223, 17476, 31454, 29708} // table 4.2
	gsmLTPGain = [4]int{3277, 11469, 21299, 32767}                              // table 4.3b
	gsmFactor  = [8]int{18431, 20479, 22527, 24575, 26623, 28671, 30719, 32767} // table 4.6
	gsmBlend   = [4]struct{ from, to, old, now int }{{0, 13, 3, 1}, {13, 27, 2, 2}, {27, 40, 1, 3}, {40, 160, 0, 4}}
)

// multR is the rounded product of two fractions.
func multR(a, b int) int { return sat16((a*b + 16384) >> 15) }

// gsm is the decoder of a stream.
type gsm struct {
	lar [8]int   // log area ratios of the frame before
	lag int      // of the subframe before
	drp [160]int // reconstructed short-term residual: 120 of the past, then a subframe
	v   [9]int   // of the lattice filter
	msr int      // of the de-emphasis
	wt  [160]int // residual of a frame
}

func newGSM() *gsm { return &gsm{lag: 40} }

func (*gsm) Rate() int { return 8000 }

func (*gsm) Ticks(payload []byte) int { return len(payload) / gsmBytes * gsmSamples }

func (*gsm) Close() {}

func (d *gsm) Decode(dst []int16, payload []byte) ([]int16, error) {
	if len(payload) == 0 || len(payload)%gsmBytes != 0 || d.Ticks(payload) > SamplesMax {
		return dst, fmt.Errorf("GSM payload of %d bytes: %w", len(payload), errPayload)
	}
	for at := 0; at < len(payload); at += gsmBytes {
		if payload[at]>>4 != 0xd {
			return dst, fmt.Errorf("GSM frame without its signature: %w", errPayload)
		}
	}
	out, pcm := extend(dst, d.Ticks(payload))
	for ; len(payload) > 0; payload, pcm = payload[gsmBytes:], pcm[gsmSamples:] {
		d.frame(pcm[:gsmSamples], payload[:gsmBytes])
	}
	return out, nil
}

func (d *gsm) frame(pcm []int16, frame []byte) {
	r := bitReader{b: frame, at: 4}
	var lar [8]int
	for i := range lar { // 5.2.8
		c := (r.take(gsmLARBits[i]) + gsmLARMin[i]) << 10
		c = multR(gsmLARInvA[i], sat16(c-2*gsmLARB[i]))
		lar[i] = sat16(2 * c)
	}
	for sub := range 4 {
		d.residual(&r, d.wt[40*sub:])
	}
	d.synthesis(pcm, lar)
	d.lar = lar
	for i, s := range pcm { // 5.3.5 to 5.3.7
		d.msr = sat16(int(s) + multR(d.msr, 28180))
		pcm[i] = int16(sat16(2*d.msr) &^ 7)
	}
}

// residual decodes a subframe of 40 samples (5.2.15 to 5.2.17, 5.3.2).
func (d *gsm) residual(r *bitReader, wt []int) {
	lag, gain, grid := r.take(7), r.take(2), r.take(2)
	if lag >= 40 && lag <= 120 {
		d.lag = lag
	}
	var e [40]int
	gsmPulses(r, e[grid:])
	past := d.drp[120-d.lag:]
	for k := range e {
		d.drp[120+k] = sat16(e[k] + multR(gsmLTPGain[gain], past[k]))
	}
	copy(wt, d.drp[120:])
	copy(d.drp[:120], d.drp[40:])
}

// gsmPulses puts the 13 pulses of a subframe three samples apart.
func gsmPulses(r *bitReader, e []int) {
	xmax := r.take(6)
	exp, mantissa := 0, xmax
	if xmax > 15 {
		exp = xmax>>3 - 1
		mantissa -= exp << 3
	}
	if mantissa == 0 {
		exp, mantissa = -4, 15
	}
	for mantissa <= 7 {
		mantissa = mantissa<<1 | 1
		exp--
	}
	shift, factor := 6-exp, gsmFactor[mantissa-8]
	round := 0
	if shift > 0 {
		round = 1 << (shift - 1)
	}
	for i := range 13 {
		pulse := sat16(multR(factor, (2*r.take(3)-7)<<12) + round)
		e[3*i] = pulse >> max(shift, 0)
	}
}

// synthesis filters the residual of a frame, its coefficients passing over from the
// frame before (5.2.9, 5.3.4).
func (d *gsm) synthesis(pcm []int16, lar [8]int) {
	for _, b := range gsmBlend {
		var r [8]int
		for i := range r {
			r[i] = gsmReflection(gsmMix(d.lar[i], lar[i], b.old, b.now))
		}
		for k := b.from; k < b.to; k++ {
			s := d.wt[k]
			for i := 7; i >= 0; i-- {
				s = sat16(s - multR(r[i], d.v[i]))
				d.v[i+1] = sat16(d.v[i] + multR(r[i], s))
			}
			d.v[0] = s
			pcm[k] = int16(s)
		}
	}
}

// gsmMix weighs two log area ratios by quarters, in the standard's order of shifts.
func gsmMix(old, now, oldQuarters, nowQuarters int) int {
	part := func(v, quarters int) int {
		return [5]int{0, v >> 2, v >> 1, v>>2 + v>>1, v}[quarters]
	}
	return sat16(part(old, oldQuarters) + part(now, nowQuarters))
}

// gsmReflection turns a log area ratio into a reflection coefficient (5.2.9.2).
func gsmReflection(lar int) int {
	size := sat16(max(lar, -lar))
	switch {
	case size < 11059:
		size <<= 1
	case size < 20070:
		size += 11059
	default:
		size = sat16(size>>2 + 26112)
	}
	if lar < 0 {
		return -size
	}
	return size
}
