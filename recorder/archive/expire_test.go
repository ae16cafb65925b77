package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/retention"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// soon is over for every recording of these tests, and long is not.
const (
	soon = time.Minute
	long = 200 * 365 * 24 * time.Hour
)

var allSoon = RetentionConfig{Policy: retention.Policy{{DeleteAfter: soon}}}

// of returns the call as one of a user.
func (c testCall) of(user string) testCall {
	c.user = user
	return c
}

func retaining(t testing.TB, fsys vfs.FS, cat recorder.Catalog, r RetentionConfig, change ...func(*Config)) *Archive {
	t.Helper()
	cfg := Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: fsys, Sealer: testSealer(), Catalog: cat, Retention: r, Node: "rec-a"}
	for _, f := range change {
		f(&cfg)
	}
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustExpire(t testing.TB, a *Archive, q ExpireQuery) ExpireReport {
	t.Helper()
	r, err := a.Expire(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantGone demands that nothing of a recording is anywhere.
func wantGone(t testing.TB, a *Archive, mem *vfstest.Mem, id, what string) {
	t.Helper()
	if _, err := a.Get(context.Background(), id); !errors.Is(err, recorder.ErrNotFound) {
		t.Errorf("%s: Get: %v", what, err)
	}
	for _, name := range mem.Files() {
		if strings.Contains(name, id) {
			t.Errorf("%s: %s is left", what, name)
		}
	}
	page, err := a.Find(context.Background(), recorder.Query{})
	if err != nil || slices.ContainsFunc(page.Rows, func(r recorder.Row) bool { return r.Manifest.ID == id }) {
		t.Errorf("%s: the catalogue has it, or %v", what, err)
	}
}

// TestExpire: what is due goes with all that is of it, the rest stays as it is, and
// the log says what became of it to whoever asks.
func TestExpire(t *testing.T) {
	mem := vfstest.NewMem()
	a := retaining(t, mem, newMemCatalog(), RetentionConfig{Policy: retention.Policy{{User: "ann", DeleteAfter: long}, {DeleteAfter: soon}}})
	l := mustProve(t, a, mem)
	ids := []string{idOf(7), idOf(8), idOf(9)}
	record(t, a, newTestCall(ids[0], codec.WAVPCMU))
	record(t, a, newTestCall(ids[1], codec.WAVPCMU).of("ann"))
	m := record(t, a, newTestCall(ids[2], codec.WAVPCMU))
	var told []string
	dry := mustExpire(t, a, ExpireQuery{DryRun: true, Each: func(m *recorder.Manifest, _ string, due time.Time) {
		told = append(told, m.ID)
		if want := m.Call.End.Add(soon); !due.Equal(want) {
			t.Errorf("%s is due %s, want %s", m.ID, due, want)
		}
	}})
	slices.Sort(told)
	if !slices.Equal(told, []string{ids[0], ids[2]}) || a.Retained().Last != nil {
		t.Errorf("a dry run names %v", told)
	}
	mustVerify(t, a, "after a dry run")
	r := mustExpire(t, a, ExpireQuery{})
	if r.Deleted != 2 || r.Bytes <= 2*m.Segments[0].Bytes || r.Bytes != dry.Bytes || r.Busy+r.Locked+r.Unreadable+r.Missing != 0 {
		t.Errorf("%+v, dry %+v", r, dry)
	}
	if s := a.Retained(); s.Deleted != 2 || s.Bytes != r.Bytes || s.GaveWay != 0 || s.Last == nil || *s.Last != r {
		t.Errorf("sums %+v", s)
	}
	wantGone(t, a, mem, ids[0], "due")
	wantGone(t, a, mem, ids[2], "due")
	if v := mustVerify(t, a, "after a run"); v.Recordings != 1 || len(v.Notes) != 0 {
		t.Errorf("verify: %+v", v)
	}
	v, err := a.Verify(context.Background(), VerifyQuery{IDs: ids[:1]}, nil)
	if err != nil || !v.OK() || len(v.Notes) != 1 || !strings.Contains(v.Notes[0].Detail, "by retention: it need not be kept since 2026-11-22T16:37:17Z, says entry") {
		t.Errorf("of one that is gone: %+v, %v", v, err)
	}
	if r := mustExpire(t, a, ExpireQuery{}); r.Deleted != 0 {
		t.Errorf("again: %+v", r)
	}
	if err := errors.Join(l.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestExpireKeeps: what is not known to be due, or is in use, stays whole.
func TestExpireKeeps(t *testing.T) {
	manifest := "/data/store/" + testPrefix + "/recording.trm"
	for _, c := range []struct {
		name   string
		r      RetentionConfig
		change func(t *testing.T, a *Archive, mem *vfstest.Mem, cat *memCatalog)
		want   ExpireReport
		fails  bool
		broken bool // verify says so as well
	}{
		{name: "no rule", r: RetentionConfig{}},
		{name: "rule for another", r: RetentionConfig{Policy: retention.Policy{{Trunk: "b", DeleteAfter: soon}}}},
		{name: "another node by the catalogue", r: allSoon, want: ExpireReport{Others: 1}, change: func(_ *testing.T, _ *Archive, _ *vfstest.Mem, cat *memCatalog) {
			row := cat.rows[testID]
			row.Node = "rec-b"
			cat.rows[testID] = row
		}},
		{name: "the catalogue lies about its time", r: RetentionConfig{Policy: retention.Policy{{DeleteAfter: long}}}, change: func(_ *testing.T, _ *Archive, _ *vfstest.Mem, cat *memCatalog) {
			row := cat.rows[testID]
			row.Manifest.Origin, row.Manifest.Call = row.Manifest.Origin.AddDate(-220, 0, 0), recorder.Call{}
			cat.rows[testID] = row
		}},
		{name: "the catalogue lies about its trunk", r: RetentionConfig{Policy: retention.Policy{{Trunk: "b", DeleteAfter: soon}}}, change: func(_ *testing.T, _ *Archive, _ *vfstest.Mem, cat *memCatalog) {
			row := cat.rows[testID]
			row.Manifest.Trunk = "b"
			cat.rows[testID] = row
		}},
		{name: "altered", r: allSoon, want: ExpireReport{Unreadable: 1}, broken: true, change: func(t *testing.T, _ *Archive, mem *vfstest.Mem, _ *memCatalog) {
			b, err := vfs.ReadFile(mem, manifest, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			mustPutFile(t, mem, manifest, b)
		}},
		{name: "not there", r: allSoon, want: ExpireReport{Missing: 1}, broken: true, change: func(t *testing.T, _ *Archive, mem *vfstest.Mem, _ *memCatalog) {
			if err := mem.Remove(manifest); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "being read", r: allSoon, want: ExpireReport{Busy: 1}, change: func(_ *testing.T, a *Archive, _ *vfstest.Mem, _ *memCatalog) {
			a.pin(testID)
		}},
		{name: "to be coded anew", r: allSoon, want: ExpireReport{Busy: 1}, change: func(_ *testing.T, a *Archive, _ *vfstest.Mem, _ *memCatalog) {
			a.deferred.push(&job{Version: 1, Recording: testID, Prefix: testPrefix})
		}},
		{name: "being coded anew", r: allSoon, want: ExpireReport{Busy: 1}, change: func(_ *testing.T, a *Archive, _ *vfstest.Mem, _ *memCatalog) {
			a.deferred.push(&job{Version: 1, Recording: testID, Prefix: testPrefix})
			a.deferred.pop(time.Now())
		}},
		{name: "no catalogue", r: allSoon, fails: true, change: func(_ *testing.T, _ *Archive, _ *vfstest.Mem, cat *memCatalog) {
			cat.fail(errors.New("away"))
		}},
	} {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		a := retaining(t, mem, cat, c.r)
		record(t, a, newTestCall(testID, codec.WAVPCMU))
		if c.change != nil {
			c.change(t, a, mem, cat)
		}
		before := mem.Files()
		r, err := a.Expire(context.Background(), ExpireQuery{})
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", c.name, err)
		}
		r.At, r.TookMS = time.Time{}, 0
		if r != c.want {
			t.Errorf("%s: %+v", c.name, r)
		}
		if got := mem.Files(); !slices.Equal(got, before) {
			t.Errorf("%s: files %v", c.name, got)
		}
		if v, err := a.Verify(context.Background(), VerifyQuery{IDs: []string{testID}}, nil); err != nil || v.OK() == c.broken {
			t.Errorf("%s: verify: %+v, %v", c.name, v.Findings, err)
		}
	}
}

// TestExpireNodes: a node deletes its own recordings and those of nodes that it is told
// to, and a rebuilt catalogue knows by their links whose they are.
func TestExpireNodes(t *testing.T) {
	mem := vfstest.NewMem()
	a := retaining(t, mem, newMemCatalog(), RetentionConfig{})
	l := mustProve(t, a, mem)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	node := l.Node()
	if err := errors.Join(l.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	b := retaining(t, mem, newMemCatalog(), allSoon, func(c *Config) { c.Node = "rec-b" })
	if err := b.Rebuild(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if page, err := b.Find(context.Background(), recorder.Query{}); err != nil || len(page.Rows) != 1 || page.Rows[0].Node != node {
		t.Errorf("rebuilt: %+v, %v", page.Rows, err)
	}
	if r := mustExpire(t, b, ExpireQuery{}); r.Deleted != 0 {
		t.Errorf("another node's: %+v", r)
	}
	if err := b.catalogue.cfg.Catalog.Save(context.Background(), recorder.Row{Manifest: *must(b.Get(context.Background(), testID)), Prefix: testPrefix, Node: "rec-b"}); err != nil {
		t.Fatal(err)
	}
	if r := mustExpire(t, b, ExpireQuery{}); r.Deleted != 0 {
		t.Errorf("another node's, that the catalogue takes for ours: %+v", r)
	}
	c := retaining(t, mem, newMemCatalog(), allSoon, func(c *Config) { c.Node, c.Retention.Nodes = "rec-b", []string{node} })
	if err := c.Rebuild(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if r := mustExpire(t, c, ExpireQuery{}); r.Deleted != 1 {
		t.Errorf("of a node that is named: %+v", r)
	}
	wantGone(t, c, mem, testID, "named")
}

func must(m *recorder.Manifest, err error) *recorder.Manifest {
	if err != nil {
		panic(err)
	}
	return m
}

// lockedStore is one that keeps what is not of the key from being deleted.
type lockedStore struct {
	recorder.Store
	until time.Time
	tries int
}

func (s *lockedStore) Delete(ctx context.Context, name string) error {
	if s.tries++; !s.until.IsZero() && !strings.HasSuffix(name, ".key") {
		return fmt.Errorf("delete: %w", &store.LockedError{Name: name, Until: s.until, Mode: store.Compliance})
	}
	return s.Store.Delete(ctx, name)
}

// TestExpireLocked: what its store keeps stays whole, leaves one trace, and is not
// tried again before its time.
func TestExpireLocked(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	dir, err := store.OpenDir(store.DirConfig{Root: "/data/store", FS: mem})
	if err != nil {
		t.Fatal(err)
	}
	s := &lockedStore{Store: dir, until: time.Now().Add(time.Hour)}
	a := retaining(t, mem, cat, allSoon, func(c *Config) { c.StoreDir, c.Store = "", s })
	l := mustProve(t, a, mem)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	drainUploads(t, a, "locked")
	for range 3 {
		if r := mustExpire(t, a, ExpireQuery{}); r.Locked != 1 || r.Deleted != 0 {
			t.Errorf("%+v", r)
		}
	}
	if s.tries != 1 {
		t.Errorf("%d tries", s.tries)
	}
	if v := mustVerify(t, a, "locked"); v.Recordings != 1 || len(v.Notes) != 0 {
		t.Errorf("%+v", v)
	}
	if n, err := a.DeleteDue(context.Background()); n != 0 || err != nil {
		t.Errorf("%d orders wait, %v", n, err)
	}
	s.until = time.Time{}
	a.retained.postpone(testID, later{until: time.Now()}, time.Now())
	if r := mustExpire(t, a, ExpireQuery{}); r.Deleted != 1 {
		t.Errorf("%+v", r)
	}
	wantGone(t, a, mem, testID, "unlocked")
	mustVerify(t, a, "unlocked")
	_ = l.Close()
}

// TestExpireStoreAway: a store that fails in the middle of a deletion is asked again,
// and until then nobody takes what is half gone for damaged.
func TestExpireStoreAway(t *testing.T) {
	for at := 1; ; at++ {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		r := newRemote(mem)
		a := retaining(t, mem, cat, allSoon, func(c *Config) { c.StoreDir, c.Store = "", r })
		l := mustProve(t, a, mem)
		record(t, a, newTestCall(testID, codec.WAVPCMU))
		drainUploads(t, a, "store away")
		r.at = r.ops + at
		report, err := a.Expire(context.Background(), ExpireQuery{})
		hit := r.ops >= r.at
		r.at = 0
		mustVerify(t, a, fmt.Sprint("operation ", at))
		if _, err := a.DeleteDue(context.Background()); err != nil {
			t.Fatalf("operation %d: %v", at, err)
		}
		again := mustExpire(t, a, ExpireQuery{})
		if hit == (err == nil) || report.Deleted+again.Deleted > 1 || len(cat.rows) != 0 {
			t.Fatalf("operation %d: %+v, %v, then %+v", at, report, err, again)
		}
		for name := range r.objects {
			if strings.Contains(name, testID) {
				t.Errorf("operation %d: %s is left", at, name)
			}
		}
		mustVerify(t, a, fmt.Sprint("in the end, operation ", at))
		_ = l.Close()
		if !hit {
			return
		}
	}
}

// TestExpireBound: a run deletes so many, the next one goes on.
func TestExpireBound(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	r := allSoon
	r.DeletionsMax = 2
	a := retaining(t, mem, cat, r)
	for i := range 5 {
		record(t, a, newTestCall(idOf(i), codec.WAVPCMU))
	}
	for _, want := range []struct {
		deleted int
		more    bool
	}{{2, true}, {2, true}, {1, false}, {0, false}} {
		if got := mustExpire(t, a, ExpireQuery{}); got.Deleted != want.deleted || got.More != want.more {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// TestExpireShredded: what is left of a shredded recording goes, too, and later than
// it would have.
func TestExpireShredded(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := retaining(t, mem, cat, RetentionConfig{Policy: retention.Policy{{Trunk: "x", DeleteAfter: long}, {DeleteAfter: soon}}})
	l := mustProve(t, a, mem)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	if _, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "case", By: "x"}); err != nil {
		t.Fatal(err)
	}
	if r := mustExpire(t, a, ExpireQuery{}); r.Deleted != 0 {
		t.Errorf("it may have been of trunk x: %+v", r)
	}
	if d, ok := a.cfg.Retention.Policy.Keep(&recorder.Manifest{Shredded: &recorder.Shredded{}}, "", false); !ok || d != long {
		t.Errorf("kept %s, %v", d, ok)
	}
	_ = l.Close()
}

// TestExpireOneBad: one recording that cannot be read keeps none behind it from going;
// many in a row end the run.
func TestExpireOneBad(t *testing.T) {
	for _, c := range []struct{ bad, deleted, failed int }{{1, 14, 1}, {9, 6, 9}, {12, 0, expireFailures}} {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		dir, err := store.OpenDir(store.DirConfig{Root: "/data/store", FS: mem})
		if err != nil {
			t.Fatal(err)
		}
		a := retaining(t, mem, cat, allSoon, func(cfg *Config) { cfg.StoreDir, cfg.Store = "", badStore{dir, c.bad} })
		for i := range 15 {
			record(t, a, newTestCall(idOf(i), codec.WAVPCMU))
		}
		drainUploads(t, a, "bad")
		r, err := a.Expire(context.Background(), ExpireQuery{})
		if r.Deleted != c.deleted || r.Failed != c.failed || !errors.Is(err, syscall.EIO) {
			t.Errorf("%d bad: %+v, %v", c.bad, r, err)
		}
	}
}

// badStore cannot read the manifests of its first recordings.
type badStore struct {
	recorder.Store
	bad int
}

func (s badStore) Open(ctx context.Context, name string) (recorder.Blob, error) {
	for i := range s.bad {
		if strings.Contains(name, idOf(i)) && strings.HasSuffix(name, "recording.trm") {
			return nil, fmt.Errorf("read %s: %w", name, syscall.EIO)
		}
	}
	return s.Store.Open(ctx, name)
}

// TestExpireOwnNames: a node that has one name in the catalogue and another in its log
// knows that both are its own, and so does a catalogue that it rebuilds.
func TestExpireOwnNames(t *testing.T) {
	mem := vfstest.NewMem()
	named := func(c *Config) { c.Node, c.LogNode = "host-7", "rec-a" }
	a := retaining(t, mem, newMemCatalog(), allSoon, named)
	l := mustProve(t, a, mem)
	if l.Node() != "rec-a" {
		t.Fatal(l.Node())
	}
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	if err := errors.Join(l.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	b := retaining(t, mem, newMemCatalog(), allSoon, named)
	if err := b.Rebuild(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if page, err := b.Find(context.Background(), recorder.Query{}); err != nil || len(page.Rows) != 1 || page.Rows[0].Node != "host-7" {
		t.Errorf("rebuilt: %+v, %v", page.Rows, err)
	}
	if r := mustExpire(t, b, ExpireQuery{}); r.Deleted != 1 {
		t.Errorf("%+v", r)
	}
}

// countingSealer counts how often it is asked for a key, and has none.
type countingSealer struct {
	recorder.Sealer
	asked int
}

func (s *countingSealer) OpenKey(context.Context, string, recorder.WrappedKey) (recorder.DataKey, error) {
	s.asked++
	return nil, recorder.ErrKeyRevoked
}

// TestExpireUnreadable: for what cannot be read a key service is not asked at each look.
func TestExpireUnreadable(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	record(t, retaining(t, mem, cat, allSoon), newTestCall(testID, codec.WAVPCMU))
	keys := &countingSealer{Sealer: testSealer()}
	a := retaining(t, mem, cat, allSoon, func(c *Config) { c.Sealer = keys })
	for range 3 {
		if r := mustExpire(t, a, ExpireQuery{}); r.Unreadable != 1 || r.Deleted != 0 {
			t.Errorf("%+v", r)
		}
	}
	if keys.asked != 1 {
		t.Errorf("a key service is asked %d times", keys.asked)
	}
}
