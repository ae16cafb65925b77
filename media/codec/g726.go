package codec

import (
	"fmt"
	"math/bits"
	"strings"
)

// ITU-T G.726 (12/1990): ADPCM at 16, 24, 32 and 40 kbit/s, decoded to linear
// samples. The names in capitals are the blocks of the Recommendation's clause 4.2;
// its formats: 11 bits of floating point for what the predictor keeps.

// g726Law is what differs between the bit rates; magnitudes of codes index it.
type g726Law struct {
	bits  int
	ln    []int // logarithm of the quantized difference (table 7 and following); g726Zero: none
	scale []int // scale factor multiplier W(I)
	speed []int // F(I)
}

const g726Zero = -2048

var g726Laws = map[int]*g726Law{
	16: {2, []int{116, 365}, []int{-22, 439}, []int{0, 7}},
	24: {3, []int{g726Zero, 135, 273, 373}, []int{-4, 30, 137, 582}, []int{0, 1, 2, 7}},
	32: {4, []int{g726Zero, 4, 135, 213, 273, 323, 373, 425}, []int{-12, 18, 41, 64, 112, 198, 355, 1122}, []int{0, 0, 0, 1, 1, 1, 3, 7}},
	40: {
		5,
		[]int{g726Zero, -66, 28, 104, 169, 224, 274, 318, 358, 395, 429, 459, 488, 514, 539, 566},
		[]int{14, 14, 24, 39, 40, 41, 58, 100, 141, 179, 219, 280, 358, 440, 529, 696},
		[]int{0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 6},
	},
}

// g726Float is a value of the predictor's memory: sign, exponent, mantissa of 6 bits.
type g726Float struct {
	negative bool
	exp, man int
}

// toFloat is FLOATA and FLOATB.
func toFloat(negative bool, magnitude int) g726Float {
	f := g726Float{negative: negative, man: 32}
	if magnitude != 0 {
		f.exp = bits.Len(uint(magnitude))
		f.man = magnitude << 6 >> f.exp
	}
	return f
}

// times multiplies by a predictor coefficient (FMULT).
func (f g726Float) times(coefficient int) int {
	c := coefficient >> 2
	magnitude := c
	if c < 0 {
		magnitude = -c & 0x1fff
	}
	by := toFloat(false, magnitude)
	product := (by.man*f.man + 48) >> 4
	if exp := by.exp + f.exp - 19; exp >= 0 {
		product = product << exp & 0x7fff
	} else {
		product >>= min(-exp, 63)
	}
	if f.negative != (c < 0) {
		return -product
	}
	return product
}

// g726 is the decoder of a stream.
type g726 struct {
	law *g726Law
	// lsb: the first sample lies in the low bits of an octet (RFC 3551 section
	// 4.5.4), else in the high ones (AAL2-G726, ITU-T I.366.2).
	lsb bool

	yu, yl       int // scale factor, fast and slow
	dms, dml, ap int // speed control
	td           bool
	a            [2]int // coefficients of the poles
	b            [6]int // coefficients of the zeros
	pk           [2]bool
	sr           [2]g726Float // reconstructed signal, newest first
	dq           [6]g726Float // quantized differences, newest first
}

// g726Name reads an encoding name: the rate in kbit/s, 0 when it is no G.726.
func g726Name(name string) (kbps int, lsb bool) {
	plain, aal2 := strings.CutPrefix(name, "AAL2-")
	switch plain {
	case "G726-16":
		return 16, !aal2
	case "G726-24":
		return 24, !aal2
	case "G726-32":
		return 32, !aal2
	case "G726-40":
		return 40, !aal2
	}
	return 0, false
}

func newG726(kbps int, lsb bool) *g726 {
	d := &g726{law: g726Laws[kbps], lsb: lsb, yu: 544, yl: 34816}
	for i := range d.sr {
		d.sr[i] = toFloat(false, 0)
	}
	for i := range d.dq {
		d.dq[i] = toFloat(false, 0)
	}
	return d
}

func (*g726) Rate() int { return 8000 }

func (d *g726) Ticks(payload []byte) int { return len(payload) * 8 / d.law.bits }

func (*g726) Close() {}

func (d *g726) Decode(dst []int16, payload []byte) ([]int16, error) {
	samples := d.Ticks(payload)
	if samples > SamplesMax {
		return dst, fmt.Errorf("G.726 payload of %d bytes: %w", len(payload), errPayload)
	}
	dst, pcm := extend(dst, samples)
	held, have := 0, 0 // bits taken from the payload and not yet used
	for i := range pcm {
		if have < d.law.bits {
			if d.lsb {
				held |= int(payload[0]) << have
			} else {
				held = held<<8 | int(payload[0])
			}
			payload, have = payload[1:], have+8
		}
		have -= d.law.bits
		code := held & (1<<d.law.bits - 1)
		if d.lsb {
			held >>= d.law.bits
		} else {
			code = held >> have
			held &= 1<<have - 1
		}
		pcm[i] = d.sample(code)
	}
	return dst, nil
}

// sample decodes one code.
func (d *g726) sample(code int) int16 {
	sign := 1 << (d.law.bits - 1)
	negative := code&sign != 0
	if negative {
		code ^= 2*sign - 1
	}
	sez := 0
	for i := range d.b {
		sez += d.dq[i].times(d.b[i])
	}
	se := (sez + d.sr[0].times(d.a[0]) + d.sr[1].times(d.a[1])) >> 1 // ACCUM
	sez >>= 1
	y := d.stepSize()
	dq := antilog(d.law.ln[code] + y>>2) // ADDA, ANTILOG
	signed := dq
	if negative {
		signed = -dq
	}
	sr := int(int16(se + signed)) // ADDB, which wraps around in overload
	d.adapt(y, code, negative, dq, sr, int(int16(signed+sez)))
	return int16(sat16(sr * 4))
}

// antilog turns a logarithm into a magnitude; less than zero is none.
func antilog(dql int) int {
	if dql < 0 {
		return 0
	}
	return (128 + dql&127) << 7 >> (14 - dql>>7&15)
}

// stepSize mixes the fast and the slow scale factor (LIMA, MIX).
func (d *g726) stepSize() int {
	if d.ap >= 256 {
		return d.yu
	}
	y := d.yl >> 6
	product := (d.yu - y) * (d.ap >> 2)
	if product < 0 {
		product += 63
	}
	return y + product>>6
}

// adapt moves everything on by one sample. dqsez is the quantized difference and
// the prediction of the zeros (ADDC).
func (d *g726) adapt(y, code int, negative bool, dq, sr, dqsez int) {
	transition := d.transition(dq)
	d.yu = clamp(y+(d.law.scale[code]<<5-y)>>5, 544, 5120) // FUNCTW, FILTD, LIMB
	d.yl += d.yu + -d.yl>>6                                // FILTE
	pk := dqsez < 0
	if transition {
		d.a, d.b = [2]int{}, [6]int{} // TRIGB
	} else {
		d.poles(pk, dqsez != 0)
		d.zeros(negative, dq != 0)
	}
	copy(d.dq[1:], d.dq[:5])
	d.dq[0] = toFloat(negative, dq)
	d.sr[1] = d.sr[0]
	if d.sr[0] = toFloat(sr < 0, max(sr, -sr)); sr <= -32768 {
		d.sr[0] = toFloat(true, 0)
	}
	d.pk[1], d.pk[0] = d.pk[0], pk
	d.td = !transition && d.a[1] < -11776 // TONE
	d.speed(d.law.speed[code]<<9, y, transition)
}

// transition tells whether a tone ended (TRANS).
func (d *g726) transition(dq int) bool {
	whole, fraction := d.yl>>15, d.yl>>10&31
	threshold := (32 + fraction) << whole
	if whole > 9 {
		threshold = 31 << 10
	}
	return d.td && dq > (threshold+threshold>>1)>>1
}

// poles adapts the pole section (UPA2, LIMC, UPA1, LIMD).
func (d *g726) poles(pk, moves bool) {
	second := d.a[1] - d.a[1]>>7
	if moves {
		step := d.a[0]
		if pk == d.pk[0] {
			step = -step
		}
		switch {
		case step < -8191:
			second -= 256
		case step > 8191:
			second += 255
		default:
			second += step >> 5
		}
		if pk == d.pk[1] {
			second += 128
		} else {
			second -= 128
		}
		second = clamp(second, -12288, 12288)
	}
	first := d.a[0] - d.a[0]>>8
	if moves {
		if pk == d.pk[0] {
			first += 192
		} else {
			first -= 192
		}
	}
	limit := 15360 - second
	d.a[0], d.a[1] = clamp(first, -limit, limit), second
}

// zeros adapts the zero section (UPB).
func (d *g726) zeros(negative, moves bool) {
	leak := 8
	if d.law.bits == 5 {
		leak = 9
	}
	for i := range d.b {
		d.b[i] -= d.b[i] >> leak
		switch {
		case !moves:
		case negative == d.dq[i].negative:
			d.b[i] += 128
		default:
			d.b[i] -= 128
		}
	}
}

// speed adapts the speed control (FILTA, FILTB, SUBTC, FILTC, TRIGA).
func (d *g726) speed(f, y int, transition bool) {
	d.dms += (f - d.dms) >> 5
	d.dml += (f<<2 - d.dml) >> 7
	change := d.dms<<2 - d.dml
	switch {
	case transition:
		d.ap = 256
	case y < 1536 || d.td || max(change, -change) >= d.dml>>3:
		d.ap += (512 - d.ap) >> 4
	default:
		d.ap += -d.ap >> 4
	}
}
