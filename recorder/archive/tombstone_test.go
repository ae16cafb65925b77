package archive

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

const tombKey = "/data/store/" + testPrefix + "/" + segment.KeyFile

// buriedIn is a store in which one of two recordings was shredded and one deleted;
// keyBefore is the file with the key that was destroyed.
func buriedIn(t *testing.T) (mem *vfstest.Mem, keyBefore []byte) {
	t.Helper()
	mem = vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	l := mustProve(t, a, mem)
	for _, id := range []string{testID, idOf(7), idOf(8)} {
		record(t, a, newTestCall(id, codec.WAVPCMU))
	}
	keyBefore, err := vfs.ReadFile(mem, tombKey, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := bury(a, testID); err != nil {
		t.Fatal(err)
	}
	err = l.Append(context.Background(), audit.Entry{Kind: audit.KindDeleted, Recording: idOf(8), Who: "retention", What: "carrier-a keeps 30 days"})
	if err := errors.Join(err, vfs.RemoveAll(mem, "/data/store/2026/11/22/"+idOf(8)), l.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	return mem, keyBefore
}

// forged is a tombstone that the node did not make.
func forged(t *testing.T, id string, at time.Time, link string) []byte {
	t.Helper()
	b, err := segment.KeyRecord{
		Recording: id, Prefix: "2026/11/22/" + id, Created: epoch, Wrapped: epoch, Link: link,
		Shredded: &recorder.Shredded{At: at, Reason: "made up", By: "nobody"},
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustPutFile(t *testing.T, mem *vfstest.Mem, name string, b []byte) {
	t.Helper()
	if err := vfs.WriteFile(mem, name, b); err != nil {
		t.Fatal(err)
	}
}

func linkOf(t *testing.T, mem *vfstest.Mem) string {
	t.Helper()
	b, err := vfs.ReadFile(mem, tombKey, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := segment.ParseKeyRecord(b)
	if err != nil || rec.Link == "" {
		t.Fatalf("%+v, %v", rec, err)
	}
	return rec.Link
}

// TestTombstone: verify tells a shredded recording from a deleted one and from one
// that is missing, and a tombstone of the node from one that somebody made up.
func TestTombstone(t *testing.T) {
	other := "/data/store/2026/11/22/" + idOf(7) + "/" + segment.KeyFile
	late := time.Now()
	for _, c := range []struct {
		name  string
		harm  func(mem *vfstest.Mem, keyBefore []byte)
		fault string // empty: none
		says  []string
	}{
		{"as it was left", func(*vfstest.Mem, []byte) {}, "", []string{"by privacy, reason: case 4711; signed: link 4"}},
		{"another reason", func(mem *vfstest.Mem, _ []byte) {
			mustPutFile(t, mem, tombKey, forged(t, testID, late, linkOf(t, mem)))
		}, FaultAltered, []string{testID, segment.KeyFile}},
		{"of another recording", func(mem *vfstest.Mem, _ []byte) { mustPutFile(t, mem, other, forged(t, idOf(7), late, linkOf(t, mem))) }, FaultAltered, []string{idOf(7), segment.KeyFile}},
		{"made up without a link", func(mem *vfstest.Mem, _ []byte) { mustPutFile(t, mem, other, forged(t, idOf(7), late, "")) }, FaultUnsigned, []string{idOf(7), segment.KeyFile, "no log says so"}},
		{"made up and dated back", func(mem *vfstest.Mem, _ []byte) {
			mustPutFile(t, mem, other, forged(t, idOf(7), epoch.AddDate(-1, 0, 0), ""))
		}, FaultUnsigned, []string{idOf(7)}},
		{"signed by another", func(mem *vfstest.Mem, _ []byte) {
			mustPutFile(t, mem, tombKey, forged(t, testID, late, strings.Replace(linkOf(t, mem), "rec-a ", "rec-b ", 1)))
		}, FaultSignature, []string{testID}},
		{"its signature taken out", func(mem *vfstest.Mem, _ []byte) { mustPutFile(t, mem, tombKey, forged(t, testID, late, "")) }, "", []string{"it is not signed, but entry"}},
		{"the key put back", func(mem *vfstest.Mem, key []byte) { mustPutFile(t, mem, tombKey, key) }, FaultUndone, []string{testID}},
		{"removed", func(mem *vfstest.Mem, _ []byte) { _ = mem.Remove(tombKey) }, FaultMissing, []string{testID, segment.KeyFile, "says that it was shredded; what says so beside it is gone"}},
		{"its folder removed", func(mem *vfstest.Mem, _ []byte) { _ = vfs.RemoveAll(mem, "/data/store/"+testPrefix) }, FaultMissing, []string{testID}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem, key := buriedIn(t)
			c.harm(mem, key)
			r := verifyOn(t, mem, nil)
			text := faults(r)
			for _, n := range r.Notes {
				text += "\n" + n.String()
			}
			if (c.fault == "") != r.OK() || c.fault != "" && !strings.Contains(faults(r), ": "+c.fault+": ") {
				t.Errorf("%v, want %q", r.Findings, c.fault)
			}
			for _, s := range c.says {
				if !strings.Contains(text, s) {
					t.Errorf("%q is not in\n%s", s, text)
				}
			}
		})
	}
}

// TestGone: of single recordings that are nowhere, the log tells which was deleted.
func TestGone(t *testing.T) {
	mem, _ := buriedIn(t)
	if err := vfs.RemoveAll(mem, "/data/store/2026/11/22/"+idOf(7)); err != nil {
		t.Fatal(err)
	}
	ask := func(ids ...string) Report { return verifyOn(t, mem, func(q *VerifyQuery) { q.IDs = ids }) }
	if r := ask(idOf(8)); !r.OK() || len(r.Notes) != 1 || r.Notes[0].Fault != FaultDeleted || !strings.Contains(r.Notes[0].Detail, "by retention: carrier-a keeps 30 days, says entry") {
		t.Errorf("deleted: %v %v", r.Findings, r.Notes)
	}
	if r := ask(idOf(7), idOf(9)); len(r.Findings) != 2 || !strings.Contains(r.Findings[0].Detail, "recording.published at") || r.Findings[1].Fault != FaultMissing {
		t.Errorf("missing: %v %v", r.Findings, r.Notes)
	}
	if r := ask(testID); !r.OK() || len(r.Notes) != 1 || !strings.Contains(r.Notes[0].Detail, "by privacy, reason: case 4711; signed: link 4") {
		t.Errorf("shredded: %v %v", r.Findings, r.Notes)
	}
}

// TestTombstoneOld: one of before there was a log is read, and said to be unsigned.
func TestTombstoneOld(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	if err := errors.Join(bury(a, testID), a.Close()); err != nil {
		t.Fatal(err)
	}
	if r := verifyOn(t, mem, nil); !r.OK() || r.Shredded != 1 || !strings.Contains(r.Notes[len(r.Notes)-1].Detail, "it is not signed") {
		t.Errorf("%v %v", r.Findings, r.Notes)
	}
}

// TestTombstoneWaits: nothing is destroyed that could not be signed for.
func TestTombstoneWaits(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	defer func() { _ = a.Close() }() // only read from then on
	broken := false
	l, err := audit.Open(audit.Config{Dir: "/data/audit", FS: mem, Identity: mustIdentity(t, mem), Checkpoint: time.Hour, Now: logNow, Durable: func(f vfs.File, dirs ...string) error {
		if broken {
			return syscall.EIO
		}
		return vfs.Durable(mem, f, dirs...)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // as above
	a.SetProof(l)
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	broken = true
	if err := bury(a, testID); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("shredded without a trace: %v", err)
	}
	if _, err := a.Get(context.Background(), testID); err != nil {
		t.Errorf("its key is gone: %v", err)
	}
}

// bury shreds a recording.
func bury(a *Archive, id string) error {
	_, err := a.Shred(context.Background(), ShredOrder{Recording: id, Reason: "case 4711", By: "privacy"})
	return err
}

// TestKeyGone: a recording that is asked for without its key is told from a shredded one
// whose tombstone is gone.
func TestKeyGone(t *testing.T) {
	for id, want := range map[string]string{testID: FaultMissing, idOf(7): FaultKeyLost} {
		mem, _ := buriedIn(t)
		if err := mem.Remove("/data/store/2026/11/22/" + id + "/" + segment.KeyFile); err != nil {
			t.Fatal(err)
		}
		for _, q := range []func(*VerifyQuery){nil, func(q *VerifyQuery) { q.IDs = []string{id} }} {
			r := verifyOn(t, mem, q)
			if len(r.Findings) != 1 || r.Findings[0].Fault != want || r.Findings[0].File != segment.KeyFile || r.Unopened != (Unopened{}) {
				t.Errorf("%s: %v, %+v; want %s", id, r.Findings, r.Unopened, want)
			}
		}
	}
}
