package flac

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func mustFramer(t interface{ Fatal(...any) }, rate, channels int) *Framer {
	f, err := NewFramer(rate, channels)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFramesAreIndependent: any samples in any pieces come back, and each piece
// can be decoded without the ones before it.
func TestFramesAreIndependent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.SampledFrom([]int{8000, 16000, 48000, 11025}).Draw(t, "rate")
		channels := rapid.IntRange(1, 2).Draw(t, "channels")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		f := mustFramer(t, rate, channels)
		for range rapid.IntRange(1, 4).Draw(t, "pieces") {
			n := rapid.SampledFrom([]int{0, 1, 15, 160, 3841, 4000, 24001}).Draw(t, "samples")
			ch := [2][]int16{make([]int16, n), make([]int16, n)}
			if loud := rapid.Bool().Draw(t, "noise"); loud {
				for i := range n {
					ch[0][i], ch[1][i] = int16(rng.Uint32()), int16(rng.IntN(3))
				}
			}
			data, err := f.Append([]byte("before"), ch)
			if err != nil {
				t.Fatal(err)
			}
			if string(data[:6]) != "before" {
				t.Fatal("what was in dst is gone")
			}
			got, err := DecodeFrames([2][]int16{}, data[6:], rate, channels, n)
			if err != nil {
				t.Fatal(err)
			}
			for c := range channels {
				if !slices.Equal(got[c], ch[c]) && n > 0 {
					t.Fatalf("channel %d differs", c)
				}
			}
			if n > 0 {
				if _, err := DecodeFrames([2][]int16{}, data[6:], rate, channels, n-1); !errors.Is(err, ErrFrames) {
					t.Fatalf("more samples than allowed: %v", err)
				}
				if _, err := DecodeFrames([2][]int16{}, data[6:len(data)-1], rate, channels, n); !errors.Is(err, ErrFrames) {
					t.Fatalf("a frame that is cut: %v", err)
				}
				if _, err := DecodeFrames([2][]int16{}, data[6:], rate, 3-channels, n); !errors.Is(err, ErrFrames) {
					t.Fatalf("other channels: %v", err)
				}
			}
		}
	})
}

func TestFramerRefuses(t *testing.T) {
	for _, tt := range []struct{ rate, channels int }{{0, 1}, {8000, 0}, {8000, 3}} {
		if _, err := NewFramer(tt.rate, tt.channels); !errors.Is(err, ErrShape) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	if _, err := mustFramer(t, 8000, 2).Append(nil, [2][]int16{make([]int16, 2), nil}); !errors.Is(err, ErrShape) {
		t.Error(err)
	}
}

// FuzzDecodeFrames: whatever the data is, there are no more samples than allowed.
func FuzzDecodeFrames(f *testing.F) {
	for channels := 1; channels <= 2; channels++ {
		data, err := mustFramer(f, 8000, channels).Append(nil, [2][]int16{voice(8000, 0.3, 1), voice(8000, 0.3, 2)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, channels)
	}
	f.Add([]byte{0xff, 0xf8, 0x69, 0x08, 0, 0x9f, 0xbf}, 1)
	f.Fuzz(func(t *testing.T, data []byte, channels int) {
		got, err := DecodeFrames([2][]int16{}, data, 8000, 1+channels&1, 48000)
		if len(got[0]) > 48000 || err == nil && channels&1 == 1 && len(got[0]) != len(got[1]) {
			t.Errorf("%d and %d samples, %v", len(got[0]), len(got[1]), err)
		}
	})
}
