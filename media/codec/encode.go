package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/trunktap/trunktap/media/level"
)

// Formats of recordings, as configuration and manifest spell them.
const (
	WAVPCM16 = "wav-pcm16"
	WAVPCMU  = "wav-pcmu"
	WAVPCMA  = "wav-pcma"
	OggOpus  = "ogg-opus"
	FLAC     = "flac"
)

// ErrFormat says that a recording format is unknown or cannot have what was
// asked of it.
var ErrFormat = errors.New("recording format")

// Encoder codes the samples of a segment. What it returns is coded data in the
// format's own framing:
//
//   - wav-pcm16: interleaved little-endian samples; wav-pcmu, wav-pcma:
//     interleaved bytes;
//
//   - ogg-opus: for every 20 ms, and therein for each channel, a big-endian
//     uint16 length and an Opus packet of one mono stream. The channels are
//     coded by two encoders, so nothing of one can be heard in the other. A
//     channel in which nothing is heard (see opusChannel) costs next to nothing.
//
//   - flac: FLAC frames (RFC 9639 section 9) without the head of a file, each
//     complete in itself.
//
// With one channel both inputs are mixed by level.Mono, which cannot clip; where
// the second is nil the first is the mix. Not safe for concurrent use; one
// Encoder per segment.
type Encoder interface {
	// Granule is the number of samples that Encode wants multiples of.
	Granule() int
	// Encode appends the coded form of samples to dst. Both channels have the
	// same length, a multiple of Granule.
	Encode(dst []byte, ch [2][]int16) ([]byte, error)
	// Flush codes the last samples of a segment, of any number and none, padded
	// with silence, and what the codec still holds back. Nothing may follow.
	Flush(dst []byte, ch [2][]int16) ([]byte, error)
	Close()
}

// Options of NewEncoder.
type Options struct {
	Channels    int    // 1 or 2; 0 means 2
	Bitrate     int    // Opus, bit/s of a channel in which something is heard, 6000 to 128000; 0 means 16000
	Complexity  int    // Opus, 0 to 10: what the encoder may cost
	Application string // Opus: voip | audio; empty means voip
}

// NewEncoder returns an encoder for one of the formats above. Opus knows rates
// of 8000, 12000, 16000, 24000 and 48000 Hz.
func NewEncoder(format string, rate int, opt Options) (Encoder, error) {
	if opt.Channels == 0 {
		opt.Channels = 2
	}
	if err := checkShape(format, rate, opt.Channels); err != nil {
		return nil, err
	}
	switch format {
	case OggOpus:
		return newOpusEncoder(rate, opt)
	case FLAC:
		return newFLACEncoder(rate, opt.Channels)
	}
	return &pcmEncoder{channels: opt.Channels, format: format}, nil
}

// checkShape refuses unknown formats, rates and numbers of channels.
func checkShape(format string, rate, channels int) error {
	if channels != 1 && channels != 2 {
		return fmt.Errorf("%w %s with %d channels: 1 or 2", ErrFormat, format, channels)
	}
	switch format {
	case WAVPCM16, WAVPCMU, WAVPCMA, FLAC:
		if rate < 1000 || rate > 192000 {
			return fmt.Errorf("%w %s at %d Hz: 1000 to 192000", ErrFormat, format, rate)
		}
		return nil
	case OggOpus:
		switch rate {
		case 8000, 12000, 16000, 24000, 48000:
			return nil
		}
		return fmt.Errorf("%w %s at %d Hz: 8000, 12000, 16000, 24000 or 48000", ErrFormat, format, rate)
	}
	return fmt.Errorf("%w %q is unknown: %s, %s, %s, %s or %s", ErrFormat, format, WAVPCM16, WAVPCMU, WAVPCMA, OggOpus, FLAC)
}

// checkChannels refuses samples that an encoder of so many channels cannot take.
func checkChannels(ch [2][]int16, channels, granule int) error {
	if len(ch[0]) != len(ch[1]) && !(channels == 1 && ch[1] == nil) {
		return fmt.Errorf("encode: channels of %d and %d samples differ", len(ch[0]), len(ch[1]))
	}
	if len(ch[0])%granule != 0 {
		return fmt.Errorf("encode: %d samples are no multiple of %d", len(ch[0]), granule)
	}
	return nil
}

// mixed returns the mix of two channels in buf; of the second one nil, the first.
func mixed(buf []int16, ch [2][]int16) []int16 {
	n := len(ch[0])
	buf = slices.Grow(buf[:0], n)[:n]
	if ch[1] == nil {
		copy(buf, ch[0])
	} else {
		level.Mono(buf, ch[0], ch[1])
	}
	return buf
}

type pcmEncoder struct {
	channels int
	format   string
	mono     []int16
}

func (*pcmEncoder) Granule() int { return 1 }
func (*pcmEncoder) Close()       {}

func (e *pcmEncoder) Encode(dst []byte, ch [2][]int16) ([]byte, error) {
	if err := checkChannels(ch, e.channels, 1); err != nil {
		return dst, err
	}
	parts := ch[:]
	if e.channels == 1 {
		e.mono = mixed(e.mono, ch)
		parts = [][]int16{e.mono}
	}
	n := len(ch[0]) * e.channels * sampleBytes(e.format)
	at := len(dst)
	dst = slices.Grow(dst, n)[:at+n]
	for c, pcm := range parts {
		e.interleave(dst[at:], c, pcm)
	}
	return dst, nil
}

// interleave puts the samples of one channel into their places.
func (e *pcmEncoder) interleave(dst []byte, c int, pcm []int16) {
	step := e.channels
	switch e.format {
	case WAVPCMU:
		for i, s := range pcm {
			dst[i*step+c] = linearMuLaw[uint16(s)>>2]
		}
	case WAVPCMA:
		for i, s := range pcm {
			dst[i*step+c] = linearALaw[uint16(s)>>3]
		}
	default:
		for i, s := range pcm {
			binary.LittleEndian.PutUint16(dst[2*(i*step+c):], uint16(s))
		}
	}
}

func (e *pcmEncoder) Flush(dst []byte, ch [2][]int16) ([]byte, error) { return e.Encode(dst, ch) }
