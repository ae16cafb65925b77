package archive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/retention"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// roomFS is a disk on which there is the more room the less is stored.
type roomFS struct {
	vfs.FS
	mem  *vfstest.Mem
	free func(files int) int64
}

func (f roomFS) Free(string) (int64, error)  { return f.free(len(f.mem.Files())), nil }
func (f roomFS) Total(string) (int64, error) { return 1 << 40, nil }

// TestMakeRoom: on a disk that is low what may give way goes, as much as is wanted, the
// oldest first; recordings begin meanwhile. When nothing may give way any more none
// begins, and it is tried again.
func TestMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		var mu sync.Mutex
		events := map[string]int{}
		size := int64(0)
		disk := roomFS{FS: mem, mem: mem, free: func(int) int64 { return size }}
		a := retaining(t, disk, cat, RetentionConfig{Policy: retention.Policy{{User: "ann", DeleteAfter: long}, {GiveWayAfter: time.Nanosecond}}}, func(c *Config) {
			c.Space = SpaceConfig{Low: Share{Percent: 10}, Do: DoDeleteExpired}
			c.Notify = func(e string, data map[string]any) {
				mu.Lock()
				defer mu.Unlock()
				events[e]++
			}
		})
		time.Sleep(time.Until(epoch.Add(time.Hour))) // of the bubble
		low := int64(1<<40) / 10
		size = low
		for i := range 6 {
			c := newTestCall(idOf(i), codec.WAVPCMU)
			if i == 1 {
				c = c.of("ann")
			}
			record(t, a, c)
		}
		left := func() (n int) { return len(cat.rows) }
		look := func(wait time.Duration) error {
			time.Sleep(wait)
			a.watchSpace(context.Background(), time.Now())
			synctest.Wait() // a run that it began
			return a.Admit()
		}
		if err := look(0); err != nil || left() != 6 {
			t.Fatalf("with room: %v, %d left", err, left())
		}
		size = low - 1 // a fifth more than low is wanted: far more than all of them together
		if err := look(time.Second); err != nil || left() != 1 {
			t.Errorf("low: %v, %d left", err, left())
		}
		if _, err := a.Get(context.Background(), idOf(1)); err != nil {
			t.Errorf("what is to be kept: %v", err)
		}
		if err := look(time.Second); err != nil {
			t.Errorf("though room was made: %v", err)
		}
		_ = look(time.Second) // it finds out that nothing is left to give way
		var na *recorder.NotAdmitted
		for range 3 {
			if err := look(time.Second); !errors.As(err, &na) || na.RefuseCall {
				t.Errorf("without room: %v", err)
			}
		}
		record(t, a, newTestCall(idOf(7), codec.WAVPCMU))
		for range 62 {
			_ = look(time.Second)
		}
		if err := look(0); left() != 1 {
			t.Errorf("what may give way by now: %v, %d left", err, left())
		}
		size = 1 << 40
		if err := look(time.Second); err != nil {
			t.Errorf("with room again: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		if events["recording.deleted"] != 6 || events["storage.made_room"] != 2 || events["storage.low"] != 1 {
			t.Errorf("events %v", events)
		}
		if r := a.Retained(); r.GaveWay != 6 || r.Deleted != 6 || r.Last != nil {
			t.Errorf("%+v", r)
		}
	})
}

// TestMakeRoomEnough: no more gives way than is wanted.
func TestMakeRoomEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		full := int64(0)
		disk := roomFS{FS: mem, mem: mem, free: func(files int) int64 { return full - int64(files) }}
		a := retaining(t, disk, cat, RetentionConfig{Policy: retention.Policy{{GiveWayAfter: time.Nanosecond}}}, func(c *Config) {
			c.Space = SpaceConfig{Low: Share{Bytes: 1000}, Do: DoDeleteExpired}
		})
		time.Sleep(time.Until(epoch.Add(time.Hour))) // of the bubble
		full = 1 << 30
		for i := range 6 {
			record(t, a, newTestCall(idOf(i), codec.WAVPCMU))
		}
		full = int64(len(mem.Files())) + 999
		a.watchSpace(context.Background(), time.Now())
		synctest.Wait()
		if _, ok := cat.rows[idOf(0)]; ok || len(cat.rows) != 5 {
			t.Errorf("%d are left, the oldest among them: %v", len(cat.rows), ok)
		}
		full += 1000
		a.watchSpace(context.Background(), time.Now())
		synctest.Wait()
		if len(cat.rows) != 5 {
			t.Errorf("%d are left though there is room", len(cat.rows))
		}
	})
}

// TestMakeRoomElsewhere: what lies on another disk than the one that is low stays.
func TestMakeRoomElsewhere(t *testing.T) {
	for _, c := range []struct {
		low    string // of the disks
		apart  bool
		stores []string
	}{
		{"/data/spool", false, []string{"", "eu"}},
		{"/data/spool", true, nil},
		{"/data/store", true, []string{""}},
		{"/eu", true, []string{"eu"}},
	} {
		a := retaining(t, vfstest.NewMem(), newMemCatalog(), allSoon, func(cfg *Config) {
			cfg.Stores = map[string]StoreConfig{"eu": {Dir: "/eu"}}
			cfg.Space.Low = Share{Bytes: 100}
		})
		for _, s := range a.shelves {
			s.apart.Store(c.apart)
		}
		var stores []string
		bytes := int64(0)
		for _, r := range a.wanted([]DiskState{{Dir: c.low, Free: 70, Total: 1000, Level: LevelLow}}) {
			stores, bytes = append(stores, r.Stores...), bytes+r.Bytes
		}
		if fmt.Sprint(stores) != fmt.Sprint(c.stores) || (bytes != 50) != (c.stores == nil) {
			t.Errorf("%+v: %v, %d bytes", c, stores, bytes)
		}
	}
}

// hangingCatalog answers no search.
type hangingCatalog struct{ *memCatalog }

func (hangingCatalog) Find(ctx context.Context, _ recorder.Query) (recorder.Page, error) {
	<-ctx.Done()
	return recorder.Page{}, ctx.Err()
}

// TestMakeRoomHangs: a look at the disks does not wait for room that is being made, and
// recordings do not begin for ever on the mere hope of it.
func TestMakeRoomHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfstest.NewMem()
		disk := roomFS{FS: mem, mem: mem, free: func(int) int64 { return 10 }}
		a := retaining(t, disk, hangingCatalog{newMemCatalog()}, allSoon, func(c *Config) {
			c.Space = SpaceConfig{Low: Share{Bytes: 100}, Do: DoDeleteExpired}
		})
		ctx, cancel := context.WithCancel(t.Context())
		var refused *recorder.NotAdmitted
		for i := range 90 {
			a.watchSpace(ctx, time.Now())
			if err := a.Admit(); errors.As(err, &refused) != (i >= 60) {
				t.Fatalf("after %d s: %v", i, err)
			}
			time.Sleep(time.Second)
		}
		cancel()
		a.space.ended.Wait()
	})
}

// TestBallast: who deletes keeps room for the order and the log, and gives it up on a disk that
// is full; a torn one is made anew, and who deletes nothing keeps none.
func TestBallast(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	free, there := int64(1<<39), []bool{}
	a := retaining(t, mem, cat, allSoon)
	name := a.spool(ballastFile)
	has := func() bool { info, err := mem.Stat(name); return err == nil && info.Size() == ballastBytes }
	if !has() {
		t.Error("there is none")
	}
	mustPutFile(t, mem, name, []byte("torn"))
	torn := a.spool(vfs.TempPrefix + "x")
	mustPutFile(t, mem, torn, []byte("torn"))
	disk := diskFS{FS: mem, free: func(string) int64 { there = append(there, has()); return free }}
	a = retaining(t, disk, cat, allSoon)
	if _, err := mem.Stat(torn); !has() || err == nil {
		t.Errorf("behind a crash: there %v, the torn one %v", has(), err)
	}
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	free = 0
	seen := false
	a.shelves[0].store = holdingDelete{a.shelves[0].store, func() { seen = true; there = append(there, has()) }, new(bool)}
	if r := mustExpire(t, a, ExpireQuery{}); r.Deleted != 1 || !seen || there[len(there)-1] || !has() {
		t.Errorf("%+v; there while it is deleted, and behind that: %v, %v", r, there, has())
	}
	none := vfstest.NewMem()
	b := retaining(t, none, newMemCatalog(), RetentionConfig{})
	if _, err := none.Stat(b.spool(ballastFile)); err == nil {
		t.Error("who deletes nothing keeps one")
	}
}
