package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// rebuildDisk has recordings of three days, of which the second cannot be read, and a
// row of one that is no more.
func rebuildDisk(t testing.TB) (*vfstest.Mem, recorder.Row) {
	t.Helper()
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := mustOpenOn(t, mem, cat)
	for i := range 9 {
		c := newTestCall(rebuildID(i), "wav-pcmu")
		c.kept, c.endMS = []span{{0, 500}}, 500
		record(t, a, c)
	}
	drainUploads(t, a, "rebuild")
	gone := cat.rows[rebuildID(4)]
	gone.Manifest.ID = rebuildID(99)
	gone.Prefix = path.Dir(gone.Prefix) + "/" + gone.Manifest.ID
	damageManifest(t, mem, cat.rows[rebuildID(1)].Prefix)
	return mem, gone
}

func rebuildID(i int) string {
	return fmt.Sprintf("202611%02dT163608Z-1f0c9a3b5d7e8f%02d", 20+i%3, i)
}

func damageManifest(t testing.TB, mem vfs.FS, prefix string) {
	t.Helper()
	name := "/data/store/" + prefix + "/" + segment.ManifestFile
	b, err := vfs.ReadFile(mem, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := vfs.WriteFile(mem, name, b); err != nil {
		t.Fatal(err)
	}
}

// smallSteps makes a mark behind each two recordings.
var smallSteps = RebuildQuery{Readers: 3, batch: 2, saveRows: 1}

func checkRebuilt(t testing.TB, what string, cat *memCatalog, want map[string]recorder.Row, err error) {
	t.Helper()
	var de *DamageError
	if !errors.As(err, &de) || len(de.Findings) != 1 || de.Findings[0].Recording != rebuildID(1) {
		t.Errorf("%s: %v", what, err)
	}
	if d := cmp.Diff(want, cat.rows); d != "" {
		t.Errorf("%s: rows:\n%s", what, d)
	}
}

// wholeRebuild is what a run gives that nothing interrupts.
func wholeRebuild(t testing.TB, mem *vfstest.Mem, gone recorder.Row) map[string]recorder.Row {
	t.Helper()
	cat := newMemCatalog()
	cat.rows[gone.Manifest.ID] = gone
	a := mustOpenOn(t, mem, cat)
	_, err := a.RebuildWith(context.Background(), smallSteps, nil)
	if len(cat.rows) != 8 {
		t.Fatalf("%d rows", len(cat.rows))
	}
	checkRebuilt(t, "whole", cat, cat.rows, err)
	return maps.Clone(cat.rows)
}

// TestRebuildCrash: the machine dies at each operation in turn, and the next run ends
// with what one run would have ended with.
func TestRebuildCrash(t *testing.T) {
	disk, gone := rebuildDisk(t)
	want := wholeRebuild(t, disk.CrashClone(1), gone)
	resumed := 0
	for n := 1; ; n++ {
		mem := disk.CrashClone(uint64(n))
		faults := &vfstest.Faults{FS: mem}
		cat := newMemCatalog()
		cat.rows[gone.Manifest.ID] = gone
		a := mustOpenOn(t, faults, cat)
		faults.At, faults.Kind = faults.Ops()+n, vfstest.Crash
		cat.dead = func() bool { return faults.Hit() != "" }
		_, err := a.RebuildWith(context.Background(), smallSteps, nil)
		hit := faults.Hit()
		if hit == "" {
			checkRebuilt(t, "no crash", cat, want, err)
			break
		}
		cat.dead = nil
		b := mustOpenOn(t, mem.CrashClone(uint64(n)), cat)
		r, err := b.RebuildWith(context.Background(), smallSteps, nil)
		what := fmt.Sprintf("crash at %d (%s)", n, hit)
		checkRebuilt(t, what, cat, want, err)
		if r.Recordings != 9 {
			t.Errorf("%s: %+v", what, r)
		}
		if r.Resumed > 0 {
			resumed++
		}
		if _, ok := b.rebuildMark(); ok {
			t.Errorf("%s: the mark was left", what)
		}
	}
	if resumed == 0 {
		t.Error("no run went on")
	}
}

// cutStore ends a rebuild after some manifests, and tells what was opened.
type cutStore struct {
	recorder.Store
	left atomic.Int64
	cut  func()

	mu     sync.Mutex
	opened map[string]int
}

func (s *cutStore) Open(ctx context.Context, name string) (recorder.Blob, error) {
	if path.Base(name) == segment.ManifestFile {
		if s.left.Add(-1) == 0 {
			s.cut()
		}
		s.mu.Lock()
		s.opened[path.Base(path.Dir(name))]++
		s.mu.Unlock()
	}
	return s.Store.Open(ctx, name)
}

// TestRebuildInterrupted: a rebuild that is ended any number of times is one that is
// not, and what it did is not done again.
func TestRebuildInterrupted(t *testing.T) {
	disk, gone := rebuildDisk(t)
	want := wholeRebuild(t, disk.CrashClone(1), gone)
	rapid.Check(t, func(rt *rapid.T) {
		mem, cat := disk.CrashClone(1), newMemCatalog()
		cat.rows[gone.Manifest.ID] = gone
		q := RebuildQuery{Readers: rapid.IntRange(1, 4).Draw(rt, "readers"), batch: rapid.IntRange(1, 4).Draw(rt, "batch"), saveRows: 1}
		cuts := append(rapid.SliceOfN(rapid.IntRange(1, 12), 0, 4).Draw(rt, "cuts"), -1)
		var err error
		for _, n := range cuts {
			a := mustOpenOn(t, mem, cat)
			ctx, cancel := context.WithCancel(context.Background())
			st := &cutStore{Store: a.shelves[0].store, cut: cancel, opened: map[string]int{}}
			st.left.Store(int64(n))
			a.shelves[0].store = st
			_, err = a.RebuildWith(ctx, q, nil)
			cancel()
			if err == nil {
				rt.Fatal("the damaged one is not named")
			}
			if errors.Is(err, recorder.ErrTampered) {
				break
			}
		}
		checkRebuilt(t, fmt.Sprint(cuts), cat, want, err)
	})
}

// TestRebuildGoesOn: what was done is not read again, but what was damaged is, unless
// the run is to begin anew.
func TestRebuildGoesOn(t *testing.T) {
	for _, fromStart := range []bool{false, true} {
		disk, gone := rebuildDisk(t)
		cat := newMemCatalog()
		cat.rows[gone.Manifest.ID] = gone
		run := func(q RebuildQuery, cut int64) (*cutStore, RebuildReport, error) {
			a := mustOpenOn(t, disk, cat)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			st := &cutStore{Store: a.shelves[0].store, cut: cancel, opened: map[string]int{}}
			st.left.Store(cut)
			a.shelves[0].store = st
			r, err := a.RebuildWith(ctx, q, nil)
			return st, r, err
		}
		q := RebuildQuery{Readers: 1, batch: 1, saveRows: 1}
		if _, _, err := run(q, 6); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		row := cat.rows[rebuildID(3)]
		row.OtherBytes = 1 // as nobody would weigh it
		cat.rows[rebuildID(3)] = row
		q.FromStart = fromStart
		st, r, err := run(q, -1)
		var de *DamageError
		if !errors.As(err, &de) || len(de.Findings) != 1 || len(cat.rows) != 8 || r.Recordings != 9 || r.Gone != 1 {
			t.Errorf("%+v, %v, %d rows", r, err, len(cat.rows))
		}
		if went := r.Resumed > 0; went == fromStart {
			t.Errorf("from start %v: %+v", fromStart, r)
		}
		if again := cat.rows[rebuildID(3)].OtherBytes != 1; again != fromStart {
			t.Errorf("from start %v: made again %v", fromStart, again)
		}
		if st.opened[rebuildID(1)] == 0 {
			t.Error("the damaged one was not looked at again")
		}
	}
}

// TestRebuildOther: a mark of another store, of a catalogue that was lost since, or
// that nobody wrote is none.
func TestRebuildOther(t *testing.T) {
	disk, gone := rebuildDisk(t)
	want := wholeRebuild(t, disk.CrashClone(1), gone)
	mark := func(t *testing.T, mem vfs.FS) *memCatalog {
		cat := newMemCatalog()
		a := mustOpenOn(t, mem, cat)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_, err := a.RebuildWith(ctx, smallSteps, func(done, _ int64) {
			if done >= 4 {
				cancel()
			}
		})
		if mk, ok := a.rebuildMark(); !ok || !errors.Is(err, context.Canceled) || mk.Done < 4 {
			t.Fatalf("%+v, %v", mk, err)
		}
		return cat
	}
	for name, change := range map[string]func(*vfstest.Mem, *memCatalog){
		"catalogue lost": func(_ *vfstest.Mem, c *memCatalog) { clear(c.rows) },
		"older catalogue": func(_ *vfstest.Mem, c *memCatalog) {
			ids := slices.Sorted(maps.Keys(c.rows))
			delete(c.rows, ids[len(ids)-1])
		},
		"torn": func(m *vfstest.Mem, _ *memCatalog) {
			if err := vfs.WriteFile(m, "/data/spool/"+rebuildFile, []byte(`{"version":1,"do`)); err != nil {
				t.Fatal(err)
			}
		},
		"another store": func(m *vfstest.Mem, _ *memCatalog) {
			js, err := vfs.ReadFile(m, "/data/spool/"+rebuildFile, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := vfs.WriteFile(m, "/data/spool/"+rebuildFile, []byte(strings.Replace(string(js), "/data/store", "/data/other", 1))); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			mem := disk.CrashClone(1)
			cat := mark(t, mem)
			change(mem, cat)
			r, err := mustOpenOn(t, mem, cat).RebuildWith(context.Background(), smallSteps, nil)
			checkRebuilt(t, name, cat, want, err)
			if r.Resumed != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// FuzzRebuildMark: whatever stands in the file, nothing is missing at the end.
func FuzzRebuildMark(f *testing.F) {
	for _, s := range []string{
		`{"version":1,"began":"2999-01-01T00:00:00Z","stores":[" /data/store"],"behind":"2026/11/21","done":3,"seen":[]}`,
		`{"version":1,"began":"2026-11-22T00:00:00Z","dropping":true,"damaged":[{"prefix":"x"}]}`, `{"version":2}`, `{`, "",
	} {
		f.Add([]byte(s))
	}
	disk, _ := rebuildDisk(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		mem, cat := disk.CrashClone(1), newMemCatalog()
		if err := vfs.WriteFile(mem, "/data/spool/"+rebuildFile, content); err != nil {
			t.Fatal(err)
		}
		_, err := mustOpenOn(t, mem, cat).RebuildWith(context.Background(), smallSteps, nil)
		var de *DamageError
		if !errors.As(err, &de) || len(cat.rows) != 8 {
			t.Errorf("%v, %d rows", err, len(cat.rows))
		}
	})
}

// noService is a sealer whose key service answers so many times.
type noService struct {
	recorder.Sealer
	left atomic.Int64
}

func (s *noService) OpenKey(ctx context.Context, id string, w recorder.WrappedKey) (recorder.DataKey, error) {
	if s.left.Add(-1) < 0 {
		return nil, recorder.ErrKeyUnreachable
	}
	return s.Sealer.OpenKey(ctx, id, w)
}

// TestRebuildWithoutKeys: a key service that goes away ends a rebuild, whenever that is, and
// the run behind it ends with what one run would have ended with.
func TestRebuildWithoutKeys(t *testing.T) {
	disk, gone := rebuildDisk(t)
	want := wholeRebuild(t, disk.CrashClone(1), gone)
	for answers := range int64(9) {
		mem, cat := disk.CrashClone(1), newMemCatalog()
		cat.rows[gone.Manifest.ID] = gone
		a := mustOpenOn(t, mem, cat)
		away := &noService{Sealer: a.sealer}
		away.left.Store(answers)
		a.sealer = away
		r, err := a.RebuildWith(context.Background(), smallSteps, nil)
		if answers < 6 && (!errors.Is(err, recorder.ErrKeyUnreachable) || errors.Is(err, recorder.ErrTampered)) {
			t.Errorf("%d answers: %+v, %v", answers, r, err)
		}
		_, err = mustOpenOn(t, mem, cat).RebuildWith(context.Background(), smallSteps, nil)
		checkRebuilt(t, fmt.Sprint(answers, " answers"), cat, want, err)
	}
}
