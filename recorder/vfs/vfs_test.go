package vfs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// both runs a test on the machine's file system and on that in memory, so that
// what crashes in tests behaves like what runs.
func both(t *testing.T, f func(t *testing.T, fsys vfs.FS, dir string)) {
	t.Run("os", func(t *testing.T) { f(t, vfs.OS{}, t.TempDir()) })
	t.Run("mem", func(t *testing.T) {
		mem := vfstest.NewMem()
		if err := vfs.MkdirAll(mem, "/tmp"); err != nil {
			t.Fatal(err)
		}
		f(t, mem, "/tmp")
	})
}

func TestFiles(t *testing.T) {
	both(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "a", "b", "file")
		if err := vfs.WriteFile(fsys, name, nil); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("WriteFile without folder: %v", err)
		}
		for range 2 {
			if err := vfs.MkdirAll(fsys, filepath.Dir(name)); err != nil {
				t.Fatal(err)
			}
		}
		for _, content := range []string{"one", "longer than one", ""} {
			if err := vfs.WriteFile(fsys, name, []byte(content)); err != nil {
				t.Fatal(err)
			}
			if b, err := vfs.ReadFile(fsys, name, 15); err != nil || string(b) != content {
				t.Errorf("ReadFile = %q, %v", b, err)
			}
		}
		if err := vfs.WriteFile(fsys, name, []byte("sixteen bytes in")); err != nil {
			t.Fatal(err)
		}
		if _, err := vfs.ReadFile(fsys, name, 15); err == nil {
			t.Error("ReadFile went beyond its limit")
		}
		if err := vfs.MkdirAll(fsys, filepath.Join(name, "x")); err == nil {
			t.Error("MkdirAll below a file succeeded")
		}
		if err := vfs.MkdirAll(fsys, name); err == nil {
			t.Error("MkdirAll over a file succeeded")
		}
		entries, err := fsys.ReadDir(filepath.Dir(name))
		if err != nil || len(entries) != 1 || entries[0].Name() != "file" || entries[0].IsDir() {
			t.Errorf("ReadDir = %v, %v", entries, err)
		}
		if err := fsys.Remove(filepath.Join(dir, "a")); err == nil {
			t.Error("Remove of a full folder succeeded")
		}
		for range 2 {
			if err := vfs.RemoveAll(fsys, filepath.Join(dir, "a")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := fsys.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat after RemoveAll: %v", err)
		}
		if n, err := fsys.Free(dir); err != nil || n <= 0 {
			t.Errorf("Free = %d, %v", n, err)
		}
	})
}

func TestOpenFile(t *testing.T) {
	both(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "file")
		if _, err := fsys.OpenFile(name, os.O_RDONLY, 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open of nothing: %v", err)
		}
		f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("exclusive open of a file: %v", err)
		}
		if _, err := f.WriteAt([]byte("tail"), 4); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(6), f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		if b, err := vfs.ReadFile(fsys, name, 100); err != nil || string(b) != "\x00\x00\x00\x00ta" {
			t.Errorf("content %q, %v", b, err)
		}
	})
}

// TestCrashClone: what is synced stays, what is not may go, nothing else appears.
func TestCrashClone(t *testing.T) {
	mem := vfstest.NewMem()
	if err := errors.Join(vfs.MkdirAll(mem, "/d"), vfs.WriteFile(mem, "/d/synced", []byte("synced"))); err != nil {
		t.Fatal(err)
	}
	f, err := mem.OpenFile("/d/fresh", os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	g, err := mem.OpenFile("/d/synced", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := f.Write([]byte("never synced"))
	_, err2 := g.WriteAt([]byte(" and more"), 6)
	if err := errors.Join(err1, err2, mem.Rename("/d/fresh", "/d/renamed")); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for seed := range uint64(200) {
		c := mem.CrashClone(seed)
		b, err := vfs.ReadFile(c, "/d/synced", 100)
		if err != nil || len(b) < 6 || string(b[:6]) != "synced" {
			t.Fatalf("seed %d: synced content became %q, %v", seed, b, err)
		}
		if len(b) > 6 {
			seen["tail"] = true
		}
		for _, name := range c.Files() {
			seen[name] = true
		}
	}
	for _, want := range []string{"tail", "/d/synced", "/d/fresh", "/d/renamed"} {
		if !seen[want] {
			t.Errorf("no crash of 200 left %s", want)
		}
	}
	if len(seen) != 4 {
		t.Errorf("crashes left %v", seen)
	}
}
