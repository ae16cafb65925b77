package archive

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// wantShredded demands that a recording tells of its end everywhere.
func wantShredded(t *testing.T, a *Archive, id, reason string) {
	t.Helper()
	var gone *recorder.ShreddedError
	if _, err := a.Get(context.Background(), id); !errors.As(err, &gone) || gone.Reason != reason {
		t.Errorf("Get: %v", err)
	}
	if _, err := a.Media(context.Background(), id, "wav-pcm16"); !errors.Is(err, recorder.ErrShredded) {
		t.Errorf("Media: %v", err)
	}
	page, err := a.Find(context.Background(), recorder.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range page.Rows {
		if r.Manifest.ID == id && (r.Manifest.Shredded == nil || r.Manifest.Shredded.Reason != reason || r.Manifest.Call.From != "") {
			t.Errorf("the catalogue tells %+v", r.Manifest)
		}
	}
	v, err := a.Verify(context.Background(), VerifyQuery{}, nil)
	if err != nil || len(v.Findings) > 0 || v.Shredded != 1 {
		t.Errorf("verify: %+v, %v", v, err)
	}
}

// TestShred: after it nobody reads the recording, others are as they were, a rebuilt
// catalogue knows, and again changes nothing.
func TestShred(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := mustOpenOn(t, mem, cat)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	record(t, a, newTestCall(idOf(7), codec.WAVPCMU))
	if _, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: " ", By: "x"}); err == nil {
		t.Error("shredded without a reason")
	}
	if _, err := a.Shred(context.Background(), ShredOrder{Recording: idOf(9), Reason: "case", By: "x"}); !errors.Is(err, recorder.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	mustReadAll(t, mustMedia(t, a, testID, "wav-pcm16"))
	first, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "case 4711", By: "privacy"})
	if err != nil {
		t.Fatal(err)
	}
	wantShredded(t, a, testID, "case 4711")
	again, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "other", By: "other"})
	if err != nil || again != first {
		t.Errorf("again: %+v, %v", again, err)
	}
	if err := a.Rebuild(context.Background(), nil); err != nil {
		t.Errorf("rebuild: %v", err)
	}
	wantShredded(t, a, testID, "case 4711")
	if b := mustReadAll(t, mustMedia(t, a, idOf(7), "wav-pcm16")); len(b) == 0 {
		t.Error("the other recording is gone")
	}
	for _, name := range mem.Files() {
		if strings.HasSuffix(name, testID+"/"+segment.KeyFile) {
			continue
		}
		if strings.HasSuffix(name, segment.KeyFile) && !strings.Contains(name, idOf(7)) {
			t.Errorf("a key at %s", name)
		}
	}
}

// TestShredLive: not before the recording has ended.
func TestShredLive(t *testing.T) {
	a := mustOpenOn(t, vfstest.NewMem(), newMemCatalog())
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	var refused *recorder.RefusedError
	if _, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "case", By: "x"}); !errors.As(err, &refused) {
		t.Errorf("shred: %v", err)
	}
	_ = sink.Close()
}

// TestShredCrash lets the machine die, or an operation fail, at every operation of
// shredding: it is either the recording, whole, or its end; and can be repeated.
func TestShredCrash(t *testing.T) {
	base, cat := vfstest.NewMem(), newMemCatalog()
	record(t, mustOpenOn(t, base, cat), newTestCall(testID, codec.WAVPCMU))
	for _, kind := range []vfstest.Kind{vfstest.Crash, vfstest.Fail, vfstest.DoneButErr} {
		for n := 1; ; n++ {
			disk := base.CrashClone(uint64(n))
			f := &vfstest.Faults{FS: disk, At: n, Kind: kind, Err: syscall.EIO}
			done := false
			if a, err := openOn(f, newMemCatalog()); err == nil {
				_, err = a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "case", By: "x"})
				done = err == nil
			}
			disk = disk.CrashClone(uint64(n))
			b := mustOpenOn(t, disk, newMemCatalog())
			_, err := b.Get(context.Background(), testID)
			if shredded := errors.Is(err, recorder.ErrShredded); !shredded && (err != nil || done) {
				t.Fatalf("%s: done %v, %v", f.Hit(), done, err)
			}
			if _, err := b.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "case", By: "x"}); err != nil {
				t.Fatalf("%s: again: %v", f.Hit(), err)
			}
			if err := b.Rebuild(context.Background(), nil); err != nil {
				t.Fatal(err)
			}
			wantShredded(t, b, testID, "case")
			if f.Hit() == "" {
				break
			}
		}
	}
}

// TestRewrapV1: keys of the first version get a file beside, wrapped by the active
// key; shredding wipes those inside, too.
func TestRewrapV1(t *testing.T) {
	cfg := v1Archive(t)
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	if _, err := a.Recover(context.Background()); err != nil {
		t.Fatal(err)
	}
	name, err := a.sealer.(interface {
		Rotate(context.Context) (string, error)
	}).Rotate(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.Rewrap(context.Background(), RewrapQuery{PerSecond: 1000}, nil)
	if err != nil || r.Rewrapped != 3 || r.Active != name || len(r.Findings) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = a.Rewrap(context.Background(), RewrapQuery{PerSecond: 1000}, nil); err != nil || r.Current != 3 {
		t.Errorf("again: %+v, %v", r, err)
	}
	uses, err := a.KeyUses(context.Background())
	if err != nil || len(uses) != 1 || uses[name].Recordings != 3 {
		t.Errorf("%+v, %v", uses, err)
	}
	if err := a.Rebuild(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, a, "rewrapped")
	file := cfg.StoreDir + "/2026/11/22/" + v1IDs[0] + "/0001.seg"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Shred(context.Background(), ShredOrder{Recording: v1IDs[0], Reason: "case", By: "x"}); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(file)
	if err != nil || len(after) != len(before) || !bytes.Contains(after, []byte("AAAAAAAAAAAAAAAAAAAA")) {
		t.Errorf("the key is still inside: %.300q, %v", after, err)
	}
	wantShredded(t, a, v1IDs[0], "case")
}

// TestRewrapCrash: at every operation the old wrapping or the new one is there.
func TestRewrapCrash(t *testing.T) {
	keys, err := seal.OpenLocal(seal.LocalConfig{Path: "/k/keys.json", FS: vfstest.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	open := func(fsys vfs.FS) (*Archive, error) {
		return Open(Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: fsys, Sealer: keys, Catalog: newMemCatalog()})
	}
	base := vfstest.NewMem()
	old, err := open(base)
	if err != nil {
		t.Fatal(err)
	}
	record(t, old, newTestCall(testID, codec.WAVPCMU))
	if _, err := keys.Rotate(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []vfstest.Kind{vfstest.Crash, vfstest.Fail} {
		for n := 1; ; n++ {
			disk := base.CrashClone(uint64(n))
			f := &vfstest.Faults{FS: disk, At: n, Kind: kind, Err: syscall.EIO}
			rewrapped := 0
			if a, err := open(f); err == nil {
				r, _ := a.Rewrap(context.Background(), RewrapQuery{PerSecond: 1000}, nil) // it may fail
				rewrapped = r.Rewrapped
			}
			b, err := open(disk.CrashClone(uint64(n)))
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Rebuild(context.Background(), nil); err != nil {
				t.Fatalf("%s: %v", f.Hit(), err)
			}
			mustVerify(t, b, f.Hit())
			if f.Hit() == "" {
				if rewrapped != 1 {
					t.Errorf("%d rewrapped without a fault", rewrapped)
				}
				break
			}
		}
	}
}
