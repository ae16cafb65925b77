package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-audio/wav"
)

var formats = []string{WAVPCM16, WAVPCMU, WAVPCMA, OggOpus, FLAC}

// tone fills n samples at 8000 Hz, from sample first on.
func tone(hz float64, level float64, first, n int) []int16 {
	pcm := make([]int16, n)
	for i := range pcm {
		pcm[i] = int16(level * math.Sin(2*math.Pi*hz*float64(first+i)/8000))
	}
	return pcm
}

// coded is a piece of coded data.
type coded struct {
	data    []byte
	samples int
}

// encode codes both channels in pieces of a granule's multiple and flushes.
func encode(t testing.TB, format string, channels int, ch [2][]int16) []coded {
	t.Helper()
	e, err := NewEncoder(format, 8000, Options{Channels: channels, Complexity: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	step := 800 / e.Granule() * e.Granule()
	var out []coded
	at := 0
	for ; at+step <= len(ch[0]); at += step {
		data, err := e.Encode(nil, part(ch, at, at+step))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, coded{data, step})
	}
	data, err := e.Flush(nil, part(ch, at, len(ch[0])))
	if err != nil {
		t.Fatal(err)
	}
	return append(out, coded{data, len(ch[0]) - at})
}

func decode(t testing.TB, format string, channels int, pieces []coded) [2][]int16 {
	t.Helper()
	d, err := NewCodedDecoder(format, 8000, channels)
	if err != nil {
		t.Fatal(err)
	}
	var pcm [2][]int16
	for _, p := range pieces {
		if pcm, err = d.Decode(pcm, p.data, p.samples); err != nil {
			t.Fatal(err)
		}
	}
	return d.Finish(pcm)
}

// db is the level of x in dB of full scale.
func db(x []int16) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return 10 * math.Log10(sum/float64(max(len(x), 1))/(32768*32768)+1e-20)
}

// shift finds the lag by which b follows a, by correlation.
func shift(a, b []int16, reach int) int {
	best, at := math.Inf(-1), 0
	for lag := -reach; lag <= reach; lag++ {
		var sum float64
		for i := reach; i < len(a)-reach; i++ {
			sum += float64(a[i]) * float64(b[i+lag])
		}
		if sum > best {
			best, at = sum, lag
		}
	}
	return at
}

func TestRoundTrip(t *testing.T) {
	for _, format := range formats {
		for _, n := range []int{0, 1, 159, 160, 1000, 8000, 16037} {
			ch := [2][]int16{tone(440, 10000, 0, n), make([]int16, n)}
			pcm := decode(t, format, 2, encode(t, format, 2, ch))
			if len(pcm[0]) != n || len(pcm[1]) != n {
				t.Fatalf("%s: %d samples became %d and %d", format, n, len(pcm[0]), len(pcm[1]))
			}
			floor := -80.0
			if format == WAVPCMA {
				floor = -72 // its least level is 8
			}
			if got := db(pcm[1]); n > 0 && got > floor {
				t.Errorf("%s: %.1f dB leaked into the silent channel", format, got)
			}
			if n < 8000 {
				continue
			}
			// The speech coder's own resampling adds a part of a sample.
			if lag := shift(ch[0], pcm[0], 8); lag < -1 || lag > 1 || lag != 0 && format != OggOpus {
				t.Errorf("%s: moved by %d samples", format, lag)
			}
			if (format == WAVPCM16 || format == FLAC) && !equal(ch[0], pcm[0]) {
				t.Errorf("%s: samples differ", format)
			}
			if d := db(pcm[0]) - db(ch[0]); math.Abs(d) > 1 {
				t.Errorf("%s: level moved by %.1f dB", format, d)
			}
		}
	}
}

func equal(a, b []int16) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestMonoDoesNotClip(t *testing.T) {
	ch := [2][]int16{{32767, -32768, 1000, 0}, {32767, -32768, -1000, 500}}
	for _, format := range []string{WAVPCM16, FLAC} {
		pcm := decode(t, format, 1, encode(t, format, 1, ch))
		if !equal(pcm[0], []int16{31002, -31002, 0, 500}) || len(pcm[1]) != 0 {
			t.Errorf("%s: %v", format, pcm)
		}
	}
}

// TestMonoOfTwoAtFullScale: two sides that shout at once neither clip nor turn
// over, and one alone keeps its level, in every format.
func TestMonoOfTwoAtFullScale(t *testing.T) {
	loud, usual := tone(440, 32767, 0, 8000), tone(440, 8000, 0, 8000)
	for _, format := range formats {
		one := decode(t, format, 1, encode(t, format, 1, [2][]int16{usual, make([]int16, 8000)}))
		if d := db(one[0][800:7200]) - db(usual[800:7200]); math.Abs(d) > 1 {
			t.Errorf("%s: one side alone moved by %.1f dB", format, d)
		}
		both := decode(t, format, 1, encode(t, format, 1, [2][]int16{loud, loud}))
		atTop, jump := 0, 0
		for i, v := range both[0] {
			if v == math.MaxInt16 || v == math.MinInt16 {
				atTop++
			}
			if i > 0 {
				jump = max(jump, int(v)-int(both[0][i-1]), int(both[0][i-1])-int(v))
			}
		}
		if format != OggOpus && atTop > 0 || jump > 30000 {
			t.Errorf("%s: %d samples at full scale, the greatest step is %d", format, atTop, jump)
		}
		if d := db(both[0]) - db(loud); d > 3 || d < -1 {
			t.Errorf("%s: two at full scale are %.1f dB above one", format, d)
		}
		mix := decode(t, format, 1, encode(t, format, 1, [2][]int16{both[0]})) // a mix is mixed no more
		if d := db(mix[0][800:7200]) - db(both[0][800:7200]); math.Abs(d) > 1 {
			t.Errorf("%s: a mix coded again moved by %.1f dB", format, d)
		}
	}
}

func TestCutOffSegment(t *testing.T) {
	pieces := encode(t, OggOpus, 2, [2][]int16{tone(440, 9000, 0, 8000), tone(600, 9000, 0, 8000)})
	pcm := decode(t, OggOpus, 2, pieces[:len(pieces)-1])
	if len(pcm[0]) != 8000 || db(pcm[0][:7900]) < -20 {
		t.Errorf("%d samples, %.1f dB", len(pcm[0]), db(pcm[0]))
	}
}

func TestRefused(t *testing.T) {
	shapes := []struct {
		format         string
		rate, channels int
	}{{"mp3", 8000, 2}, {OggOpus, 11025, 2}, {WAVPCM16, 8000, 3}, {WAVPCM16, 0, 1}, {"", 8000, 1}}
	for _, s := range shapes {
		if _, err := NewEncoder(s.format, s.rate, Options{Channels: s.channels}); !errors.Is(err, ErrFormat) {
			t.Errorf("%+v: encoder: %v", s, err)
		}
		if _, err := NewCodedDecoder(s.format, s.rate, s.channels); !errors.Is(err, ErrFormat) {
			t.Errorf("%+v: decoder: %v", s, err)
		}
		if _, err := NewFileWriter(s.format, nil, s.rate, s.channels); !errors.Is(err, ErrFormat) {
			t.Errorf("%+v: writer: %v", s, err)
		}
	}
	e, err := NewEncoder(OggOpus, 8000, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Encode(nil, [2][]int16{make([]int16, 100), make([]int16, 100)}); err == nil {
		t.Error("a part of a granule was encoded")
	}
	if _, err := e.Flush(nil, [2][]int16{make([]int16, 3), make([]int16, 4)}); err == nil {
		t.Error("channels of different length were encoded")
	}
	e.Close()
	if _, err := e.Encode(nil, [2][]int16{make([]int16, 160), make([]int16, 160)}); err == nil {
		t.Error("a closed encoder encodes")
	}
}

// writeFile muxes pieces into a file and returns its name.
func writeFile(t testing.TB, format string, channels, silence int, pieces []coded) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "out.wav")
	if format == OggOpus {
		name = strings.TrimSuffix(name, "wav") + "ogg"
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewFileWriter(format, f, 8000, channels)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Silence(silence); err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		if err := w.Write(p.data, p.samples); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestWAVOpensElsewhere(t *testing.T) {
	for _, format := range formats[:3] {
		for _, channels := range []int{1, 2} {
			const n = 801 // odd, for the padding
			pieces := encode(t, format, channels, [2][]int16{tone(440, 8000, 0, n), tone(600, 8000, 0, n)})
			name := writeFile(t, format, channels, 100, pieces)
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			d := wav.NewDecoder(f)
			d.ReadInfo()
			tag := map[string]uint16{WAVPCM16: 1, WAVPCMA: 6, WAVPCMU: 7}[format]
			if d.WavAudioFormat != tag || int(d.NumChans) != channels || d.SampleRate != 8000 {
				t.Errorf("%s: tag %d, %d channels, %d Hz", format, d.WavAudioFormat, d.NumChans, d.SampleRate)
			}
			if err := d.FwdToPCM(); err != nil {
				t.Fatal(err)
			}
			want := int64((n + 100) * channels * sampleBytes(format))
			if got := d.PCMLen(); got != want+want&1 { // it counts the padding
				t.Errorf("%s: %d bytes of audio, want %d", format, got, want)
			}
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			head, err := WAVHeader(format, 8000, channels, want)
			if err != nil {
				t.Fatal(err)
			}
			file, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(file, head) || int64(binary.LittleEndian.Uint32(head[4:]))+8 != info.Size() {
				t.Errorf("%s: header does not fit a file of %d bytes", format, info.Size())
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			pcm := ffmpeg(t, name, channels)
			if len(pcm[0]) != n+100 || db(pcm[0][:100]) > -70 || db(pcm[0][100:]) < -20 {
				t.Errorf("%s: ffmpeg reads %d samples, %.1f and %.1f dB", format, len(pcm[0]), db(pcm[0][:100]), db(pcm[0][100:]))
			}
		}
	}
}

// ffmpeg decodes a file to samples at 8000 Hz (Ogg Opus: at 48000 Hz).
func ffmpeg(t testing.TB, name string, channels int) [2][]int16 {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed: files are not checked against it")
	}
	raw, err := exec.Command("ffmpeg", "-v", "error", "-i", name, "-f", "s16le", "-").Output()
	if err != nil {
		t.Fatalf("ffmpeg: %v", err)
	}
	var pcm [2][]int16
	for i := 0; i+1 < len(raw); i += 2 {
		c := i / 2 % channels
		pcm[c] = append(pcm[c], int16(binary.LittleEndian.Uint16(raw[i:])))
	}
	return pcm
}

func TestWAVTooLarge(t *testing.T) {
	if _, err := WAVHeader(WAVPCM16, 8000, 2, 1<<32-37); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	w := &wavWriter{w: discard{}, format: WAVPCMU, rate: 8000, channels: 1, frame: 1, silence: silentBlock(WAVPCMU), dataBytes: math.MaxUint32 - 100}
	if err := w.Silence(10); err != nil {
		t.Error(err)
	}
	if err := w.Write(make([]byte, 100), 100); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error)    { return len(p), nil }
func (discard) Seek(int64, int) (int64, error) { return 0, nil }

var _ io.WriteSeeker = discard{}

func TestOggOpusOpensElsewhere(t *testing.T) {
	for _, channels := range []int{1, 2} {
		for _, n := range []int{160, 8000, 24037} { // ffmpeg does not trim a file of one packet
			ch := [2][]int16{tone(440, 12000, 0, n), make([]int16, n)}
			pieces := encode(t, OggOpus, channels, ch)
			name := writeFile(t, OggOpus, channels, 0, pieces)
			pcm := ffmpeg(t, name, channels)
			if len(pcm[0]) != 6*n {
				t.Errorf("%d channels: %d samples became %d at 48 kHz, want %d", channels, n, len(pcm[0]), 6*n)
			}
			if channels == 2 && db(pcm[1]) > -80 {
				t.Errorf("%.1f dB leaked into the silent channel", db(pcm[1]))
			}
			if n == 24037 {
				opusinfo(t, name)
				wide := make([]int16, 6*n)
				for i := range wide { // the tone at 48 kHz
					wide[i] = int16(12000 * math.Sin(2*math.Pi*440*float64(i)/48000))
				}
				if lag := shift(wide[:48000], pcm[0][:48000], 40); lag < -7 || lag > 7 {
					t.Errorf("%d channels: moved by %d samples of 48 kHz", channels, lag)
				}
			}
		}
	}
}

func opusinfo(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath("opusinfo"); err != nil {
		t.Log("opusinfo is not installed: files are not checked against it")
		return
	}
	out, err := exec.Command("opusinfo", name).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("WARNING")) || bytes.Contains(out, []byte("ERROR")) {
		t.Errorf("opusinfo: %v\n%s", err, out)
	}
}

func TestOggSilenceAndSplice(t *testing.T) {
	pieces := encode(t, OggOpus, 2, [2][]int16{tone(440, 12000, 0, 8000), tone(600, 12000, 0, 8000)})
	name := writeFile(t, OggOpus, 2, 4000, pieces)
	pcm := ffmpeg(t, name, 2)
	if len(pcm[0]) != 6*12000 || db(pcm[0][:6*3900]) > -70 || db(pcm[0][6*4100:]) < -20 {
		t.Errorf("%d samples, %.1f and %.1f dB", len(pcm[0]), db(pcm[0][:6*3900]), db(pcm[0][6*4100:]))
	}
	o, err := newOggWriter(discard{}, 8000, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		if err := o.Write(p.data, p.samples); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Write(pieces[0].data, pieces[0].samples); !errors.Is(err, ErrSplice) {
		t.Error(err)
	}
	if err := o.Silence(160); !errors.Is(err, ErrSplice) {
		t.Error(err)
	}
}

// Data that was never flushed still gives all samples.
func TestOggCutOff(t *testing.T) {
	pieces := encode(t, OggOpus, 2, [2][]int16{tone(440, 12000, 0, 8000), tone(600, 12000, 0, 8000)})
	pcm := ffmpeg(t, writeFile(t, OggOpus, 2, 0, pieces[:len(pieces)-1]), 2)
	if len(pcm[0]) != 6*8000 {
		t.Errorf("%d samples", len(pcm[0]))
	}
}

// The encoder's delay is what libopus has.
func TestOpusLookahead(t *testing.T) {
	ch := [2][]int16{tone(300, 10000, 0, 16000), tone(300, 10000, 0, 16000)}
	for i := range ch[0] { // a sweep, so that the correlation has one peak
		ch[0][i] = int16(9000 * math.Sin(2*math.Pi*(200+float64(i)/20)*float64(i)/8000))
	}
	d, err := NewCodedDecoder(OggOpus, 8000, 2)
	if err != nil {
		t.Fatal(err)
	}
	d.(*opusDecoder).skip = 0
	var pcm [2][]int16
	for _, p := range encode(t, OggOpus, 2, ch) {
		if pcm, err = d.Decode(pcm, p.data, p.samples); err != nil {
			t.Fatal(err)
		}
	}
	if lag := shift(ch[0][:8000], pcm[0][:8000], 100); lag < opusLookahead(8000)-2 || lag > opusLookahead(8000)+2 {
		t.Errorf("delay of %d samples, expected %d", lag, opusLookahead(8000))
	}
}

func TestPCMEncodeDoesNotAllocate(t *testing.T) {
	e, err := NewEncoder(WAVPCMA, 8000, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ch, dst := [2][]int16{make([]int16, 160), make([]int16, 160)}, make([]byte, 0, 320)
	if got := testing.AllocsPerRun(100, func() { dst, _ = e.Encode(dst[:0], ch) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func FuzzCodedDecode(f *testing.F) {
	for i, format := range formats {
		pieces := encode(f, format, 2, [2][]int16{tone(440, 9000, 0, 1000), tone(600, 9000, 0, 1000)})
		f.Add(byte(i), pieces[0].data, pieces[0].samples)
	}
	f.Add(byte(3), []byte{0, 0}, 160)
	f.Add(byte(3), []byte{255, 255, 0}, -1)
	f.Fuzz(func(t *testing.T, which byte, data []byte, samples int) {
		format, channels := formats[which%4], 1+int(which>>2&1)
		d, err := NewCodedDecoder(format, 8000, channels)
		if err != nil {
			t.Fatal(err)
		}
		pcm, err := d.Decode([2][]int16{}, data, samples)
		if len(pcm[0]) > len(data)*160 {
			t.Fatalf("%d samples of %d bytes", len(pcm[0]), len(data))
		}
		if err == nil && len(d.Finish(pcm)[0]) > samples {
			t.Fatalf("more than %d samples", samples)
		}
		w, err := NewFileWriter(format, discard{}, 8000, channels)
		if err != nil {
			t.Fatal(err)
		}
		_ = w.Write(data, samples) // any error will do
		if err := w.Close(); err != nil && !errors.Is(err, ErrCoded) {
			t.Fatal(err)
		}
	})
}

// BenchmarkG711Granule tells what 20 ms of two channels cost.
func BenchmarkG711Granule(b *testing.B) {
	for _, format := range formats[:3] {
		b.Run(format, func(b *testing.B) {
			e, err := NewEncoder(format, 8000, Options{})
			if err != nil {
				b.Fatal(err)
			}
			ch, dst := [2][]int16{tone(440, 9000, 0, 160), tone(600, 9000, 0, 160)}, make([]byte, 0, 640)
			b.ReportAllocs()
			for b.Loop() {
				if dst, err = e.Encode(dst[:0], ch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
