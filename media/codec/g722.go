package codec

import "fmt"

// ITU-T G.722 (09/2012) at 64 kbit/s: two sub-band ADPCM coders behind a
// quadrature mirror filter. The names in capitals are the blocks of the
// Recommendation's clause 6. The whole state is plain values, so a copy is a
// second coder in the same state.

// qmf are half the coefficients of the quadrature mirror filter (table 11), in
// the order in which the even samples meet them.
var qmf = [12]int{3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11}

var (
	// quantizer levels of the lower band, and the codes of each interval (QUANTL)
	q6  = [30]int{0, 35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121, 1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919}
	iln = [31]byte{0, 63, 62, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4}
	ilp = [31]byte{0, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 39, 38, 37, 36, 35, 34, 33, 32}

	// inverse quantizers: of the 4 bits that adapt the lower band, of all its 6
	// bits, and of the upper band
	qm4 = [16]int{0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0}
	qm6 = [64]int{
		-136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360, -8576, -7856,
		-7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688, -1360, -1040, -728,
		24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456,
		4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
	}
	qm2 = [4]int{-7408, -1616, 7408, 1616}

	// log scale factor multipliers by code (LOGSCL, LOGSCH)
	wl = [16]int{-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60}
	wh = [4]int{798, -214, 798, -214}

	// antilogarithms (SCALEL, SCALEH)
	ilb = [32]int{
		2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834,
		2896, 2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
	}
)

func clamp(v, low, high int) int { return max(low, min(v, high)) }

func sat16(v int) int { return clamp(v, -32768, 32767) }

// g722Band is the predictor and the step size of one sub-band; the encoder's and
// the decoder's are the same.
type g722Band struct {
	nb, det int    // logarithm of the step size, and the step size
	s, sz   int    // the prediction, and its part of the zeros
	r       [2]int // reconstructed signal, newest first
	p       [2]int // partly reconstructed signal
	a       [2]int // coefficients of the poles
	d       [6]int // quantized differences
	b       [6]int // coefficients of the zeros
}

// scale adapts the step size: LOGSCL and SCALEL, LOGSCH and SCALEH.
func (b *g722Band) scale(step, limit, shift int) {
	b.nb = clamp(b.nb*127>>7+step, 0, limit)
	v := ilb[b.nb>>6&31]
	if by := shift - b.nb>>11; by >= 0 {
		v >>= by
	} else {
		v <<= -by
	}
	b.det = v << 2
}

// predict takes a quantized difference and makes the next prediction.
func (b *g722Band) predict(d int) {
	r, p := sat16(b.s+d), sat16(b.sz+d) // RECONS, PARREC
	b.poles(p)
	b.zeros(d)
	copy(b.d[1:], b.d[:5]) // DELAYA
	b.d[0] = d
	b.r[1], b.r[0] = b.r[0], r
	b.p[1], b.p[0] = b.p[0], p
	sp := sat16(b.a[0]*sat16(2*b.r[0])>>15 + b.a[1]*sat16(2*b.r[1])>>15) // FILTEP
	sz := 0
	for i := range b.b { // FILTEZ
		sz += b.b[i] * sat16(2*b.d[i]) >> 15
	}
	b.sz = sat16(sz)
	b.s = sat16(sp + b.sz) // PREDIC
}

// poles adapts the pole section (UPPOL2, UPPOL1).
func (b *g722Band) poles(p int) {
	same := func(past int) bool { return p < 0 == (past < 0) }
	step := sat16(4 * b.a[0])
	if same(b.p[0]) {
		step = min(-step, 32767)
	}
	second := -128
	if same(b.p[1]) {
		second = 128
	}
	second = clamp(second+step>>7+b.a[1]*32512>>15, -12288, 12288)
	first := -192
	if same(b.p[0]) {
		first = 192
	}
	limit := 15360 - second
	b.a[0], b.a[1] = clamp(sat16(first+b.a[0]*32640>>15), -limit, limit), second
}

// zeros adapts the zero section (UPZERO).
func (b *g722Band) zeros(d int) {
	step := 128
	if d == 0 {
		step = 0
	}
	for i := range b.b {
		towards := step
		if b.d[i] < 0 != (d < 0) {
			towards = -step
		}
		b.b[i] = sat16(towards + b.b[i]*32640>>15)
	}
}

// lower moves the lower band on by a code of 6 bits, of which 4 adapt it.
func (b *g722Band) lower(code byte) {
	d := b.det * qm4[code>>2] >> 15 // INVQAL
	b.scale(wl[code>>2], 18432, 8)
	b.predict(d)
}

// upper moves the upper band on by a code of 2 bits.
func (b *g722Band) upper(code byte) {
	d := b.det * qm2[code] >> 15 // INVQAH
	b.scale(wh[code], 22528, 10)
	b.predict(d)
}

// g722Bands is what coder and decoder have in common: a decoder that was fed an
// encoder's bits has the encoder's bands.
type g722Bands struct{ low, high g722Band }

func newG722Bands() g722Bands { return g722Bands{low: g722Band{det: 32}, high: g722Band{det: 8}} }

// G722Decoder decodes G.722 at 64 kbit/s. It is a plain value: a copy goes on from
// the same state, and equal ones decode alike. NewG722Decoder makes one.
type G722Decoder struct {
	g722Bands
	x [24]int // history of the receive filter
}

// NewG722Decoder returns a decoder in its initial state.
func NewG722Decoder() G722Decoder { return G722Decoder{g722Bands: newG722Bands()} }

// Decode writes two samples for each octet; pcm has room for them.
func (d *G722Decoder) Decode(pcm []int16, payload []byte) {
	for i, octet := range payload {
		code := octet & 0x3f
		low := clamp(d.low.s+d.low.det*qm6[code]>>15, -16384, 16383) // INVQBL, LIMIT
		d.low.lower(code)
		high := clamp(d.high.s+d.high.det*qm2[octet>>6]>>15, -16384, 16383)
		d.high.upper(octet >> 6)
		copy(d.x[:], d.x[2:])
		d.x[22], d.x[23] = low+high, low-high
		odd, even := 0, 0
		for k := range qmf {
			odd += d.x[2*k] * qmf[k]
			even += d.x[2*k+1] * qmf[11-k]
		}
		pcm[2*i], pcm[2*i+1] = int16(sat16(even>>11)), int16(sat16(odd>>11))
	}
}

// G722Encoder codes G.722 at 64 kbit/s, a plain value as G722Decoder is.
type G722Encoder struct {
	g722Bands
	x [24]int // the latest samples, the history of the transmit filter
}

// NewG722Encoder returns an encoder in its initial state.
func NewG722Encoder() G722Encoder { return G722Encoder{g722Bands: newG722Bands()} }

// Encoder returns an encoder whose octets this decoder will follow, after the
// latest samples that it is to assume (oldest first).
func (d *G722Decoder) Encoder(before [24]int) G722Encoder { return G722Encoder{d.g722Bands, before} }

// Encode writes one octet for each two samples.
func (e *G722Encoder) Encode(octets []byte, pcm []int16) {
	for i := range octets {
		copy(e.x[:], e.x[2:])
		e.x[22], e.x[23] = int(pcm[2*i]), int(pcm[2*i+1])
		odd, even := 0, 0
		for k := range qmf {
			odd += e.x[2*k] * qmf[k]
			even += e.x[2*k+1] * qmf[11-k]
		}
		low, high := e.lowCode((even+odd)>>14), e.highCode((even-odd)>>14)
		e.low.lower(low)
		e.high.upper(high)
		octets[i] = high<<6 | low
	}
}

// lowCode quantizes the lower band's difference (SUBTRA, QUANTL).
func (e *G722Encoder) lowCode(x int) byte {
	diff := sat16(x - e.low.s)
	size := diff
	if diff < 0 {
		size = ^diff
	}
	i := 1
	for i < 30 && size >= q6[i]*e.low.det>>12 {
		i++
	}
	if diff < 0 {
		return iln[i]
	}
	return ilp[i]
}

// highCode quantizes the upper band's difference (SUBTRA, QUANTH).
func (e *G722Encoder) highCode(x int) byte {
	diff := sat16(x - e.high.s)
	size, code := diff, byte(3)
	if diff < 0 {
		size, code = ^diff, 1
	}
	if size >= 564*e.high.det>>12 {
		code--
	}
	return code
}

// g722 is the decoder of a stream (RFC 3551 section 4.5.2: the clock counts octets,
// two samples each).
type g722 struct{ G722Decoder }

func newG722() *g722 { return &g722{NewG722Decoder()} }

func (*g722) Rate() int { return 16000 }

func (*g722) Ticks(payload []byte) int { return len(payload) }

func (*g722) Close() {}

func (d *g722) Decode(dst []int16, payload []byte) ([]int16, error) {
	if len(payload) > SamplesMax/2 {
		return dst, fmt.Errorf("G.722 payload of %d bytes: at most %d", len(payload), SamplesMax/2)
	}
	dst, pcm := extend(dst, 2*len(payload))
	d.G722Decoder.Decode(pcm, payload)
	return dst, nil
}
