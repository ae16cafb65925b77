// Package flac writes FLAC files (RFC 9639) of one or two channels of 16 bits,
// whole or as the samples come.
package flac

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/mewkiz/flac"
	"github.com/mewkiz/flac/frame"
	"github.com/mewkiz/flac/meta"
)

// SamplesMax is the longest a file may be, per channel: what its header can
// say. At 48 kHz that is over two weeks.
const SamplesMax = 1<<36 - 1

// Errors of Writer.
var (
	ErrShape  = errors.New("FLAC cannot have this shape")
	ErrClosed = errors.New("FLAC writer is closed")
	ErrLong   = errors.New("FLAC file is too long: its header counts 2^36 samples")
)

// Writer codes samples into a FLAC file. Each channel is coded for itself: what
// is heard in one cannot leak into the other, and two parties have little in
// common that could be spared. Not safe for concurrent use.
type Writer struct {
	out      *output
	enc      *flac.Encoder
	channels int
	rate     uint32
	block    int // samples of a frame, per channel

	pending [2][]int32 // less than a frame
	frame   *frame.Frame
	samples uint64
	err     error // the first one, which all later calls return
	closed  bool
}

// NewWriter begins a file of rate Hz with 1 or 2 channels on w. When w is also
// an io.Seeker the header is completed by Close: with the number of samples and
// the MD5 of them, by which a decoder proves the whole file. Else they stay
// "unknown" (RFC 9639 section 8.2), and the frames' own checksums are all there is. w is
// buffered in between and never closed.
func NewWriter(w io.Writer, rate, channels int) (*Writer, error) {
	if err := checkShape(rate, channels); err != nil {
		return nil, err
	}
	f := &Writer{out: newOutput(w), channels: channels, rate: uint32(rate), block: blockOf(rate)}
	info := &meta.StreamInfo{
		BlockSizeMin: uint16(f.block), BlockSizeMax: uint16(f.block),
		SampleRate: f.rate, NChannels: uint8(channels), BitsPerSample: 16,
	}
	var err error
	if f.enc, err = flac.NewEncoder(f.out, info); err != nil {
		return nil, fmt.Errorf("begin FLAC: %w", f.out.reason(err))
	}
	f.enc.EnablePredictionAnalysis(true)
	f.frame = &frame.Frame{Header: frame.Header{
		HasFixedBlockSize: true, SampleRate: f.rate, Channels: frame.Channels(channels - 1), BitsPerSample: 16,
	}}
	for range channels {
		f.frame.Subframes = append(f.frame.Subframes, &frame.Subframe{})
	}
	return f, nil
}

// checkShape refuses what a file or a frame cannot be.
func checkShape(rate, channels int) error {
	if rate < 1000 || rate > 192000 {
		return fmt.Errorf("%w: %d Hz: 1000 to 192000", ErrShape, rate)
	}
	if channels != 1 && channels != 2 {
		return fmt.Errorf("%w: %d channels: 1 or 2", ErrShape, channels)
	}
	return nil
}

// blockOf returns the samples of a frame: about 100 to 150 ms, over which
// speech keeps its character. All are sizes that a frame header has a code for.
func blockOf(rate int) int {
	switch {
	case rate <= 12000:
		return 1152
	case rate <= 24000:
		return 2304
	}
	return 4608
}

// Write adds samples. With one channel the second is ignored; with two, both
// have the same length.
func (f *Writer) Write(ch [2][]int16) error {
	switch {
	case f.closed:
		return ErrClosed
	case f.err != nil:
		return f.err
	case f.channels == 2 && len(ch[0]) != len(ch[1]):
		return fmt.Errorf("%w: channels of %d and %d samples", ErrShape, len(ch[0]), len(ch[1]))
	case f.samples+uint64(len(f.pending[0]))+uint64(len(ch[0])) > SamplesMax:
		return ErrLong
	}
	for len(ch[0]) > 0 {
		n := min(f.block-len(f.pending[0]), len(ch[0]))
		for c := range f.channels {
			for _, s := range ch[c][:n] {
				f.pending[c] = append(f.pending[c], int32(s))
			}
			ch[c] = ch[c][n:]
		}
		if len(f.pending[0]) == f.block {
			if err := f.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush codes what is pending as one frame.
func (f *Writer) flush() error {
	n := len(f.pending[0])
	f.frame.BlockSize = uint16(n)
	for c, s := range f.frame.Subframes {
		s.Samples, s.NSamples = f.pending[c], n
		plan(s)
	}
	if err := f.enc.WriteFrame(f.frame); err != nil {
		f.err = fmt.Errorf("write FLAC frame at sample %d: %w", f.samples, f.out.reason(err))
		return f.err
	}
	f.samples += uint64(n)
	for c := range f.pending {
		f.pending[c] = f.pending[c][:0]
	}
	return nil
}

// Samples returns how many samples were taken, per channel.
func (f *Writer) Samples() int64 { return int64(f.samples) + int64(len(f.pending[0])) }

// Close writes what is left and completes the header. It does not close the
// writer beneath. Calling it again returns what the first call returned.
func (f *Writer) Close() error {
	if f.closed {
		return f.err
	}
	f.closed = true
	if f.err == nil && len(f.pending[0]) > 0 {
		_ = f.flush() // kept in f.err
	}
	if err := f.complete(); f.err == nil && err != nil {
		f.err = fmt.Errorf("complete FLAC: %w", err)
	}
	return f.err
}

// complete has the header written again, of what was written before an error too.
func (f *Writer) complete() error {
	if f.out.seeker == nil {
		return f.out.buffer.Flush()
	}
	f.out.header = make([]byte, 0, headerBytes)
	if err := f.enc.Close(); err != nil {
		return f.out.reason(err)
	}
	return f.out.rewrite(uint16(f.block))
}

// Encode writes a whole file at once.
func Encode(w io.Writer, rate, channels int, ch [2][]int16) error {
	f, err := NewWriter(w, rate, channels)
	if err != nil {
		return err
	}
	if err := f.Write(ch); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

const (
	headerAt    = 4 // behind "fLaC"
	headerBytes = 4 + 34
)

// output stands between the encoder and the writer: it buffers, keeps
// errors as they were, hides Close, and catches the completed header.
type output struct {
	buffer *bufio.Writer
	seeker io.WriteSeeker // nil: cannot be completed
	start  int64
	err    error
	header []byte // once not nil: what the encoder writes now is the completed header
}

func newOutput(w io.Writer) *output {
	o := &output{buffer: bufio.NewWriterSize(w, 1<<15)}
	if s, ok := w.(io.WriteSeeker); ok {
		at, err := s.Seek(0, io.SeekCurrent)
		if err == nil {
			o.seeker, o.start = s, at
		} // else it is a pipe or a socket in an *os.File
	}
	return o
}

func (o *output) Write(b []byte) (int, error) {
	if o.header != nil {
		o.header = append(o.header, b...)
		return len(b), nil
	}
	n, err := o.buffer.Write(b)
	if err != nil {
		o.err = err
	}
	return n, err
}

// Seek is called by the encoder's Close before it writes the header.
func (o *output) Seek(int64, int) (int64, error) { return headerAt, nil }

// reason is the error of the writer beneath, which the encoder hides.
func (o *output) reason(err error) error {
	if o.err != nil {
		return o.err
	}
	return err
}

// rewrite puts the completed header into its place. The encoder counts the
// last frame, which may be short, as the least block; RFC 9639 section 8.2
// leaves it out.
func (o *output) rewrite(block uint16) error {
	if err := o.buffer.Flush(); err != nil {
		return err
	}
	if len(o.header) != headerBytes {
		return fmt.Errorf("header of %d bytes", len(o.header))
	}
	binary.BigEndian.PutUint16(o.header[4:], block)
	binary.BigEndian.PutUint16(o.header[6:], block)
	if _, err := o.seeker.Seek(o.start+headerAt, io.SeekStart); err != nil {
		return err
	}
	if _, err := o.seeker.Write(o.header); err != nil {
		return err
	}
	_, err := o.seeker.Seek(0, io.SeekEnd)
	return err
}
