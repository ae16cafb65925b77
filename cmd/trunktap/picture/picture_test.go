package picture

import (
	"bytes"
	"encoding/binary"
	"flag"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/recorder"
)

var update = flag.Bool("update", false, "rewrite the wanted pictures")

// wav makes a wav-pcm16 file of interleaved samples.
func wav(rate, channels int, samples []int16, extra ...byte) []byte {
	var b bytes.Buffer
	b.WriteString("RIFF\x00\x00\x00\x00WAVE")
	b.Write(extra)
	b.WriteString("fmt ")
	for _, v := range []any{uint32(16), uint16(1), uint16(channels), uint32(rate), uint32(rate * 2 * channels), uint16(2 * channels), uint16(16)} {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	b.WriteString("data\x00\x00\x00\x00")
	_ = binary.Write(&b, binary.LittleEndian, samples)
	return b.Bytes()
}

// call is 10 s of real time: 0–2 s loud outside, 2–4 s hold, 4–8 s loud
// inside with a gap at 5 s, a pause of 8–9 s that overlaps a second hold.
func call() (*recorder.Manifest, Peaks) {
	m := &recorder.Manifest{
		ID: "20261122T163608Z-1f0c9a3b5d7e8f60", Trunk: "carrier-a", RealMS: 10_000, AudioMS: 6_500,
		Origin: time.Date(2026, 11, 22, 16, 36, 8, 0, time.UTC), Suppressed: "cut",
		Call:     recorder.Call{Direction: "inbound", From: "sip:+49301234567@example.net", To: "sip:alice@example.com"},
		Channels: []recorder.Channel{{Side: "external"}, {Side: "internal"}},
		Windows: []recorder.Window{
			{Reason: "hold", RealMS: 2000, EndRealMS: 4000}, {Reason: "pause", RealMS: 8000, EndRealMS: 9000}, {Reason: "hold", RealMS: 8500, EndRealMS: 9500},
		},
		Gaps: []recorder.Gap{{Channel: 1, RealMS: 5000, DurationMS: 500}},
	}
	p := Peaks{BinMS: 10}
	for i := range 650 {
		loud, soft := Peak{-20000, 20000}, Peak{-300, 300}
		if i < 200 {
			p.Channels[0], p.Channels[1] = append(p.Channels[0], loud), append(p.Channels[1], soft)
		} else {
			p.Channels[0], p.Channels[1] = append(p.Channels[0], soft), append(p.Channels[1], loud)
		}
	}
	return m, p
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s differs, look at it and run go test -update:\n%s", name, cmp.Diff(string(want), string(got)))
	}
}

func TestTerminal(t *testing.T) {
	m, p := call()
	golden(t, "call.txt", []byte(Terminal(m, p, 90)))
	m.Suppressed = "silence"
	m.AudioMS = m.RealMS
	out := Terminal(m, p, 10_000)
	for line := range strings.SplitSeq(out, "\n") {
		if n := len([]rune(line)); n > columnsMax {
			t.Errorf("a line of %d cells", n)
		}
	}
}

// TestColumnsLieInRealTime: what was heard at 4 s of real time, after a cut of
// 2 s, is drawn at 4 s.
func TestColumnsLieInRealTime(t *testing.T) {
	m, p := call()
	cols := newTimeline(m).columns(p, 1, 100)
	for i, c := range cols {
		at := (i * 100) + 50
		want := Peak{-300, 300}
		switch {
		case at > 2000 && at < 4000, at > 8000 && at < 9500:
			want = Peak{}
		case at > 4000:
			want = Peak{-20000, 20000}
		}
		if c != want {
			t.Errorf("at %d ms: %v, want %v", at, c, want)
		}
	}
}

func TestTimelineProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &recorder.Manifest{RealMS: rapid.Int64Range(0, 5000).Draw(t, "real"), Channels: []recorder.Channel{{Side: "external"}, {Side: "internal"}}}
		for range rapid.IntRange(0, 6).Draw(t, "windows") {
			from := rapid.Int64Range(-10, 6000).Draw(t, "from")
			m.Windows = append(m.Windows, recorder.Window{Reason: "hold", RealMS: from, EndRealMS: from + rapid.Int64Range(-5, 3000).Draw(t, "length")})
			if ch := rapid.IntRange(-1, 1).Draw(t, "only"); ch >= 0 {
				m.Windows[len(m.Windows)-1].Channel = &ch
			}
		}
		for range rapid.IntRange(0, 3).Draw(t, "gaps") {
			m.Gaps = append(m.Gaps, recorder.Gap{Channel: rapid.IntRange(-1, 3).Draw(t, "ch"), RealMS: rapid.Int64Range(-5, 6000).Draw(t, "at"), DurationMS: rapid.Int64Range(0, 3000).Draw(t, "d")})
		}
		tl := newTimeline(m)
		kept := int64(0)
		for at := range m.RealMS {
			naive := false
			var shaded [2]bool
			for _, w := range m.Windows {
				in := at >= w.RealMS && at < w.EndRealMS
				naive = naive || in && w.Channel == nil
				for ch := range shaded {
					shaded[ch] = shaded[ch] || in && (w.Channel == nil || *w.Channel == ch)
				}
			}
			audio, ok := tl.audio(at)
			if ok == naive || tl.suppressed(0, at) != shaded[0] || tl.suppressed(1, at) != shaded[1] {
				t.Fatalf("at %d: cut %v, want %v; shaded %v", at, !ok, naive, shaded)
			}
			if ok && audio != kept {
				t.Fatalf("at %d: audio %d, want %d", at, audio, kept)
			}
			if ok {
				kept++
			}
		}
		_, p := call()
		Terminal(m, p, rapid.IntRange(-5, 500).Draw(t, "columns"))
	})
}

func TestPNG(t *testing.T) {
	m, p := call()
	var b bytes.Buffer
	if err := PNG(&b, m, p); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	middle := func(ch int) int { return headerHeight + ch*(laneHeight+laneGap) + laneHeight/2 }
	at := func(ms int64) int { return marginLeft + int(ms*waveWidth/m.RealMS) }
	for _, c := range []struct {
		name string
		x, y int
		want any
	}{
		{"external speaks at 1 s", at(1000), middle(0) - 20, colours[0]},
		{"internal is soft at 1 s", at(1000), middle(1) - 20, nil},
		{"held at 3 s", at(3000), middle(0) - 20, shading},
		{"held at 3 s", at(3000), middle(1) - 20, shading},
		{"internal speaks at 7 s", at(7000), middle(1) - 20, colours[1]},
		{"paused at 9.4 s", at(9400), middle(1) - 20, shading},
	} {
		if got := img.At(c.x, c.y); c.want != nil && got != c.want || c.want == nil && (got == colours[0] || got == colours[1]) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	hatched := 0
	for x := at(5010); x < at(5490); x++ {
		if img.At(x, middle(1)-70) == hatch {
			hatched++
		}
	}
	if hatched < 5 {
		t.Errorf("%d pixels of the gap are hatched", hatched)
	}
}

// station is a call of 10 s in which the microphone of channel 1 is not
// captured from 2 to 6 s; nothing is cut.
func station() (*recorder.Manifest, Peaks) {
	m, _ := call()
	one := 1
	m.Windows, m.Gaps = []recorder.Window{{Reason: "hold", RealMS: 2000, EndRealMS: 6000, Channel: &one}}, nil
	m.AudioMS = m.RealMS
	p := Peaks{BinMS: 10}
	for i := range 1000 {
		loud := Peak{-20000, 20000}
		p.Channels[0] = append(p.Channels[0], loud)
		if i >= 200 && i < 600 {
			loud = Peak{}
		}
		p.Channels[1] = append(p.Channels[1], loud)
	}
	return m, p
}

// TestOneChannel: a window of one channel shades that one and moves nothing.
func TestOneChannel(t *testing.T) {
	m, p := station()
	golden(t, "station.txt", []byte(Terminal(m, p, 90)))
	var b bytes.Buffer
	if err := PNG(&b, m, p); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	at := func(ch int, ms int64) any {
		return img.At(marginLeft+int(ms*waveWidth/m.RealMS), headerHeight+ch*(laneHeight+laneGap)+laneHeight/2-20)
	}
	for _, c := range []struct {
		ch   int
		ms   int64
		want any
	}{{0, 1000, colours[0]}, {0, 4000, colours[0]}, {0, 9900, colours[0]}, {1, 1000, colours[1]}, {1, 4000, shading}, {1, 9900, colours[1]}, {1, 2000, label}, {0, 2000, colours[0]}} {
		if got := at(c.ch, c.ms); got != c.want {
			t.Errorf("channel %d at %d ms: %v, want %v", c.ch, c.ms, got, c.want)
		}
	}
	for _, ch := range []int{-1, 2, 1 << 40} { // of no channel that there is
		m.Windows[0].Channel = &ch
		if err := PNG(&bytes.Buffer{}, m, p); err != nil || strings.Contains(Terminal(m, p, 90), string(shade)) {
			t.Errorf("channel %d: %v", ch, err)
		}
	}
}

func TestOddManifests(t *testing.T) {
	_, p := call()
	for name, m := range map[string]*recorder.Manifest{
		"empty":         {},
		"suppressed":    {RealMS: 5000, Channels: []recorder.Channel{{Side: "external"}, {Side: "internal"}}, Windows: []recorder.Window{{Reason: "consent", EndRealMS: 5000}}},
		"long":          {RealMS: 100 * 3600_000, Channels: []recorder.Channel{{Side: "external"}, {Side: "internal"}}},
		"mono":          {RealMS: 1000, Channels: []recorder.Channel{{Side: "external"}}},
		"many channels": {RealMS: 1000, Channels: make([]recorder.Channel, 9)},
	} {
		if out := Terminal(m, p, 80); strings.Count(out, "\n") > 40 {
			t.Errorf("%s: %s", name, out)
		}
		if err := PNG(&bytes.Buffer{}, m, Peaks{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadWAV(t *testing.T) {
	samples := make([]int16, 2*8000)
	for i := range 8000 {
		samples[2*i], samples[2*i+1] = int16(i/80), int16(-i/80)
	}
	for name, file := range map[string][]byte{
		"plain": wav(8000, 2, samples), "with a chunk before": wav(8000, 2, samples, []byte("fact\x03\x00\x00\x00abc\x00")...),
	} {
		p, err := ReadWAV(bytes.NewReader(file), 10)
		if err != nil || len(p.Channels[0]) != 100 || len(p.Channels[1]) != 100 {
			t.Fatalf("%s: %d bins, %v", name, len(p.Channels[0]), err)
		}
		if p.Channels[0][42] != (Peak{42, 42}) || p.Channels[1][42] != (Peak{-42, -42}) {
			t.Errorf("%s: %v %v", name, p.Channels[0][42], p.Channels[1][42])
		}
	}
	if p, err := ReadWAV(bytes.NewReader(wav(8000, 1, samples)), 1000); err != nil || len(p.Channels[0]) != 2 || p.Channels[1] != nil {
		t.Errorf("mono: %v %v", p, err)
	}
	for _, bad := range []string{"", "RIFF", "RIFX\x00\x00\x00\x00WAVE", "RIFF\x00\x00\x00\x00WAVEdata\x00\x00\x00\x00", "RIFF\x00\x00\x00\x00WAVEfmt \xff\xff\xff\xff"} {
		if _, err := ReadWAV(strings.NewReader(bad), 10); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if _, err := ReadWAV(bytes.NewReader(wav(50, 2, nil)), 10); err == nil {
		t.Error("bins without samples")
	}
}

func FuzzReadWAV(f *testing.F) {
	f.Add(wav(8000, 2, []int16{1, 2, 3}))
	f.Add(wav(8000, 1, nil))
	f.Add([]byte("RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, file []byte) {
		p, err := ReadWAV(bytes.NewReader(file), 10)
		if err == nil && len(p.Channels[0]) > len(file) {
			t.Errorf("%d bins from %d bytes", len(p.Channels[0]), len(file))
		}
	})
}

func TestTicks(t *testing.T) {
	for _, ms := range []int64{1, 99, 1000, 61_000, 3_700_000, 400_000_000} {
		if k := ticks(ms, 10); len(k) < 1 || len(k) > 12 || k[0].realMS != 0 {
			t.Errorf("%d ms: %v", ms, k)
		}
	}
	for ms, want := range map[int64]string{0: "0:00.0", 61_250: "1:01.2", 3_600_000: "1:00:00.0"} {
		if got := Clock(ms, true); got != want {
			t.Errorf("%d: %s", ms, got)
		}
	}
}

// TestGlyphs: what ids, addresses and reasons are made of can be drawn.
func TestGlyphs(t *testing.T) {
	for _, r := range "abcdefghijklmnopqrstuvwxyz0123456789TZ:.-_+@/;=" {
		if _, ok := glyphs[r]; !ok {
			t.Errorf("no glyph for %q", r)
		}
	}
}
