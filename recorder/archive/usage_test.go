package archive

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/catalog"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// storedBytes is what stores and spool hold of recordings that are published, an
// object that is in both once.
func storedBytes(t testing.TB, a *Archive) (sum int64) {
	t.Helper()
	published := map[string]bool{}
	if err := a.eachManifest(context.Background(), func(p place) error { published[p.prefix] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	for _, s := range a.shelves {
		err := s.store.List(context.Background(), "", func(i recorder.BlobInfo) error {
			if published[path.Dir(i.Name)] && path.Base(i.Name) != markerFile {
				sizes[s.name+"\x00"+i.Name] = i.Size
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range a.spooledPlaces() {
		err := spoolStore{a, p}.List(context.Background(), "", func(i recorder.BlobInfo) error {
			sizes[p.name+"\x00"+i.Name] = i.Size
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range sizes {
		sum += n
	}
	return sum
}

// wantUsage demands that the catalogue accounts for what is stored.
func wantUsage(t testing.TB, a *Archive, what string) {
	t.Helper()
	if _, err := a.CatchUp(context.Background()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	rows, err := a.Usage(context.Background(), recorder.UsageQuery{})
	if err != nil {
		t.Fatal(err)
	}
	got := int64(0)
	for _, u := range rows {
		got += u.Bytes()
	}
	if want := storedBytes(t, a); got != want {
		t.Errorf("%s: the catalogue accounts for %d bytes, %d are stored", what, got, want)
	}
}

// removeStored takes a recording out of its store, as somebody with a tool for stores does.
func removeStored(t testing.TB, a *Archive, id string) {
	t.Helper()
	for _, s := range a.shelves {
		var names []string
		err := s.store.List(context.Background(), "2026/11/22/"+id+"/", func(i recorder.BlobInfo) error {
			names = append(names, i.Name)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if err := s.store.Delete(context.Background(), n); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestUsageEqualsStored: whatever is recorded, carried, coded anew, rewrapped, shredded,
// given up, swept, taken out of the store and found by a rebuild, in whatever order,
// while the store fails or not: what the catalogue accounts for is what is stored.
func TestUsageEqualsStored(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		mem := vfstest.NewMem()
		keys, err := seal.OpenLocal(seal.LocalConfig{Path: "/k/keys.json", FS: mem})
		if err != nil {
			r.Fatal(err)
		}
		c, err := catalog.OpenURL(context.Background(), "sqlite://"+filepath.Join(t.TempDir(), "c.db"), catalog.Options{})
		if err != nil {
			r.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		far := newRemote(mem)
		far.unchecked = true // its keys are others
		a, err := Open(Config{
			StoreDir: "/data/store", SpoolDir: "/data/spool", FS: mem, Sealer: keys, Catalog: c, Node: "n1",
			Stores: map[string]StoreConfig{"far": {Store: far}}, Deferred: DeferredConfig{Options: func(m *recorder.Manifest) (codec.Options, bool) {
				again := m.ID[len(m.ID)-1]%3 == 0
				return codec.Options{Bitrate: 24_000, Application: codec.OpusAudio}, again
			}},
		})
		if err != nil {
			r.Fatal(err)
		}
		var ids []string
		steps := map[string]func(){
			"record": func() {
				id := idOf(len(ids) + 1)
				store := rapid.SampledFrom([]string{"", "far"}).Draw(r, "store")
				sink, err := a.OpenSink(context.Background(), recorder.SinkInfo{Recording: id, Prefix: "2026/11/22/" + id, Storage: store})
				if err != nil {
					r.Fatal(err)
				}
				call := newTestCall(id, codec.WAVPCMU)
				call.kept = call.kept[:1]
				k := &taking{c: call, sink: sink}
				if rapid.IntRange(0, 4).Draw(r, "discard") == 0 {
					if err := errors.Join(k.frame(0), k.finish(frameMS), sink.Discard(), sink.Close()); err != nil {
						r.Fatal(err)
					}
					return
				}
				if _, err := k.take(); err != nil {
					r.Fatal(err)
				}
				ids = append(ids, id)
				_ = sink.Close()
			},
			"carry": func() { _, _ = carryOnce(a) },
			"far":   func() { far.set(func(f *remote) { f.down = !f.down }) },
			"rotate": func() {
				if _, err := keys.Rotate(context.Background()); err != nil {
					r.Fatal(err)
				}
			},
			"rewrap": func() { _, _ = a.Rewrap(context.Background(), RewrapQuery{PerSecond: 1e6}, nil) },
			"shred": func() {
				if len(ids) > 0 {
					id := rapid.SampledFrom(ids).Draw(r, "id")
					_, _ = a.Shred(context.Background(), ShredOrder{Recording: id, Reason: rapid.StringMatching("[a-z]{1,40}").Draw(r, "reason")})
				}
			},
		}
		steps["encode"] = func() { encodeAll(context.Background(), a) }
		steps["sweep"] = func() { _, _ = a.Sweep(context.Background(), true) }
		steps["rebuild"] = func() {
			if _, err := a.RebuildWith(context.Background(), smallSteps, nil); err != nil && !far.down {
				r.Fatal(err)
			}
		}
		steps["remove"] = func() {
			if len(ids) == 0 || far.down {
				return
			}
			if id := rapid.SampledFrom(ids).Draw(r, "gone"); !a.isSpooled(id) {
				removeStored(t, a, id)
				steps["rebuild"]()
			}
		}
		names := []string{"record", "record", "carry", "carry", "far", "rotate", "rewrap", "shred", "encode", "sweep", "rebuild", "remove"}
		for range rapid.IntRange(1, 16).Draw(r, "steps") {
			name := rapid.SampledFrom(names).Draw(r, "step")
			steps[name]()
			if !far.down {
				if _, err := a.ShredDue(context.Background()); err != nil {
					r.Fatal(err)
				}
				wantUsage(t, a, name)
			}
		}
		if t.Failed() {
			r.FailNow()
		}
	})
}

// TestKeyStoreFaults lets every operation of a remote store fail, with and without
// its effect, while a recording is rewrapped and another one shredded: each is
// whole or over, the next run goes on, and the account fits.
func TestKeyStoreFaults(t *testing.T) {
	for _, done := range []bool{false, true} {
		n := 1
		for keyStoreFault(t, n, done) {
			n++
		}
		t.Logf("done %v: %d operations", done, n-1)
	}
}

func keyStoreFault(t *testing.T, n int, done bool) bool {
	t.Helper()
	what := fmt.Sprintf("operation %d, done %v", n, done)
	mem, cat := vfstest.NewMem(), newMemCatalog()
	keys, err := seal.OpenLocal(seal.LocalConfig{Path: "/k/keys.json", FS: vfstest.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	far := newRemote(mem)
	far.unchecked = true
	open := func() *Archive {
		return mustOpenRemote(t, mem, cat, far, func(c *Config) { c.Sealer = keys })
	}
	a := open()
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	record(t, a, newTestCall(idOf(7), codec.WAVPCMU))
	drainUploads(t, a, what)
	if _, err := keys.Rotate(context.Background()); err != nil {
		t.Fatal(err)
	}
	far.set(func(r *remote) { r.at, r.done = r.ops+n, done })
	at := far.at
	_, _ = a.Rewrap(context.Background(), RewrapQuery{PerSecond: 1e6}, nil)
	_, serr := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "case"})
	met := far.ops >= at
	b := open() // the process before is gone
	_, err = b.Get(context.Background(), testID)
	if gone := errors.Is(err, recorder.ErrShredded); !gone && err != nil || !gone && serr == nil {
		t.Fatalf("%s: shred said %v; then: %v", what, serr, err)
	}
	if _, err := b.ShredDue(context.Background()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	_, err = b.Get(context.Background(), testID)
	if waits := b.ordered(testID); waits || err != nil && !errors.Is(err, recorder.ErrShredded) {
		t.Fatalf("%s: an order waits: %v; %v", what, waits, err)
	}
	if r, err := b.Rewrap(context.Background(), RewrapQuery{PerSecond: 1e6}, nil); err != nil || len(r.Findings) > 0 || r.Current+r.Rewrapped+r.Shredded != 2 {
		t.Fatalf("%s: rewrap again: %+v, %v", what, r, err)
	}
	if _, err := b.CatchUp(context.Background()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	mustVerify(t, b, what)
	sum := int64(0)
	for _, row := range cat.rows {
		u := recorder.Usage{ManifestBytes: row.ManifestBytes, OtherBytes: row.OtherBytes}
		for _, s := range row.Manifest.Segments {
			u.AudioBytes += s.Bytes
		}
		sum += u.Bytes()
	}
	if want := storedBytes(t, b); sum != want {
		t.Errorf("%s: the catalogue accounts for %d bytes, %d are stored", what, sum, want)
	}
	return met
}

// TestShredGoesOn lets the machine die at every operation of shredding: what was
// ordered durably is carried out by the next start alone, and leaves its trace.
func TestShredGoesOn(t *testing.T) {
	base := vfstest.NewMem()
	record(t, mustOpenOn(t, base, newMemCatalog()), newTestCall(testID, codec.WAVPCMU))
	for n := 1; ; n++ {
		disk := base.CrashClone(uint64(n))
		f := &vfstest.Faults{FS: disk, At: n, Kind: vfstest.Crash, Err: syscall.EIO}
		traced := 0
		open := func(fsys vfs.FS) (*Archive, error) {
			return Open(Config{
				StoreDir: "/data/store", SpoolDir: "/data/spool", FS: fsys, Sealer: testSealer(), Catalog: newMemCatalog(),
				Trace: func(e audit.Entry) error {
					if f.Hit() != "" && fsys == f {
						return vfstest.ErrCrashed
					}
					if e.Kind == audit.KindShredded && e.Done() && e.Recording == testID && e.Who == "privacy" && e.What == "case" {
						traced++
					}
					return nil
				},
			})
		}
		if a, err := open(f); err == nil {
			_, _ = a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "case", By: "privacy"})
		}
		disk = disk.CrashClone(uint64(n))
		b, err := open(disk)
		if err != nil {
			t.Fatal(err)
		}
		ordered := b.ordered(testID)
		if _, err := b.ShredDue(context.Background()); err != nil {
			t.Fatalf("%s: %v", f.Hit(), err)
		}
		_, err = b.Get(context.Background(), testID)
		gone := errors.Is(err, recorder.ErrShredded)
		if !gone && (err != nil || ordered) || gone && traced == 0 || !gone && traced > 0 || b.ordered(testID) {
			t.Fatalf("%s: ordered %v, gone %v, %d traces, %v", f.Hit(), ordered, gone, traced, err)
		}
		if f.Hit() == "" {
			break
		}
	}
}

// TestShredWhenEnded: an order for a recording that goes on waits for its end, over
// a restart, and what was never kept ends the order.
func TestShredWhenEnded(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := mustOpenOn(t, mem, cat)
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	k := &taking{c: newTestCall(testID, codec.WAVPCMU), sink: sink}
	if err := k.frame(0); err != nil {
		t.Fatal(err)
	}
	s, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "case", WhenEnded: true})
	if err != nil || !s.At.IsZero() {
		t.Fatalf("%+v, %v", s, err)
	}
	if n, err := a.ShredDue(context.Background()); n > 0 || err != nil || !a.ordered(testID) {
		t.Fatalf("while it goes on: %d, %v", n, err)
	}
	b := mustOpenOn(t, mem.CrashClone(1), cat)
	if n, err := b.ShredDue(context.Background()); n > 0 || err != nil || !b.ordered(testID) {
		t.Fatalf("before it is recovered: %d, %v", n, err)
	}
	if _, err := b.Recover(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n, err := b.ShredDue(context.Background()); n != 1 || err != nil {
		t.Fatalf("after it was recovered: %d, %v", n, err)
	}
	wantShredded(t, b, testID, "case")
	if err := errors.Join(k.finish(frameMS), sink.Discard(), sink.Close()); err != nil {
		t.Fatal(err)
	}
	if n, err := a.ShredDue(context.Background()); n != 0 || err != nil || a.ordered(testID) {
		t.Errorf("given up: %d, %v", n, err)
	}
}

// TestKeyUsesLive: the key of a recording counts from its first moment on, whether
// anything of it is on the disk or not, and until its store has it.
func TestKeyUsesLive(t *testing.T) {
	mem := vfstest.NewMem()
	keys, err := seal.OpenLocal(seal.LocalConfig{Path: "/k/keys.json", FS: vfstest.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	far := newRemote(mem)
	far.unchecked = true
	a := mustOpenRemote(t, mem, newMemCatalog(), far, func(c *Config) { c.Sealer = keys })
	old, _ := keys.ActiveKey(context.Background())
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Rotate(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := func(what string, live int) {
		t.Helper()
		uses, err := a.KeyUses(context.Background())
		if u := uses[old]; err != nil || u.Recordings != 1 || u.Live != live {
			t.Errorf("%s: %+v, %v", what, uses, err)
		}
	}
	want("nothing is written yet", 1)
	k := &taking{c: newTestCall(testID, codec.WAVPCMU), sink: sink, between: func() { want("it goes on", 1) }}
	if _, err := k.take(); err != nil {
		t.Fatal(err)
	}
	_ = sink.Close()
	want("it waits for its store", 0)
	drainUploads(t, a, "")
	want("its store has it", 0)
	if a.live[testID] != nil {
		t.Error("it is still live")
	}
	a.live[testID] = &liveSpool{key: liveKey{making: true}}
	if _, err := a.KeyUses(context.Background()); err == nil {
		t.Error("a key that is being made is none of the list, and nobody tells")
	}
}

// TestRewrapGoesOn: a run that was ended goes on where it was, and tells in the end what
// one run would have told.
func TestRewrapGoesOn(t *testing.T) {
	keys, err := seal.OpenLocal(seal.LocalConfig{Path: "/k/keys.json", FS: vfstest.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	mem := vfstest.NewMem()
	a, err := Open(Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: mem, Sealer: keys, Catalog: newMemCatalog()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		record(t, a, newTestCall(idOf(i), codec.WAVPCMU))
	}
	record(t, a, newTestCall(idOf(5), codec.WAVPCMU))
	lost := "/data/store/" + newTestCall(idOf(1), codec.WAVPCMU).prefix() + "/" + segment.KeyFile
	content, err := vfs.ReadFile(mem, lost, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFile(mem, lost, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Rotate(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var mark string
	var so RewrapReport
	first, err := a.Rewrap(ctx, RewrapQuery{PerSecond: 1e6, At: func(m string, r RewrapReport) {
		if mark, so = m, r; r.Recordings == 3 {
			cancel()
		}
	}}, nil)
	if !errors.Is(err, context.Canceled) || first.Rewrapped != 2 || len(so.Findings) != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	done, last := int64(0), int64(0)
	rest, err := a.Rewrap(context.Background(), RewrapQuery{PerSecond: 1e6, Behind: mark, So: so}, func(n, total int64) { done, last = n, total })
	if err != nil || rest.Rewrapped != 5 || rest.Recordings != 6 || done != 6 || last != 6 || len(rest.Findings) != 1 || rest.Findings[0].Recording != idOf(1) {
		t.Errorf("%+v, %d of %d, %v", rest, done, last, err)
	}
	if err := vfs.WriteFile(mem, lost, content); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := a.Rewrap(context.Background(), RewrapQuery{PerSecond: 50}, nil); err != nil || time.Since(began) < 5*time.Second/50 {
		t.Errorf("%v in %v", err, time.Since(began))
	}
	if r := mustVerify(t, a, "rewrapped"); r.Recordings != 6 || strings.TrimSpace(mark) == "" {
		t.Errorf("%+v", r)
	}
}
