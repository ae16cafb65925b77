// Package codec turns payloads into samples and samples into what a recording
// holds: stream decoders, RFC 4733 events, recording encoders and file writers.
package codec

import (
	"errors"
	"fmt"
	"slices"

	"github.com/trunktap/trunktap/media"
)

// ErrUndecodable says that a format is not understood; its packets are a gap.
var ErrUndecodable = errors.New("format not decodable")

// errPayload says that a payload is none of its format.
var errPayload = errors.New("malformed payload")

// errClosed says that a decoder was used after Close.
var errClosed = errors.New("decoder is closed")

// SamplesMax bounds what one payload may decode to, in samples.
const SamplesMax = 8192

// Decoder turns the payloads of one stream, in order, into samples of one
// channel; two channels are averaged. Not safe for concurrent use. Nothing of it
// waits, and nothing allocates once the first packet was decoded.
type Decoder interface {
	// Rate is the rate of the samples in Hz. It is not always the clock rate of
	// the format: G.722 has two samples a tick, Opus may have fewer than one.
	Rate() int
	// Ticks is how much of the RTP clock a payload covers, 0 when that cannot be
	// told. It neither decodes nor changes the decoder.
	Ticks(payload []byte) int
	// Decode appends the samples of one payload to dst, at most SamplesMax. On an
	// error dst is returned as it was.
	Decode(dst []int16, payload []byte) ([]int16, error)
	// Conceal appends samples in place of lost ones, at most SamplesMax: silence,
	// unless DecoderOptions.Conceal is set.
	Conceal(dst []int16, samples int) []int16
	// Close frees what the decoder holds outside of Go's memory. It may be called
	// again; Decode fails after it.
	Close()
}

// Recoverer is a decoder whose packets may carry the one before them once more
// (the in-band FEC of Opus, RFC 6716 section 2.1.7).
type Recoverer interface {
	// Recover appends the given number of samples that were lost right before
	// next, out of next, and tells whether next had any of them; false: dst is as
	// it was, and Conceal is to be asked. Those that lie too far back are
	// concealed. Next itself is still to be decoded.
	Recover(dst []int16, next []byte, samples int) ([]int16, bool)
}

// DecoderOptions say how a stream is decoded; the zero value is fine.
type DecoderOptions struct {
	// Conceal lets Conceal continue what was heard, fading out to silence within
	// 60 ms or as the codec itself has it. Without it lost samples are silence.
	Conceal bool
	// Noise lets CN (RFC 3389) make noise: Decode takes its level and spectrum,
	// Conceal appends the noise. Without it CN is silence.
	Noise bool
	// AAL2 lets the plain names of G.726 mean what AAL2-G726 does: the first sample in
	// the high bits of an octet (ITU-T I.366.2), against RFC 3551 section 4.5.4.
	AAL2 bool
	// Rate is the rate in Hz that is wished for. Opus has a choice (8000, 12000,
	// 16000, 24000 or 48000, what is none of them counts as the next higher one);
	// all others have none. 0 is 48000.
	Rate int
}

// core is what each format implements. Conceal may be missing: NewDecoder sees to it.
type core interface {
	Rate() int
	Ticks(payload []byte) int
	Decode(dst []int16, payload []byte) ([]int16, error)
	Close()
}

// NewDecoder returns the decoder of a negotiated format; docs/codecs.md lists them.
// CN (RFC 3389) decodes to no samples: comfort noise is no speech and is recorded as
// silence. Everything else is ErrUndecodable.
func NewDecoder(f media.Format, o DecoderOptions) (Decoder, error) {
	c, err := newCore(f, o)
	if err != nil {
		return nil, fmt.Errorf("%s/%d/%d: %w", f.Name, f.ClockRate, max(f.Channels, 1), err)
	}
	if d, ok := c.(Decoder); ok {
		return d, nil
	}
	if o.Conceal {
		return newPatched(c), nil
	}
	return silent{c}, nil
}

// newCore knows every format by its name and clock rate (RFC 3551 section 6 and the
// RFC of each).
func newCore(f media.Format, o DecoderOptions) (core, error) {
	if f.Channels > 1 && f.Name != "L16" && f.Name != "OPUS" {
		return nil, ErrUndecodable
	}
	switch f.Name {
	case "L16":
		return newL16(f)
	case "AMR", "AMR-WB":
		return newAMR(f, o)
	}
	if kbps, lsb := g726Name(f.Name); kbps > 0 && f.ClockRate == 8000 {
		return newG726(kbps, lsb && !o.AAL2), nil
	}
	switch (media.Format{Name: f.Name, ClockRate: f.ClockRate}) {
	case media.Format{Name: "PCMU", ClockRate: 8000}:
		return g711{&muLawLinear}, nil
	case media.Format{Name: "PCMA", ClockRate: 8000}:
		return g711{&aLawLinear}, nil
	case media.Format{Name: "G722", ClockRate: 8000}:
		return newG722(), nil
	case media.Format{Name: "GSM", ClockRate: 8000}:
		return newGSM(), nil
	case media.Format{Name: "G729", ClockRate: 8000}, media.Format{Name: "G729A", ClockRate: 8000}, media.Format{Name: "G729AB", ClockRate: 8000}:
		return newG729(o), nil // some call it by the annexes
	case media.Format{Name: "ILBC", ClockRate: 8000}:
		return newILBC(f, o), nil
	case media.Format{Name: "OPUS", ClockRate: 48000}:
		return newOpusStream(o)
	}
	if f.Name == "CN" && f.ClockRate > 0 {
		if o.Noise {
			return newNoise(f.ClockRate), nil
		}
		return comfortNoise{f.ClockRate}, nil
	}
	return nil, ErrUndecodable
}

// silent puts silence in the place of what was lost.
type silent struct{ core }

func (silent) Conceal(dst []int16, samples int) []int16 { return silence(dst, samples) }

type g711 struct{ linear *[256]int16 }

func (g711) Rate() int { return 8000 }

func (g711) Ticks(payload []byte) int { return len(payload) }

func (g711) Close() {}

func (d g711) Decode(dst []int16, payload []byte) ([]int16, error) {
	if len(payload) > SamplesMax {
		return dst, fmt.Errorf("G.711 payload of %d bytes: at most %d", len(payload), SamplesMax)
	}
	for _, b := range payload {
		dst = append(dst, d.linear[b])
	}
	return dst, nil
}

type comfortNoise struct{ rate int }

func (d comfortNoise) Rate() int { return d.rate }

func (comfortNoise) Ticks([]byte) int { return 0 }

func (comfortNoise) Close() {}

func (comfortNoise) Decode(dst []int16, _ []byte) ([]int16, error) { return dst, nil }

func (comfortNoise) Conceal(dst []int16, samples int) []int16 { return silence(dst, samples) }

// extend makes dst n samples longer and returns these, with what they held.
func extend(dst []int16, n int) (whole, added []int16) {
	dst = slices.Grow(dst, n)[:len(dst)+n]
	return dst, dst[len(dst)-n:]
}

// silence appends n zero samples.
func silence(dst []int16, n int) []int16 {
	for range min(max(n, 0), SamplesMax) {
		dst = append(dst, 0)
	}
	return dst
}
