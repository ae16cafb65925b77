package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/store/storetest"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

func mustOpenDir(t *testing.T, cfg store.DirConfig) *store.Dir {
	t.Helper()
	d, err := store.OpenDir(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Harness{Open: func(t *testing.T) recorder.Store {
		return mustOpenDir(t, store.DirConfig{Root: filepath.Join(t.TempDir(), "made", "store")})
	}})
}

// TestConformanceAcross runs the suite with the spool on another file system.
func TestConformanceAcross(t *testing.T) {
	mem := vfstest.NewMem()
	mem.OtherDevice("/spool")
	if err := vfs.MkdirAll(mem, "/spool"); err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	storetest.Run(t, storetest.Harness{
		Open: func(t *testing.T) recorder.Store {
			return mustOpenDir(t, store.DirConfig{Root: fmt.Sprintf("/store%d", n.Add(1)), FS: mem})
		},
		Local: func(t *testing.T, content string) string {
			path := fmt.Sprintf("/spool/%d.part", n.Add(1))
			if err := vfs.WriteFile(mem, path, []byte(content)); err != nil {
				t.Fatal(err)
			}
			return path
		},
		Gone: func(path string) bool {
			_, err := mem.Stat(path)
			return errors.Is(err, fs.ErrNotExist)
		},
	})
}

func TestCheck(t *testing.T) {
	mem := vfstest.NewMem()
	d := mustOpenDir(t, store.DirConfig{Root: "/store", FS: mem, FreeBytesMin: 1000})
	mem.SetFree(1000)
	if err := d.Check(context.Background()); err != nil {
		t.Errorf("with space: %v", err)
	}
	mem.SetFree(999)
	var ce *store.CheckError
	if err := d.Check(context.Background()); !errors.Is(err, store.ErrSpace) || !errors.As(err, &ce) || ce.Hint == "" {
		t.Errorf("without space: %v, want ErrSpace with a hint", err)
	}
	if os.Geteuid() == 0 {
		t.Log("a read-only directory does not stop root; the fault file system stands for it")
	}
	for n := 1; ; n++ {
		f := &vfstest.Faults{FS: vfstest.NewMem(), Err: syscall.EROFS}
		d := mustOpenDir(t, store.DirConfig{Root: "/store", FS: f})
		f.At = f.Ops() + n
		err := d.Check(context.Background())
		if f.Hit() == "" {
			if err != nil {
				t.Errorf("without fault: %v", err)
			}
			break
		}
		if !errors.Is(err, syscall.EROFS) || !errors.As(err, &ce) {
			t.Errorf("%s: %v, want EROFS in a *CheckError", f.Hit(), err)
		}
	}
}

// TestFaults fails, shortens and crashes at every file operation of a publish
// and a put. What was acknowledged must be there after the crash with its
// whole content; no object ever has other content; a failed publish still
// has the local file, or the object; a retry succeeds.
func TestFaults(t *testing.T) {
	for _, across := range []bool{false, true} {
		for _, kind := range []vfstest.Kind{vfstest.Fail, vfstest.ShortWrite, vfstest.DoneButErr, vfstest.Crash} {
			n := 1
			for runFault(t, across, kind, n) {
				n++
			}
			t.Logf("across %v, %s: %d operations", across, kind, n-1)
		}
	}
}

const (
	faultContent = "the content of a segment that took a while to gather"
	faultName    = "2026/11/22/a/0001.seg"
	faultLocal   = "/spool/a/0001.part"
	faultPut     = "2026/11/22/a/recording.trm"
)

func runFault(t *testing.T, across bool, kind vfstest.Kind, n int) bool {
	mem := vfstest.NewMem()
	if across {
		mem.OtherDevice("/spool")
	}
	if err := errors.Join(vfs.MkdirAll(mem, "/spool/a"), vfs.WriteFile(mem, faultLocal, []byte(faultContent))); err != nil {
		t.Fatal(err)
	}
	f := &vfstest.Faults{FS: mem, At: n, Kind: kind, Err: syscall.EIO}
	pubErr, putErr := errors.New("not reached"), errors.New("not reached")
	d, err := store.OpenDir(store.DirConfig{Root: "/store", FS: f})
	if err == nil {
		pubErr = d.Publish(context.Background(), faultName, faultLocal)
		putErr = d.Put(context.Background(), faultPut, []byte("manifest"))
	}
	for seed := range uint64(6) {
		what := fmt.Sprintf("%s, seed %d", f.Hit(), seed)
		after := mustOpenDir(t, store.DirConfig{Root: "/store", FS: mem.CrashClone(seed)})
		checkAfter(t, after, mem.CrashClone(seed), what, pubErr == nil, putErr == nil)
	}
	if d != nil && kind != vfstest.Crash && pubErr != nil {
		if err := d.Publish(context.Background(), faultName, faultLocal); err != nil {
			t.Errorf("%s: retry: %v", f.Hit(), err)
		}
	}
	return f.Hit() != ""
}

func checkAfter(t *testing.T, d *store.Dir, mem *vfstest.Mem, what string, published, put bool) {
	t.Helper()
	obj, objErr := read(d, faultName)
	local, localErr := vfs.ReadFile(mem, faultLocal, 1000)
	switch {
	case objErr == nil && obj != faultContent:
		t.Errorf("%s: object holds %q", what, obj)
	case published && objErr != nil:
		t.Errorf("%s: published object: %v", what, objErr)
	case objErr != nil && (localErr != nil || string(local) != faultContent):
		t.Errorf("%s: neither object nor local file: %v, %v", what, objErr, localErr)
	}
	got, err := read(d, faultPut)
	if err == nil && got != "manifest" || put && err != nil {
		t.Errorf("%s: put object: %q, %v", what, got, err)
	}
}

func read(d *store.Dir, name string) (string, error) {
	b, err := d.Open(context.Background(), name)
	if err != nil {
		return "", err
	}
	defer func() { _ = b.Close() }()
	p := make([]byte, b.Size())
	_, err = b.ReadAt(p, 0)
	return string(p), err
}

func TestListSkipsUnfinished(t *testing.T) {
	mem := vfstest.NewMem()
	d := mustOpenDir(t, store.DirConfig{Root: "/store", FS: mem})
	if err := vfs.WriteFile(mem, "/store/"+vfs.TempPrefix+"1-x", []byte("torn")); err != nil {
		t.Fatal(err)
	}
	err := d.List(context.Background(), "", func(i recorder.BlobInfo) error {
		return fmt.Errorf("listed %s", i.Name)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestModes(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	d := mustOpenDir(t, store.DirConfig{Root: root})
	if err := d.Put(context.Background(), "a/b", nil); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{root: 0o700, root + "/a": 0o700, root + "/a/b": 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", strings.TrimPrefix(path, root), info.Mode().Perm(), want)
		}
	}
}

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"2026/11/22/x/0001.seg", "../x", "a//b", ".", "a\x00", "a/.tmp-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if store.CheckName(name) != nil {
			return
		}
		joined := filepath.Join("/root", filepath.FromSlash(name))
		if joined != "/root/"+name {
			t.Errorf("%q leads to %q", name, joined)
		}
	})
}
