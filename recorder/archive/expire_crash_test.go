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
func expireOn(t *testing.T, f *vfstest.Faults, disk *vfstest.Mem, cat *memCatalog, r RetentionConfig) {
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
	_, _ = a.Expire(context.Background(), ExpireQuery{})
	_ = log.Close()
	_ = a.Close()
}
