// Package storetest is the conformance suite of stores: what recorder.Store
// promises, as tests that every backend runs.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
)

// Harness makes what the suite works on.
type Harness struct {
	// Open returns an empty store.
	Open func(t *testing.T) recorder.Store
	// Local makes a local file of the content and returns its path. Nil: a
	// file in t.TempDir.
	Local func(t *testing.T, content string) string
	// Gone tells whether a local file is gone. Nil: by os.Stat.
	Gone func(path string) bool
	// OpenLocked returns an empty store whose objects are locked. Nil: it has no lock.
	OpenLocked func(t *testing.T, l store.Lock) recorder.Store
	// OpenWith returns a store whose requests go through a transport, the same one
	// each time. It is for Faults.
	OpenWith func(t *testing.T, tr http.RoundTripper) recorder.Store
}

func (h Harness) local(t *testing.T, content string) string {
	t.Helper()
	if h.Local != nil {
		return h.Local(t, content)
	}
	path := filepath.Join(t.TempDir(), "local.part")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (h Harness) gone(path string) bool {
	if h.Gone != nil {
		return h.Gone(path)
	}
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, Harness)
	}{
		{"Publish", testPublish},
		{"PublishAgain", testPublishAgain},
		{"PublishOther", testPublishOther},
		{"Put", testPut},
		{"NotFound", testNotFound},
		{"ReadAt", testReadAt},
		{"List", testList},
		{"ListStops", testListStops},
		{"Delete", testDelete},
		{"Names", testNames},
		{"Cancelled", testCancelled},
		{"Check", testCheck},
		{"Concurrent", testConcurrent},
		{"Ranges", testRanges},
		{"Big", testBig},
		{"Many", testMany},
		{"Race", testRace},
		{"NamesAtLimit", testNamesAtLimit},
		{"Modified", testModified},
		{"Replaced", testReplaced},
		{"Upload", testUpload},
		{"UploadExists", testUploadExists},
		{"UploadAborted", testUploadAborted},
		{"UploadChanged", testUploadChanged},
		{"UploadOrder", testUploadOrder},
		{"Sweep", testSweep},
		{"Lock", testLock},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, h) })
	}
}

func mustPublish(t *testing.T, s recorder.Store, h Harness, name, content string) {
	t.Helper()
	path := h.local(t, content)
	if err := s.Publish(context.Background(), name, path); err != nil {
		t.Fatalf("Publish %s: %v", name, err)
	}
	if !h.gone(path) {
		t.Errorf("Publish %s left the local file", name)
	}
}

func mustRead(t *testing.T, s recorder.Store, name string) string {
	t.Helper()
	b, err := s.Open(context.Background(), name)
	if err != nil {
		t.Fatalf("Open %s: %v", name, err)
	}
	got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	if err := b.Close(); err != nil {
		t.Fatalf("Close %s: %v", name, err)
	}
	return string(got)
}

func wantContent(t *testing.T, s recorder.Store, name, want string) {
	t.Helper()
	if got := mustRead(t, s, name); got != want {
		t.Errorf("%s holds %q, want %q", name, got, want)
	}
}

func testPublish(t *testing.T, h Harness) {
	s := h.Open(t)
	mustPublish(t, s, h, "2026/11/22/20261122T163608Z-1f0c/0001.seg", "audio")
	mustPublish(t, s, h, "2026/11/22/20261122T163608Z-1f0c/0002.seg", "")
	mustPublish(t, s, h, "top", strings.Repeat("x", 100_000))
	wantContent(t, s, "2026/11/22/20261122T163608Z-1f0c/0001.seg", "audio")
	wantContent(t, s, "2026/11/22/20261122T163608Z-1f0c/0002.seg", "")
	wantContent(t, s, "top", strings.Repeat("x", 100_000))
}

func testPublishAgain(t *testing.T, h Harness) {
	s := h.Open(t)
	long := strings.Repeat("0123456789abcdef", 5000)
	for range 2 {
		mustPublish(t, s, h, "a/b", long)
	}
	wantContent(t, s, "a/b", long)
}

func testPublishOther(t *testing.T, h Harness) {
	s := h.Open(t)
	mustPublish(t, s, h, "a/b", "first")
	for _, content := range []string{"other", "firs", "first and more", ""} {
		path := h.local(t, content)
		if err := s.Publish(context.Background(), "a/b", path); !errors.Is(err, recorder.ErrExists) {
			t.Errorf("Publish of %q over it: %v, want ErrExists", content, err)
		}
		if h.gone(path) {
			t.Errorf("the refused local file %q is gone", content)
		}
	}
	wantContent(t, s, "a/b", "first")
}

func testPut(t *testing.T, h Harness) {
	s := h.Open(t)
	for _, content := range []string{"one", "two, which is longer", ""} {
		if err := s.Put(context.Background(), "x/y/z.trm", []byte(content)); err != nil {
			t.Fatalf("Put: %v", err)
		}
		wantContent(t, s, "x/y/z.trm", content)
	}
}

func testNotFound(t *testing.T, h Harness) {
	s := h.Open(t)
	mustPublish(t, s, h, "a/b", "x")
	for _, name := range []string{"nothing", "a", "a/c", "a/b/c"} {
		if _, err := s.Open(context.Background(), name); !errors.Is(err, recorder.ErrNotFound) {
			t.Errorf("Open %s: %v, want ErrNotFound", name, err)
		}
		if err := s.Delete(context.Background(), name); !errors.Is(err, recorder.ErrNotFound) {
			t.Errorf("Delete %s: %v, want ErrNotFound", name, err)
		}
	}
	if err := s.Publish(context.Background(), "new", filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("Publish of a file that is not there succeeded")
	}
}

func testReadAt(t *testing.T, h Harness) {
	s := h.Open(t)
	mustPublish(t, s, h, "a", "0123456789")
	b, err := s.Open(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	if b.Size() != 10 {
		t.Errorf("Size = %d, want 10", b.Size())
	}
	p := make([]byte, 4)
	if n, err := b.ReadAt(p, 3); n != 4 || err != nil || string(p) != "3456" {
		t.Errorf("ReadAt(3) = %d %q %v", n, p[:n], err)
	}
	if n, err := b.ReadAt(p, 8); n != 2 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt(8) = %d %v, want 2 EOF", n, err)
	}
}

func list(t *testing.T, s recorder.Store, prefix string) []string {
	t.Helper()
	var got []string
	err := s.List(context.Background(), prefix, func(i recorder.BlobInfo) error {
		got = append(got, fmt.Sprintf("%s %d", i.Name, i.Size))
		return nil
	})
	if err != nil {
		t.Fatalf("List %q: %v", prefix, err)
	}
	return got
}

func testList(t *testing.T, h Harness) {
	s := h.Open(t)
	for _, name := range []string{"b", "a/2", "a/1", "a-b", "a.c", "a0", "a/1-x/1"} {
		mustPublish(t, s, h, name, name)
	}
	for _, c := range []struct {
		prefix string
		want   string
	}{
		// The order is that of the names' bytes, folders or not.
		{"", "a-b 3,a.c 3,a/1 3,a/1-x/1 7,a/2 3,a0 2,b 1"},
		{"a", "a-b 3,a.c 3,a/1 3,a/1-x/1 7,a/2 3,a0 2"},
		{"a/", "a/1 3,a/1-x/1 7,a/2 3"},
		{"a/1", "a/1 3,a/1-x/1 7"},
		{"a/1-x/", "a/1-x/1 7"},
		{"b", "b 1"},
		{"zzz/y", ""},
	} {
		if got := strings.Join(list(t, s, c.prefix), ","); got != c.want {
			t.Errorf("List %q = %s, want %s", c.prefix, got, c.want)
		}
	}
	for from, want := range map[string]string{
		"": "a-b,a.c,a/1,a/1-x/1,a/2,a0,b", "a/": "a/1,a/1-x/1,a/2,a0,b", "a/1-x": "a/1-x/1,a/2,a0,b", "a/1-x/0": "a/1-x/1,a/2,a0,b", "a/3": "a0,b", "c": "",
	} {
		var got []string
		err := s.(store.FromLister).ListFrom(context.Background(), from, func(i recorder.BlobInfo) error {
			got = append(got, i.Name)
			return nil
		})
		if strings.Join(got, ",") != want || err != nil {
			t.Errorf("ListFrom %q = %s, %v, want %s", from, got, err, want)
		}
	}
}

func testListStops(t *testing.T, h Harness) {
	s := h.Open(t)
	for _, name := range []string{"a", "b", "c"} {
		mustPublish(t, s, h, name, "")
	}
	stop := errors.New("enough")
	var seen []string
	err := s.List(context.Background(), "", func(i recorder.BlobInfo) error {
		seen = append(seen, i.Name)
		if i.Name == "b" {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || !slices.Equal(seen, []string{"a", "b"}) {
		t.Errorf("List stopped with %v after %v", err, seen)
	}
}

func testDelete(t *testing.T, h Harness) {
	s := h.Open(t)
	mustPublish(t, s, h, "a/b/c", "x")
	mustPublish(t, s, h, "a/d", "y")
	if err := s.Delete(context.Background(), "a/b/c"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(context.Background(), "a/b/c"); !errors.Is(err, recorder.ErrNotFound) {
		t.Errorf("Open after Delete: %v", err)
	}
	wantContent(t, s, "a/d", "y")
	mustPublish(t, s, h, "a/b/c", "again")
	wantContent(t, s, "a/b/c", "again")
}

func testNames(t *testing.T, h Harness) {
	s := h.Open(t)
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../x", "a/../b", "a/..", ".hidden", "a/.b", "A", "a b", "a\x00b", "a\\b", "ü",
		strings.Repeat("a/", 40) + "a", strings.Repeat("a", 1000),
	} {
		if err := s.Put(context.Background(), name, nil); err == nil {
			t.Errorf("Put %q succeeded", name)
		}
		path := h.local(t, "x")
		if err := s.Publish(context.Background(), name, path); err == nil {
			t.Errorf("Publish %q succeeded", name)
		}
		if h.gone(path) {
			t.Errorf("refused Publish %q took the local file", name)
		}
		if _, err := s.Open(context.Background(), name); err == nil {
			t.Errorf("Open %q succeeded", name)
		}
		if err := s.Delete(context.Background(), name); err == nil {
			t.Errorf("Delete %q succeeded", name)
		}
	}
	if got := list(t, s, ""); len(got) != 0 {
		t.Errorf("objects made: %v", got)
	}
}

func testCancelled(t *testing.T, h Harness) {
	s := h.Open(t)
	mustPublish(t, s, h, "a", "x")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	path := h.local(t, "y")
	for what, err := range map[string]error{
		"Publish": s.Publish(ctx, "b", path),
		"Put":     s.Put(ctx, "b", nil),
		"Delete":  s.Delete(ctx, "a"),
		"List":    s.List(ctx, "", func(recorder.BlobInfo) error { return nil }),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", what, err)
		}
	}
	if got := list(t, s, ""); !slices.Equal(got, []string{"a 1"}) {
		t.Errorf("objects: %v", got)
	}
}

func testCheck(t *testing.T, h Harness) {
	s := h.Open(t)
	if err := s.Check(context.Background()); err != nil {
		t.Errorf("Check: %v", err)
	}
	if got := list(t, s, ""); len(got) != 0 {
		t.Errorf("Check left %v", got)
	}
}

func testConcurrent(t *testing.T, h Harness) {
	s := h.Open(t)
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for i := range 8 {
		paths := []string{h.local(t, "same"), h.local(t, fmt.Sprint(i))}
		wg.Go(func() {
			errs <- s.Publish(context.Background(), "shared/object", paths[0])
			errs <- s.Publish(context.Background(), fmt.Sprintf("own/%d", i), paths[1])
			errs <- s.Put(context.Background(), "shared/small", []byte("put"))
			errs <- s.Delete(context.Background(), fmt.Sprintf("own/%d", i))
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if got := list(t, s, ""); !slices.Equal(got, []string{"shared/object 4", "shared/small 3"}) {
		t.Errorf("objects: %v", got)
	}
}
