package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
)

// begin begins an upload; it skips the test for a store that takes whole files alone.
func begin(t *testing.T, s recorder.Store, name string) store.Upload {
	t.Helper()
	u, ok := s.(store.Uploader)
	if !ok {
		t.Skip("this store takes whole files alone")
	}
	up, err := u.NewUpload(context.Background(), name)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this store takes whole files alone")
	}
	if err != nil {
		t.Fatalf("NewUpload %s: %v", name, err)
	}
	return up
}

// mustParts uploads the content in parts of the least size.
func mustParts(t *testing.T, u store.Upload, body []byte) {
	t.Helper()
	for off := 0; off < len(body); off += store.PartBytesMin {
		n := min(store.PartBytesMin, len(body)-off)
		if err := u.Part(context.Background(), bytes.NewReader(body), int64(off), int64(n)); err != nil {
			t.Fatalf("Part at %d: %v", off, err)
		}
	}
}

func complete(u store.Upload, body []byte) error {
	sum := sha256.Sum256(body)
	return u.Complete(context.Background(), sum[:])
}

// testUpload: an object that grows appears when it is complete, and not before.
func testUpload(t *testing.T, h Harness) {
	s := h.Open(t)
	body := content(2*store.PartBytesMin + 12345)
	u := begin(t, s, "a/0001.seg")
	mustParts(t, u, body)
	if got := list(t, s, ""); len(got) != 0 {
		t.Errorf("before Complete: %v", got)
	}
	if _, err := s.Open(context.Background(), "a/0001.seg"); !errors.Is(err, recorder.ErrNotFound) {
		t.Errorf("Open before Complete: %v", err)
	}
	if err := complete(u, body); err != nil {
		t.Fatalf("Complete: %v", err)
	}
	wantContent(t, s, "a/0001.seg", string(body))
	if err := u.Abort(context.Background()); err != nil {
		t.Errorf("Abort after Complete: %v", err)
	}
	wantContent(t, s, "a/0001.seg", string(body))
	if err := u.Part(context.Background(), bytes.NewReader(body), int64(len(body)), 1); err == nil {
		t.Error("Part after Complete succeeded")
	}
}

// testUploadExists: an upload does not replace what is there.
func testUploadExists(t *testing.T, h Harness) {
	s := h.Open(t)
	body := content(store.PartBytesMin + 10)
	u, again, other := begin(t, s, "a"), begin(t, s, "a"), begin(t, s, "a")
	mustParts(t, u, body)
	mustParts(t, again, body)
	changed := bytes.Clone(body)
	changed[0]++
	mustParts(t, other, changed)
	if err := complete(u, body); err != nil {
		t.Fatalf("Complete: %v", err)
	}
	if err := complete(again, body); err != nil {
		t.Errorf("Complete of the same content: %v", err)
	}
	if err := complete(other, changed); !errors.Is(err, recorder.ErrExists) {
		t.Errorf("Complete of other content: %v, want ErrExists", err)
	}
	wantContent(t, s, "a", string(body))
}

// testUploadAborted: nothing is left of it.
func testUploadAborted(t *testing.T, h Harness) {
	s := h.Open(t)
	body := content(store.PartBytesMin + 10)
	u := begin(t, s, "a")
	mustParts(t, u, body)
	for range 2 {
		if err := u.Abort(context.Background()); err != nil {
			t.Fatalf("Abort: %v", err)
		}
	}
	if err := complete(u, body); err == nil {
		t.Error("Complete after Abort succeeded")
	}
	if got := list(t, s, ""); len(got) != 0 {
		t.Errorf("objects: %v", got)
	}
}

// testUploadChanged: what changed after it was uploaded is not taken.
func testUploadChanged(t *testing.T, h Harness) {
	s := h.Open(t)
	body := content(store.PartBytesMin + 10)
	u := begin(t, s, "a")
	mustParts(t, u, body)
	body[7]++
	if err := complete(u, body); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Complete: %v, want ErrCorrupt", err)
	}
	if got := list(t, s, ""); len(got) != 0 {
		t.Errorf("objects: %v", got)
	}
}

// testUploadOrder: parts come in order, and only the last may be short.
func testUploadOrder(t *testing.T, h Harness) {
	s := h.Open(t)
	body := content(2*store.PartBytesMin + 1)
	u := begin(t, s, "a")
	ctx, r := context.Background(), bytes.NewReader(body)
	for what, err := range map[string]error{
		"out of order": u.Part(ctx, r, store.PartBytesMin, store.PartBytesMin),
		"empty":        u.Part(ctx, r, 0, 0),
		"beyond":       u.Part(ctx, bytes.NewReader(nil), 0, store.PartBytesMin),
	} {
		if err == nil {
			t.Errorf("Part %s succeeded", what)
		}
	}
	if err := u.Part(ctx, r, 0, store.PartBytesMin); err != nil {
		t.Fatal(err)
	}
	if err := u.Part(ctx, r, store.PartBytesMin, 100); err != nil {
		t.Fatal(err)
	}
	if err := u.Part(ctx, r, store.PartBytesMin+100, 100); err == nil {
		t.Error("Part after a short one succeeded")
	}
	if err := complete(u, body[:store.PartBytesMin+100]); err != nil {
		t.Error(err)
	}
}

// testSweep finds what nobody completed.
func testSweep(t *testing.T, h Harness) {
	s := h.Open(t)
	body := content(store.PartBytesMin + 10)
	u := begin(t, s, "a/b")
	mustParts(t, u, body)
	ctx, up := context.Background(), s.(store.Uploader)
	if n, err := up.Sweep(ctx, "", time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("Sweep of what is older than an hour: %d, %v", n, err)
	}
	n, err := up.Sweep(ctx, "", time.Now().Add(time.Hour))
	switch {
	case err != nil || n > 1:
		t.Errorf("Sweep: %d, %v", n, err)
	case n == 0:
		t.Skip("this service forgets uploads by itself")
	}
	if err := complete(u, body); err == nil {
		t.Error("Complete of what was swept succeeded")
	}
	if got := list(t, s, ""); len(got) != 0 {
		t.Errorf("objects: %v", got)
	}
	if n, err := up.Sweep(ctx, "", time.Now().Add(time.Hour)); n != 0 || err != nil {
		t.Errorf("Sweep again: %d, %v", n, err)
	}
}

// lockFor is short: what is locked by a test goes with the test's server.
const lockFor = time.Hour

// testLock: what is locked cannot be deleted, what is not to be locked can.
func testLock(t *testing.T, h Harness) {
	if h.OpenLocked == nil {
		t.Skip("this store has no lock")
	}
	for _, mode := range []store.LockMode{store.Governance, store.Compliance} {
		t.Run(string(mode), func(t *testing.T) {
			s := h.OpenLocked(t, store.Lock{Mode: mode, For: lockFor, Applies: func(name string) bool { return !strings.HasSuffix(name, "recording.key") }})
			lockMode(t, h, s, mode)
		})
	}
}

func lockMode(t *testing.T, h Harness, s recorder.Store, mode store.LockMode) {
	ctx := context.Background()
	if p, ok := s.(store.Preparer); ok {
		if err := p.Prepare(ctx); err != nil {
			t.Fatalf("Prepare: %v", err)
		}
	}
	mustPublish(t, s, h, "a/0001.seg", "audio")
	mustPublish(t, s, h, "a/recording.key", "key")
	if err := s.Put(ctx, "a/recording.trm", []byte("manifest")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Put(ctx, "a/recording.key", []byte("another key")); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a/0001.seg", "a/recording.trm"} {
		err := s.Delete(ctx, name)
		var locked *store.LockedError
		if !errors.As(err, &locked) || !errors.Is(err, store.ErrLocked) {
			t.Fatalf("Delete %s: %v, want ErrLocked", name, err)
		}
		if d := time.Until(locked.Until); d < lockFor-10*time.Minute || d > lockFor+time.Minute || locked.Mode != mode || locked.Name != name {
			t.Errorf("%s: %+v", name, locked)
		}
	}
	if err := s.Delete(ctx, "a/recording.key"); err != nil {
		t.Errorf("Delete of what is not locked: %v", err)
	}
	if _, err := s.Open(ctx, "a/recording.key"); !errors.Is(err, recorder.ErrNotFound) {
		t.Errorf("a deleted key: %v", err)
	}
	wantContent(t, s, "a/0001.seg", "audio")
	wantContent(t, s, "a/recording.trm", "manifest")
	lockedUpload(t, s)
}

// lockedUpload: what was uploaded in parts is locked, too.
func lockedUpload(t *testing.T, s recorder.Store) {
	body := content(store.PartBytesMin + 10)
	u := begin(t, s, "a/0002.seg")
	mustParts(t, u, body)
	if err := complete(u, body); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(context.Background(), "a/0002.seg"); !errors.Is(err, store.ErrLocked) {
		t.Errorf("Delete of what was uploaded in parts: %v, want ErrLocked", err)
	}
	wantContent(t, s, "a/0002.seg", string(body))
}
