package mp3

import (
	"errors"
	"io"
	"testing"
)

func TestRefused(t *testing.T) {
	for _, tt := range []struct{ rate, channels, bitrate int }{
		{0, 1, 0}, {44100, 1, 0}, {8000, 0, 0}, {8000, 3, 0}, {8000, 1, 8000}, {8000, 1, 24}, {16000, 2, 320000}, {48000, 2, -1},
	} {
		if _, err := NewWriter(io.Discard, tt.rate, tt.channels, Options{Bitrate: tt.bitrate}); !errors.Is(err, ErrShape) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// A build without MP3 says so, and one with it does not.
func TestSupported(t *testing.T) {
	w, err := NewWriter(io.Discard, 8000, 1, Options{})
	if Supported != (err == nil) || err != nil && !errors.Is(err, ErrLeftOut) {
		t.Fatal(err)
	}
	if w != nil {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}
