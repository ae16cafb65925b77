package codec

import (
	"encoding/binary"
	"errors"
	"fmt"

	opus "gopkg.in/hraban/opus.v2"
)

// Formats of recordings, as configuration and manifest spell them.
const (
	WAVPCM16 = "wav-pcm16"
	WAVPCMU  = "wav-pcmu"
	WAVPCMA  = "wav-pcma"
	OggOpus  = "ogg-opus"
)

// ErrFormat says that a recording format is unknown or cannot have what was
// asked of it.
var ErrFormat = errors.New("recording format")

// Encoder codes the samples of a segment. What it returns is coded data in the
// format's own framing:
//
//   - wav-pcm16: interleaved little-endian samples; wav-pcmu, wav-pcma:
//     interleaved bytes;
//   - ogg-opus: for every 20 ms, and therein for each channel, a big-endian
//     uint16 length and an Opus packet of one mono stream. The channels are
//     coded by two encoders, so nothing of one can be heard in the other.
//
// With one channel both inputs are averaged, which cannot clip. Not safe for
// concurrent use; one Encoder per segment.
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
	Channels   int // 1 or 2; 0 means 2
	Bitrate    int // Opus, bit/s per channel; 0 leaves it to the encoder
	Complexity int // Opus, 1 to 10; 0 means 5
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
	case WAVPCM16:
		return &pcmEncoder{channels: opt.Channels, put: func(dst []byte, s int16) []byte {
			return append(dst, byte(s), byte(s>>8))
		}}, nil
	case WAVPCMU:
		return &pcmEncoder{channels: opt.Channels, put: func(dst []byte, s int16) []byte { return append(dst, MuLaw(s)) }}, nil
	case WAVPCMA:
		return &pcmEncoder{channels: opt.Channels, put: func(dst []byte, s int16) []byte { return append(dst, ALaw(s)) }}, nil
	}
	return newOpusEncoder(rate, opt)
}

// checkShape refuses unknown formats, rates and numbers of channels.
func checkShape(format string, rate, channels int) error {
	if channels != 1 && channels != 2 {
		return fmt.Errorf("%w %s with %d channels: 1 or 2", ErrFormat, format, channels)
	}
	switch format {
	case WAVPCM16, WAVPCMU, WAVPCMA:
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
	return fmt.Errorf("%w %q is unknown: %s, %s, %s or %s", ErrFormat, format, WAVPCM16, WAVPCMU, WAVPCMA, OggOpus)
}

// checkChannels refuses samples that an encoder cannot take.
func checkChannels(ch [2][]int16, granule int) error {
	if len(ch[0]) != len(ch[1]) {
		return fmt.Errorf("encode: channels of %d and %d samples differ", len(ch[0]), len(ch[1]))
	}
	if len(ch[0])%granule != 0 {
		return fmt.Errorf("encode: %d samples are no multiple of %d", len(ch[0]), granule)
	}
	return nil
}

func average(a, b int16) int16 { return int16((int(a) + int(b)) / 2) }

type pcmEncoder struct {
	channels int
	put      func([]byte, int16) []byte
}

func (*pcmEncoder) Granule() int { return 1 }
func (*pcmEncoder) Close()       {}

func (e *pcmEncoder) Encode(dst []byte, ch [2][]int16) ([]byte, error) {
	if err := checkChannels(ch, 1); err != nil {
		return dst, err
	}
	for i, a := range ch[0] {
		if e.channels == 1 {
			dst = e.put(dst, average(a, ch[1][i]))
			continue
		}
		dst = e.put(e.put(dst, a), ch[1][i])
	}
	return dst, nil
}

func (e *pcmEncoder) Flush(dst []byte, ch [2][]int16) ([]byte, error) { return e.Encode(dst, ch) }

const (
	opusGranuleMS      = 20
	opusPacketBytesMax = 1275 // of one frame (RFC 6716 section 3.2.1)
)

// opusLookahead is the encoder's delay in samples: 2.5 ms of overlap and 4 ms
// of delay compensation, constant in libopus for speech and audio; the tests
// measure it.
func opusLookahead(rate int) int { return rate * 13 / 2000 }

type opusEncoder struct {
	granule int
	rate    int
	enc     []*opus.Encoder // one a channel
	packet  []byte
	block   []int16 // one granule: of the mono mix, or padded
	in      int     // samples taken
	coded   int     // samples coded
}

func newOpusEncoder(rate int, opt Options) (Encoder, error) {
	e := &opusEncoder{granule: rate * opusGranuleMS / 1000, rate: rate, packet: make([]byte, opusPacketBytesMax)}
	e.block = make([]int16, e.granule)
	if opt.Complexity == 0 {
		opt.Complexity = 5
	}
	for range opt.Channels {
		enc, err := opus.NewEncoder(rate, 1, opus.AppVoIP)
		if err != nil {
			return nil, fmt.Errorf("opus encoder at %d Hz: %w", rate, err)
		}
		if err := enc.SetComplexity(opt.Complexity); err != nil {
			return nil, fmt.Errorf("opus complexity %d: %w", opt.Complexity, err)
		}
		if opt.Bitrate > 0 {
			if err := enc.SetBitrate(opt.Bitrate); err != nil {
				return nil, fmt.Errorf("opus bitrate %d: %w", opt.Bitrate, err)
			}
		}
		e.enc = append(e.enc, enc)
	}
	return e, nil
}

func (e *opusEncoder) Granule() int { return e.granule }
func (e *opusEncoder) Close()       { e.enc = nil }

func (e *opusEncoder) Encode(dst []byte, ch [2][]int16) ([]byte, error) {
	if err := checkChannels(ch, e.granule); err != nil {
		return dst, err
	}
	for at := 0; at < len(ch[0]); at += e.granule {
		var err error
		if dst, err = e.unit(dst, ch[0][at:at+e.granule], ch[1][at:at+e.granule]); err != nil {
			return dst, err
		}
		e.in += e.granule
	}
	return dst, nil
}

// Flush pads, and codes as much silence more as the decoder needs to get the
// last sample out past the encoder's delay.
func (e *opusEncoder) Flush(dst []byte, ch [2][]int16) ([]byte, error) {
	if err := checkChannels(ch, 1); err != nil {
		return dst, err
	}
	whole := len(ch[0]) / e.granule * e.granule
	dst, err := e.Encode(dst, [2][]int16{ch[0][:whole], ch[1][:whole]})
	if err != nil {
		return dst, err
	}
	var last [2][]int16
	for i := range last {
		last[i] = make([]int16, e.granule)
		copy(last[i], ch[i][whole:])
	}
	e.in += len(ch[0]) - whole
	for e.in > 0 && e.coded < e.in+opusLookahead(e.rate) {
		if dst, err = e.unit(dst, last[0], last[1]); err != nil {
			return dst, err
		}
		clear(last[0])
		clear(last[1])
	}
	return dst, nil
}

// unit codes one granule of each channel.
func (e *opusEncoder) unit(dst []byte, a, b []int16) ([]byte, error) {
	if len(e.enc) == 0 {
		return dst, errors.New("opus encode: encoder is closed")
	}
	e.coded += e.granule
	if len(e.enc) == 1 {
		for i := range e.block {
			e.block[i] = average(a[i], b[i])
		}
		return e.one(dst, e.enc[0], e.block)
	}
	dst, err := e.one(dst, e.enc[0], a)
	if err != nil {
		return dst, err
	}
	return e.one(dst, e.enc[1], b)
}

func (e *opusEncoder) one(dst []byte, enc *opus.Encoder, pcm []int16) ([]byte, error) {
	n, err := enc.Encode(pcm, e.packet)
	if err != nil {
		return dst, fmt.Errorf("opus encode: %w", err)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	return append(dst, e.packet[:n]...), nil
}
