//go:build !cgo || nomp3

package mp3

import "io"

// Supported tells whether this build can write MP3.
const Supported = false

// Writer is never made in this build.
type Writer struct{}

// NewWriter returns ErrLeftOut, or what is wrong with the shape.
func NewWriter(_ io.Writer, rate, channels int, opt Options) (*Writer, error) {
	if _, err := check(rate, channels, opt); err != nil {
		return nil, err
	}
	return nil, ErrLeftOut
}

// Write returns ErrLeftOut.
func (*Writer) Write([2][]int16) error { return ErrLeftOut }

// Samples returns 0.
func (*Writer) Samples() int64 { return 0 }

// Close returns ErrLeftOut.
func (*Writer) Close() error { return ErrLeftOut }
