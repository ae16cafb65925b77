package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/recorder"
)

// content makes bytes in which no range looks like another.
func content(size int) []byte {
	b := make([]byte, 0, size+sha256.Size)
	sum := sha256.Sum256(fmt.Append(nil, size))
	for len(b) < size {
		b = append(b, sum[:]...)
		sum = sha256.Sum256(sum[:])
	}
	return b[:size]
}

// testRanges reads ranges at random, and more readers one object at once.
func testRanges(t *testing.T, h Harness) {
	s := h.Open(t)
	want := content(3<<20 + 17)
	mustPublish(t, s, h, "a/0001.seg", string(want))
	b, err := s.Open(context.Background(), "a/0001.seg")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	if b.Size() != int64(len(want)) {
		t.Fatalf("Size %d, want %d", b.Size(), len(want))
	}
	rapid.Check(t, func(rt *rapid.T) {
		off := rapid.IntRange(0, len(want)+10).Draw(rt, "off")
		n := rapid.OneOf(rapid.IntRange(0, 5000), rapid.IntRange(0, len(want)+10)).Draw(rt, "n")
		p := make([]byte, n)
		got, err := b.ReadAt(p, int64(off))
		end := min(off+n, len(want))
		if got != max(end-off, 0) || got < n && !errors.Is(err, io.EOF) || got == n && err != nil && !errors.Is(err, io.EOF) {
			rt.Fatalf("ReadAt %d+%d: %d, %v", off, n, got, err)
		}
		if got > 0 && !bytes.Equal(p[:got], want[off:end]) {
			rt.Fatalf("ReadAt %d+%d: other bytes", off, n)
		}
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("one of several readers: %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

// testBig stores what is too long for one request.
func testBig(t *testing.T, h Harness) {
	s := h.Open(t)
	want := content(20<<20 + 5)
	for range 2 {
		mustPublish(t, s, h, "big", string(want))
	}
	if got := mustRead(t, s, "big"); got != string(want) {
		t.Errorf("%d bytes, want %d, or others", len(got), len(want))
	}
	want[19<<20]++
	path := h.local(t, string(want))
	if err := s.Publish(context.Background(), "big", path); !errors.Is(err, recorder.ErrExists) {
		t.Errorf("over it: %v, want ErrExists", err)
	}
	if h.gone(path) {
		t.Error("the refused file is gone")
	}
}

// testMany lists more than one request gives.
func testMany(t *testing.T, h Harness) {
	const folders, each = 21, 60 // more than the 1000 of one answer
	s := h.Open(t)
	jobs := make(chan string)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for name := range jobs {
				if err := s.Put(context.Background(), name, []byte(name)); err != nil {
					t.Errorf("Put %s: %v", name, err)
				}
			}
		})
	}
	var want []string
	for i := range folders {
		for n := range each {
			name := fmt.Sprintf("2026/11/%02d/%04d", i, n)
			want = append(want, fmt.Sprintf("%s %d", name, len(name)))
			jobs <- name
		}
	}
	close(jobs)
	wg.Wait()
	if got := list(t, s, ""); strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("%d objects, want %d, in this order", len(got), len(want))
	}
	if got := list(t, s, "2026/11/07/"); strings.Join(got, ",") != strings.Join(want[7*each:8*each], ",") {
		t.Errorf("of one folder: %v", got)
	}
}

// testRace publishes one name with different contents at once: one wins, and
// whoever is told that it is stored has its own bytes there.
func testRace(t *testing.T, h Harness) {
	s := h.Open(t)
	for round := range 3 {
		name := fmt.Sprintf("race/%d", round)
		var wg sync.WaitGroup
		errs := make([]error, 10)
		paths := make([]string, len(errs))
		for i := range errs {
			paths[i] = h.local(t, fmt.Sprintf("content %d", i%3))
		}
		for i := range errs {
			wg.Go(func() { errs[i] = s.Publish(context.Background(), name, paths[i]) })
		}
		wg.Wait()
		got := mustRead(t, s, name)
		for i, err := range errs {
			mine := got == fmt.Sprintf("content %d", i%3)
			switch {
			case mine && err != nil:
				t.Errorf("publisher %d, whose bytes are there: %v", i, err)
			case !mine && !errors.Is(err, recorder.ErrExists):
				t.Errorf("publisher %d, whose bytes are not there: %v", i, err)
			case h.gone(paths[i]) != mine:
				t.Errorf("publisher %d: local file gone is %v, its bytes there %v", i, h.gone(paths[i]), mine)
			}
		}
	}
}

// testNamesAtLimit stores names of the greatest length and depth.
func testNamesAtLimit(t *testing.T, h Harness) {
	s := h.Open(t)
	long := strings.Repeat("a", 170) + "/" + strings.Repeat("b", 170) + "/" + strings.Repeat("c", 170)
	deep := strings.TrimSuffix(strings.Repeat("d/", 16), "/")
	all := "2026/11/22/0123456789abcdefghijklmnopqrstuvwxyz-._TZ"
	names := []string{all, long, deep}
	for _, name := range names {
		mustPublish(t, s, h, name, name)
		wantContent(t, s, name, name)
	}
	if got := list(t, s, ""); len(got) != len(names) {
		t.Errorf("listed: %v", got)
	}
	for _, name := range names {
		if err := s.Delete(context.Background(), name); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
}

// testModified: listings tell when an object was written.
func testModified(t *testing.T, h Harness) {
	s := h.Open(t)
	mustPublish(t, s, h, "a", "x")
	err := s.List(context.Background(), "", func(i recorder.BlobInfo) error {
		if i.Modified.IsZero() {
			t.Skip("these files have no times")
		}
		if d := time.Since(i.Modified); d < -time.Hour || d > 24*time.Hour {
			t.Errorf("modified %v, now it is %v", i.Modified, time.Now())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// testReplaced: what is opened is read as it was, or not at all.
func testReplaced(t *testing.T, h Harness) {
	s := h.Open(t)
	before, after := content(300_000), content(400_000)
	if err := s.Put(context.Background(), "x", before); err != nil {
		t.Fatal(err)
	}
	b, err := s.Open(context.Background(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	if err := s.Put(context.Background(), "x", after); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size())); err == nil && !bytes.Equal(got, before) {
		t.Errorf("%d bytes of neither, without an error", len(got))
	}
	wantContent(t, s, "x", string(after))
}
