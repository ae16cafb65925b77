package flac

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mewkiz/flac"
	"pgregory.net/rapid"
)

// seekable is a file in memory.
type seekable struct {
	b  []byte
	at int
}

func (s *seekable) Write(b []byte) (int, error) {
	s.b = append(s.b, make([]byte, max(0, s.at+len(b)-len(s.b)))...)
	copy(s.b[s.at:], b)
	s.at += len(b)
	return len(b), nil
}

func (s *seekable) Seek(offset int64, whence int) (int64, error) {
	s.at = int(offset) + map[int]int{io.SeekStart: 0, io.SeekCurrent: s.at, io.SeekEnd: len(s.b)}[whence]
	return int64(s.at), nil
}

// decoded reads a file with the library's decoder, which checks every frame.
func decoded(t interface {
	Helper()
	Fatalf(string, ...any)
}, b []byte, channels int,
) (ch [2][]int16, samples uint64) {
	t.Helper()
	s, err := flac.New(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	for {
		f, err := s.ParseNext()
		if errors.Is(err, io.EOF) {
			return ch, s.Info.NSamples
		}
		if err != nil {
			t.Fatalf("frame: %v", err)
		}
		for c := range channels {
			for _, x := range f.Subframes[c].Samples {
				ch[c] = append(ch[c], int16(x))
			}
		}
	}
}

// voice is something like speech: tones and noise that come and go.
func voice(rate int, seconds float64, seed uint64) []int16 {
	rng := rand.New(rand.NewPCG(seed, 1))
	out := make([]int16, int(float64(rate)*seconds))
	low := 0.0
	for i := range out {
		at := float64(i) / float64(rate)
		low = 0.9*low + rng.NormFloat64()*200
		level := math.Max(0, math.Sin(2*math.Pi*(at/1.7+float64(seed)/5)))
		out[i] = int16(level * (low + 4000*math.Sin(2*math.Pi*180*at) + 2000*math.Sin(2*math.Pi*720*at)))
	}
	return out
}

// test runs the reference decoder over a file. It checks the MD5 of the samples.
func test(t *testing.T, path string) {
	t.Helper()
	program, err := exec.LookPath("flac")
	if err != nil {
		t.Log("the flac program is not there (package flac): the file is checked by our own decoder alone")
		return
	}
	if out, err := exec.Command(program, "--totally-silent", "--test", "--warnings-as-errors", path).CombinedOutput(); err != nil {
		t.Errorf("flac --test: %v %s", err, out)
	}
}

func TestFiles(t *testing.T) {
	for _, rate := range []int{8000, 16000, 48000, 44100, 12345} {
		for channels := 1; channels <= 2; channels++ {
			for _, streamed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d Hz, %d channels, streamed %v", rate, channels, streamed), func(t *testing.T) {
					ch := [2][]int16{voice(rate, 1.3, 1), voice(rate, 1.3, 2)}
					path := filepath.Join(t.TempDir(), "a.flac")
					f, err := os.Create(path)
					if err != nil {
						t.Fatal(err)
					}
					w := io.Writer(f)
					if streamed {
						w = struct{ io.Writer }{f}
					}
					if err := Encode(w, rate, channels, ch); err != nil {
						t.Fatal(err)
					}
					if err := f.Close(); err != nil { // which would fail had the encoder closed it
						t.Fatal(err)
					}
					b, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					got, samples := decoded(t, b, channels)
					for c := range channels {
						if !slices.Equal(got[c], ch[c]) {
							t.Errorf("channel %d: %d samples came back of %d, or others", c, len(got[c]), len(ch[c]))
						}
					}
					if want := uint64(len(ch[0])); samples != want && !streamed || streamed && samples != 0 {
						t.Errorf("the header says %d samples, there are %d", samples, want)
					}
					if raw := 2 * channels * len(ch[0]); len(b) > raw*8/10 {
						t.Errorf("%d bytes for %d", len(b), raw)
					}
					if !streamed {
						test(t, path)
					}
				})
			}
		}
	}
}

// However the samples are cut into calls, the file is the same.
func TestPieces(t *testing.T) {
	ch := [2][]int16{voice(8000, 1, 1), voice(8000, 1, 2)}
	var whole seekable
	if err := Encode(&whole, 8000, 2, ch); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		var out seekable
		w, err := NewWriter(&out, 8000, 2)
		if err != nil {
			t.Fatal(err)
		}
		rest := ch
		for len(rest[0]) > 0 {
			n := min(rapid.IntRange(0, 3000).Draw(t, "samples"), len(rest[0]))
			if err := w.Write([2][]int16{rest[0][:n], rest[1][:n]}); err != nil {
				t.Fatal(err)
			}
			rest[0], rest[1] = rest[0][n:], rest[1][n:]
		}
		if w.Samples() != int64(len(ch[0])) {
			t.Fatalf("%d samples", w.Samples())
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.b, whole.b) {
			t.Fatal("another file")
		}
	})
}

// Any samples come back: silence, full scale, single samples, noise.
func TestAnySamples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		channels := rapid.IntRange(1, 2).Draw(t, "channels")
		n := rapid.SampledFrom([]int{0, 1, 2, 4, 5, 16, 1151, 1152, 1153, 3000}).Draw(t, "samples")
		kind := rapid.SampledFrom([]string{"silence", "full", "alternating", "noise", "spike", "quiet"}).Draw(t, "kind")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 3))
		var ch [2][]int16
		for c := range ch {
			for i := range n {
				x := int16(0)
				switch kind {
				case "full":
					x = math.MinInt16
				case "alternating":
					x = [2]int16{math.MinInt16, math.MaxInt16}[i&1]
				case "noise":
					x = int16(rng.Uint32())
				case "spike":
					x = map[bool]int16{true: math.MaxInt16}[i == c]
				case "quiet":
					x = int16(rng.IntN(3)) - 1
				}
				ch[c] = append(ch[c], x)
			}
		}
		var out seekable
		if err := Encode(&out, 8000, channels, ch); err != nil {
			t.Fatal(err)
		}
		if limit := 100 + (n*2+40)*channels; len(out.b) > limit {
			t.Fatalf("%d bytes, verbatim %d", len(out.b), limit)
		}
		got, samples := decoded(t, out.b, channels)
		if samples != uint64(n) {
			t.Fatalf("the header says %d of %d", samples, n)
		}
		for c := range channels {
			if !slices.Equal(got[c], ch[c]) {
				t.Fatalf("channel %d differs", c)
			}
		}
	})
}

// A file may stand behind something else, and the place after it is left for more.
func TestInTheMiddle(t *testing.T) {
	out := seekable{b: []byte("before"), at: 6}
	ch := voice(8000, 0.5, 1)
	if err := Encode(&out, 8000, 1, [2][]int16{ch}); err != nil {
		t.Fatal(err)
	}
	if string(out.b[:10]) != "beforefLaC" || out.at != len(out.b) {
		t.Errorf("%q, at %d of %d", out.b[:10], out.at, len(out.b))
	}
	if got, n := decoded(t, out.b[6:], 1); n != uint64(len(ch)) || !slices.Equal(got[0], ch) {
		t.Errorf("%d samples", n)
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct{ rate, channels int }{{0, 1}, {999, 1}, {192001, 2}, {8000, 0}, {8000, 3}} {
		if _, err := NewWriter(io.Discard, tt.rate, tt.channels); !errors.Is(err, ErrShape) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	w, err := NewWriter(io.Discard, 8000, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write([2][]int16{make([]int16, 2), nil}); !errors.Is(err, ErrShape) {
		t.Error(err)
	}
	w.samples = SamplesMax
	if err := w.Write([2][]int16{{1}, {1}}); !errors.Is(err, ErrLong) {
		t.Error(err)
	}
	w.samples = 0
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Error(err)
	}
	if err := w.Write([2][]int16{{1}, {1}}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

var errDisk = errors.New("disk full")

// failing takes some bytes, then fails; seeks fail when they are told to.
type failing struct {
	seekable
	room     int
	failSeek bool
}

func (f *failing) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, errDisk
	}
	return f.seekable.Write(b)
}

func (f *failing) Seek(offset int64, whence int) (int64, error) {
	if f.failSeek && whence == io.SeekStart {
		return 0, errDisk
	}
	return f.seekable.Seek(offset, whence)
}

// The error of the disk is told, whenever it comes, by Write or by Close, and stays.
func TestDiskFull(t *testing.T) {
	ch := voice(48000, 4, 1)
	var whole seekable
	if err := Encode(&whole, 48000, 1, [2][]int16{ch}); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*failing{{room: 0}, {room: 40000}, {room: len(whole.b) - 1}, {room: len(whole.b) + headerBytes - 1}, {room: 1 << 30, failSeek: true}} {
		w, err := NewWriter(f, 48000, 1)
		if err != nil {
			t.Fatal(err)
		}
		writeErr := w.Write([2][]int16{ch})
		closeErr := w.Close()
		if !errors.Is(closeErr, errDisk) || writeErr != nil && !errors.Is(writeErr, errDisk) || !errors.Is(w.Close(), errDisk) {
			t.Errorf("room %d: %v, %v", f.room, writeErr, closeErr)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, rate := range []int{8000, 16000, 48000} {
		b.Run(fmt.Sprintf("%dHz-stereo-second", rate), func(b *testing.B) {
			ch := [2][]int16{voice(rate, 1, 1), voice(rate, 1, 2)}
			w, err := NewWriter(struct{ io.Writer }{io.Discard}, rate, 2)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Write(ch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
