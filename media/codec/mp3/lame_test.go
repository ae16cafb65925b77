//go:build cgo && !nomp3

package mp3

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// voice is something like speech: tones and noise that come and go.
func voice(rate int, seconds float64, seed uint64) []int16 {
	rng := rand.New(rand.NewPCG(seed, 1))
	out := make([]int16, int(float64(rate)*seconds))
	low := 0.0
	for i := range out {
		at := float64(i) / float64(rate)
		low = 0.9*low + rng.NormFloat64()*100
		level := math.Max(0, math.Sin(2*math.Pi*(at/1.7+float64(seed)/5)))
		out[i] = int16(level * (low + 4000*math.Sin(2*math.Pi*(180+60*float64(seed))*at) + 2000*math.Sin(2*math.Pi*720*at)))
	}
	return out
}

func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not there (package ffmpeg): nothing reads the files back", name)
	}
	return path
}

// decoded has ffmpeg read a file, as interleaved samples.
func decoded(t *testing.T, path string, channels int) [2][]int16 {
	t.Helper()
	cmd := exec.Command(program(t, "ffmpeg"), "-v", "error", "-i", path, "-f", "s16le", "-")
	var raw, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &raw, &msg
	if err := cmd.Run(); err != nil || msg.Len() > 0 {
		t.Fatalf("ffmpeg: %v %s", err, &msg)
	}
	var ch [2][]int16
	for i := 0; i+1 < raw.Len(); i += 2 {
		c := i / 2 % channels
		ch[c] = append(ch[c], int16(binary.LittleEndian.Uint16(raw.Bytes()[i:])))
	}
	return ch
}

func correlation(a, b []int16) float64 {
	var ab, aa, bb float64
	for i := range min(len(a), len(b)) {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}

func write(t *testing.T, rate, channels, bitrate int, seekable bool, ch [2][]int16) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.mp3")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := io.Writer(f)
	if !seekable {
		w = struct{ io.Writer }{f}
	}
	if err := Encode(w, rate, channels, Options{Bitrate: bitrate}, ch); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil { // which would fail had the encoder closed it
		t.Fatal(err)
	}
	return path
}

// At the least, the greatest and the default bit rate, what ffmpeg reads begins
// and ends at the sample and is what was written.
func TestFiles(t *testing.T) {
	for _, rate := range []int{8000, 16000, 48000} {
		for channels := 1; channels <= 2; channels++ {
			all := Bitrates(rate)
			for _, bitrate := range []int{0, all[0], all[len(all)-1]} {
				t.Run(fmt.Sprintf("%d Hz, %d channels, %d bit/s", rate, channels, bitrate), func(t *testing.T) {
					ch := [2][]int16{voice(rate, 1.61, 1), voice(rate, 1.61, 2)}
					path := write(t, rate, channels, bitrate, true, ch)
					got := decoded(t, path, channels)
					for c := range channels {
						if len(got[c]) != len(ch[c]) {
							t.Errorf("channel %d: %d samples of %d", c, len(got[c]), len(ch[c]))
						}
						if r := correlation(got[c], ch[c]); r < 0.99 {
							t.Errorf("channel %d: correlation %.4f", c, r)
						} else {
							t.Logf("channel %d: correlation %.4f", c, r)
						}
					}
					if bitrate != 0 {
						return
					}
					out, err := exec.Command(program(t, "ffprobe"), "-v", "error", "-show_entries", "stream=codec_name,sample_rate,channels,duration", "-of", "default=nk=1:nw=1", path).Output()
					fields := strings.Fields(string(out))
					if err != nil || len(fields) != 4 || fields[0] != "mp3" || fields[1] != strconv.Itoa(rate) || fields[2] != strconv.Itoa(channels) {
						t.Fatalf("ffprobe: %v %q", err, out)
					}
					if d, err := strconv.ParseFloat(fields[3], 64); err != nil || math.Abs(d-1.61) > 0.2 { // whole frames, delay and padding with them
						t.Errorf("%s s, %v", fields[3], err)
					}
				})
			}
		}
	}
}

// tagOf reads the delay and the padding out of a LAME tag.
func tagOf(t *testing.T, b []byte) (delay, padding int) {
	t.Helper()
	info, lame := bytes.Index(b[:400], []byte("Info")), bytes.Index(b[:400], []byte("LAME"))
	if info < 0 || lame < info {
		t.Fatalf("no tag in %q", b[:64])
	}
	at := b[lame+21:]
	return int(at[0])<<4 | int(at[1])>>4, int(at[1]&0xf)<<8 | int(at[2])
}

// With the delay and the padding taken off, the frames hold exactly the samples.
func TestTag(t *testing.T) {
	for _, n := range []int{0, 1, 575, 576, 577, 30000} {
		for _, rate := range []int{8000, 16000, 48000} {
			ch := [2][]int16{voice(rate, 4, 1)[:n]}
			b, err := os.ReadFile(write(t, rate, 1, 0, true, ch))
			if err != nil {
				t.Fatal(err)
			}
			delay, padding := tagOf(t, b)
			frames := int(binary.BigEndian.Uint32(b[bytes.Index(b, []byte("Info"))+8:]))
			perFrame := map[int]int{8000: 576, 16000: 576, 48000: 1152}[rate]
			if got := frames*perFrame - delay - padding; got != n {
				t.Errorf("%d samples at %d Hz: the tag says %d (%d frames, delay %d, padding %d)", n, rate, got, frames, delay, padding)
			}
		}
	}
}

// Without a place to seek in there is no tag, and the audio comes late by the
// codec's delay.
func TestStreamed(t *testing.T) {
	ch := [2][]int16{voice(16000, 2, 1), voice(16000, 2, 2)}
	path := write(t, 16000, 2, 64000, false, ch)
	b, err := os.ReadFile(path)
	if err != nil || bytes.Contains(b[:400], []byte("Info")) {
		t.Fatalf("a tag that nobody completed: %v", err)
	}
	got := decoded(t, path, 2)
	best, at := 0.0, 0
	for d := range 3000 {
		if r := correlation(got[0][d:], ch[0]); r > best {
			best, at = r, d
		}
	}
	if best < 0.97 || at < 500 || at > 140*16 {
		t.Errorf("best correlation %.3f at %d samples", best, at)
	}
}

// A channel is silent when nothing is said in it, however loud the other is.
func TestChannelsDoNotLeak(t *testing.T) {
	loud := voice(8000, 2, 1)
	got := decoded(t, write(t, 8000, 2, 64000, true, [2][]int16{loud, make([]int16, len(loud))}), 2)
	for i, s := range got[1] {
		if s > 2 || s < -2 {
			t.Fatalf("sample %d is %d", i, s)
		}
	}
}

var errDisk = errors.New("disk full")

type failing struct {
	room int
	at   int64
}

func (f *failing) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, errDisk
	}
	f.at += int64(len(b))
	return len(b), nil
}

func (f *failing) Seek(int64, int) (int64, error) { return f.at, nil }

type failingSeek struct{ failing }

func (f *failingSeek) Seek(_ int64, whence int) (int64, error) {
	if whence == io.SeekStart {
		return 0, errDisk
	}
	return f.at, nil
}

// The error of the disk is told, whenever it comes, and stays.
func TestDiskFull(t *testing.T) {
	ch := [2][]int16{voice(8000, 5, 1)}
	for _, w := range []io.Writer{&failing{room: 0}, &failing{room: 5000}, &failing{room: 15400}, &failingSeek{failing{room: 1 << 30}}} {
		f, err := NewWriter(w, 8000, 1, Options{})
		if err != nil {
			t.Fatal(err)
		}
		writeErr, closeErr := f.Write(ch), f.Close()
		if !errors.Is(closeErr, errDisk) || writeErr != nil && !errors.Is(writeErr, errDisk) || !errors.Is(f.Close(), errDisk) || !errors.Is(f.Write(ch), errDisk) {
			t.Errorf("%T: %v, %v", w, writeErr, closeErr)
		}
	}
}

func TestClosed(t *testing.T) {
	f, err := NewWriter(io.Discard, 8000, 2, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Write([2][]int16{{1}, nil}); !errors.Is(err, ErrShape) {
		t.Error(err)
	}
	if err := f.Write([2][]int16{make([]int16, 3000), make([]int16, 3000)}); err != nil || f.Samples() != 3000 {
		t.Errorf("%d samples, %v", f.Samples(), err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if err := f.Write([2][]int16{{1}, {1}}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, rate := range []int{8000, 16000, 48000} {
		b.Run(fmt.Sprintf("%dHz-stereo-second", rate), func(b *testing.B) {
			ch := [2][]int16{voice(rate, 1, 1), voice(rate, 1, 2)}
			w, err := NewWriter(struct{ io.Writer }{io.Discard}, rate, 2, Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Write(ch); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
