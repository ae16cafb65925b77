package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
)

// wavOf builds a WAV file with a chunk that nobody knows in it.
func wavOf(rate uint32, tag, channels, bits uint16, pcm []int16) []byte {
	var b bytes.Buffer
	put := func(v ...any) {
		for _, v := range v {
			if s, ok := v.(string); ok {
				b.WriteString(s)
				continue
			}
			_ = binary.Write(&b, binary.LittleEndian, v) // into memory: never fails
		}
	}
	put("RIFF", uint32(36+2*len(pcm)), "WAVE", "LIST", uint32(3), "abc\x00")
	put("fmt ", uint32(16), tag, channels, rate, rate*uint32(channels*bits/8), channels*bits/8, bits)
	put("data", uint32(2*len(pcm)), pcm)
	return b.Bytes()
}

func mustRead(t *testing.T, rate int, pcm []int16) *Announcement {
	t.Helper()
	a, err := ReadAnnouncement(bytes.NewReader(wavOf(uint32(rate), 1, 1, 16, pcm)), 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// In whatever rate the file is, it has the same length, pitch and level in every
// other, and nothing beside.
func TestAnnouncementRates(t *testing.T) {
	for _, rate := range []int{8000, 16000, 48000} {
		a := mustRead(t, rate, mediatest.Tone(1000, rate, 2*rate, 8000))
		if a.Duration() != 2*time.Second {
			t.Errorf("%d Hz: %v long", rate, a.Duration())
		}
		for _, r := range a.rates {
			if len(r.pcm) != 2*r.rate {
				t.Errorf("%d to %d Hz: %d samples", rate, r.rate, len(r.pcm))
				continue
			}
			middle := r.pcm[r.rate/2 : 3*r.rate/2]
			if snr := snrDB(middle, mediatest.Tone(1000, r.rate, r.rate, 8000)); snr < 50 {
				t.Errorf("%d to %d Hz: SNR %.1f dB", rate, r.rate, snr)
			}
		}
	}
	a := mustRead(t, 48000, mediatest.Tone(6000, 48000, 48000, 8000))
	if e := mediatest.Energy(a.rates[0].pcm[2000:6000], 2000, 8000); e > 10 {
		t.Errorf("6000 Hz became 2000 Hz of %.1f", e)
	}
}

func TestAnnouncementFiles(t *testing.T) {
	ok := wavOf(8000, 1, 1, 16, make([]int16, 8000))
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"fine":        {ok, ""},
		"no file":     {nil, "no WAV file"},
		"MP3":         {[]byte("ID3 something else entirely"), "no WAV file"},
		"stereo":      {wavOf(8000, 1, 2, 16, make([]int16, 100)), "2 channels"},
		"8 bit":       {wavOf(8000, 1, 1, 8, make([]int16, 100)), "8 bit"},
		"A-law":       {wavOf(8000, 6, 1, 8, make([]int16, 100)), "format 6"},
		"44.1 kHz":    {wavOf(44100, 1, 1, 16, make([]int16, 100)), "sox in.wav"},
		"empty":       {wavOf(8000, 1, 1, 16, nil), "no samples"},
		"cut":         {ok[:48], "no samples"},
		"too long":    {wavOf(8000, 1, 1, 16, make([]int16, 80001)), "at most 10s"},
		"far too big": {wavOf(48000, 1, 1, 16, make([]int16, 4000000)), "at most 10s"},
		"data first":  {append(bytes.Clone(ok[:12]), ok[len(ok)-16008:]...), "before the format"},
	} {
		_, err := ReadAnnouncement(bytes.NewReader(c.file), 10*time.Second)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrAnnouncement) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	extensible := wavOf(8000, 0xfffe, 1, 16, make([]int16, 100))
	at := bytes.Index(extensible, []byte("fmt "))
	longer := append(bytes.Clone(extensible[:at+24]), 22, 0, 16, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71)
	longer[at+4] = 40
	if _, err := ReadAnnouncement(bytes.NewReader(append(longer, extensible[at+24:]...)), 0); err != nil {
		t.Errorf("WAVE_FORMAT_EXTENSIBLE: %v", err)
	}
}

// It is heard once, whole, from the first packet after the answer on, in every
// codec, whether anything is captured or not.
func TestAnnouncementIsHeard(t *testing.T) {
	a := mustRead(t, 16000, mediatest.Tone(800, 16000, 16000, 5000))
	far := coders(t)
	for name, c := range coders(t) {
		o := New(Config{Formats: []media.Format{c.format}, Announcement: a, Epoch: epoch, Capturing: func() bool { return false }})
		got := run(c, far[name], o, make([]int16, 3*c.rate*c.channels), 20*time.Millisecond, epoch.Add(-time.Second), 0)
		for _, v := range []struct {
			from, to time.Duration
			heard    bool
		}{{0, 990, false}, {1020, 1980, true}, {2040, 3000, false}} {
			level := got.levelDB(got.slice(got.heard, v.from*time.Millisecond, v.to*time.Millisecond), 800)
			if want := 20 * math.Log10(5000.0/32767); v.heard && math.Abs(level-want) > 0.5 || !v.heard && level > -60 {
				t.Errorf("%s: %.1f dB from %d to %d ms", name, level, v.from, v.to)
			}
		}
	}
}

// A renegotiation in its midst goes on where it was; one after it says nothing.
func TestAnnouncementOverRenegotiation(t *testing.T) {
	pcm := make([]int16, 16000)
	for i := range pcm {
		pcm[i] = int16(i)
	}
	a := mustRead(t, 8000, pcm)
	c := silent(Config{Announcement: a, Since: epoch.Add(490 * time.Millisecond)}, 3*time.Second, 20*time.Millisecond, 500*time.Millisecond, 0)
	if got := c.heard[:8000]; snrDB(got, pcm[4000:12000]) < 30 {
		t.Errorf("not the rest of it: begins with %v", got[:10])
	}
	if len(sounds(c.heard)) != 1 || sounds(c.heard)[0][1] != 12000 {
		t.Errorf("heard %v", sounds(c.heard))
	}
	c = silent(Config{Announcement: a, Since: epoch.Add(5 * time.Second)}, time.Second, 20*time.Millisecond, 6*time.Second, 0)
	if len(c.changed()) != 0 {
		t.Error("heard again")
	}
}

func FuzzReadAnnouncement(f *testing.F) {
	f.Add(wavOf(8000, 1, 1, 16, make([]int16, 100)))
	f.Add(wavOf(48000, 0xfffe, 1, 16, make([]int16, 10)))
	f.Fuzz(func(t *testing.T, file []byte) {
		a, err := ReadAnnouncement(bytes.NewReader(file), time.Second)
		if err != nil && !errors.Is(err, ErrAnnouncement) {
			t.Fatal(err)
		}
		if err == nil && (a.Duration() > time.Second || len(a.rates[2].pcm) > 48000) {
			t.Fatalf("%v long", a.Duration())
		}
	})
}
