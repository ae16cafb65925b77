package codec

import (
	"fmt"
	"math"

	"github.com/trunktap/trunktap/media"
)

// iLBC (RFC 3951) at 15.2 and 13.33 kbit/s: frames of 20 or 30 ms, each of which stands
// for itself. Written from the description in section 4; numbers in comments are its
// sections. A residual is decoded from a start state outwards (4.2 to 4.4) and filtered
// (4.7). The enhancer (4.6), which a decoder may leave out, would make all of it 5 or 10
// ms late against the other side of the call; so it is left out.

const (
	ilbcSub     = 40  // samples of a subframe
	ilbcState   = 80  // of the start state and what completes it
	ilbcMemory  = 147 // of the codebook's memory
	ilbcSubsMax = 6
	ilbcMax     = ilbcSubsMax * ilbcSub
	ilbcStages  = 3
)

// ilbcMode is what differs between the frame lengths (3 and table 3.2).
type ilbcMode struct {
	bytes, samples, subs int
	short                int // samples of the start state that are coded one by one
	weights              []float64
	fields               []ilbcField
}

// ilbcField is a parameter: its bits in each class of sensitivity; they stand in the
// payload class by class.
type ilbcField [3]int

var ilbc20 = ilbcMode{
	38, 160, 4, 57,
	[]float64{0.75, 0.5, 0.25, 0},
	ilbcFields([]ilbcField{{6}, {7}, {7}}, ilbcField{2}, 57,
		[]ilbcField{{6, 0, 1}, {0, 0, 7}, {0, 0, 7}}, []ilbcField{{2, 0, 3}, {1, 1, 2}, {0, 0, 3}},
		[]ilbcField{{7, 0, 1}, {0, 0, 7}, {0, 0, 7}, {0, 0, 8}, {0, 0, 8}, {0, 0, 8}},
		[]ilbcField{{1, 2, 2}, {1, 1, 2}, {0, 0, 3}, {1, 1, 3}, {0, 2, 2}, {0, 0, 3}}),
}

var ilbc30 = ilbcMode{
	50, 240, 6, 58,
	[]float64{0.5, 1, 2.0 / 3, 1.0 / 3, 0, 0},
	ilbcFields([]ilbcField{{6}, {7}, {7}, {6}, {7}, {7}}, ilbcField{3}, 58,
		[]ilbcField{{4, 2, 1}, {0, 0, 7}, {0, 0, 7}}, []ilbcField{{1, 1, 3}, {1, 1, 2}, {0, 0, 3}},
		[]ilbcField{
			{6, 1, 1},
			{0, 0, 7},
			{0, 0, 7},
			{0, 7, 1},
			{0, 0, 8},
			{0, 0, 8},
			{0, 7, 1},
			{0, 0, 8},
			{0, 0, 8},
			{0, 7, 1},
			{0, 0, 8},
			{0, 0, 8},
		},
		[]ilbcField{
			{1, 2, 2},
			{1, 2, 1},
			{0, 0, 3},
			{0, 2, 3},
			{0, 2, 2},
			{0, 0, 3},
			{0, 1, 4},
			{0, 1, 3},
			{0, 0, 3},
			{0, 1, 4},
			{0, 1, 3},
			{0, 0, 3},
		}),
}

// ilbcFields lists all parameters in their order: LSF, start, position and level of
// the start state, its samples, the codebook indices and gains that complete it, and
// those of the subframes.
func ilbcFields(lsf []ilbcField, start ilbcField, short int, extra, extraGain, index, gain []ilbcField) (all []ilbcField) {
	all = append(append(all, lsf...), start, ilbcField{1}, ilbcField{6})
	for range short {
		all = append(all, ilbcField{0, 1, 2})
	}
	all = append(append(all, extra...), extraGain...)
	return append(append(all, index...), gain...)
}

// ilbcFrame are the parameters of a frame.
type ilbcFrame struct {
	lsf              [2 * ilbcStages]int
	start, first     int // subframe of the start state, and whether its coded part comes first
	level            int
	state            [58]int
	extra, extraGain [ilbcStages]int
	index, gain      [4 * ilbcStages]int
}

// read takes the parameters apart (3.8); false when the frame says that it is empty.
func (f *ilbcFrame) read(m *ilbcMode, frame []byte) bool {
	var values [6 + 3 + 58 + 6 + 24]int
	r := bitReader{b: frame}
	for class := range 3 {
		for i, field := range m.fields {
			values[i] = values[i]<<field[class] | r.take(field[class])
		}
	}
	lsf, subs := m.subs/2*ilbcStages-ilbcStages, (m.subs-2)*ilbcStages
	rest := values[copy(f.lsf[:lsf], values[:]):]
	f.start, f.first, f.level = rest[0], rest[1], rest[2]
	rest = rest[3:]
	rest = rest[copy(f.state[:m.short], rest):]
	rest = rest[copy(f.extra[:], rest):]
	rest = rest[copy(f.extraGain[:], rest):]
	rest = rest[copy(f.index[:subs], rest):]
	copy(f.gain[:subs], rest)
	for k := 1; k < ilbcStages; k++ { // the first subframe's have a range of their own (3.6.3)
		switch i := f.index[k]; {
		case i >= 108:
			f.index[k] += 128
		case i >= 44:
			f.index[k] += 64
		}
	}
	return r.take(1) == 0 && f.start >= 1 && f.start < m.subs
}

// ilbc is the decoder of a stream.
type ilbc struct {
	conceal bool
	want    *ilbcMode // by negotiation
	mode    *ilbcMode // of the state
	ilbcCore
	erased int // ms
}

// ilbcCore is the state of a decoder.
type ilbcCore struct {
	lsf     [10]float64 // the last of the frame before
	syn     [10]float64 // latest output of the synthesis filter, oldest first
	highs   biquad
	plc     ilbcConcealer
	frame   ilbcFrame
	decoded [ilbcMax]float64
}

// newILBC takes the frame length of the negotiation (RFC 3952 section 4.2).
func newILBC(f media.Format, o DecoderOptions) *ilbc {
	d := &ilbc{conceal: o.Conceal, want: &ilbc30}
	if intParam(f.Params, "mode", 30) == 20 {
		d.want = &ilbc20
	}
	d.reset(d.want)
	return d
}

func (d *ilbc) reset(m *ilbcMode) {
	d.mode = m
	d.ilbcCore = ilbcCore{
		lsf:   [10]float64{0.281738, 0.445801, 0.663330, 0.962524, 1.251831, 1.533081, 1.850586, 2.137817, 2.481445, 2.777344},
		highs: biquad{b: [3]float64{0.93980581, -1.8795834, 0.93980581}, a: [2]float64{1.9330735, -0.93589199}},
	}
	d.plc = ilbcConcealer{seed: 777, filter: lpc{1}, lag: 20}
}

func (*ilbc) Rate() int { return 8000 }

func (*ilbc) Close() {}

// modeOf tells the frame length of a payload: the negotiated one, else the one that
// fits.
func (d *ilbc) modeOf(payload []byte) *ilbcMode {
	other := &ilbc20
	if d.want == other {
		other = &ilbc30
	}
	for _, m := range []*ilbcMode{d.want, other} {
		if n := len(payload) / m.bytes; n > 0 && len(payload)%m.bytes == 0 && n*m.samples <= SamplesMax {
			return m
		}
	}
	return nil
}

func (d *ilbc) Ticks(payload []byte) int {
	if m := d.modeOf(payload); m != nil {
		return len(payload) / m.bytes * m.samples
	}
	return 0
}

func (d *ilbc) Decode(dst []int16, payload []byte) ([]int16, error) {
	m := d.modeOf(payload)
	if m == nil {
		return dst, fmt.Errorf("iLBC payload of %d bytes: %w", len(payload), errPayload)
	}
	if m != d.mode {
		d.reset(m)
	}
	d.erased = 0
	out, pcm := extend(dst, len(payload)/m.bytes*m.samples)
	for ; len(payload) > 0; payload, pcm = payload[m.bytes:], pcm[m.samples:] {
		d.one(pcm[:m.samples], payload[:m.bytes])
	}
	return out, nil
}

// ilbcErasedMS is how much of a gap is continued.
const ilbcErasedMS = 200

// Conceal goes on with the pitch of the residual (4.5).
func (d *ilbc) Conceal(dst []int16, samples int) []int16 {
	dst, pcm := extend(dst, min(max(samples, 0), SamplesMax))
	for len(pcm) > 0 {
		var frame [ilbcMax]int16
		if n := d.mode.samples; d.erased < ilbcErasedMS {
			d.erased += n / 8
			d.one(frame[:n], nil)
		}
		if !d.conceal {
			clear(frame[:])
		}
		pcm = pcm[copy(pcm, frame[:d.mode.samples]):]
	}
	return dst
}

// one decodes a frame; nil is a lost one.
func (d *ilbc) one(pcm []int16, frame []byte) {
	m := d.mode
	residual := d.decoded[:m.samples]
	var filters [ilbcSubsMax]lpc
	if frame != nil && d.frame.read(m, frame) {
		filters = d.interpolate()
		d.frame.residual(m, &filters, residual)
		d.plc.keep(residual, filters[m.subs-1])
	} else {
		filters = d.plc.lost(residual)
	}
	for n, v := range residual {
		v = d.synthesize(&filters[n/ilbcSub], v)
		pcm[n] = toSample(d.highs.filter(v))
	}
}

func (d *ilbc) synthesize(a *lpc, v float64) float64 {
	for i := 1; i <= 10; i++ {
		v -= a[i] * d.syn[10-i]
	}
	v = max(-65536, min(v, 65536))
	copy(d.syn[:], d.syn[1:])
	d.syn[9] = v
	return v
}

// interpolate decodes the line spectral frequencies and returns the filters of all
// subframes (4.1).
func (d *ilbc) interpolate() (filters [ilbcSubsMax]lpc) {
	m := d.mode
	from, to := d.lsf, ilbcLSF(d.frame.lsf[:])
	for sub := range m.subs {
		if m == &ilbc30 && sub == 1 {
			from, to = to, ilbcLSF(d.frame.lsf[ilbcStages:])
		}
		var lsp [10]float64
		for i := range lsp {
			lsp[i] = math.Cos(m.weights[sub]*from[i] + (1-m.weights[sub])*to[i])
		}
		filters[sub] = lspToLPC(lsp)
	}
	d.lsf = to
	return filters
}

// ilbcLSF decodes one set of frequencies and keeps them apart (3.2.6).
func ilbcLSF(index []int) (lsf [10]float64) {
	const gap, half, least, most = 0.039, 0.0195, 0.01, 3.14
	for i := range 3 {
		lsf[i] = float64(ilbcLSF1[index[0]][i]) / 8192
		lsf[3+i] = float64(ilbcLSF2[index[1]][i]) / 8192
	}
	for i := range 4 {
		lsf[6+i] = float64(ilbcLSF3[index[2]][i]) / 8192
	}
	for range 2 {
		for i := range 9 {
			if lsf[i+1]-lsf[i] < gap {
				lsf[i], lsf[i+1] = min(lsf[i], lsf[i+1])-half, max(lsf[i], lsf[i+1])+half
			}
			lsf[i] = max(least, min(lsf[i], most))
		}
	}
	return lsf
}
