package flac

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/mewkiz/flac"
	"github.com/mewkiz/flac/frame"
	"github.com/mewkiz/flac/meta"
)

// ErrFrames says that data is not what a Framer writes.
var ErrFrames = errors.New("FLAC frames are malformed")

// Framer codes samples into frames without a file around them (RFC 9639 section
// 9). Each frame tells its rate, shape and length and knows no other, so any run
// of them can be decoded for itself. Not safe for concurrent use.
type Framer struct {
	channels int
	block    int
	out      sink
	enc      *flac.Encoder
	frame    frame.Frame
	samples  [2][]int32
}

// sink gathers what the encoder writes.
type sink struct{ b []byte }

func (s *sink) Write(b []byte) (int, error) {
	s.b = append(s.b, b...)
	return len(b), nil
}

// NewFramer returns a coder for rate Hz and 1 or 2 channels.
func NewFramer(rate, channels int) (*Framer, error) {
	if err := checkShape(rate, channels); err != nil {
		return nil, err
	}
	f := &Framer{channels: channels, block: blockOf(rate)}
	info := &meta.StreamInfo{
		BlockSizeMin: uint16(f.block), BlockSizeMax: uint16(f.block),
		SampleRate: uint32(rate), NChannels: uint8(channels), BitsPerSample: 16,
	}
	var err error
	if f.enc, err = flac.NewEncoder(&f.out, info); err != nil {
		return nil, fmt.Errorf("begin FLAC frames: %w", err)
	}
	f.enc.EnablePredictionAnalysis(true)
	f.frame.Header = frame.Header{SampleRate: uint32(rate), Channels: frame.Channels(channels - 1), BitsPerSample: 16}
	for range channels {
		f.frame.Subframes = append(f.frame.Subframes, &frame.Subframe{})
	}
	return f, nil
}

// Append appends the samples to dst as frames of about 100 ms, all of one call
// of much the same length. With one channel the second is ignored; with two, both
// have the same length.
func (f *Framer) Append(dst []byte, ch [2][]int16) ([]byte, error) {
	if f.channels == 2 && len(ch[0]) != len(ch[1]) {
		return dst, fmt.Errorf("%w: channels of %d and %d samples", ErrShape, len(ch[0]), len(ch[1]))
	}
	f.out.b = dst
	defer func() { f.out.b = nil }()
	left := len(ch[0])
	for left > 0 {
		frames := (left + f.block - 1) / f.block
		n := (left + frames - 1) / frames
		at := len(ch[0]) - left
		if err := f.put(ch, at, at+n); err != nil {
			return dst, err
		}
		left -= n
	}
	return f.out.b, nil
}

// put codes a part of the samples as one frame.
func (f *Framer) put(ch [2][]int16, from, to int) error {
	f.frame.BlockSize = uint16(to - from)
	for c, s := range f.frame.Subframes {
		f.samples[c] = f.samples[c][:0]
		for _, x := range ch[c][from:to] {
			f.samples[c] = append(f.samples[c], int32(x))
		}
		s.Samples, s.NSamples = f.samples[c], to-from
		plan(s)
	}
	if err := f.enc.WriteFrame(&f.frame); err != nil {
		return fmt.Errorf("write FLAC frame: %w", err)
	}
	return nil
}

// DecodeFrames appends the samples of all frames in data, which are of rate Hz
// and have so many channels; at most limit per channel. With one channel the
// second stays as it is.
func DecodeFrames(dst [2][]int16, data []byte, rate, channels, limit int) ([2][]int16, error) {
	r := bytes.NewReader(data)
	for r.Len() > 0 {
		f, err := frame.New(r)
		if err != nil {
			return dst, fmt.Errorf("%w: %w", ErrFrames, err)
		}
		if f.SampleRate != uint32(rate) || int(f.Channels) != channels-1 || f.BitsPerSample != 16 {
			return dst, fmt.Errorf("%w: a frame of %d channels and %d bits at %d Hz among those of %d channels and 16 bits at %d Hz",
				ErrFrames, f.Channels.Count(), f.BitsPerSample, f.SampleRate, channels, rate)
		}
		if limit -= int(f.BlockSize); limit < 0 {
			return dst, fmt.Errorf("%w: more samples than there may be", ErrFrames)
		}
		if err := f.Parse(); err != nil {
			return dst, fmt.Errorf("%w: %w", ErrFrames, err)
		}
		for c := range channels {
			if len(f.Subframes[c].Samples) != int(f.BlockSize) {
				return dst, fmt.Errorf("%w: %d samples in a frame of %d", ErrFrames, len(f.Subframes[c].Samples), f.BlockSize)
			}
			for _, x := range f.Subframes[c].Samples {
				dst[c] = append(dst[c], int16(x))
			}
		}
	}
	return dst, nil
}
