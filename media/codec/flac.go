package codec

import (
	"fmt"
	"io"

	"github.com/trunktap/trunktap/media/codec/flac"
)

// flacGranuleMS is the step of FLAC data. It need not be small: frames are made
// of all that is coded at a time.
const flacGranuleMS = 20

// flacEncoder codes into frames of FLAC without a file.
type flacEncoder struct {
	channels, granule int
	frames            *flac.Framer
	mono              []int16
}

func newFLACEncoder(rate, channels int) (Encoder, error) {
	f, err := flac.NewFramer(rate, channels)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return &flacEncoder{channels: channels, granule: max(rate*flacGranuleMS/1000, 1), frames: f}, nil
}

// Granule implements Encoder.
func (e *flacEncoder) Granule() int { return e.granule }

// Close implements Encoder.
func (*flacEncoder) Close() {}

// Encode implements Encoder.
func (e *flacEncoder) Encode(dst []byte, ch [2][]int16) ([]byte, error) {
	if err := checkChannels(ch, e.channels, e.granule); err != nil {
		return dst, err
	}
	return e.Flush(dst, ch)
}

// Flush implements Encoder. Nothing is padded and nothing held back.
func (e *flacEncoder) Flush(dst []byte, ch [2][]int16) ([]byte, error) {
	if err := checkChannels(ch, e.channels, 1); err != nil {
		return dst, err
	}
	if e.channels == 1 {
		e.mono = mixed(e.mono, ch)
		ch = [2][]int16{e.mono}
	}
	return e.frames.Append(dst, ch)
}

// flacDecoder reads what flacEncoder writes.
type flacDecoder struct{ rate, channels int }

func (d flacDecoder) Decode(dst [2][]int16, data []byte, samples int) ([2][]int16, error) {
	before := len(dst[0])
	dst, err := flac.DecodeFrames(dst, data, d.rate, d.channels, samples)
	if err != nil {
		return dst, fmt.Errorf("%w: %w", ErrCoded, err)
	}
	if n := len(dst[0]) - before; n != samples {
		return dst, fmt.Errorf("%w: %d samples in FLAC data of %d", ErrCoded, n, samples)
	}
	return dst, nil
}

func (flacDecoder) Finish(dst [2][]int16) [2][]int16 { return dst }

// flacWriter makes a FLAC file of coded data: frames are numbered in their file,
// whose head has the MD5 of the samples, so they are coded again.
type flacWriter struct {
	dec   flacDecoder
	out   *flac.Writer
	pcm   [2][]int16
	quiet []int16
}

func newFLACWriter(w io.Writer, rate, channels int) (FileWriter, error) {
	out, err := flac.NewWriter(w, rate, channels)
	if err != nil {
		return nil, err
	}
	return &flacWriter{dec: flacDecoder{rate, channels}, out: out, quiet: make([]int16, rate)}, nil
}

// Write implements FileWriter.
func (w *flacWriter) Write(data []byte, samples int) error {
	var err error
	w.pcm, err = w.dec.Decode([2][]int16{w.pcm[0][:0], w.pcm[1][:0]}, data, samples)
	if err != nil {
		return err
	}
	return w.out.Write(w.pcm)
}

// Silence implements FileWriter.
func (w *flacWriter) Silence(samples int) error {
	for samples > 0 {
		n := min(samples, len(w.quiet))
		if err := w.out.Write([2][]int16{w.quiet[:n], w.quiet[:n]}); err != nil {
			return err
		}
		samples -= n
	}
	return nil
}

// Close implements FileWriter.
func (w *flacWriter) Close() error { return w.out.Close() }
