package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// deferAll codes every recording anew, cheaply.
var deferAll = DeferredConfig{Options: func(*recorder.Manifest) (codec.Options, bool) {
	return codec.Options{Bitrate: 24_000, Application: codec.OpusAudio}, true
}}

func mustDefer(t testing.TB, fsys vfs.FS, c recorder.Catalog, cfg DeferredConfig) *Archive {
	t.Helper()
	a, err := openDefer(fsys, c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func openDefer(fsys vfs.FS, c recorder.Catalog, cfg DeferredConfig) (*Archive, error) {
	return Open(Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: fsys, Sealer: testSealer(), Catalog: c, Deferred: cfg})
}

// encodeAll does what waits, failures again, without a goroutine.
func encodeAll(ctx context.Context, a *Archive) {
	for {
		j, _ := a.deferred.pop(time.Now().Add(24 * time.Hour))
		if j == nil {
			return
		}
		a.tryDeferred(ctx, j)
	}
}

// shortCall has a window, two segments, and little to encode.
func shortCall(id, format string) testCall {
	return testCall{id: id, format: format, kept: []span{{0, 1000}, {2500, 3000}}, endMS: 3500, segmentMax: 1000}
}

// heard exports a recording and returns its samples.
func heard(t testing.TB, a *Archive, id string) (ch [2][]int16) {
	t.Helper()
	w := &memFile{limit: 1 << 26}
	if err := a.Export(context.Background(), id, codec.WAVPCM16, w, nil); err != nil {
		t.Error(err)
		return ch
	}
	for at := 44; at+3 < len(w.b); at += 4 {
		ch[0] = append(ch[0], int16(binary.LittleEndian.Uint16(w.b[at:])))
		ch[1] = append(ch[1], int16(binary.LittleEndian.Uint16(w.b[at+2:])))
	}
	return ch
}

// wantLike demands that two recordings sound alike: the same length, and each
// sample in its place.
func wantLike(t testing.TB, what string, got, want [2][]int16) {
	t.Helper()
	for c := range want {
		if len(got[c]) != len(want[c]) {
			t.Errorf("%s: channel %d has %d samples, want %d", what, c, len(got[c]), len(want[c]))
			continue
		}
		for at := 0; at+800 <= len(want[c]); at += 800 {
			var s, n float64
			for i := at; i < at+800; i++ {
				x, d := float64(want[c][i]), float64(want[c][i])-float64(got[c][i])
				s, n = s+x*x, n+d*d
			}
			if db := 10 * math.Log10((s+1)/(n+1)); db < 8 && s > 800*100*100 {
				t.Errorf("%s: channel %d from %d ms on: %.1f dB from what was said", what, c, at/8, db)
			}
		}
	}
}

func TestDeferredEncoding(t *testing.T) {
	for _, format := range []string{codec.WAVPCMU, codec.WAVPCMA, codec.WAVPCM16, codec.FLAC} {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		a := mustDefer(t, mem, cat, deferAll)
		before := record(t, a, newTestCall(testID, format))
		said := heard(t, a, testID)
		if n, bytes := a.DeferredQueue(); n != 1 || bytes == 0 {
			t.Fatalf("%d recordings, %d bytes wait", n, bytes)
		}
		mustVerify(t, a, "published")
		encodeAll(context.Background(), a)
		m, err := a.Get(context.Background(), testID)
		if err != nil {
			t.Fatal(err)
		}
		if m.Format != codec.OggOpus || cat.rows[testID].Manifest.Format != codec.OggOpus {
			t.Errorf("format %s, in the catalogue %s", m.Format, cat.rows[testID].Manifest.Format)
		}
		for i, s := range m.Segments {
			was := before.Segments[i]
			if s.Bytes >= was.Bytes/2 || s.Format != "" || s.File != encodedName(s.N) {
				t.Errorf("%s: segment %+v, was %+v", format, s, was)
			}
			s.File, s.Bytes, s.SHA256, s.AudioSHA256, s.Format = was.File, was.Bytes, was.SHA256, was.AudioSHA256, was.Format
			if fmt.Sprint(s) != fmt.Sprint(was) {
				t.Errorf("%s: segment %+v, was %+v", format, s, was)
			}
		}
		m.Format, m.Segments = before.Format, before.Segments
		if fmt.Sprintf("%+v", m.Windows) != fmt.Sprintf("%+v", before.Windows) || m.RealMS != before.RealMS || m.AudioMS != before.AudioMS {
			t.Errorf("%s: %+v, was %+v", format, m, before)
		}
		wantLike(t, format, heard(t, a, testID), said)
		wantDone(t, a, mem, format)
		if s := a.DeferredStats(); s.Done.Load() != 1 || s.Failed.Load() != 0 || s.AudioMS.Load() != before.AudioMS {
			t.Errorf("%d done, %d failed, %d ms", s.Done.Load(), s.Failed.Load(), s.AudioMS.Load())
		}
	}
}

// wantDone demands that nothing is left of a job, and of what it replaced.
func wantDone(t testing.TB, a *Archive, mem *vfstest.Mem, what string) {
	t.Helper()
	mustVerify(t, a, what)
	for _, name := range mem.Files() {
		if strings.HasPrefix(name, "/data/spool/") && !strings.HasPrefix(name, "/data/spool/rows/") || strings.HasPrefix(name, "/data/store/") && strings.HasSuffix(name, ".seg") && !isEncoded(name) {
			t.Errorf("%s: left: %s", what, name)
		}
	}
	if n, bytes := a.DeferredQueue(); n != 0 || bytes != 0 {
		t.Errorf("%s: %d recordings of %d bytes wait", what, n, bytes)
	}
}

// TestDeferredCrash lets the machine die, or an operation fail, at every file
// operation of coding anew. Whatever is found afterwards verifies, sounds as it
// did, and is completed by the next run.
func TestDeferredCrash(t *testing.T) {
	base := vfstest.NewMem()
	cat := newMemCatalog()
	a := mustDefer(t, base, cat, deferAll)
	record(t, a, shortCall(testID, codec.WAVPCMU))
	said := heard(t, a, testID)
	for _, kind := range []vfstest.Kind{vfstest.Crash, vfstest.FailFrom, vfstest.Fail, vfstest.DoneButErr} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			step := 2 // every second operation will do
			if kind == vfstest.Crash {
				step = 1
			}
			n := 1 + int(kind)%2
			for ; ; n += step {
				disk := base.CrashClone(uint64(n))
				f := &vfstest.Faults{FS: disk, At: n, Kind: kind, Err: syscall.EIO}
				cat := &memCatalog{rows: maps.Clone(cat.rows)}
				if a, err := openDefer(f, cat, deferAll); err == nil {
					if _, err := a.Recover(context.Background()); err == nil {
						encodeAll(context.Background(), a)
					}
				}
				mustVerify(t, mustOpenOn(t, disk, cat), f.Hit()) // as one finds it who only looks
				if f.Hit() == "" {
					break
				}
				checkDeferred(t, disk.CrashClone(uint64(n)), f.Hit(), said)
			}
			t.Logf("%d operations", n-1)
		})
	}
}

func checkDeferred(t *testing.T, disk *vfstest.Mem, what string, said [2][]int16) {
	t.Helper()
	cat := newMemCatalog()
	a := mustDefer(t, disk, cat, deferAll)
	if _, err := a.Recover(context.Background()); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if err := a.Rebuild(context.Background(), nil); err != nil {
		t.Errorf("%s: rebuild: %v", what, err)
	}
	mustVerify(t, a, what)
	wantLike(t, what, heard(t, a, testID), said)
	encodeAll(context.Background(), a)
	wantLike(t, what+", completed", heard(t, a, testID), said)
	wantDone(t, a, disk, what+", completed")
	if f := cat.rows[testID].Manifest.Format; f != codec.OggOpus {
		t.Errorf("%s: the catalogue tells of %s", what, f)
	}
}

// TestDeferredAfterCrashOfTheCall: what Recover publishes is coded anew as well,
// wherever the machine died, and never published twice.
func TestDeferredAfterCrashOfTheCall(t *testing.T) {
	at := 20
	for ; ; at++ {
		disk := vfstest.NewMem()
		k := &taking{c: shortCall(testID, codec.WAVPCMU)}
		f := &vfstest.Faults{FS: disk, At: at, Kind: vfstest.Crash}
		if a, err := openDefer(f, newMemCatalog(), deferAll); err == nil {
			if k.sink, err = a.NewSink(context.Background(), k.c.id, k.c.prefix()); err == nil {
				_, _ = k.take() // it dies
			}
		}
		if f.Hit() == "" {
			break
		}
		disk = disk.CrashClone(uint64(at))
		a := mustDefer(t, disk, newMemCatalog(), deferAll)
		if _, err := a.Recover(context.Background()); err != nil {
			t.Fatal(err)
		}
		if k.durable == 0 {
			continue
		}
		said := heard(t, a, testID)
		encodeAll(context.Background(), a)
		if again, err := a.Recover(context.Background()); err != nil || len(again) > 0 {
			t.Errorf("%s: recover again: %+v, %v", f.Hit(), again, err)
		}
		wantLike(t, f.Hit(), heard(t, a, testID), said)
		if err := a.Rebuild(context.Background(), nil); err != nil {
			t.Error(err)
		}
		wantDone(t, a, disk, f.Hit())
		if m, err := a.Get(context.Background(), testID); err != nil || m.Format != codec.OggOpus {
			t.Errorf("%s: %+v, %v", f.Hit(), m, err)
		}
	}
	t.Logf("%d operations", at-1)
}

// TestDeferredHole: frames that could not be written are silence in their place
// afterwards, whatever windows lie there.
func TestDeferredHole(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustDefer(t, mem, newMemCatalog(), deferAll)
	c := newTestCall(testID, codec.WAVPCMU)
	c.segmentMax = 10_000
	sink, err := a.NewSink(context.Background(), c.id, c.prefix())
	if err != nil {
		t.Fatal(err)
	}
	w, err := sink.Begin(recorder.SegmentInfo{Recording: c.id, Prefix: c.prefix(), N: 1, Format: c.format, SampleRate: 8000, Channels: 2, Start: epoch})
	if err != nil {
		t.Fatal(err)
	}
	enc, err := codec.NewEncoder(c.format, 8000, codec.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// From 1 s to 2.5 s of the audio nothing was kept; the hold of 3 s lies at 2 s.
	for ms := int64(0); ms < 4500; ms += 500 {
		data, err := enc.Encode(nil, pcm(ms, ms+500))
		if err != nil {
			t.Fatal(err)
		}
		real := ms
		if ms >= 2000 {
			real += 3000
		}
		if ms < 1000 || ms >= 2500 {
			if err := w.Write(recorder.Audio{RealMS: real, AudioMS: ms, SegMS: ms, Samples: 4000, Data: data}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, err := w.Finish(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.EndRealMS, s.Parties = 7500, []string{}
	m := c.account(9000, 4500, []recorder.Segment{s})
	for ch := range 2 {
		m.Gaps = append(m.Gaps, recorder.Gap{Channel: ch, RealMS: 1000, AudioMS: 1000, DurationMS: 1500, Cause: recorder.GapOverrun, Filled: "silence"})
	}
	if err := errors.Join(sink.Publish(m), sink.Close()); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, a, "published")
	said := heard(t, a, testID)
	encodeAll(context.Background(), a)
	wantDone(t, a, mem, "coded anew")
	got := heard(t, a, testID)
	wantLike(t, "coded anew", got, said)
	for _, v := range got[0][8*1100 : 8*2490] {
		if v > 1 || v < -1 {
			t.Fatalf("sample %d in the gap", v)
		}
	}
}

// TestDeferredDamage: what cannot be read whole is left as it is, and still
// tells of it.
func TestDeferredDamage(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustDefer(t, mem, newMemCatalog(), deferAll)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	f, err := mem.OpenFile("/data/store/"+testPrefix+"/0002.seg", 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1, 2, 3}, 9000); err != nil {
		t.Fatal(err)
	}
	encodeAll(context.Background(), a)
	m, err := a.Get(context.Background(), testID)
	if err != nil {
		t.Fatal(err)
	}
	if m.Format != codec.OggOpus || m.Segments[0].Format != "" || m.Segments[1].Format != codec.WAVPCMU || m.Segments[1].File != segment.FileName(2) {
		t.Errorf("%+v", m.Segments)
	}
	r, err := a.Verify(context.Background(), VerifyQuery{}, nil)
	if err != nil || len(r.Findings) == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, f := range r.Findings {
		if f.File != segment.FileName(2) {
			t.Errorf("finding %s", f)
		}
	}
}

// TestDeferredWhileRead: who began to read a recording reads it to the end.
func TestDeferredWhileRead(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustDefer(t, mem, newMemCatalog(), deferAll)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	media, err := a.Media(context.Background(), testID, codec.WAVPCM16)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	if _, err := media.Read(buf); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		j, _ := a.deferred.pop(time.Now().Add(time.Hour))
		a.tryDeferred(context.Background(), j)
	}
	mustVerify(t, a, "while it is read") // it reads, too
	n := int64(1000)
	for n < media.Size {
		k, err := media.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		n += int64(k)
	}
	if len(media.Damage()) > 0 {
		t.Errorf("%v", media.Damage())
	}
	if q, _ := a.DeferredQueue(); q != 1 {
		t.Errorf("%d jobs while it is read", q)
	}
	if err := errors.Join(media.Close(), media.Close()); err != nil {
		t.Fatal(err)
	}
	encodeAll(context.Background(), a)
	wantDone(t, a, mem, "read")
}

// TestDeferredBounds: what has no room stays as it is.
func TestDeferredBounds(t *testing.T) {
	for _, cfg := range []DeferredConfig{{RecordingsMax: 2}, {BytesMax: 100_000}} { // of 24 kB each... two and a bit
		cfg.Options = deferAll.Options
		mem := vfstest.NewMem()
		a := mustDefer(t, mem, newMemCatalog(), cfg)
		ids := []string{"a", "b", "c", "d", "e", "f"}
		for _, id := range ids {
			record(t, a, shortCall(id, codec.WAVPCMU))
		}
		n, bytes := a.DeferredQueue()
		if kept := a.DeferredStats().Kept.Load(); n < 2 || n > 4 || int(kept) != len(ids)-n || bytes > 100_000 {
			t.Errorf("%d wait with %d bytes, %d stay", n, bytes, kept)
		}
		encodeAll(context.Background(), a)
		opus := 0
		for _, id := range ids {
			m, err := a.Get(context.Background(), id)
			if err != nil {
				t.Fatal(err)
			}
			if m.Format == codec.OggOpus {
				opus++
			}
		}
		if opus != n {
			t.Errorf("%d coded anew, %d were to be", opus, n)
		}
		mustVerify(t, a, "in part")
	}
}

// TestDeferredRestart: jobs outlive the daemon; a broken job stops nobody.
func TestDeferredRestart(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := mustDefer(t, mem, cat, deferAll)
	record(t, a, shortCall("a", codec.WAVPCMU))
	record(t, a, shortCall("b", codec.WAVPCMU))
	if err := vfs.WriteFile(mem, "/data/spool/deferred/c.json", []byte("{")); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = mustDefer(t, mem, cat, DeferredConfig{}) // nothing more is deferred, what waits is done
	if n, _ := a.DeferredQueue(); n != 2 || a.DeferredStats().Failed.Load() != 1 {
		t.Fatalf("%d jobs after the restart", n)
	}
	synctest.Test(t, func(t *testing.T) {
		a := mustDefer(t, mem, cat, DeferredConfig{Workers: 2})
		a.StartDeferred()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		a.StopDeferred(ctx)
		if a.DeferredStats().Done.Load() != 2 || ctx.Err() != nil {
			t.Errorf("%d done, %v", a.DeferredStats().Done.Load(), ctx.Err())
		}
		mustVerify(t, a, "stopped")
	})
}

// TestDeferredStopsInTime: what is under way when the time is over waits for the
// next start, and a recording that is still open waits for its end.
func TestDeferredStopsInTime(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustDefer(t, mem, newMemCatalog(), deferAll)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	a.StartDeferred()
	a.StopDeferred(ctx)
	if n, _ := a.DeferredQueue(); n+int(a.DeferredStats().Done.Load()) != 1 || a.DeferredStats().Failed.Load() != 0 {
		t.Errorf("%d wait, %d failed", n, a.DeferredStats().Failed.Load())
	}
	mustVerify(t, a, "stopped")

	a = mustDefer(t, mem, newMemCatalog(), deferAll)
	sink, err := a.NewSink(context.Background(), "x", "2026/11/22/x")
	if err != nil {
		t.Fatal(err)
	}
	k := &taking{c: shortCall("x", codec.WAVPCMU), sink: sink}
	if _, err := k.take(); err != nil {
		t.Fatal(err)
	}
	j, err := a.readJob("x")
	if err != nil || j == nil {
		t.Fatal(err)
	}
	if err := a.encodeJob(context.Background(), j); !errors.Is(err, errBusy) {
		t.Errorf("an open recording: %v", err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	encodeAll(context.Background(), a)
	if m, err := a.Get(context.Background(), "x"); err != nil || m.Format != codec.OggOpus {
		t.Errorf("%+v, %v", m, err)
	}
}
