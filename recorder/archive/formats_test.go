package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/codec/mp3"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// shape is what a recording is like.
type shape struct {
	format         string
	rate, channels int
}

func (s shape) String() string { return fmt.Sprintf("%s-%d-%d", s.format, s.rate, s.channels) }

const shapeMS = 2300 // no whole number of frames or granules

// spoken is what is heard in a recording of a shape: a tone on each channel.
func spoken(s shape) (ch [2][]int16) {
	for c := range s.channels {
		for i := range shapeMS * s.rate / 1000 {
			ch[c] = append(ch[c], int16(9000*math.Sin(2*math.Pi*float64(400+250*c)*float64(i)/float64(s.rate))))
		}
	}
	return ch
}

// take records two seconds of a shape, in two segments.
func (s shape) take(t testing.TB, a *Archive, id string) {
	t.Helper()
	prefix := "2026/11/22/" + id
	sink, err := a.NewSink(context.Background(), id, prefix)
	if err != nil {
		t.Fatal(err)
	}
	c := newTestCall(id, s.format)
	m := c.account(shapeMS, shapeMS, nil)
	m.Windows, m.SampleRate, m.Channels = []recorder.Window{}, s.rate, m.Channels[:s.channels]
	all := spoken(s)
	for n, at := range []int64{0, 1500} {
		end := []int64{1500, shapeMS}[n]
		w, err := sink.Begin(recorder.SegmentInfo{
			Recording: id, Prefix: prefix, N: n + 1, Format: s.format, SampleRate: s.rate, Channels: s.channels, RealMS: at, AudioMS: at,
			Start: epoch.Add(time.Duration(at) * time.Millisecond),
		})
		if err != nil {
			t.Fatal(err)
		}
		enc, err := codec.NewEncoder(s.format, s.rate, codec.Options{Channels: s.channels, Bitrate: 32000})
		if err != nil {
			t.Fatal(err)
		}
		for from := at; from < end; from += 500 {
			to := min(from+500, end)
			var part [2][]int16 // of one channel the first is the mix
			for c := range s.channels {
				part[c] = all[c][from*int64(s.rate)/1000 : to*int64(s.rate)/1000]
			}
			code := enc.Encode
			if to == end {
				code = enc.Flush
			}
			data, err := code(nil, part)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Write(recorder.Audio{RealMS: from, AudioMS: from, SegMS: from - at, Samples: len(part[0]), Data: data}, m); err != nil {
				t.Fatal(err)
			}
		}
		enc.Close()
		m.Segments = append(m.Segments, recorder.Segment{N: n + 1, RealMS: at, AudioMS: at, EndRealMS: end, DurationMS: end - at, Parties: []string{}})
		seg, err := w.Finish(m)
		if err != nil {
			t.Fatal(err)
		}
		m.Segments[n].File, m.Segments[n].Bytes = seg.File, seg.Bytes
		m.Segments[n].SHA256, m.Segments[n].AudioSHA256 = seg.SHA256, seg.AudioSHA256
	}
	m.Call.End, m.Call.EndCause = epoch.Add(shapeMS*time.Millisecond), "bye"
	if err := errors.Join(sink.Publish(m), sink.Close()); err != nil {
		t.Fatal(err)
	}
}

// decodedBy lets ffmpeg read a file; false: it is not there.
func decodedBy(t *testing.T, path string, channels int) (ch [2][]int16, ok bool) {
	t.Helper()
	program, err := exec.LookPath("ffmpeg")
	if err != nil {
		return ch, false
	}
	raw, err := exec.Command(program, "-v", "error", "-i", path, "-f", "s16le", "-c:a", "pcm_s16le", "-").Output()
	if err != nil {
		t.Fatalf("ffmpeg %s: %v", path, err)
	}
	for i := 0; i+1 < len(raw); i += 2 {
		c := i / 2 % channels
		ch[c] = append(ch[c], int16(uint16(raw[i])|uint16(raw[i+1])<<8))
	}
	return ch, true
}

// TestExportsOfEveryShape: recordings of every format at every rate, of one and
// of two channels, as FLAC, MP3, WAV and Ogg: the programs that everybody has
// read them, at their length, and hear what was said.
func TestExportsOfEveryShape(t *testing.T) {
	flacProgram, err := exec.LookPath("flac")
	if err != nil {
		t.Log("the flac program is not there (package flac): files are not tested by it")
	}
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not there (package ffmpeg)")
	}
	a, dir := mustOpenOn(t, vfstest.NewMem(), newMemCatalog()), t.TempDir()
	n := 0
	for _, rate := range []int{8000, 16000, 48000} {
		for channels := 1; channels <= 2; channels++ {
			for _, format := range []string{codec.FLAC, codec.WAVPCM16, codec.OggOpus, codec.WAVPCMU} {
				s := shape{format, rate, channels}
				if format == codec.WAVPCMU && rate != 8000 {
					continue
				}
				id := idOf(n)
				n++
				s.take(t, a, id)
				for _, as := range []string{codec.FLAC, FormatMP3, codec.WAVPCM16, codec.OggOpus} {
					if as == FormatMP3 && !mp3.Supported {
						continue
					}
					exported(t, a, id, s, as, filepath.Join(dir, id+kindOf(as).ext), flacProgram)
				}
			}
		}
	}
	mustVerify(t, a, "recordings of every shape")
}

// exported writes one file and has it checked.
func exported(t *testing.T, a *Archive, id string, s shape, as, path, flacProgram string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Export(context.Background(), id, as, f, nil), f.Close()); err != nil {
		t.Fatalf("%v as %s: %v", s, as, err)
	}
	if as == codec.FLAC && flacProgram != "" {
		if out, err := exec.Command(flacProgram, "--totally-silent", "--test", "--warnings-as-errors", path).CombinedOutput(); err != nil {
			t.Errorf("%v: flac --test: %v %s", s, err, out)
		}
	}
	if as == codec.OggOpus && s.rate != 48000 {
		return // ffmpeg gives 48000 Hz always; the codec's tests compare those
	}
	got, _ := decodedBy(t, path, s.channels)
	want := spoken(s)
	lossless := as != FormatMP3 && as != codec.OggOpus && s.format != codec.OggOpus && s.format != codec.WAVPCMU
	for c := range s.channels {
		if len(got[c]) != len(want[c]) {
			t.Errorf("%v as %s: %d samples, want %d", s, as, len(got[c]), len(want[c]))
			continue
		}
		if lossless {
			if !slices.Equal(got[c], want[c]) {
				t.Errorf("%v as %s: channel %d differs", s, as, c)
			}
			continue
		}
		best, ms := errorRatio(got[c], want[c]), s.rate/1000
		for lag := range ms {
			best = min(best, errorRatio(got[c][lag:], want[c]), errorRatio(got[c], want[c][lag:]))
		}
		if best > 0.1 {
			t.Errorf("%v as %s: channel %d: error of %.2f of the signal at the best place", s, as, c, best)
		}
	}
}

// TestMediaOfSamples: FLAC and MP3 have their types, can be read from anywhere,
// and are made once; what has no such file is refused in words.
func TestMediaOfSamples(t *testing.T) {
	a := mustOpenOn(t, vfstest.NewMem(), newMemCatalog())
	shape{codec.OggOpus, 16000, 1}.take(t, a, idOf(1))
	for format, contentType := range map[string]string{codec.FLAC: "audio/flac", FormatMP3: "audio/mpeg", codec.OggOpus: "audio/ogg", codec.WAVPCM16: "audio/wav"} {
		if format == FormatMP3 && !mp3.Supported {
			continue
		}
		m := mustMedia(t, a, idOf(1), format)
		all := mustReadAll(t, m)
		if m.ContentType != contentType || !strings.HasPrefix(m.Name, idOf(1)) || int64(len(all)) != m.Size {
			t.Errorf("%s: %s, %s, %d of %d bytes", format, m.ContentType, m.Name, len(all), m.Size)
		}
		again := mustMedia(t, a, idOf(1), format)
		at := int64(len(all) / 2)
		if _, err := again.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(again)
		if err != nil || !bytes.Equal(rest, all[at:]) {
			t.Errorf("%s: %d bytes from %d on, %v", format, len(rest), at, err)
		}
	}
	shape{codec.WAVPCM16, 32000, 1}.take(t, a, idOf(2))
	if _, err := a.Media(context.Background(), idOf(2), FormatMP3); err == nil || mp3.Supported && !errors.Is(err, mp3.ErrShape) {
		t.Errorf("MP3 at 32000 Hz: %v", err)
	}
}

// TestLongExportIsRefused: a file that would take too much memory.
func TestLongExportIsRefused(t *testing.T) {
	a := mustOpenOn(t, vfstest.NewMem(), newMemCatalog())
	shape{codec.WAVPCM16, 8000, 2}.take(t, a, idOf(1))
	for _, format := range []string{codec.FLAC, FormatMP3} {
		if format == FormatMP3 && !mp3.Supported {
			continue
		}
		if err := a.Export(context.Background(), idOf(1), format, &memFile{limit: 2000}, nil); !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: %v", format, err)
		}
	}
}
