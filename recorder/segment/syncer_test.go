package segment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// counting counts what is synced on a file system in memory, and fails it.
type counting struct {
	*vfstest.Mem
	files, groups, writes atomic.Int64
	err                   atomic.Pointer[error]
}

func (c *counting) fault() error {
	if err := c.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (c *counting) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := c.Mem.OpenFile(name, flag, perm)
	return countingFile{f, c}, err
}

func (c *counting) OpenGroup(dir string) (vfs.Group, error) {
	g, err := c.Mem.OpenGroup(dir)
	return countingGroup{g, c}, err
}

type countingFile struct {
	vfs.File
	c *counting
}

func (f countingFile) Sync() error {
	f.c.files.Add(1)
	return errors.Join(f.c.fault(), f.File.Sync())
}

func (f countingFile) WriteAt(p []byte, off int64) (int, error) {
	f.c.writes.Add(1)
	return f.File.WriteAt(p, off)
}

type countingGroup struct {
	vfs.Group
	c *counting
}

func (g countingGroup) Sync() error {
	g.c.groups.Add(1)
	return errors.Join(g.c.fault(), g.Group.Sync())
}

// TestManyWritersAreSyncedTogether: rounds come in their period and only when
// something was written, no writer syncs itself, and what they took is durable
// within the period.
func TestManyWritersAreSyncedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &counting{Mem: vfstest.NewMem()}
		b := mustBench(t, disk)
		s, err := NewSyncer(disk, testDir)
		if err != nil {
			t.Fatal(err)
		}
		s.Start(250 * time.Millisecond)
		writers := make([]*Writer, 20)
		for i := range writers {
			if writers[i], err = Create(WriterConfig{FS: disk, Store: b.store, Key: b.key, Dir: testDir, Info: testInfo(i + 1), SyncEvery: 4, Syncer: s}); err != nil {
				t.Fatal(err)
			}
		}
		before := disk.files.Load()
		var wg sync.WaitGroup
		for i, w := range writers {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 25 * time.Millisecond)
				for k := range 10 {
					if err := w.Write(testAudio(i+1, k), nil); err != nil {
						t.Error(err)
					}
					if w.writes > 2 {
						t.Errorf("writer %d: %d writes are not durable", i, w.writes)
					}
					time.Sleep(500 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		if files := disk.files.Load() - before; files > 10 {
			t.Errorf("%d files were synced one by one", files)
		}
		groups := disk.groups.Load()
		if groups < 15 || groups > 25 {
			t.Errorf("%d rounds in 5 s", groups)
		}
		time.Sleep(time.Minute)
		if disk.groups.Load() != groups {
			t.Error("rounds go on without anything to do")
		}
		for i, w := range writers {
			w.absorb()
			if len(w.pending) > 0 || w.writes != 0 {
				t.Errorf("writer %d: %d bytes in %d writes are not durable", i, len(w.pending), w.writes)
			}
			if _, err := w.Finish(nil); err != nil {
				t.Fatal(err)
			}
			if frames, _, err := readAll(b.content(t, i+1), b.sealer, Want{testRec, i + 1}); err != nil || len(frames) != 10 {
				t.Errorf("writer %d: %d frames, %v", i, len(frames), err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestFailedRoundIsWrittenAgain: after a failed sync of all nobody knows which
// pages were lost, so each writer writes again what is not durable, and syncs it
// itself; what it cannot sync it refuses.
func TestFailedRoundIsWrittenAgain(t *testing.T) {
	disk := &counting{Mem: vfstest.NewMem()}
	b := mustBench(t, disk)
	s, err := NewSyncer(disk, testDir)
	if err != nil {
		t.Fatal(err)
	}
	s.groupMin = 1
	w, err := Create(WriterConfig{FS: disk, Store: b.store, Key: b.key, Dir: testDir, Info: testInfo(1), SyncEvery: 4, Syncer: s})
	if err != nil {
		t.Fatal(err)
	}
	for k := range 2 {
		if err := w.Write(testAudio(1, k), nil); err != nil {
			t.Fatal(err)
		}
	}
	bad := error(syscall.EIO)
	disk.err.Store(&bad)
	s.Round()
	held := len(unsynced(w))
	if err := w.Write(testAudio(1, 2), nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("a write on a disk that fails: %v", err)
	}
	if len(w.pending) != held {
		t.Errorf("%d bytes held, were %d", len(w.pending), held)
	}
	disk.err.Store(nil)
	size := disk.writes.Load()
	if err := w.Write(testAudio(1, 2), nil); err != nil || disk.writes.Load() != size+1 || w.written != len(unsynced(w)) {
		t.Errorf("after it recovered: %v, %d of %d bytes written", err, w.written, len(unsynced(w)))
	}
	s.Round()
	w.absorb()
	if len(w.pending) != 0 {
		t.Errorf("%d bytes are not durable", len(w.pending))
	}
	if _, err := w.Finish(nil); err != nil {
		t.Fatal(err)
	}
	if frames, _, err := readAll(b.content(t, 1), b.sealer, Want{testRec, 1}); err != nil || len(frames) != 3 {
		t.Errorf("%d frames, %v", len(frames), err)
	}
}

// TestLateSyncer: a Syncer that does not come is made up for.
func TestLateSyncer(t *testing.T) {
	disk := &counting{Mem: vfstest.NewMem()}
	b := mustBench(t, disk)
	s, err := NewSyncer(disk, testDir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := Create(WriterConfig{FS: disk, Store: b.store, Key: b.key, Dir: testDir, Info: testInfo(1), SyncEvery: 4, Syncer: s})
	if err != nil {
		t.Fatal(err)
	}
	before := disk.files.Load() + disk.groups.Load()
	for k := range 12 {
		if err := w.Write(testAudio(1, k), nil); err != nil {
			t.Fatal(err)
		}
		if w.writes >= 4 {
			t.Errorf("%d writes are not durable", w.writes)
		}
	}
	if got := disk.files.Load() + disk.groups.Load() - before; got != 3 {
		t.Errorf("synced %d times", got)
	}
}

// BenchmarkWriters is a second of n recordings on the machine's disk, two
// frames of G.711 each: the time of an iteration beyond a second is what the
// disk could not take; cpu is what it costs, in % of a core.
func BenchmarkWriters(b *testing.B) {
	for _, n := range []int{100, 1000} {
		for _, period := range []time.Duration{0, 250 * time.Millisecond} {
			b.Run(fmt.Sprintf("n=%d/group=%v", n, period), func(b *testing.B) { benchWriters(b, n, period) })
		}
	}
}

func benchWriters(b *testing.B, n int, period time.Duration) {
	dir := b.TempDir()
	sealer, err := seal.OpenLocal(seal.LocalConfig{Path: "/keys/kek.json", FS: testKeys})
	if err != nil {
		b.Fatal(err)
	}
	st, err := store.OpenDir(store.DirConfig{Root: filepath.Join(dir, "store")})
	if err != nil {
		b.Fatal(err)
	}
	key, err := sealer.NewKey(context.Background(), testRec)
	if err != nil {
		b.Fatal(err)
	}
	cfg := WriterConfig{FS: vfs.OS{}, Store: st, Key: key}
	if period > 0 {
		if cfg.Syncer, err = NewSyncer(vfs.OS{}, dir); err != nil {
			b.Fatal(err)
		}
		cfg.SyncEvery = 4
		cfg.Syncer.Start(period)
	}
	writers := make([]*Writer, n)
	for i := range writers {
		cfg.Dir, cfg.Info = filepath.Join(dir, fmt.Sprint(i)), testInfo(1)
		if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
			b.Fatal(err)
		}
		if writers[i], err = Create(cfg); err != nil {
			b.Fatal(err)
		}
	}
	var worst atomic.Int64
	frame := 0
	start := cpuTime()
	for b.Loop() {
		begin := time.Now()
		var wg sync.WaitGroup
		for i, w := range writers {
			wg.Go(func() {
				for k := range 2 {
					time.Sleep(time.Until(begin.Add(time.Duration(k)*500*time.Millisecond + time.Duration(i)*500*time.Millisecond/time.Duration(n))))
					from := time.Now()
					if err := w.Write(testAudio(1, frame+k), nil); err != nil {
						b.Error(err)
					}
					if d := int64(time.Since(from)); d > worst.Load() {
						worst.Store(d) // nearly the worst will do
					}
				}
			})
		}
		wg.Wait()
		frame += 2
	}
	cpu := cpuTime() - start
	b.ReportMetric(100*cpu.Seconds()/b.Elapsed().Seconds(), "%core")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N*2*n), "us/frame")
	b.ReportMetric(float64(worst.Load())/1e6, "worst-ms")
	for _, w := range writers {
		w.Release()
	}
	if cfg.Syncer != nil {
		if err := cfg.Syncer.Close(); err != nil {
			b.Fatal(err)
		}
	}
	key.Close()
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
