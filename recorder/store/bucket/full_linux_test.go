package bucket_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store/s3test"
)

// TestServerFull: the server's disk has no room left.
func TestServerFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("NOT TESTED: a small file system needs the right to mount one: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	srv := s3test.StartWith(t, s3test.Options{Dir: dir})
	s := mustOpen(t, srv.URL(), quick(srv))
	body := bytes.Repeat([]byte("full"), 1<<18)
	path, full := "", error(nil)
	names := map[string]bool{}
	for i := 0; full == nil && i < 20; i++ {
		path = localFile(t, body)
		name := fmt.Sprintf("f/%02d", i)
		if full = s.Publish(context.Background(), name, path); full == nil {
			names[name] = true
		}
	}
	wantHint(t, full, nil)
	t.Logf("%d objects of 1 MiB, then: %v", len(names), full)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the refused local file: %v", err)
	}
	err := s.List(context.Background(), "", func(i recorder.BlobInfo) error {
		if !names[i.Name] || i.Size != int64(len(body)) {
			t.Errorf("%s: %d bytes, stored: %v", i.Name, i.Size, names[i.Name])
		}
		delete(names, i.Name)
		return nil
	})
	if err != nil || len(names) != 0 {
		t.Errorf("not there: %v, %v", names, err)
	}
}
