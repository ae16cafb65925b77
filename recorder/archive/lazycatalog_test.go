package archive

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/catalog"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// TestCatalogUpgrade: a catalogue whose tables take an hour to be changed holds up the start
// for as long as is configured, and nothing else: recordings begin and end, and their rows
// follow. Who does not limit it waits for it.
func TestCatalogUpgrade(t *testing.T) {
	for _, wait := range []time.Duration{5 * time.Second, 0} {
		synctest.Test(t, func(t *testing.T) {
			cat := newMemCatalog()
			began := time.Now()
			a, err := Open(Config{
				StoreDir: "/data/store", SpoolDir: "/data/spool", FS: vfstest.NewMem(), Sealer: testSealer(), CatalogWait: wait,
				openCatalog: func(ctx context.Context, _ string, _ catalog.Options) (recorder.Catalog, error) {
					select {
					case <-time.After(time.Hour):
						return cat, nil
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			if wait == 0 {
				if took != time.Hour {
					t.Errorf("opened after %v", took)
				}
				return
			}
			record(t, a, newTestCall(testID, codec.WAVPCMU))
			_, err = a.Find(context.Background(), recorder.Query{})
			var unready *NotReady
			if ready := a.Ready(context.Background()); took != wait || time.Since(began) != wait || !errors.Is(err, recorder.ErrUpgrading) ||
				!errors.As(ready, &unready) || unready.Fatal() || !errors.Is(ready, recorder.ErrUpgrading) {
				t.Errorf("%v at the start, %v in all; found %v, ready %v", took, time.Since(began), err, ready)
			}
			time.Sleep(time.Hour)
			if n, err := a.CatchUp(context.Background()); n != 1 || err != nil || len(cat.rows) != 1 {
				t.Errorf("%d caught up, %d rows, %v", n, len(cat.rows), err)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCatalogUpgradeEnds: an archive that is closed meanwhile ends the change, and the next
// one begins it anew; one that fails is tried again.
func TestCatalogUpgradeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		open := func(wait time.Duration) *Archive {
			a, err := Open(Config{
				StoreDir: "/data/store", SpoolDir: "/data/spool", FS: vfstest.NewMem(), Sealer: testSealer(), CatalogWait: wait,
				openCatalog: func(ctx context.Context, _ string, _ catalog.Options) (recorder.Catalog, error) {
					if tries.Add(1) == 2 {
						return nil, errors.New("no disk")
					}
					<-ctx.Done()
					return nil, ctx.Err()
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		a := open(time.Second)
		if err := a.Close(); err != nil || tries.Load() != 1 {
			t.Errorf("%d tries, %v", tries.Load(), err)
		}
		if _, err := a.Find(context.Background(), recorder.Query{}); err == nil || errors.Is(err, recorder.ErrUpgrading) {
			t.Errorf("after the end: %v", err)
		}
		b := open(time.Second)
		if _, err := b.Find(context.Background(), recorder.Query{}); !errors.Is(err, recorder.ErrUpgrading) || tries.Load() != 3 {
			t.Errorf("after a failure: %d tries, %v", tries.Load(), err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestCatalogOpensAtOnce: a real one.
func TestCatalogOpensAtOnce(t *testing.T) {
	a, err := Open(Config{
		StoreDir: "/data/store", SpoolDir: "/data/spool", FS: vfstest.NewMem(), Sealer: testSealer(), CatalogWait: time.Minute,
		CatalogPath: filepath.Join(t.TempDir(), "c.db"),
	})
	if err != nil {
		t.Fatal(err)
	}
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	if p, err := a.Find(context.Background(), recorder.Query{}); err != nil || len(p.Rows) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
