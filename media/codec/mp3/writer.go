//go:build cgo && !nomp3

package mp3

import (
	"errors"
	"fmt"
	"io"
)

// Supported tells whether this build can write MP3.
const Supported = true

const (
	pieceSamples = 1152 * 8 // what is coded at a time, per channel
	pieceBytes   = pieceSamples*5/4 + 7200
	tagBytesMax  = 2880 // a frame's greatest size
)

// Writer codes samples into an MP3 file of constant bit rate. The channels are
// coded as left and right, never as sum and difference. Its memory is not Go's:
// Close must be called, after an error too. Not safe for concurrent use.
type Writer struct {
	lame     lame
	w        io.Writer
	seeker   io.WriteSeeker // nil: the file begins without a tag
	start    int64
	channels int
	samples  int64
	coded    []byte
	err      error // the first one, which all later calls return
}

// NewWriter begins a file of 8000, 16000 or 48000 Hz with 1 or 2 channels on w.
// When w is also an io.Seeker, Close completes the tag (Info and LAME) at its
// beginning, by which players skip the delay of the codec and the padding at
// the end: the audio begins and ends at the sample. Else there is no tag, and
// what is heard begins some 50 to 140 ms late. w is never closed.
func NewWriter(w io.Writer, rate, channels int, opt Options) (*Writer, error) {
	bitrate, err := check(rate, channels, opt)
	if err != nil {
		return nil, err
	}
	f := &Writer{w: w, channels: channels, coded: make([]byte, pieceBytes)}
	if s, ok := w.(io.WriteSeeker); ok {
		at, err := s.Seek(0, io.SeekCurrent)
		if err == nil {
			f.seeker, f.start = s, at
		} // else it is a pipe or a socket in an *os.File
	}
	var ok bool
	if f.lame, ok = newLame(rate, channels, bitrate, f.seeker != nil); !ok {
		return nil, fmt.Errorf("%w refuses %d Hz, %d channels, %d bit/s", ErrLame, rate, channels, bitrate)
	}
	return f, nil
}

// Write adds samples. With one channel the second is ignored; with two, both
// have the same length.
func (f *Writer) Write(ch [2][]int16) error {
	switch {
	case f.lame.closed() && f.err == nil:
		return ErrClosed
	case f.err != nil:
		return f.err
	case f.channels == 1:
		ch[1] = ch[0]
	case len(ch[0]) != len(ch[1]):
		return fmt.Errorf("%w: channels of %d and %d samples", ErrShape, len(ch[0]), len(ch[1]))
	}
	for len(ch[0]) > 0 {
		n := min(len(ch[0]), pieceSamples)
		if err := f.put(f.lame.encode(ch[0][:n], ch[1][:n], f.coded), "encode"); err != nil {
			return err
		}
		f.samples += int64(n)
		ch[0], ch[1] = ch[0][n:], ch[1][n:]
	}
	return nil
}

// put writes what was coded; a negative number is an error of libmp3lame.
func (f *Writer) put(n int, doing string) error {
	if n < 0 {
		f.err = fmt.Errorf("%s MP3 at sample %d: %w: error %d", doing, f.samples, ErrLame, n)
		return f.err
	}
	if n == 0 {
		return nil
	}
	if _, err := f.w.Write(f.coded[:n]); err != nil {
		f.err = fmt.Errorf("write MP3 at sample %d: %w", f.samples, err)
	}
	return f.err
}

// Samples returns how many samples were taken, per channel.
func (f *Writer) Samples() int64 { return f.samples }

// Close writes what is left and completes the tag. It does not close the
// writer beneath. Calling it again returns what the first call returned.
func (f *Writer) Close() error {
	if f.lame.closed() {
		return f.err
	}
	if f.err == nil {
		_ = f.put(f.lame.flush(f.coded), "flush") // kept in f.err
	}
	if f.err == nil && f.seeker != nil {
		if err := f.tag(); err != nil {
			f.err = fmt.Errorf("complete MP3: %w", err)
		}
	}
	f.lame.close()
	return f.err
}

var errNoTag = errors.New("there is no tag")

// tag writes the frame with the delay and the number of samples over the one
// that was left for it.
func (f *Writer) tag() error {
	n := f.lame.tag(f.coded[:tagBytesMax])
	if n == 0 || n > tagBytesMax {
		return errNoTag
	}
	if _, err := f.seeker.Seek(f.start, io.SeekStart); err != nil {
		return err
	}
	if _, err := f.seeker.Write(f.coded[:n]); err != nil {
		return err
	}
	_, err := f.seeker.Seek(0, io.SeekEnd)
	return err
}
