package archive

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// TestShredCopy: a key that a waiting upload has carried to its store already is gone
// from there, too, before shredding is said to be done; until then it waits, over a
// restart as well.
func TestShredCopy(t *testing.T) {
	for _, restart := range []bool{false, true} {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		r := newRemote(mem)
		var results []string
		tracing := func(c *Config) {
			c.Trace = func(e audit.Entry) error {
				if e.Kind == audit.KindShredded {
					results = append(results, e.Result)
				}
				return nil
			}
		}
		a := mustOpenRemote(t, mem, cat, r, tracing)
		record(t, a, newTestCall(testID, codec.WAVPCMU))
		object := testPrefix + "/" + segment.KeyFile
		for r.objects[object] == nil { // until the key is there and the next object fails
			r.set(func(r *remote) { r.at = r.ops + 2 })
			if did, err := carryOnce(a); !did || err == nil && r.objects[object] == nil {
				t.Fatalf("nothing is carried: %v, %v", did, err)
			}
		}
		r.set(func(r *remote) { r.at, r.down = 0, true })
		if !a.isSpooled(testID) {
			t.Fatal("it does not wait any more")
		}
		if restart {
			mem = mem.CrashClone(1)
			r.fsys = mem
			a = mustOpenRemote(t, mem, cat, r, tracing)
			if _, err := a.Recover(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		key := bytes.Clone(r.objects[object])
		s, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "case"})
		if s.At.IsZero() || !errors.Is(err, ErrCopyLeft) || !a.ordered(testID) || len(results) != 1 || results[0] != audit.ResultWaits {
			t.Fatalf("restart %v: %+v, %v, in the log %q", restart, s, err, results)
		}
		if _, err := a.Get(context.Background(), testID); !errors.Is(err, recorder.ErrShredded) {
			t.Errorf("it is read from the spool: %v", err)
		}
		if _, err := a.ShredDue(context.Background()); !errors.Is(err, ErrCopyLeft) || !bytes.Equal(r.objects[object], key) {
			t.Errorf("while the store is away: %v", err)
		}
		r.set(func(r *remote) { r.down = false })
		if q := a.shelves[0].queue; q.down {
			if _, err := a.ShredDue(context.Background()); !errors.Is(err, ErrCopyLeft) {
				t.Errorf("before an upload has found that the store is back: %v", err)
			}
			q.down = false
		}
		if n, err := a.ShredDue(context.Background()); n != 1 || err != nil || a.ordered(testID) {
			t.Errorf("the store is back: %d, %v", n, err)
		}
		rec, err := segment.ParseKeyRecord(r.objects[object])
		if err != nil || rec.Shredded == nil || rec.Shredded.Reason != "case" {
			t.Errorf("the store has %+v, %v", rec, err)
		}
		if len(results) != 2 || results[1] != audit.ResultDone {
			t.Errorf("in the log %q", results)
		}
		for range 10 {
			if did, _ := carryOnce(a); !did {
				break
			}
		}
		if rec, err = segment.ParseKeyRecord(r.objects[object]); a.isSpooled(testID) || err != nil || rec.Shredded == nil {
			t.Errorf("behind the upload: waits %v, %+v, %v", a.isSpooled(testID), rec, err)
		}
	}
}

// TestShredNeverSent: of what waits for a store that never got anything no copy is
// looked for.
func TestShredNeverSent(t *testing.T) {
	mem := vfstest.NewMem()
	r := newRemote(mem)
	a := mustOpenRemote(t, mem, newMemCatalog(), r)
	r.set(func(r *remote) { r.down = true })
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	if s, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "case"}); err != nil || s.At.IsZero() || a.ordered(testID) {
		t.Errorf("%+v, %v", s, err)
	}
}
