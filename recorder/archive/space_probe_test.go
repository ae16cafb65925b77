package archive

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// distant is a file system whose store hangs when it is asked for its room.
type distant struct {
	*vfstest.Mem
	hangs chan struct{} // nil: it does not
}

func (d *distant) Free(dir string) (int64, error) {
	if d.hangs != nil && strings.HasPrefix(dir, "/data/store") {
		<-d.hangs
	}
	return d.Mem.Free(dir)
}

// TestDiskHangs: a store whose disk does not answer hides nothing of the spool, stays at the
// level that was known, and is asked once at a time.
func TestDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &distant{Mem: vfstest.NewMem()}
		a, err := Open(Config{
			StoreDir: "/data/store", SpoolDir: "/data/spool", FS: d, Sealer: testSealer(), Catalog: newMemCatalog(),
			Space: SpaceConfig{Warn: Share{Percent: 20}, Low: Share{Percent: 10}},
		})
		if err != nil {
			t.Fatal(err)
		}
		a.shelves[0].apart.Store(true)
		look := func(freePercent int64) error {
			d.SetFree(1 << 40 / 100 * freePercent)
			began := time.Now()
			a.watchSpace(context.Background(), began)
			if took := time.Since(began); took > probeWait {
				t.Errorf("a look took %v", took)
			}
			return a.Admit()
		}
		if err := look(50); err != nil || len(a.Space().Disks) != 2 {
			t.Fatalf("%v, %+v", err, a.Space())
		}
		d.hangs = make(chan struct{})
		if err := look(50); err != nil || len(a.Space().Disks) != 1 {
			t.Errorf("%v, %+v", err, a.Space())
		}
		if err := look(9); err == nil {
			t.Error("the spool is low and recordings begin")
		}
		if err := look(50); err != nil {
			t.Errorf("the spool has room again: %v", err)
		}
		close(d.hangs)
		synctest.Wait()
		d.hangs = nil
		_ = look(50) // takes what came late
		if err := look(9); err == nil || len(a.Space().Disks) != 2 {
			t.Errorf("%v, %+v", err, a.Space())
		}
		d.hangs = make(chan struct{})
		if a.watchSpace(context.Background(), time.Now()); a.Admit() == nil {
			t.Error("the level of a store that was low is forgotten")
		}
		close(d.hangs)
		synctest.Wait()
	})
}

// TestKeptGoesInParts: however much is to be removed, a look comes back.
func TestKeptGoesInParts(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	for i := range 2*keptPerLook + 1 {
		dir := a.spool(keptDir, fmt.Sprint(i))
		if err := vfs.MkdirAll(mem, dir); err != nil {
			t.Fatal(err)
		}
		if err := vfs.WriteFile(mem, dir+"/x", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{keptPerLook + 1, 1, 0} {
		a.expireKept(time.Now(), true)
		left, err := mem.ReadDir(a.spool(keptDir))
		if err != nil || len(left) != want {
			t.Errorf("%d are left, want %d, %v", len(left), want, err)
		}
	}
}
