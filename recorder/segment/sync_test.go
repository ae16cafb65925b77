package segment

import (
	"bytes"
	"errors"
	"io/fs"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// failing is a file system on which the named operations fail as long as they
// are named.
type failing struct {
	*vfstest.Mem
	fails map[string]bool
	held  chan struct{} // a sync of all takes a value when it begins, and one before it ends; nil: it does not
}

func (f *failing) fault(op string) error {
	if f.fails[op] {
		return syscall.EIO
	}
	return nil
}

func (f *failing) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	file, err := f.Mem.OpenFile(name, flag, perm)
	return failingFile{file, f}, err
}

func (f *failing) SyncDir(name string) error {
	if err := f.fault("syncdir"); err != nil {
		return err
	}
	return f.Mem.SyncDir(name)
}

type failingFile struct {
	vfs.File
	f *failing
}

func (f failingFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, errors.Join(err, f.f.fault("write"))
}

func (f failingFile) Sync() error {
	if err := f.f.fault("fsync"); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f failingFile) Truncate(size int64) error {
	if err := f.f.fault("truncate"); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *failing) OpenGroup(dir string) (vfs.Group, error) {
	g, err := f.Mem.OpenGroup(dir)
	return failingGroup{g, f}, err
}

type failingGroup struct {
	vfs.Group
	f *failing
}

func (g failingGroup) Sync() error {
	err := g.f.fault("syncfs")
	if g.f.held != nil {
		<-g.f.held
		<-g.f.held
	}
	if err != nil {
		return err
	}
	return g.Group.Sync()
}

// TestRaggedEnd: a failed write left bytes that could not be cut off. The
// finished segment does not have them.
func TestRaggedEnd(t *testing.T) {
	disk := &failing{Mem: vfstest.NewMem(), fails: map[string]bool{}}
	b := mustBench(t, disk)
	w := b.create(t, 1, 1)
	if err := w.Write(testAudio(1, 0), nil); err != nil {
		t.Fatal(err)
	}
	disk.fails["write"], disk.fails["truncate"] = true, true
	if err := w.Write(testAudio(1, 1), testAccount(1)); err == nil {
		t.Fatal("a failed write is taken")
	}
	clear(disk.fails)
	if _, err := w.Finish(nil); err != nil {
		t.Fatal(err)
	}
	if frames, _, err := readAll(b.content(t, 1), b.sealer, Want{testRec, 1}); err != nil || len(frames) != 1 {
		t.Errorf("%d frames, %v", len(frames), err)
	}
}

// TestEntryIsSyncedUntilItIsDurable: as long as the file's entry in its folder
// could not be synced, no frame counts as durable.
func TestEntryIsSyncedUntilItIsDurable(t *testing.T) {
	for _, group := range []int{0, 1, 100} { // 0: no Syncer
		disk := &failing{Mem: vfstest.NewMem(), fails: map[string]bool{}}
		b := mustBench(t, disk)
		cfg := WriterConfig{FS: disk, Store: b.store, Key: b.key, Dir: testDir, Info: testInfo(1)}
		if group > 0 {
			s, err := NewSyncer(disk, testDir)
			if err != nil {
				t.Fatal(err)
			}
			s.groupMin, cfg.Syncer = group, s
		}
		w, err := Create(cfg)
		if err != nil {
			t.Fatal(err)
		}
		disk.fails["syncdir"], disk.fails["syncfs"] = true, true
		if err := w.Write(testAudio(1, 0), nil); !errors.Is(err, syscall.EIO) {
			t.Errorf("group %d: a frame whose file may not be found: %v", group, err)
		}
		clear(disk.fails)
		if err := w.Write(testAudio(1, 0), nil); err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(10) {
			if _, err := disk.CrashClone(seed).Stat(w.Path()); err != nil {
				t.Errorf("group %d, seed %d: %v", group, seed, err)
			}
		}
	}
}

// TestAwaitTogether: those that wait while a round goes on share the next one,
// and a failure is told to each.
func TestAwaitTogether(t *testing.T) {
	disk := &failing{Mem: vfstest.NewMem(), fails: map[string]bool{}, held: make(chan struct{})}
	if err := vfs.MkdirAll(disk, testDir); err != nil {
		t.Fatal(err)
	}
	s, err := NewSyncer(disk, testDir)
	if err != nil {
		t.Fatal(err)
	}
	s.groupMin = 1
	waiting := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.wishes)
	}
	for _, want := range []error{nil, syscall.EIO} {
		first := make(chan error)
		go func() { first <- s.Await(nil, testDir) }()
		disk.held <- struct{}{} // its round is under way
		var wg sync.WaitGroup
		for range 63 {
			wg.Go(func() {
				if err := s.Await(nil, testDir); !errors.Is(err, want) {
					t.Errorf("waited together: %v, want %v", err, want)
				}
			})
		}
		for waiting() < 63 {
			runtime.Gosched()
		}
		disk.fails["syncfs"] = want != nil
		disk.held <- struct{}{} // the first ends
		if err := <-first; err != nil {
			t.Error(err)
		}
		disk.held <- struct{}{} // the only other one
		disk.held <- struct{}{}
		wg.Wait()
	}
}

// TestAwaitMakesDurable: by one sync of all, and one by one.
func TestAwaitMakesDurable(t *testing.T) {
	for _, group := range []int{1, 100} {
		mem := vfstest.NewMem()
		if err := vfs.MkdirAll(mem, testDir); err != nil {
			t.Fatal(err)
		}
		s, err := NewSyncer(mem, testDir)
		if err != nil {
			t.Fatal(err)
		}
		s.groupMin = group
		f, err := mem.OpenFile(testDir+"/x", syscall.O_CREAT|syscall.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write([]byte("content"))
		if err := errors.Join(err, s.Await(f, testDir), s.Close()); err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(10) {
			if got, err := vfs.ReadFile(mem.CrashClone(seed), testDir+"/x", 100); err != nil || string(got) != "content" {
				t.Errorf("group %d, seed %d: %q, %v", group, seed, got, err)
			}
		}
	}
}

func TestTorn(t *testing.T) {
	b := mustBench(t, vfstest.NewMem())
	b.write(t, 1, 1)
	seg := b.content(t, 1)
	man, err := SealManifest(b.key, testPrefix, testAccount(1))
	if err != nil {
		t.Fatal(err)
	}
	linked, err := AppendLink(bytes.Clone(man), []byte("a link\n"))
	if err != nil {
		t.Fatal(err)
	}
	for kind, file := range map[string][]byte{"segment": seg, "manifest": man, "manifest with link": linked} {
		end := len(file)
		if kind == "segment" {
			end = frameOffsets(t, file)[0]
		}
		for n := 0; n <= len(file); n++ {
			for _, zeros := range []int{0, 5, 40_000} {
				torn, err := Torn(blobOf(append(file[:n:n], make([]byte, zeros)...)))
				want := n < end
				if kind != "segment" && n == len(man) { // zeros behind a manifest are those of its link
					want = zeros > 0
				}
				if err != nil || torn != want && !(n >= end && kind != "segment" && file[n-1] == 0) {
					t.Fatalf("%s: %d of %d bytes and %d zeros: torn %v, %v", kind, n, len(file), zeros, torn, err)
				}
			}
		}
		for n := range min(end, 14) {
			bad := append([]byte(nil), file...)
			bad[n] ^= 0x20
			if torn, err := Torn(blobOf(bad)); err != nil || torn && n < 10 {
				t.Errorf("%s: byte %d altered: torn %v, %v", kind, n, torn, err)
			}
		}
	}
}

// TestWriteAllocatesNothing: a frame makes no garbage, from the caller's data to
// the disk.
func TestWriteAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget")
	}
	dir := t.TempDir()
	b := mustBench(t, vfstest.NewMem())
	s, err := NewSyncer(vfs.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := Create(WriterConfig{FS: vfs.OS{}, Store: b.store, Key: b.key, Dir: dir, Info: testInfo(1), SyncEvery: 4, Syncer: s})
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	data := testAudio(1, 0).Data
	n := testing.AllocsPerRun(50, func() {
		a := testAudio(1, 0)
		a.Data = data
		a.SegMS, a.RealMS, a.AudioMS = int64(i)*500, a.RealMS+int64(i)*500, a.AudioMS+int64(i)*500
		if err := w.Write(a, nil); err != nil {
			t.Fatal(err)
		}
		s.Round()
		i++
	})
	made := testing.AllocsPerRun(50, func() { _ = testAudio(1, 0) })
	if n > made {
		t.Errorf("%v allocations a frame", n-made)
	}
	w.Release()
}

// TestBuffersGoBack: what is durable holds no memory, and the buffer of one
// recording serves another without a trace of the first in it.
func TestBuffersGoBack(t *testing.T) {
	disk := vfstest.NewMem()
	b := mustBench(t, disk)
	s, err := NewSyncer(disk, testDir)
	if err != nil {
		t.Fatal(err)
	}
	var writers [4]*Writer
	for i := range writers {
		if writers[i], err = Create(WriterConfig{FS: disk, Store: b.store, Key: b.key, Dir: testDir, Info: testInfo(i + 1), SyncEvery: 4, Syncer: s}); err != nil {
			t.Fatal(err)
		}
	}
	for k := range 12 {
		for i, w := range writers {
			if err := w.Write(testAudio(i+1, k), testAccount(k)); err != nil {
				t.Fatal(err)
			}
			if (k+i)%3 == 0 {
				s.Round()
				if w.pending != nil || w.ledger.parked != nil {
					t.Fatalf("writer %d holds %d bytes that are durable", i, len(unsynced(w)))
				}
			}
		}
	}
	for i, w := range writers {
		if i == 3 {
			w.Release()
			continue
		}
		if _, err := w.Finish(testAccount(12)); err != nil {
			t.Fatal(err)
		}
		frames, _, err := readAll(b.content(t, i+1), b.sealer, Want{testRec, i + 1})
		if err != nil || len(frames) != 12 {
			t.Errorf("writer %d: %d frames, %v", i, len(frames), err)
		}
		for k, f := range frames {
			if !bytes.Equal(f.Data, testAudio(i+1, k).Data) {
				t.Errorf("writer %d: frame %d has other audio", i, k)
			}
		}
	}
}
