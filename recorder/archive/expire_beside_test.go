package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/retention"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// TestVerifyBesideExpire: verify runs while retention deletes what is due.
func TestVerifyBesideExpire(t *testing.T) {
	mem := vfstest.NewMem()
	a := retaining(t, mem, newMemCatalog(), RetentionConfig{Policy: retention.Policy{{User: "ann", DeleteAfter: long}, {DeleteAfter: soon}}})
	_ = mustProve(t, a, mem)
	record(t, a, newTestCall(idOf(1), codec.WAVPCMU).of("ann"))
	record(t, a, newTestCall(idOf(2), codec.WAVPCMU))
	did := false
	r, err := a.Verify(context.Background(), VerifyQuery{}, func(done, _ int64) {
		if !did {
			did = true
			if x := mustExpire(t, a, ExpireQuery{}); x.Deleted != 1 {
				t.Errorf("%+v", x)
			}
		}
	})
	if err != nil || !did {
		t.Fatal(err, did)
	}
	for _, f := range r.Findings {
		t.Errorf("false alarm: %s", f)
	}
}

// TestVerifyBesideOther: another node deletes one meanwhile, and puts its log into the store.
func TestVerifyBesideOther(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := retaining(t, mem, cat, RetentionConfig{})
	_ = mustProve(t, a, mem)
	record(t, a, newTestCall(idOf(1), codec.WAVPCMU))
	b := retaining(t, mem, cat, allSoon, func(c *Config) { c.SpoolDir, c.Node = "/other/spool", "rec-b" })
	id, err := audit.OpenIdentity(audit.IdentityConfig{FS: mem, Path: "/other/node.json", Node: "rec-b"})
	if err != nil {
		t.Fatal(err)
	}
	open := func() *audit.Log {
		l, err := audit.Open(audit.Config{
			Dir: "/other/audit", FS: mem, Identity: id, Store: b.Store(), Durable: b.DurableIn("/other/audit"), Checkpoint: time.Hour, Now: logNow,
		})
		if err != nil {
			t.Fatal(err)
		}
		b.SetProof(l)
		return l
	}
	l := open()
	record(t, b, newTestCall(idOf(2), codec.WAVPCMU))
	if err := l.Close(); err != nil { // it is in the store
		t.Fatal(err)
	}
	l = open()
	did := false
	r, err := a.Verify(context.Background(), VerifyQuery{}, func(_, _ int64) {
		if did {
			return
		}
		did = true
		if x := mustExpire(t, b, ExpireQuery{}); x.Deleted != 1 {
			t.Errorf("%+v", x)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil || !did || len(r.Findings) > 0 {
		t.Errorf("%v, %v: %v", err, did, r.Findings)
	}
}

// diskFS has several disks by directory.
type diskFS struct {
	vfs.FS
	free func(dir string) int64
}

func (f diskFS) Free(d string) (int64, error) { return f.free(d), nil }
func (f diskFS) Total(string) (int64, error)  { return 1 << 40, nil }

// TestMakeRoomTwoDisks: two disks are low; one wants little, the other much.
func TestMakeRoomTwoDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		low := false
		disk := diskFS{FS: mem, free: func(d string) int64 {
			switch {
			case !low || strings.HasPrefix(d, "/data/spool"):
				return 1 << 39
			case strings.HasPrefix(d, "/eu"):
				return 0
			}
			return 999
		}}
		a := retaining(t, disk, cat, RetentionConfig{Policy: retention.Policy{{GiveWayAfter: time.Nanosecond}}}, func(c *Config) {
			c.Stores = map[string]StoreConfig{"eu": {Dir: "/eu"}}
			c.Space = SpaceConfig{Low: Share{Bytes: 1000}, Do: DoDeleteExpired}
		})
		time.Sleep(time.Until(epoch.Add(time.Hour)))
		for i := range 6 {
			record(t, a, newTestCall(idOf(i), codec.WAVPCMU))
		}
		one := cat.rows[idOf(0)]
		size := one.ManifestBytes + one.OtherBytes
		for _, s := range one.Manifest.Segments {
			size += s.Bytes
		}
		a.cfg.Space.Low = Share{Bytes: 100 * size}
		low = true
		for _, s := range a.shelves {
			s.apart.Store(true)
		}
		// "" wants at most one recording: 1 byte less than the bound with its fifth; eu has none of them, and wants 120.
		rooms := a.wanted([]DiskState{{Dir: "/data/store", Free: 120*size - 1, Total: 1 << 40, Level: LevelLow}, {Dir: "/eu", Free: 0, Total: 1 << 40, Level: LevelLow}})
		r := mustExpire(t, a, ExpireQuery{Stores: []string{"", "eu"}, Room: func() []Room { return rooms }})
		if r.Deleted != 1 {
			t.Errorf("of the disk that wants one byte %d recordings went (%+v)", r.Deleted, rooms)
		}
	})
}

// TestMakeRoomBehindLook: the disk is low while the regular look runs, which makes the room.
func TestMakeRoomBehindLook(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	free := int64(1 << 39)
	var mu sync.Mutex
	disk := diskFS{FS: mem, free: func(string) int64 { mu.Lock(); defer mu.Unlock(); return free }}
	a := retaining(t, disk, cat, RetentionConfig{Policy: retention.Policy{{GiveWayAfter: time.Nanosecond}}}, func(c *Config) {
		c.Space = SpaceConfig{Low: Share{Bytes: 1 << 30}, Do: DoDeleteExpired}
	})
	for i := range 4 {
		record(t, a, newTestCall(idOf(i), codec.WAVPCMU))
	}
	set := func(n int64) { mu.Lock(); free = n; mu.Unlock() }
	a.expiring.Lock() // the regular look
	set(10)
	a.watchSpace(context.Background(), time.Now())
	set(1 << 39) // it has made the room
	a.watchSpace(context.Background(), time.Now())
	a.expiring.Unlock()
	a.space.ended.Wait()
	if len(cat.rows) != 4 {
		t.Errorf("%d of 4 are left, though there was room when it began", len(cat.rows))
	}
}

// failingDelete is a store whose deletions fail for a while.
type failingDelete struct {
	recorder.Store
	fail *bool
}

func (s failingDelete) Delete(ctx context.Context, name string) error {
	if *s.fail {
		return syscall.EIO
	}
	return s.Store.Delete(ctx, name)
}

// TestHoldBesideBegun: a deletion was begun and its store fails; another node holds the recording.
func TestHoldBesideBegun(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	fail := true
	a := retaining(t, mem, cat, allSoon)
	_ = mustProve(t, a, mem)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	a.shelves[0].store = failingDelete{a.shelves[0].store, &fail}
	if r, err := a.Expire(context.Background(), ExpireQuery{}); r.Deleted != 0 || err == nil {
		t.Fatalf("%+v %v", r, err)
	}
	b := retaining(t, mem, cat, allSoon, func(c *Config) { c.SpoolDir, c.Node = "/other/spool", "rec-b" })
	if err := b.PlaceHold(context.Background(), order("case")); err != nil {
		t.Fatal(err)
	}
	fail = false
	n, err := a.DeleteDue(context.Background())
	if _, gerr := b.Get(context.Background(), testID); gerr != nil {
		t.Errorf("under a hold that was confirmed it was deleted: %d, %v, %v", n, err, gerr)
	}
}

// failingPut is a store that takes nothing under a name for a while.
type failingPut struct {
	recorder.Store
	name string
	fail *bool
}

func (s failingPut) Put(ctx context.Context, name string, content []byte) error {
	if *s.fail && path.Base(name) == s.name {
		return syscall.EIO
	}
	return s.Store.Put(ctx, name, content)
}

// TestHoldBesideShred: an order to shred waits for a store that fails; another node holds the recording.
func TestHoldBesideShred(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	fail := true
	a := retaining(t, mem, cat, RetentionConfig{})
	_ = mustProve(t, a, mem)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	a.shelves[0].store = failingPut{a.shelves[0].store, segment.KeyFile, &fail}
	if _, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "asked", By: "x"}); !errors.Is(err, syscall.EIO) || !a.ordered(testID) {
		t.Fatalf("%v", err)
	}
	b := retaining(t, mem, cat, RetentionConfig{}, func(c *Config) { c.SpoolDir, c.Node = "/other/spool", "rec-b" })
	if err := b.PlaceHold(context.Background(), order("case")); err != nil {
		t.Fatal(err)
	}
	fail = false
	n, err := a.ShredDue(context.Background())
	var refused *recorder.RefusedError
	if n != 0 || !errors.As(err, &refused) || a.ordered(testID) {
		t.Errorf("%d, %v; it waits still: %v", n, err, a.ordered(testID))
	}
	if m, err := b.Get(context.Background(), testID); err != nil || m.Shredded != nil {
		t.Errorf("under a hold that was confirmed: %+v, %v", m, err)
	}
	mustVerify(t, a, "held")
}

// TestRulesBesideBegun: a deletion was begun and its store failed; somebody mends the rules and
// restarts. It stays, and the log says why; the rest of one that is half gone goes.
func TestRulesBesideBegun(t *testing.T) {
	for _, half := range []bool{false, true} {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		fail := true
		a := retaining(t, mem, cat, allSoon)
		l := mustProve(t, a, mem)
		record(t, a, newTestCall(testID, codec.WAVPCMU))
		if half {
			a.shelves[0].store = holdingDelete{a.shelves[0].store, func() {}, &fail}
		} else {
			a.shelves[0].store = failingDelete{a.shelves[0].store, &fail}
		}
		if r, err := a.Expire(context.Background(), ExpireQuery{}); r.Deleted != 0 || err == nil {
			t.Fatalf("%+v %v", r, err)
		}
		if err := errors.Join(l.Close(), a.Close()); err != nil {
			t.Fatal(err)
		}
		b := retaining(t, mem, cat, RetentionConfig{Policy: retention.Policy{{DeleteAfter: long}}})
		_ = mustProve(t, b, mem)
		n, err := b.DeleteDue(context.Background())
		if err != nil || b.deleting(testID) || (n == 1) != half {
			t.Errorf("half gone %v: %d, %v", half, n, err)
		}
		if half {
			wantGone(t, b, mem, testID, "half gone")
			continue
		}
		if _, err := b.Get(context.Background(), testID); err != nil {
			t.Errorf("it is to be kept now: %v", err)
		}
		mustVerify(t, b, "kept")
		wantMissed(t, b, mem, "kept")
	}
}

// holdingDelete is a store in which somebody does something right before a manifest is deleted.
type holdingDelete struct {
	recorder.Store
	before func()
	fail   *bool // though it is deleted, the store says that it is not
}

func (s holdingDelete) Delete(ctx context.Context, name string) error {
	if path.Base(name) != segment.ManifestFile {
		return s.Store.Delete(ctx, name)
	}
	s.before()
	if err := s.Store.Delete(ctx, name); err != nil || !*s.fail {
		return err
	}
	*s.fail = false
	return syscall.EIO
}

// TestHoldInDelete: another node holds a recording between a deletion's last question and the
// deletion of the manifest; in the second round what the store answers is lost as well.
func TestHoldInDelete(t *testing.T) {
	for _, fail := range []bool{false, true} {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		a := retaining(t, mem, cat, allSoon)
		_ = mustProve(t, a, mem)
		record(t, a, newTestCall(testID, codec.WAVPCMU))
		b := retaining(t, mem, cat, allSoon, func(c *Config) { c.SpoolDir, c.Node = "/other/spool", "rec-b" })
		held := false
		a.shelves[0].store = holdingDelete{a.shelves[0].store, func() {
			if !held {
				held = true
				if err := b.PlaceHold(context.Background(), order("case")); err != nil {
					t.Errorf("hold: %v", err)
				}
			}
		}, &fail}
		r, err := a.Expire(context.Background(), ExpireQuery{})
		if r.Deleted != 0 || !held {
			t.Fatalf("%+v %v", r, err)
		}
		if _, err := a.DeleteDue(context.Background()); err != nil {
			t.Error(err)
		}
		if _, err := b.Get(context.Background(), testID); err != nil {
			t.Errorf("under a hold that was confirmed it was deleted: %v", err)
		}
		if a.deleting(testID) || len(mustNames(t, mem, a.spool(withdrawnDir))) > 0 {
			t.Error("the order waits still, or what it put back")
		}
		mustVerify(t, a, "held")
		if err := b.ReleaseHold(context.Background(), order("case")); err != nil {
			t.Fatal(err)
		}
		if r := mustExpire(t, a, ExpireQuery{}); r.Deleted != 1 {
			t.Errorf("released: %+v", r)
		}
		wantGone(t, a, mem, testID, "released")
	}
}

// mustNames lists a folder.
func mustNames(t *testing.T, fsys vfs.FS, dir string) (names []string) {
	t.Helper()
	list, err := fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// TestManyHolds: as many holds as may be, with names and reasons as long as they may be, are read
// and released.
func TestManyHolds(t *testing.T) {
	mem := vfstest.NewMem()
	a := retaining(t, mem, newMemCatalog(), allSoon)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	o := order("")
	for i := range holdsMax {
		o.Name, o.Reason = strings.Repeat("<", holdNameMax-3)+fmt.Sprintf("%03d", i), strings.Repeat("<", holdReasonMax)
		if err := a.PlaceHold(context.Background(), o); err != nil {
			t.Fatalf("hold %d: %v", i, err)
		}
	}
	holds, err := a.Holds(context.Background(), testID)
	if err != nil || len(holds) != holdsMax {
		t.Fatalf("%d holds, %v", len(holds), err)
	}
	for _, h := range holds {
		o.Name = h.Name
		if err := a.ReleaseHold(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	if r := mustExpire(t, a, ExpireQuery{}); r.Deleted != 1 {
		t.Errorf("%+v", r)
	}
}

// TestExpireUnreadableJob: a job of coding anew that no run can read keeps no recording, and goes with it.
func TestExpireUnreadableJob(t *testing.T) {
	mem := vfstest.NewMem()
	a := retaining(t, mem, newMemCatalog(), allSoon)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	if err := vfs.MkdirAll(mem, a.spool(deferredDir)); err != nil {
		t.Fatal(err)
	}
	mustPutFile(t, mem, a.jobFile(testID), []byte(`{"version":2,"recording":"`+testID+`"}`))
	b := retaining(t, mem, newMemCatalog(), allSoon)
	if err := b.Rebuild(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if r := mustExpire(t, b, ExpireQuery{}); r.Deleted != 1 {
		t.Errorf("%+v", r)
	}
	if _, err := mem.Stat(b.jobFile(testID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its job: %v", err)
	}
}

// TestLinkUpBesideDelete: a note of a link that was not given, and a deletion beside LinkUp.
func TestLinkUpBesideDelete(t *testing.T) {
	mem := vfstest.NewMem()
	a := retaining(t, mem, newMemCatalog(), allSoon)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	_ = mustProve(t, a, mem)
	p, err := a.locate(context.Background(), testID)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.noteUnlinked(testID, p); err != nil {
		t.Fatal(err)
	}
	mustExpire(t, a, ExpireQuery{})
	if _, err := a.LinkUp(context.Background()); err != nil {
		t.Error(err)
	}
	wantGone(t, a, mem, testID, "linked")
}

// TestRebuildBesideDelete: another node's rebuild has read the manifest when it is deleted, and puts the row back.
func TestRebuildBesideDelete(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := retaining(t, mem, cat, allSoon)
	_ = mustProve(t, a, mem)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	b := retaining(t, mem, cat, allSoon, func(c *Config) { c.SpoolDir, c.Node = "/other/spool", "rec-b" })
	r := rebuild{a: b, c: cat}
	p, err := b.locate(context.Background(), testID)
	if err != nil {
		t.Fatal(err)
	}
	row, err := r.rowOf(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	mustExpire(t, a, ExpireQuery{})
	if err := r.put(context.Background(), []recorder.Row{row}); err != nil {
		t.Fatal(err)
	}
	if err := b.Rebuild(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	x := mustExpire(t, a, ExpireQuery{})
	if _, ok := cat.rows[testID]; ok {
		t.Errorf("who called whom is in the catalogue for good, though the recording was deleted: %+v", x)
	}
	mustVerify(t, a, "behind it")
}
