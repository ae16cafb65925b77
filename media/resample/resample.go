// Package resample converts streams of samples from one of the usual rates of
// telephony and audio to another.
//
// The conversion is a polyphase windowed sinc in whole numbers: pass band flat
// within 0.05 dB up to 0.45 of the lower rate, stop band 80 dB and more, the
// delay compensated: output k lies exactly at the time of input k*in/out.
// Samples are the same on every machine and for every division into chunks.
package resample

import "math"

// blockSamples are taken in at a time.
const blockSamples = 512

// Resampler converts one stream. Not safe for concurrent use.
//
// An output needs input on either side of it, so what Process gives ends
// Lag samples (of the input) before what it was given. Tail completes it.
type Resampler struct {
	f       *filter
	in, out int

	buf   []int16 // input from half-1 before pos; what lies before the stream is 0
	pos   int     // of buf: the sample that the next output lies behind
	phase int     // by how many parts of up
	past  int     // samples of buf[:] that were given, primed ones included, from the end
}

// New returns a resampler between two of the rates that are Supported. Tables
// are made once for a ratio and shared.
func New(in, out int) (*Resampler, error) {
	f, err := filterOf(in, out)
	if err != nil {
		return nil, err
	}
	r := &Resampler{f: f, in: in, out: out, buf: make([]int16, 0, 4*f.half+2*blockSamples)}
	r.Reset(0)
	return r, nil
}

// In is the rate of the input, Out that of the output, in Hz.
func (r *Resampler) In() int { return r.in }

// Out is the rate of the output in Hz.
func (r *Resampler) Out() int { return r.out }

// Ratio is the number of outputs for a number of inputs, in lowest terms.
func (r *Resampler) Ratio() (outputs, inputs int) { return r.f.up, r.f.down }

// Lag is the number of input samples that an output needs after its own time.
func (r *Resampler) Lag() int { return r.f.half }

// Reset begins a new stream: what lies before it is silence. The first output
// lies offset parts of an input sample behind the first input, a part being
// 1/outputs of Ratio; 0 for both at one time.
func (r *Resampler) Reset(offset int) {
	r.buf = r.buf[:r.f.half-1]
	clear(r.buf)
	r.pos, r.phase, r.past = r.f.half-1+offset/r.f.up, offset%r.f.up, 0
}

// Prime says what lies before the stream, in place of silence: after Reset,
// before the first sample. Of more than is needed the last counts.
func (r *Resampler) Prime(past []int16) {
	past = past[max(0, len(past)-len(r.buf)):]
	copy(r.buf[len(r.buf)-len(past):], past)
	r.past = len(past)
}

// Past returns the input that is still held, the newest last: Lag samples or
// more once as many were given. Good until the next call.
func (r *Resampler) Past() []int16 { return r.buf[len(r.buf)-min(r.past, len(r.buf)):] }

// Process takes samples and appends to dst the outputs that are complete.
func (r *Resampler) Process(dst, src []int16) []int16 {
	for len(src) > 0 {
		n := min(len(src), blockSamples)
		r.room(n)
		r.buf = append(r.buf, src[:n]...)
		r.past = min(r.past+n, cap(r.buf))
		src = src[n:]
		dst = r.outputs(dst, len(r.buf)-r.f.half)
	}
	return dst
}

// Tail appends the outputs that lie within what was given but are not complete,
// as they are if silence follows. It changes nothing: what Process gives next
// begins with the same outputs in their final form.
func (r *Resampler) Tail(dst []int16) []int16 {
	r.room(r.f.half)
	n, pos, phase := len(r.buf), r.pos, r.phase
	r.buf = r.buf[:n+r.f.half]
	clear(r.buf[n:])
	dst = r.outputs(dst, n)
	r.buf, r.pos, r.phase = r.buf[:n], pos, phase
	return dst
}

// Flush appends the Tail and begins a new stream.
func (r *Resampler) Flush(dst []int16) []int16 {
	dst = r.Tail(dst)
	r.Reset(0)
	return dst
}

// room makes room for n samples behind the input.
func (r *Resampler) room(n int) {
	if len(r.buf)+n <= cap(r.buf) {
		return
	}
	from := min(r.pos, len(r.buf)) - (r.f.half - 1)
	r.buf = r.buf[:copy(r.buf, r.buf[from:])]
	r.pos -= from
}

// outputs appends the outputs that lie before the input at end.
func (r *Resampler) outputs(dst []int16, end int) []int16 {
	f := r.f
	whole, part := f.down/f.up, f.down%f.up
	for r.pos < end {
		if r.phase == 0 && f.exact {
			dst = append(dst, r.buf[r.pos])
		} else {
			from := r.pos - f.half + 1
			dst = append(dst, clip(dot(r.buf[from:from+f.taps], f.row(r.phase))))
		}
		r.pos += whole
		if r.phase += part; r.phase >= f.up {
			r.phase -= f.up
			r.pos++
		}
	}
	return dst
}

// dot is the sum of products; the number of taps is a multiple of four.
func dot(x []int16, c []int32) int64 {
	var a, b int64
	for len(c) >= 4 && len(x) >= 4 {
		a += int64(x[0])*int64(c[0]) + int64(x[1])*int64(c[1])
		b += int64(x[2])*int64(c[2]) + int64(x[3])*int64(c[3])
		x, c = x[4:], c[4:]
	}
	return a + b
}

// clip rounds a sum to a sample.
func clip(v int64) int16 {
	v = (v + 1<<(q-1)) >> q
	return int16(max(min(v, math.MaxInt16), math.MinInt16))
}
