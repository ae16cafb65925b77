package archive

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

func order(name string) HoldOrder {
	return HoldOrder{Recording: testID, Name: name, Reason: "letter of 2 November", By: "legal", From: "10.0.0.1:1"}
}

// TestLegalHold: what is held is neither deleted nor shredded, on any node, until the last
// hold is released; the log tells of each, and what is stored is accounted for.
func TestLegalHold(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := retaining(t, mem, cat, allSoon)
	l := mustProve(t, a, mem)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	ctx := context.Background()
	before := cat.rows[testID].OtherBytes
	for _, name := range []string{"case 1", "case 2", "case 1"} {
		if err := a.PlaceHold(ctx, order(name)); err != nil {
			t.Fatal(err)
		}
	}
	holds, err := a.Holds(ctx, testID)
	if err != nil || len(holds) != 2 || holds[0].Name != "case 1" || holds[1].Reason != "letter of 2 November" || holds[1].By != "legal" || holds[1].At.IsZero() {
		t.Errorf("%+v, %v", holds, err)
	}
	if n := cat.rows[testID].OtherBytes; n <= before {
		t.Errorf("%d bytes beside audio and manifest, %d before", n, before)
	}
	other := retaining(t, mem, newMemCatalog(), allSoon) // has the store alone
	if err := other.Rebuild(ctx, nil); err != nil {
		t.Fatal(err)
	}
	kept := func(what string) {
		t.Helper()
		for _, x := range []*Archive{a, other} {
			if r := mustExpire(t, x, ExpireQuery{}); r.Deleted != 0 || r.Held != 1 {
				t.Errorf("%s: %+v", what, r)
			}
			if r := mustExpire(t, x, ExpireQuery{DryRun: true}); r.Deleted != 0 || r.Held != 1 {
				t.Errorf("%s, a dry run: %+v", what, r)
			}
			if r := mustExpire(t, x, ExpireQuery{Stores: []string{""}}); r.Deleted != 0 || r.Held != 1 {
				t.Errorf("%s, while room is wanted: %+v", what, r)
			}
		}
		var refused *recorder.RefusedError
		if _, err := a.Shred(ctx, ShredOrder{Recording: testID, Reason: "case", By: "x"}); !errors.As(err, &refused) || !strings.Contains(refused.Why, "under legal hold") {
			t.Errorf("%s: shred: %v", what, err)
		}
		if v := mustVerify(t, a, what); v.Recordings != 1 || len(v.Notes) != 0 {
			t.Errorf("%s: %+v", what, v)
		}
	}
	kept("held twice")
	var refused *recorder.RefusedError
	if err := a.ReleaseHold(ctx, order("case 3")); !errors.As(err, &refused) {
		t.Errorf("another name: %v", err)
	}
	if err := a.ReleaseHold(ctx, order("case 1")); err != nil {
		t.Fatal(err)
	}
	kept("held once")
	if err := a.ReleaseHold(ctx, order("case 2")); err != nil {
		t.Fatal(err)
	}
	if r := mustExpire(t, a, ExpireQuery{}); r.Deleted != 1 {
		t.Errorf("released: %+v", r)
	}
	wantGone(t, a, mem, testID, "released")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	v := &verification{a: a, ctx: ctx, query: VerifyQuery{Proof: ProofQuery{Dir: audit.OpenDir(mem, "/data/audit"), Node: l.Node()}}, led: newLedger()}
	if err := v.eachLog(func(string) func(audit.Entry) {
		return func(e audit.Entry) { got[string(e.Kind)+" "+e.Result]++ }
	}); err != nil {
		t.Fatal(err)
	}
	if got["recording.held done"] < 3 || got["recording.released done"] < 2 || got["recording.released refused"] < 1 {
		t.Errorf("the log has %v", got)
	}
}

// TestLegalHoldRefused: what is asked for in the wrong words, or of what is not there,
// changes nothing.
func TestLegalHoldRefused(t *testing.T) {
	mem := vfstest.NewMem()
	a := retaining(t, mem, newMemCatalog(), allSoon)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	files := len(mem.Files())
	long := strings.Repeat("x", holdReasonMax+1)
	var refused *recorder.RefusedError
	for _, o := range []HoldOrder{
		{Recording: testID, Reason: "r"},
		{Recording: testID, Name: "n"},
		{Recording: testID, Name: "a:b", Reason: "r"},
		{Recording: testID, Name: "a\nb", Reason: "r"},
		{Recording: testID, Name: long[:holdNameMax+1], Reason: "r"},
		{Recording: testID, Name: "n", Reason: long},
		{Recording: testID, Name: "n", Reason: "\xff"},
	} {
		if err := a.PlaceHold(context.Background(), o); !errors.As(err, &refused) {
			t.Errorf("%.80v: %v", o, err)
		}
	}
	if err := a.PlaceHold(context.Background(), HoldOrder{Recording: idOf(9), Name: "n", Reason: "r"}); !errors.Is(err, recorder.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	sink, err := a.NewSink(context.Background(), idOf(7), newTestCall(idOf(7), codec.WAVPCMU).prefix())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.PlaceHold(context.Background(), HoldOrder{Recording: idOf(7), Name: "n", Reason: "r"}); !errors.As(err, &refused) {
		t.Errorf("one that goes on: %v", err)
	}
	_ = sink.Close()
	for i := range holdsMax + 1 {
		err = a.PlaceHold(context.Background(), HoldOrder{Recording: testID, Name: fmt.Sprint(i), Reason: "r"})
	}
	if !errors.As(err, &refused) || len(mem.Files()) != files+holdsMax {
		t.Errorf("beyond the limit: %v; %d files, %d before", err, len(mem.Files()), files)
	}
}

// TestLegalHoldDamaged: a hold that cannot be read, or is another recording's, counts as one.
func TestLegalHoldDamaged(t *testing.T) {
	for _, content := range []string{"{", `{"version":1,"recording":"other","holds":[]}`, `{"version":2,"recording":"` + testID + `","holds":[]}`, ""} {
		mem := vfstest.NewMem()
		a := retaining(t, mem, newMemCatalog(), allSoon)
		record(t, a, newTestCall(testID, codec.WAVPCMU))
		name := []string{segment.HoldFile, segment.HoldName("case")}[len(content)%2]
		mustPutFile(t, mem, "/data/store/"+testPrefix+"/"+name, []byte(content))
		if r := mustExpire(t, a, ExpireQuery{}); r.Deleted != 0 || r.Unreadable != 1 {
			t.Errorf("%q: %+v", content, r)
		}
		if _, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "case", By: "x"}); !errors.Is(err, recorder.ErrTampered) {
			t.Errorf("%q: shred: %v", content, err)
		}
		v, err := a.Verify(context.Background(), VerifyQuery{IDs: []string{testID}}, nil)
		if err != nil || len(v.Findings) != 1 || v.Findings[0].File != name || v.Findings[0].Fault != FaultAltered {
			t.Errorf("%q: %+v, %v", content, v.Findings, err)
		}
	}
}

// TestLegalHoldCrash: at every operation of a hold the recording is whole, and what was
// promised is there.
func TestLegalHoldCrash(t *testing.T) {
	base, cat := vfstest.NewMem(), newMemCatalog()
	record(t, retaining(t, base, cat, allSoon), newTestCall(testID, codec.WAVPCMU))
	for _, kind := range []vfstest.Kind{vfstest.Crash, vfstest.Fail} {
		for n := 1; ; n++ {
			disk, cat := base.CrashClone(uint64(n)), cat.clone()
			f := &vfstest.Faults{FS: disk, At: n, Kind: kind, Err: syscall.EIO}
			done := false
			if a, err := Open(Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: f, Sealer: testSealer(), Catalog: cat}); err == nil {
				done = a.PlaceHold(context.Background(), order("case")) == nil
			}
			b := retaining(t, disk.CrashClone(uint64(n)), cat, allSoon)
			mustVerify(t, b, f.Hit())
			if _, err := b.CatchUp(context.Background()); err != nil {
				t.Fatalf("%s: %v", f.Hit(), err)
			}
			if r := mustExpire(t, b, ExpireQuery{}); done && r.Held != 1 || r.Held+r.Deleted != 1 {
				t.Fatalf("%s: promised %v, %+v", f.Hit(), done, r)
			}
			if f.Hit() == "" {
				break
			}
		}
	}
}

// TestHoldOfDeleted: a hold that comes behind the manifest's deletion by another node is
// refused, and leaves nothing.
func TestHoldOfDeleted(t *testing.T) {
	mem := vfstest.NewMem()
	a := retaining(t, mem, newMemCatalog(), allSoon)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	a.shelves[0].store = deletedBeside{a.shelves[0].store}
	err := a.PlaceHold(context.Background(), order("case"))
	var refused *recorder.RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("%v, want refused", err)
	}
	for _, name := range mem.Files() {
		if strings.Contains(name, segment.HoldFile) {
			t.Errorf("%s is left", name)
		}
	}
}

// deletedBeside is a store in which another node deletes a recording while it is held.
type deletedBeside struct{ recorder.Store }

func (s deletedBeside) Put(ctx context.Context, name string, content []byte) error {
	if err := s.Delete(ctx, path.Join(path.Dir(name), segment.ManifestFile)); err != nil {
		return err
	}
	return s.Store.Put(ctx, name, content)
}

// holdBeside is a store in which another node does something right before something is written.
type holdBeside struct {
	recorder.Store
	before func()
}

func (s holdBeside) Put(ctx context.Context, name string, content []byte) error {
	s.before()
	return s.Store.Put(ctx, name, content)
}

func (s holdBeside) Delete(ctx context.Context, name string) error {
	s.before()
	return s.Store.Delete(ctx, name)
}

// TestHoldsOfTwoNodes: two nodes change the holds of one recording at the same time; both count.
func TestHoldsOfTwoNodes(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := retaining(t, mem, cat, allSoon)
	b := retaining(t, mem, cat, allSoon, func(c *Config) { c.SpoolDir, c.Node = "/other/spool", "rec-b" })
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	plain := a.shelves[0].store
	beside := func(name string, do func(context.Context, HoldOrder) error) {
		did := false
		a.shelves[0].store = holdBeside{plain, func() {
			if !did {
				did = true
				if err := do(context.Background(), order(name)); err != nil {
					t.Error(err)
				}
			}
		}}
	}
	must := func(err error, want ...string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		holds, err := a.Holds(context.Background(), testID)
		var names []string
		for _, h := range holds {
			names = append(names, h.Name)
		}
		slices.Sort(names)
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("held for %q, %v; want %q", names, err, want)
		}
		mustVerify(t, a, "held")
	}
	beside("b", b.PlaceHold)
	must(a.PlaceHold(context.Background(), order("a")), "a", "b")
	beside("c", b.PlaceHold)
	must(a.ReleaseHold(context.Background(), order("a")), "b", "c")
	beside("c", b.ReleaseHold)
	must(a.PlaceHold(context.Background(), order("d")), "b", "d")
}

// TestHoldsTogether: an object with several holds, as they were written before; one that is
// released leaves the others. A store that deletes nothing for now is told what is left.
func TestHoldsTogether(t *testing.T) {
	mem := vfstest.NewMem()
	a := retaining(t, mem, newMemCatalog(), allSoon)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	mustPutFile(t, mem, "/data/store/"+testPrefix+"/"+segment.HoldFile,
		[]byte(`{"version":1,"recording":"`+testID+`","holds":[{"name":"one","reason":"r"},{"name":"two","reason":"r"}]}`))
	if err := errors.Join(a.PlaceHold(context.Background(), order("two")), a.ReleaseHold(context.Background(), order("one"))); err != nil {
		t.Fatal(err)
	}
	if holds, err := a.Holds(context.Background(), testID); err != nil || len(holds) != 1 || holds[0].Name != "two" {
		t.Fatalf("%+v, %v", holds, err)
	}
	a.shelves[0].store = &lockedStore{Store: a.shelves[0].store, until: time.Now().Add(long)}
	if err := a.ReleaseHold(context.Background(), order("two")); err != nil {
		t.Fatal(err)
	}
	if holds, err := a.Holds(context.Background(), testID); err != nil || len(holds) != 0 {
		t.Errorf("%+v, %v", holds, err)
	}
	mustVerify(t, a, "released")
}

// TestVerifyHoldOfShredded: what is left of a hold that a store did not let go is no object too
// many where the recording cannot be opened: it was shredded.
func TestVerifyHoldOfShredded(t *testing.T) {
	mem := vfstest.NewMem()
	a := retaining(t, mem, newMemCatalog(), allSoon)
	_ = mustProve(t, a, mem)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	plain := a.shelves[0].store
	a.shelves[0].store = &lockedStore{Store: plain, until: time.Now().Add(long)}
	if err := errors.Join(a.PlaceHold(context.Background(), order("case")), a.ReleaseHold(context.Background(), order("case"))); err != nil {
		t.Fatal(err)
	}
	a.shelves[0].store = plain
	if _, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "asked", By: "x"}); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, a, "shredded")
}
