// Package mp3 writes MP3 files for export.
//
// It is built on libmp3lame, which is under the LGPL and linked dynamically. The
// build tag nomp3 leaves it out; NewWriter then says so.
package mp3

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Errors of Writer.
var (
	ErrShape  = errors.New("MP3 cannot have this shape")
	ErrClosed = errors.New("MP3 writer is closed")
	ErrLame   = errors.New("libmp3lame")
	// ErrLeftOut says that this build has no MP3.
	ErrLeftOut = errors.New("MP3 was left out of this build (tag nomp3, or no cgo): build with libmp3lame and without the tag, or export as flac, ogg-opus or wav")
)

// Options of NewWriter.
type Options struct {
	Bitrate int // bit/s of all channels together, constant, one of Bitrates; 0: a default for speech
}

// Bitrates returns the constant bit rates, in bit/s, that a file of rate Hz may
// have, in ascending order; none when MP3 does not have the rate. Lower ones
// exist in MPEG, but their frames have no room for the tag that tells a player
// where the audio begins and ends.
func Bitrates(rate int) []int {
	switch rate {
	case 8000: // MPEG-2.5
		return []int{24000, 32000, 40000, 48000, 56000, 64000}
	case 16000: // MPEG-2
		return []int{40000, 48000, 56000, 64000, 80000, 96000, 112000, 128000, 144000, 160000}
	case 48000: // MPEG-1
		return []int{64000, 80000, 96000, 112000, 128000, 160000, 192000, 224000, 256000, 320000}
	}
	return nil
}

// check returns the bit rate, or says what is wrong with a shape.
func check(rate, channels int, opt Options) (int, error) {
	all := Bitrates(rate)
	switch {
	case all == nil:
		return 0, fmt.Errorf("%w: %d Hz: 8000, 16000 or 48000", ErrShape, rate)
	case channels != 1 && channels != 2:
		return 0, fmt.Errorf("%w: %d channels: 1 or 2", ErrShape, channels)
	case opt.Bitrate == 0:
		return map[int]int{8000: 24000, 16000: 48000, 48000: 64000}[rate] * channels, nil
	case !slices.Contains(all, opt.Bitrate):
		return 0, fmt.Errorf("%w: %d bit/s at %d Hz: one of %v", ErrShape, opt.Bitrate, rate, all)
	}
	return opt.Bitrate, nil
}

// Encode writes a whole file at once.
func Encode(w io.Writer, rate, channels int, opt Options, ch [2][]int16) error {
	f, err := NewWriter(w, rate, channels, opt)
	if err != nil {
		return err
	}
	if err := f.Write(ch); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
