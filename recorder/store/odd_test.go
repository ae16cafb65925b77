package store

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/trunktap/trunktap/recorder"
)

// TestOddFiles: what somebody put into the store that is no file keeps nobody from
// the rest of it, and is waited for by nobody.
func TestOddFiles(t *testing.T) {
	ctx, root := context.Background(), t.TempDir()
	d, err := OpenDir(DirConfig{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"2026/a/recording.trm", "2026/z/recording.trm"} {
		if err := d.Put(ctx, name, []byte("content")); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(root, "2026", "m", name) }
	if err := os.Mkdir(at(""), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"loop": "loop", "dangling": "nothing", "folder": "../a"} {
		if err := os.Symlink(to, at(name)); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	if err := d.List(ctx, "", func(i recorder.BlobInfo) error { names = append(names, i.Name); return nil }); err != nil {
		t.Errorf("list: %v", err)
	}
	for _, want := range []string{"2026/a/recording.trm", "2026/z/recording.trm", "2026/m/fifo", "2026/m/loop"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not listed: %s", want, strings.Join(names, " "))
		}
	}
	for _, name := range []string{"fifo", "loop", "dangling", "folder"} {
		if b, err := d.Open(ctx, "2026/m/"+name); err == nil {
			t.Errorf("%s was opened", name)
			_ = b.Close() // only read
		}
	}
}
