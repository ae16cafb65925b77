// Package codec turns payloads into samples and samples into what a recording
// holds: stream decoders, RFC 4733 events, recording encoders and file writers.
package codec

import (
	"errors"
	"fmt"

	"github.com/trunktap/trunktap/media"
)

// ErrUndecodable says that a format is not understood; its packets are a gap.
var ErrUndecodable = errors.New("format not decodable")

// SamplesMax bounds what one payload may decode to, in samples.
const SamplesMax = 8192

// Decoder turns the payloads of one stream, in order, into samples. Not safe
// for concurrent use.
type Decoder interface {
	// Rate is the rate of the samples in Hz.
	Rate() int
	// Decode appends the samples of one payload to dst. On an error dst is
	// returned as it was.
	Decode(dst []int16, payload []byte) ([]int16, error)
	// Conceal appends samples in place of lost ones: silence for G.711.
	Conceal(dst []int16, samples int) []int16
}

// NewDecoder returns the decoder of a negotiated format. PCMU and PCMA are
// understood at 8000 Hz with one channel (RFC 3551 section 4.5.14). CN (RFC 3389) decodes to
// no samples: comfort noise is no speech and is recorded as silence. Everything
// else is ErrUndecodable.
func NewDecoder(f media.Format) (Decoder, error) {
	if f.Channels > 1 {
		return nil, fmt.Errorf("%s/%d with %d channels: %w", f.Name, f.ClockRate, f.Channels, ErrUndecodable)
	}
	switch {
	case f.Name == "PCMU" && f.ClockRate == 8000:
		return g711{&muLawLinear}, nil
	case f.Name == "PCMA" && f.ClockRate == 8000:
		return g711{&aLawLinear}, nil
	case f.Name == "CN" && f.ClockRate > 0:
		return comfortNoise{f.ClockRate}, nil
	}
	return nil, fmt.Errorf("%s/%d: %w", f.Name, f.ClockRate, ErrUndecodable)
}

type g711 struct{ linear *[256]int16 }

func (g711) Rate() int { return 8000 }

func (d g711) Decode(dst []int16, payload []byte) ([]int16, error) {
	if len(payload) > SamplesMax {
		return dst, fmt.Errorf("G.711 payload of %d bytes: at most %d", len(payload), SamplesMax)
	}
	for _, b := range payload {
		dst = append(dst, d.linear[b])
	}
	return dst, nil
}

func (g711) Conceal(dst []int16, samples int) []int16 { return silence(dst, samples) }

type comfortNoise struct{ rate int }

func (d comfortNoise) Rate() int { return d.rate }

func (comfortNoise) Decode(dst []int16, _ []byte) ([]int16, error) { return dst, nil }

func (comfortNoise) Conceal(dst []int16, samples int) []int16 { return silence(dst, samples) }

// silence appends n zero samples.
func silence(dst []int16, n int) []int16 {
	for range min(max(n, 0), SamplesMax) {
		dst = append(dst, 0)
	}
	return dst
}
