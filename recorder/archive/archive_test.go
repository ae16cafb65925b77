package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

var formats = []string{codec.WAVPCM16, codec.WAVPCMU, codec.WAVPCMA, codec.OggOpus, codec.FLAC}

func idOf(i int) string { return fmt.Sprintf("20261122T163608Z-%016x", i) }

// TestWhole goes once around on the machine's own files: record, find, get,
// verify, rebuild, open anew.
func TestWhole(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{
		StoreDir: filepath.Join(dir, "store"), SpoolDir: filepath.Join(dir, "spool"), CatalogPath: filepath.Join(dir, "catalog.db"),
		KeyFile: filepath.Join(dir, "kek.json"),
	}
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := a.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	want := map[string]*recorder.Manifest{}
	for i, f := range formats {
		want[idOf(i)] = record(t, a, newTestCall(idOf(i), f))
	}
	check := func(a *Archive) {
		t.Helper()
		r := mustVerify(t, a, "whole")
		if r.Recordings != len(formats) || r.Segments != 3*len(formats) || r.Frames == 0 || r.Bytes == 0 {
			t.Errorf("verified %+v", r)
		}
		p, err := a.Find(ctx, recorder.Query{Number: "4930"})
		if err != nil || len(p.Rows) != len(formats) {
			t.Errorf("Find: %d rows, %v", len(p.Rows), err)
		}
		for id, m := range want {
			got, err := a.Get(ctx, id)
			if err != nil || cmp.Diff(m, got) != "" {
				t.Errorf("Get %s: %v\n%s", id, err, cmp.Diff(m, got))
			}
		}
	}
	check(a)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for _, ext := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(cfg.CatalogPath + ext); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	cfg.ReadOnly = true
	if a, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	if m, err := a.Get(ctx, idOf(2)); err != nil || m.ID != idOf(2) {
		t.Errorf("Get without a row: %v", err)
	}
	var told int64
	if err := a.Rebuild(ctx, func(done, total int64) {
		if told = done; total != 0 && total != 5 { // 0: it is being counted
			t.Errorf("%d of %d", done, total)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if told != 5 {
		t.Errorf("progress %d", told)
	}
	check(a)
	if _, err := a.NewSink(ctx, idOf(9), "2026/11/22/"+idOf(9)); err == nil {
		t.Error("a read-only archive takes a recording")
	}
	checkNothingPlain(t, dir)
}

// checkNothingPlain searches every file for audio as it was spoken.
func checkNothingPlain(t *testing.T, dir string) {
	t.Helper()
	var needles [][]byte
	for _, f := range formats[:3] {
		enc, err := codec.NewEncoder(f, 8000, codec.Options{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := enc.Encode(nil, pcm(300, 304))
		if err != nil {
			t.Fatal(err)
		}
		needles = append(needles, b)
	}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, n := range needles {
			if bytes.Contains(b, n) {
				t.Errorf("%s holds plain audio", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mustMedia(t *testing.T, a *Archive, id, format string) *Media {
	t.Helper()
	m, err := a.Media(context.Background(), id, format)
	if err != nil {
		t.Fatalf("Media %s: %v", format, err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func mustReadAll(t *testing.T, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wavSamples returns what a PCM16 file holds.
func wavSamples(t *testing.T, b []byte) [2][]int16 {
	t.Helper()
	dec, err := codec.NewCodedDecoder(codec.WAVPCM16, 8000, 2)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := dec.Decode([2][]int16{}, b[44:], (len(b)-44)/4)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// TestMediaAndExport reads every format as every format, whole and exported.
func TestMediaAndExport(t *testing.T) {
	a := mustOpenOn(t, vfstest.NewMem(), newMemCatalog())
	for i, own := range formats {
		m := record(t, a, newTestCall(idOf(i), own))
		for _, as := range append([]string{"", FormatMP3}, formats...) {
			f := mustMedia(t, a, idOf(i), as)
			got := mustReadAll(t, f)
			if int64(len(got)) != f.Size {
				t.Errorf("%s as %q: %d bytes, said %d", own, as, len(got), f.Size)
			}
			var done, total int64
			file := &memFile{limit: 1 << 30}
			if err := a.Export(context.Background(), idOf(i), as, file, func(d, n int64) { done, total = d, n }); err != nil {
				t.Fatalf("export %s as %q: %v", own, as, err)
			}
			if !bytes.Equal(file.b, got) {
				t.Errorf("%s as %q: exported %d bytes differ from the %d served", own, as, len(file.b), len(got))
			}
			if done != total || total != m.AudioMS {
				t.Errorf("%s as %q: progress ended at %d of %d, %d ms of audio", own, as, done, total, m.AudioMS)
			}
			magic := map[string]string{".ogg": "OggS", ".wav": "RIFF", ".flac": "fLaC", ".mp3": "\xff"}[filepath.Ext(f.Name)]
			if magic == "" || !strings.HasPrefix(string(got), magic) {
				t.Errorf("%s as %q: %s begins with %q", own, as, f.Name, got[:4])
			}
			if as == codec.WAVPCM16 {
				checkHeard(t, own, wavSamples(t, got), m.AudioMS)
			}
		}
	}
	if _, err := a.Media(context.Background(), idOf(0), "aiff"); !errors.Is(err, codec.ErrFormat) {
		t.Errorf("Media as aiff: %v", err)
	}
	if _, err := a.Media(context.Background(), "nobody", ""); !errors.Is(err, recorder.ErrNotFound) {
		t.Errorf("Media of nobody: %v", err)
	}
}

// checkHeard compares samples with what was spoken: exactly, or as far as the
// codec allows, but always in its place.
func checkHeard(t *testing.T, own string, got [2][]int16, audioMS int64) {
	t.Helper()
	if int64(len(got[0])) != audioMS*8 {
		t.Fatalf("%s: %d samples, want %d", own, len(got[0]), audioMS*8)
	}
	want := pcm(0, audioMS)
	for ch := range got {
		if own == codec.WAVPCM16 || own == codec.FLAC {
			if !slices.Equal(got[ch], want[ch]) {
				t.Errorf("%s: channel %d differs", own, ch)
			}
			continue
		}
		// A lossy codec may be off by up to a millisecond, no more.
		const shift = 8
		best := errorRatio(got[ch], want[ch])
		for lag := range shift {
			best = min(best, errorRatio(got[ch][lag:], want[ch]), errorRatio(got[ch], want[ch][lag:]))
		}
		if best > 0.2 {
			t.Errorf("%s: channel %d: error of %.2f of the signal at the best place", own, ch, best)
		}
	}
}

// errorRatio is the energy of the difference by the energy of the signal.
func errorRatio(got, want []int16) float64 {
	var diff, sig float64
	for i := range min(len(got), len(want)) {
		d := float64(got[i]) - float64(want[i])
		diff += d * d
		sig += float64(want[i]) * float64(want[i])
	}
	return diff / sig
}

// TestMediaSeeks reads at random places and compares with the whole.
func TestMediaSeeks(t *testing.T) {
	a := mustOpenOn(t, vfstest.NewMem(), newMemCatalog())
	rnd := rand.New(rand.NewPCG(1, 2))
	for i, own := range formats {
		c := newTestCall(idOf(i), own)
		c.kept = []span{{0, 2000}, {5000, 7500}, {9000, 17000}}
		c.endMS = 17000
		record(t, a, c)
		for _, as := range []string{"", codec.WAVPCM16, codec.WAVPCMA} {
			f := mustMedia(t, a, idOf(i), as)
			whole := mustReadAll(t, f)
			for range 30 {
				from := rnd.Int64N(f.Size + 10)
				n := min(rnd.Int64N(40_000), max(f.Size-from, 0))
				if _, err := f.Seek(from, io.SeekStart); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, n)
				if _, err := io.ReadFull(f, got); err != nil {
					t.Fatalf("%s as %q: read %d at %d of %d: %v", own, as, n, from, f.Size, err)
				}
				if !bytes.Equal(got, whole[min(from, f.Size):min(from+n, f.Size)]) {
					t.Fatalf("%s as %q: %d bytes at %d differ", own, as, n, from)
				}
			}
			if at, err := f.Seek(-5, io.SeekEnd); err != nil || at != f.Size-5 {
				t.Errorf("Seek from the end = %d, %v", at, err)
			}
			if _, err := f.Seek(-f.Size, io.SeekCurrent); err == nil {
				t.Error("Seek before the beginning succeeded")
			}
		}
	}
}

// TestMediaWithDamage takes a segment away and alters another: silence stands
// in their place, everything else where it was, and the damage is told.
func TestMediaWithDamage(t *testing.T) {
	for _, own := range formats {
		mem := vfstest.NewMem()
		a := mustOpenOn(t, mem, newMemCatalog())
		m := record(t, a, newTestCall(testID, own))
		whole := mustReadAll(t, mustMedia(t, a, testID, codec.WAVPCM16))
		if err := mem.Remove(objectPath(2)); err != nil {
			t.Fatal(err)
		}
		f := mustMedia(t, a, testID, codec.WAVPCM16)
		got := mustReadAll(t, f)
		s := m.Segments[1]
		from, to := 44+s.AudioMS*32, 44+(s.AudioMS+s.DurationMS)*32
		if len(got) != len(whole) || !bytes.Equal(got[:from], whole[:from]) || !bytes.Equal(got[to:], whole[to:]) {
			t.Errorf("%s: what is not missing differs", own)
		}
		if len(bytes.Trim(got[from:to], "\x00")) != 0 {
			t.Errorf("%s: no silence in place of the missing segment", own)
		}
		if d := f.Damage(); len(d) != 1 || d[0].Fault != FaultMissing || d[0].File != "0002.seg" {
			t.Errorf("%s: damage %v", own, d)
		}
		for _, as := range formats {
			var de *DamageError
			err := a.Export(context.Background(), testID, as, &memFile{limit: 1 << 30}, nil)
			if !errors.As(err, &de) || !errors.Is(err, recorder.ErrTampered) || len(de.Findings) != 1 {
				t.Errorf("%s: export as %s: %v", own, as, err)
			}
		}
		alter(t, mem, 1, func(b []byte) []byte {
			b[len(b)-900] ^= 1
			return b
		})
		f = mustMedia(t, a, testID, "")
		if n := len(mustReadAll(t, f)); int64(n) != f.Size {
			t.Errorf("%s: %d bytes, said %d", own, n, f.Size)
		}
		if d := f.Damage(); len(d) != 2 {
			t.Errorf("%s: damage of two segments: %v", own, d)
		}
	}
}

func objectPath(n int) string { return "/data/store/" + testPrefix + "/" + segment.FileName(n) }

// alter rewrites an object of the store.
func alter(t *testing.T, mem *vfstest.Mem, n int, f func([]byte) []byte) {
	t.Helper()
	b, err := vfs.ReadFile(mem, objectPath(n), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFile(mem, objectPath(n), f(b)); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyLeavesLiveRecordingsAlone(t *testing.T) {
	a := mustOpenOn(t, vfstest.NewMem(), newMemCatalog())
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	k := &taking{c: newTestCall(testID, codec.WAVPCM16), sink: sink}
	for real := int64(0); real < 2000; real += frameMS {
		if err := k.frame(real); err != nil {
			t.Fatal(err)
		}
	}
	mustVerify(t, a, "while a call lasts") // one segment is published, its manifest is not
	if r, err := a.Recover(context.Background()); err != nil || len(r) != 0 {
		t.Errorf("Recover took a live recording: %v, %v", r, err)
	}
	if _, err := a.NewSink(context.Background(), testID, testPrefix); !errors.Is(err, recorder.ErrExists) {
		t.Errorf("second sink: %v", err)
	}
	if _, err := sink.Begin(recorder.SegmentInfo{Recording: testID, Prefix: testPrefix, N: 1}); !errors.Is(err, recorder.ErrExists) {
		t.Errorf("segment 1 again: %v", err)
	}
	if err := sink.Publish(k.c.account(1, 1, nil)); err == nil {
		t.Error("published with an open segment")
	}
	if err := errors.Join(sink.Discard(), sink.Discard(), sink.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Begin(recorder.SegmentInfo{Recording: testID, Prefix: testPrefix, N: 5}); err == nil {
		t.Error("began a segment after Discard")
	}
}

func TestDiscardWipes(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	k := &taking{c: newTestCall(testID, codec.WAVPCM16), sink: sink}
	for real := int64(0); real < 2000; real += frameMS {
		if err := k.frame(real); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(sink.Discard(), sink.Close()); err != nil {
		t.Fatal(err)
	}
	if f := mem.Files(); len(f) != 0 {
		t.Errorf("left: %v", f)
	}
	if _, err := a.NewSink(context.Background(), testID, testPrefix); err != nil {
		t.Errorf("the id stays taken: %v", err)
	}
}

// TestSuppressedThroughout publishes a manifest without any segment.
func TestSuppressedThroughout(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	c := newTestCall(testID, codec.OggOpus)
	c.kept = nil
	m := record(t, a, c)
	if m.AudioMS != 0 || len(m.Segments) != 0 {
		t.Fatalf("manifest %+v", m)
	}
	mustVerify(t, a, "without audio")
	for _, as := range formats {
		if b := mustReadAll(t, mustMedia(t, a, testID, as)); len(b) == 0 {
			t.Errorf("%s: empty file", as)
		}
	}
	if f := mem.Files(); len(f) != 2 { // manifest and key
		t.Errorf("files: %v", f)
	}
}

// TestCatalogueDown: recordings are taken, and known later.
func TestCatalogueDown(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := mustOpenOn(t, mem, cat)
	locked := errors.New("locked")
	cat.fail(locked)
	var nr *NotReady
	if err := a.Ready(context.Background()); !errors.As(err, &nr) || nr.Fatal() || !errors.Is(err, locked) {
		t.Errorf("Ready: %v", err)
	}
	if err := a.CanRecord(context.Background()); err != nil {
		t.Errorf("CanRecord: %v", err)
	}
	for i := range 3 {
		record(t, a, newTestCall(idOf(i), codec.WAVPCMU))
	}
	if m, err := a.Get(context.Background(), idOf(1)); err != nil || m.ID != idOf(1) {
		t.Errorf("Get without catalogue: %v", err)
	}
	if n, err := a.CatchUp(context.Background()); n != 0 || !errors.Is(err, locked) {
		t.Errorf("CatchUp: %d, %v", n, err)
	}
	cat.fail(nil)
	// The rows outlive the process.
	a = mustOpenOn(t, mem.CrashClone(1), cat)
	if n, err := a.CatchUp(context.Background()); n != 3 || err != nil {
		t.Errorf("CatchUp: %d, %v", n, err)
	}
	mustVerify(t, a, "caught up")
	if n, err := a.CatchUp(context.Background()); n != 0 || err != nil {
		t.Errorf("CatchUp again: %d, %v", n, err)
	}
}

func TestNotReady(t *testing.T) {
	mem := vfstest.NewMem()
	a, err := Open(Config{StoreDir: "/s", SpoolDir: "/p", FS: mem, Sealer: testSealer(), Catalog: newMemCatalog(), FreeBytesMin: 1000})
	if err != nil {
		t.Fatal(err)
	}
	mem.SetFree(10)
	var nr *NotReady
	if err := a.CanRecord(context.Background()); !errors.As(err, &nr) || !nr.Fatal() || !errors.Is(err, store.ErrSpace) {
		t.Errorf("CanRecord without space: %v", err)
	}
}

func TestLostKeyFile(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{StoreDir: filepath.Join(dir, "store"), SpoolDir: filepath.Join(dir, "spool"), KeyFile: filepath.Join(dir, "kek.json"), Catalog: newMemCatalog()}
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	record(t, a, newTestCall(testID, codec.WAVPCMA))
	if err := os.Rename(cfg.KeyFile, cfg.KeyFile+".lost"); err != nil {
		t.Fatal(err)
	}
	var kf *seal.KeyFileError
	if _, err := Open(cfg); !errors.Is(err, recorder.ErrKey) || !errors.As(err, &kf) || !strings.Contains(kf.Hint, "backup") {
		t.Errorf("Open without the keys: %v", err)
	}
	if _, err := os.Stat(cfg.KeyFile); err == nil {
		t.Error("new keys were made beside recordings of the old ones")
	}
}
