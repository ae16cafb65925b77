package archive

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/retention"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// TestExpireCrash lets the machine die, or an operation fail, at every operation of a
// deletion: the recording is whole, or goes on to go, and nobody takes it for lost.
func TestExpireCrash(t *testing.T) {
	base, cat := vfstest.NewMem(), newMemCatalog()
	first := retaining(t, base, cat, allSoon)
	l := mustProve(t, first, base)
	record(t, first, newTestCall(testID, codec.WAVPCMU))
	record(t, first, newTestCall(idOf(7), codec.WAVPCMU).of("ann"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	keepAnn := RetentionConfig{Policy: retention.Policy{{User: "ann", DeleteAfter: long}, {DeleteAfter: soon}}}
	for _, kind := range []vfstest.Kind{vfstest.Crash, vfstest.Fail, vfstest.DoneButErr} {
		for n := 1; ; n++ {
			disk, cat := base.CrashClone(uint64(n)), cat.clone()
			f := &vfstest.Faults{FS: disk, At: n, Kind: kind, Err: syscall.EIO}
			cat.dead = func() bool { return kind == vfstest.Crash && f.Hit() != "" }
			expireOn(t, f, disk, cat, keepAnn)
			cat.dead = nil
			disk = disk.CrashClone(uint64(n))
			b := retaining(t, disk, cat, keepAnn)
			log := mustProve(t, b, disk)
			mustVerify(t, b, f.Hit())
			if _, err := b.DeleteDue(context.Background()); err != nil {
				t.Fatalf("%s: %v", f.Hit(), err)
			}
			_, err := b.Get(context.Background(), testID)
			if err != nil {
				wantGone(t, b, disk, testID, f.Hit())
			} else {
				wantMissed(t, b, disk, f.Hit())
			}
			mustVerify(t, b, f.Hit())
			if r := mustExpire(t, b, ExpireQuery{}); r.Deleted != 0 && err != nil || r.Deleted != 1 && err == nil {
				t.Errorf("%s: then %+v", f.Hit(), r)
			}
			wantGone(t, b, disk, testID, f.Hit())
			if v := mustVerify(t, b, f.Hit()); v.Recordings != 1 {
				t.Errorf("%s: %d recordings are left", f.Hit(), v.Recordings)
			}
			if err := errors.Join(log.Close(), b.Close()); err != nil {
				t.Fatal(err)
			}
			if t.Failed() {
				return
			}
			if f.Hit() == "" {
				break
			}
		}
	}
}

// TestHoldInDeleteCrash: another node holds a recording right before its manifest is deleted, and
// the machine dies, or an operation fails, at every operation of the deletion: it is whole in the end.
func TestHoldInDeleteCrash(t *testing.T) {
	base, cat := vfstest.NewMem(), newMemCatalog()
	first := retaining(t, base, cat, allSoon)
	l := mustProve(t, first, base)
	record(t, first, newTestCall(testID, codec.WAVPCMU))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	never := false
	for _, kind := range []vfstest.Kind{vfstest.Crash, vfstest.Fail, vfstest.DoneButErr} {
		holds := 0
		for n := 1; ; n++ {
			disk, cat := base.CrashClone(uint64(n)), cat.clone()
			f := &vfstest.Faults{FS: disk, At: n, Kind: kind, Err: syscall.EIO}
			cat.dead = func() bool { return kind == vfstest.Crash && f.Hit() != "" }
			other := retaining(t, disk, cat, allSoon, func(c *Config) { c.SpoolDir, c.Node = "/other/spool", "rec-b" })
			held := false
			expireOn(t, f, disk, cat, allSoon, func(a *Archive) {
				a.shelves[0].store = holdingDelete{a.shelves[0].store, func() { held = other.PlaceHold(context.Background(), order("case")) == nil }, &never}
			})
			cat.dead = nil
			disk = disk.CrashClone(uint64(n))
			b := retaining(t, disk, cat, allSoon)
			log := mustProve(t, b, disk)
			if _, err := b.DeleteDue(context.Background()); err != nil {
				t.Fatalf("%s: %v", f.Hit(), err)
			}
			if held {
				holds++
				if r := mustExpire(t, b, ExpireQuery{}); r.Deleted != 0 {
					t.Errorf("%s: a hold that was confirmed is ignored: %+v", f.Hit(), r)
				}
				if _, err := b.Get(context.Background(), testID); err != nil {
					t.Errorf("%s: under a hold that was confirmed it was deleted: %v", f.Hit(), err)
				}
				if b.deleting(testID) || len(mustNames(t, disk, b.spool(withdrawnDir))) > 0 {
					t.Errorf("%s: the order waits still, or what it put back", f.Hit())
				}
			}
			mustVerify(t, b, f.Hit())
			if err := errors.Join(log.Close(), b.Close(), other.Close()); err != nil {
				t.Fatal(err)
			}
			if f.Hit() == "" || t.Failed() {
				break
			}
		}
		if holds < 10 {
			t.Errorf("only %d rounds came to the hold", holds)
		}
	}
}

// wantMissed demands that a recording whose deletion came to nothing is missed when
// somebody else removes it.
func wantMissed(t *testing.T, a *Archive, disk *vfstest.Mem, what string) {
	t.Helper()
	dir := "/data/store/" + testPrefix
	kept := map[string][]byte{}
	for _, name := range disk.Files() {
		if strings.HasPrefix(name, dir+"/") {
			b, err := vfs.ReadFile(disk, name, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			kept[name] = b
		}
	}
	if err := vfs.RemoveAll(disk, dir); err != nil {
		t.Fatal(err)
	}
	v, err := a.Verify(context.Background(), VerifyQuery{}, nil)
	if err != nil || !slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Recording == testID && f.Fault == FaultMissing }) {
		t.Errorf("%s: what somebody else removed is not missed: %+v, %v", what, v.Findings, err)
	}
	if err := vfs.MkdirAll(disk, dir); err != nil {
		t.Fatal(err)
	}
	for name, b := range kept {
		mustPutFile(t, disk, name, b)
	}
}

// TestOrdersBesideDue: the look for orders that wait takes none away that is being written.
func TestOrdersBesideDue(t *testing.T) {
	mem := vfstest.NewMem()
	a := retaining(t, mem, newMemCatalog(), RetentionConfig{})
	stop := make(chan struct{})
	var looks sync.WaitGroup
	looks.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = a.eachOrder(context.Background(), deletingDir, func(context.Context, string) (bool, error) { return false, nil })
			}
		}
	})
	for i := range 5000 {
		a.shredding.Lock()
		err := a.saveOrder(deletingDir, idOf(i%7), deleteOrder{Recording: idOf(i % 7), Why: "x"})
		a.shredding.Unlock()
		if err != nil {
			t.Errorf("order %d: %v", i, err)
			break
		}
	}
	close(stop)
	looks.Wait()
}

// expireOn runs Expire on a disk with a fault; whatever may fail does.
func expireOn(t *testing.T, f *vfstest.Faults, disk *vfstest.Mem, cat *memCatalog, r RetentionConfig, change ...func(*Archive)) {
	t.Helper()
	a, err := Open(Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: f, Sealer: testSealer(), Catalog: cat, Retention: r, Node: "rec-a"})
	if err != nil {
		return
	}
	log, err := audit.Open(audit.Config{
		Dir: "/data/audit", FS: f, Identity: mustIdentity(t, disk), Store: a.Store(), Durable: a.DurableIn("/data/audit"), Checkpoint: time.Hour, Now: logNow,
	})
	if err != nil {
		return
	}
	a.SetProof(log)
	for _, f := range change {
		f(a)
	}
	_, _ = a.Expire(context.Background(), ExpireQuery{})
	_ = log.Close()
	_ = a.Close()
}
