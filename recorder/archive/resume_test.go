package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

func TestTimeline(t *testing.T) {
	m := &recorder.Manifest{Windows: []recorder.Window{
		{RealMS: 1000, EndRealMS: 3000},
		{RealMS: 2000, EndRealMS: 4000},
		{RealMS: 4000, EndRealMS: 4500},
		{RealMS: 6000, EndRealMS: 6000},
		{RealMS: 8000, EndRealMS: 9000},
		{RealMS: 500, EndRealMS: 8500, Channel: new(int)}, // of one channel
	}}
	tl := newTimeline(m)
	for _, c := range []struct{ audio, first, next int64 }{
		{0, 0, 0}, {999, 999, 999}, {1000, 1000, 4500}, {1001, 4501, 4501}, {4499, 7999, 7999}, {4500, 8000, 9000}, {5000, 9500, 9500},
	} {
		if first, next := tl.real(c.audio); first != c.first || next != c.next {
			t.Errorf("audio %d lies at %d…%d, want %d…%d", c.audio, first, next, c.first, c.next)
		}
	}
	for real, want := range map[int64]int64{0: 0, 1000: 0, 2000: 1000, 5000: 3500, 8500: 4000, 99999: 4500} {
		if got := tl.length(real); got != want {
			t.Errorf("cut before %d: %d, want %d", real, got, want)
		}
	}
	m.Suppressed = suppressedSilence
	if first, next := newTimeline(m).real(5000); first != 5000 || next != 5000 {
		t.Errorf("with windows kept as silence: %d…%d", first, next)
	}
}

// TestTimelineAgainstNaive compares with a count of every millisecond.
func TestTimelineAgainstNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const length = 60
		cut := [length]bool{}
		m := &recorder.Manifest{}
		for range rapid.IntRange(0, 6).Draw(t, "windows") {
			from := rapid.IntRange(0, length).Draw(t, "from")
			to := rapid.IntRange(from, length).Draw(t, "to")
			m.Windows = append(m.Windows, recorder.Window{RealMS: int64(from), EndRealMS: int64(to)})
			if rapid.Bool().Draw(t, "one channel") {
				m.Windows[len(m.Windows)-1].Channel = new(int)
				continue
			}
			for i := from; i < to; i++ {
				cut[i] = true
			}
		}
		tl := newTimeline(m)
		audio := int64(0)
		for real := range int64(length) {
			_, next := tl.real(audio)
			if !cut[real] {
				if next != real {
					t.Fatalf("audio %d begins at %d, want %d", audio, next, real)
				}
				audio++
				if first, _ := tl.real(audio); first != real+1 {
					t.Fatalf("audio before %d ends at %d, want %d", audio, first, real+1)
				}
			}
			if got := tl.length(real + 1); got != real+1-audio {
				t.Fatalf("cut before %d: %d, want %d", real+1, got, real+1-audio)
			}
		}
	})
}

// TestCloseManifestKeepsTheAccount closes random accounts at random amounts of
// durable audio: audio and windows must be the real time, and nothing may lie
// behind the end.
func TestCloseManifestKeepsTheAccount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &recorder.Manifest{
			Version: 1, ID: testID, Suppressed: rapid.SampledFrom([]string{"cut", "silence"}).Draw(t, "suppressed"),
			Channels: []recorder.Channel{{}, {}},
		}
		m.RealMS = rapid.Int64Range(0, 10_000).Draw(t, "real")
		for range rapid.IntRange(0, 5).Draw(t, "windows") {
			from := rapid.Int64Range(0, m.RealMS).Draw(t, "from")
			to := rapid.Int64Range(from, m.RealMS).Draw(t, "to")
			m.Windows = append(m.Windows, recorder.Window{Reason: "hold", RealMS: from, EndRealMS: to})
		}
		m.AudioMS = m.RealMS - newTimeline(m).length(m.RealMS)
		for range rapid.IntRange(0, 4).Draw(t, "gaps") {
			at := rapid.Int64Range(0, m.AudioMS).Draw(t, "gap")
			_, real := newTimeline(m).real(at)
			m.Gaps = append(m.Gaps, recorder.Gap{AudioMS: at, RealMS: real, DurationMS: rapid.Int64Range(0, 500).Draw(t, "length"), Cause: "loss"})
		}
		m.DTMF = []recorder.Digit{{RealMS: rapid.Int64Range(0, 12_000).Draw(t, "digit")}}
		// Less than the account tells of is durable, or some frames more.
		durable := rapid.Int64Range(0, m.AudioMS+3000).Draw(t, "durable")
		var parts []part
		if durable > 0 {
			parts = []part{{n: 1, s: segment.Salvaged{Header: segment.Header{N: 1, SampleRate: 8000}, EndMS: durable, Runs: []segment.Run{{Samples: durable * 8}}}}}
			_, parts[0].s.Runs[0].RealMS = newTimeline(m).real(0)
		}
		known := m.AudioMS
		closeManifest(m, parts)
		if cut := newTimeline(m).length(m.RealMS); m.AudioMS != durable || m.AudioMS+cut != m.RealMS {
			t.Fatalf("%d ms durable: audio %d, windows %d, real %d", durable, m.AudioMS, cut, m.RealMS)
		}
		for _, w := range m.Windows {
			if w.EndRealMS > m.RealMS || w.Reason == "unknown" && m.AudioMS+remainderMS < known {
				t.Fatalf("window %+v in %d ms", w, m.RealMS)
			}
		}
		for _, g := range m.Gaps {
			if g.Cause == "loss" && g.AudioMS+g.DurationMS > m.AudioMS {
				t.Fatalf("gap %+v in %d ms", g, m.AudioMS)
			}
		}
		for _, d := range m.DTMF {
			if d.RealMS > m.RealMS {
				t.Fatalf("digit at %d in %d ms", d.RealMS, m.RealMS)
			}
		}
	})
}

// TestRemainderBeforeWindow: an encoder held back the last 22 ms before a hold
// that lasted when the daemon died. The hold is not forgotten with them.
func TestRemainderBeforeWindow(t *testing.T) {
	hold := recorder.Window{Reason: "hold", RealMS: 1202, EndRealMS: 3900, AudioMS: 1202, Source: "sdp"}
	for _, c := range []struct {
		durable int64
		real    int64
		windows []recorder.Window
	}{
		{1202, 3900, []recorder.Window{hold}},
		{1180, 3900, []recorder.Window{{Reason: "unknown", RealMS: 1180, EndRealMS: 1202, AudioMS: 1180, Source: "recovery"}, {Reason: "hold", RealMS: 1202, EndRealMS: 3900, AudioMS: 1180, Source: "sdp"}}},
		{700, 700, nil}, // frames are missing: nothing is known of how it went on
	} {
		m := &recorder.Manifest{Suppressed: "cut", RealMS: 3900, AudioMS: 1202, Channels: []recorder.Channel{{}}, Windows: []recorder.Window{hold}}
		closeManifest(m, []part{{n: 1, s: segment.Salvaged{
			Header: segment.Header{N: 1, SampleRate: 8000}, EndMS: c.durable, Runs: []segment.Run{{Samples: 8 * c.durable}},
		}}})
		if d := cmp.Diff(c.windows, m.Windows, cmpopts.EquateEmpty()); d != "" || m.RealMS != c.real || m.AudioMS != c.durable {
			t.Errorf("%d ms durable: real %d, audio %d, windows:\n%s", c.durable, m.RealMS, m.AudioMS, d)
		}
	}
}

// TestUnknownWindow: audio whose account was lost lies behind a leap. The leap
// becomes a window, so that the account still adds up.
func TestUnknownWindow(t *testing.T) {
	m := &recorder.Manifest{Suppressed: "cut", RealMS: 500, AudioMS: 500, Channels: []recorder.Channel{{}}}
	closeManifest(m, []part{{n: 1, s: segment.Salvaged{
		Header: segment.Header{N: 1, SampleRate: 8000}, EndMS: 1500,
		Runs: []segment.Run{{Samples: 8 * 500}, {RealMS: 4500, AudioMS: 500, SegMS: 500, Samples: 8 * 1000}},
	}}})
	want := []recorder.Window{{Reason: "unknown", RealMS: 500, EndRealMS: 4500, AudioMS: 500, Source: "recovery"}}
	if d := cmp.Diff(want, m.Windows); d != "" || m.RealMS != 5500 || m.AudioMS != 1500 {
		t.Errorf("real %d, audio %d, windows:\n%s", m.RealMS, m.AudioMS, d)
	}
}

// crashed returns a disk on which a call was going on for some frames.
func crashed(t *testing.T, frames int) *vfstest.Mem {
	t.Helper()
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	c := newTestCall(testID, codec.OggOpus)
	sink, err := a.NewSink(context.Background(), c.id, c.prefix())
	if err != nil {
		t.Fatal(err)
	}
	k := &taking{c: c, sink: sink}
	for i := range frames {
		if err := k.frame(int64(i) * frameMS); err != nil {
			t.Fatal(err)
		}
	}
	return mem.CrashClone(1)
}

const spooled = "/data/spool/" + testID + "/"

// olden makes of a folder in the spool what earlier versions of the daemon left: with
// a marker, and with names that segments bear only there.
func olden(t *testing.T, mem *vfstest.Mem) {
	t.Helper()
	entries, err := mem.ReadDir(spooled)
	if err != nil {
		t.Fatal(err)
	}
	content, err := vfs.ReadFile(mem, spooled+segment.KeyFile, segment.KeyFileBytesMax)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := segment.ParseKeyRecord(content)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		n, ok := segment.NumberOf(e.Name())
		if !ok {
			continue
		}
		b, err := segment.OpenFile(mem, spooled+e.Name())
		if err != nil {
			t.Fatal(err)
		}
		s, err := segment.Salvage(context.Background(), b, segment.Keyed(testSealer(), rec.Key))
		if err != nil {
			t.Fatal(err)
		}
		js, err := json.Marshal(marker{Version: 1, Recording: testID, Prefix: s.Header.Prefix, Key: rec.Key})
		if err := errors.Join(err, vfs.WriteFile(mem, spooled+markerFile, js), mem.Rename(spooled+e.Name(), spooled+segment.SpoolName(n))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecoverDamagedSpool: what a disk has eaten is set aside and told, what is
// left is published; in spools of today and of earlier versions.
func TestRecoverDamagedSpool(t *testing.T) {
	flip := func(mem *vfstest.Mem, name string, at int) error {
		b, err := vfs.ReadFile(mem, name, 1<<30)
		if err != nil {
			return err
		}
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 1
		return vfs.WriteFile(mem, name, b)
	}
	for _, old := range []bool{false, true} {
		name := segment.FileName
		if old {
			name = segment.SpoolName
		}
		for _, c := range []struct {
			name    string
			frames  int
			harm    func(*vfstest.Mem) error
			audioMS int64 // published; -1: nothing
			aside   int
			fails   bool
			onlyOld bool
		}{
			{"nothing", 2, func(*vfstest.Mem) error { return nil }, 1000, 0, false, false},
			{"marker gone", 2, func(m *vfstest.Mem) error { return m.Remove(spooled + markerFile) }, 1000, 0, false, true},
			{"marker damaged", 2, func(m *vfstest.Mem) error { return flip(m, spooled+markerFile, 20) }, 1000, 0, false, true},
			{"last frame damaged", 2, func(m *vfstest.Mem) error { return flip(m, spooled+name(1), -1) }, 500, 0, false, false},
			{"frame in the middle damaged", 2, func(m *vfstest.Mem) error { return flip(m, spooled+name(1), 2000) }, -2, 1, false, false},
			{"header damaged", 4, func(m *vfstest.Mem) error { return flip(m, spooled+name(2), 3) }, 1500, 1, false, false},
			{"first header damaged", 4, func(m *vfstest.Mem) error { return flip(m, spooled+name(1), 3) }, -3, 1, false, false},
			{"only segment damaged", 2, func(m *vfstest.Mem) error { return flip(m, spooled+name(1), 3) }, -1, 1, true, false},
			{"only segment and marker damaged", 2, func(m *vfstest.Mem) error {
				return errors.Join(flip(m, spooled+name(1), 3), flip(m, spooled+markerFile, 0))
			}, -1, 1, true, true},
			{"stray file", 2, func(m *vfstest.Mem) error { return vfs.WriteFile(m, spooled+vfs.TempPrefix+"x", []byte("x")) }, 1000, 0, false, false},
			{"empty segment", 2, func(m *vfstest.Mem) error { return vfs.WriteFile(m, spooled+name(2), nil) }, 1000, 0, false, false},
			{"segment of zeros", 2, func(m *vfstest.Mem) error { return vfs.WriteFile(m, spooled+name(2), make([]byte, 5000)) }, 1000, 0, false, false},
			{"torn manifest", 2, func(m *vfstest.Mem) error {
				return vfs.WriteFile(m, spooled+segment.ManifestFile, []byte("TRUNKTAP\x01M\x00\x00"))
			}, 1000, 0, false, false},
			{"damaged manifest", 2, func(m *vfstest.Mem) error {
				return vfs.WriteFile(m, spooled+segment.ManifestFile, []byte("TRUNKTAQ\x01M\x00\x00"))
			}, 1000, 1, false, false},
			{"zeros at the end", 2, func(m *vfstest.Mem) error {
				b, err := vfs.ReadFile(m, spooled+name(1), 1<<30)
				return errors.Join(err, vfs.WriteFile(m, spooled+name(1), append(b, make([]byte, 4096)...)))
			}, 1000, 0, false, false},
		} {
			if c.onlyOld && !old || old && c.name == "only segment damaged" {
				continue
			}
			t.Run(fmt.Sprintf("%s/old=%v", c.name, old), func(t *testing.T) {
				mem := crashed(t, c.frames)
				if old {
					olden(t, mem)
				}
				if err := c.harm(mem); err != nil {
					t.Fatal(err)
				}
				checkDamaged(t, mem, c.audioMS, c.aside, c.fails)
			})
		}
	}
}

// checkDamaged recovers and compares; audioMS -1: nothing is published, -2:
// something, -3: something of which verify tells that a segment is missing.
func checkDamaged(t *testing.T, mem *vfstest.Mem, audioMS int64, aside int, fails bool) {
	t.Helper()
	a := mustOpenOn(t, mem, newMemCatalog())
	got, err := a.Recover(context.Background())
	if err != nil || len(got) != 1 {
		t.Fatalf("Recover: %+v, %v", got, err)
	}
	r := got[0]
	if (r.Err != nil) != fails || len(r.Aside) != aside {
		t.Errorf("recovered %+v", r)
	}
	if audioMS == -1 {
		if r.Manifest != nil {
			t.Error("published something")
		}
	} else if r.Manifest == nil || audioMS >= 0 && r.AudioMS != audioMS {
		t.Errorf("published %d ms, want %d", r.AudioMS, audioMS)
	}
	if audioMS == -3 {
		v, err := a.Verify(context.Background(), VerifyQuery{}, nil)
		if err != nil || len(v.Findings) != 1 || v.Findings[0].Fault != FaultMissing {
			t.Errorf("verify: %+v, %v", v, err)
		}
	} else if !fails {
		mustVerify(t, a, "recovered")
	}
	if again, err := a.Recover(context.Background()); err != nil || len(again) != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := mem.Stat(spooled); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the spool still has it")
	}
}

// TestRecoverNothing: a folder in which nothing was durable when the machine
// died goes, without a word.
func TestRecoverNothing(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"empty folder":    {},
		"empty segment":   {"0001.seg": ""},
		"zeros":           {"0001.seg": "\x00\x00\x00\x00"},
		"half a header":   {"0001.seg": "TRUNKTAP\x01S\x00\x00\x01\x00{\"recording\":\x00\x00"},
		"old marker only": {markerFile: "", "0001.part": ""},
		"torn manifest":   {segment.ManifestFile: "TRUNKTAP\x01M\x00\x00\x00\x05{    }\x04\x00"},
	} {
		mem := vfstest.NewMem()
		a := mustOpenOn(t, mem, newMemCatalog())
		if err := vfs.MkdirAll(mem, spooled); err != nil {
			t.Fatal(err)
		}
		for f, content := range files {
			if err := vfs.WriteFile(mem, spooled+f, []byte(content)); err != nil {
				t.Fatal(err)
			}
		}
		if name != "old marker only" { // the call goes on: its recording needs the place at once
			c := mem.CrashClone(0)
			held, err := mustOpenOn(t, c, newMemCatalog()).Hold(context.Background(), func(string) bool { return true })
			if err != nil || len(held) != 0 || len(c.Files()) != 0 {
				t.Errorf("%s: Hold: %+v, %v; left: %v", name, held, err, c.Files())
			}
		}
		got, err := a.Recover(context.Background())
		if name == "old marker only" {
			if err != nil || len(got) != 1 || got[0].Err == nil {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
			continue
		}
		if err != nil || len(got) != 0 || len(mem.Files()) != 0 {
			t.Errorf("%s: %+v, %v; left: %v", name, got, err, mem.Files())
		}
	}
}

// TestRecoverWaits leaves in place what a later start can recover.
func TestRecoverWaits(t *testing.T) {
	mem := crashed(t, 2)
	before := mem.Files()
	other := noKeys{testSealer()}
	a, err := Open(Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: mem, Sealer: other, Catalog: newMemCatalog()})
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.Recover(context.Background())
	if err != nil || len(got) != 1 || !errors.Is(got[0].Err, recorder.ErrKey) || got[0].Error == "" {
		t.Errorf("Recover without keys: %+v, %v", got, err)
	}
	if !slices.Equal(before, mem.Files()) {
		t.Errorf("files were %v, are %v", before, mem.Files())
	}
	// A failing catalogue holds up nothing.
	cat := newMemCatalog()
	cat.fail(errors.New("locked"))
	a = mustOpenOn(t, mem, cat)
	if got, err = a.Recover(context.Background()); err != nil || len(got) != 1 || got[0].Err != nil {
		t.Errorf("Recover without catalogue: %+v, %v", got, err)
	}
	cat.fail(nil)
	if n, err := a.CatchUp(context.Background()); n != 1 || err != nil {
		t.Errorf("CatchUp: %d, %v", n, err)
	}
	mustVerify(t, a, "caught up")
	for _, f := range mem.Files() {
		if strings.HasPrefix(f, "/data/spool/") {
			t.Errorf("left: %s", f)
		}
	}
}

// noKeys is a sealer whose keys are not at hand.
type noKeys struct{ recorder.Sealer }

func (noKeys) OpenKey(context.Context, string, recorder.WrappedKey) (recorder.DataKey, error) {
	return nil, recorder.ErrKey
}

// TestRecoverWithoutAccount publishes what headers and frames tell.
func TestRecoverWithoutAccount(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	w, err := sink.Begin(recorder.SegmentInfo{
		Recording: testID, Prefix: testPrefix, N: 1, Format: codec.WAVPCMU, SampleRate: 8000, Channels: 2, RealMS: 300, Start: epoch,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(recorder.Audio{RealMS: 300, Samples: 800, Data: make([]byte, 1600)}, nil); err != nil {
		t.Fatal(err)
	}
	a = mustOpenOn(t, mem.CrashClone(3), newMemCatalog())
	got, err := a.Recover(context.Background())
	if err != nil || len(got) != 1 || got[0].Err != nil || got[0].Manifest == nil {
		t.Fatalf("Recover: %+v, %v", got, err)
	}
	m := got[0].Manifest
	if m.AudioMS != 100 || m.RealMS != 400 || !m.Origin.Equal(epoch.Add(-300e6)) || m.Call.EndCause != "crash" {
		t.Errorf("manifest %+v", m)
	}
	mustVerify(t, a, "recovered")
}
