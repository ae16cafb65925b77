package codec

import (
	"encoding/binary"
	"fmt"

	"github.com/trunktap/trunktap/media"
)

// l16 are linear samples of 16 bits in network byte order (RFC 3551 section
// 4.5.11), of one or two channels (left, right).
type l16 struct{ rate, channels int }

func newL16(f media.Format) (core, error) {
	d := l16{f.ClockRate, max(f.Channels, 1)}
	switch f.ClockRate {
	case 8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000: // RFC 3551 section 4.1
		if d.channels <= 2 {
			return d, nil
		}
	}
	return nil, ErrUndecodable
}

func (d l16) Rate() int { return d.rate }

func (d l16) Ticks(payload []byte) int { return len(payload) / (2 * d.channels) }

func (l16) Close() {}

func (d l16) Decode(dst []int16, payload []byte) ([]int16, error) {
	size := 2 * d.channels
	if len(payload)%size != 0 || len(payload) > SamplesMax*size {
		return dst, fmt.Errorf("L16 payload of %d bytes: %w", len(payload), errPayload)
	}
	for ; len(payload) > 0; payload = payload[size:] {
		s := int16(binary.BigEndian.Uint16(payload))
		if d.channels == 2 {
			s = int16((int(s) + int(int16(binary.BigEndian.Uint16(payload[2:])))) / 2)
		}
		dst = append(dst, s)
	}
	return dst, nil
}
