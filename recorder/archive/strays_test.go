package archive

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
)

// sweepWorld is an archive in directories of this machine, whose files have ages,
// with two recordings.
func sweepWorld(t *testing.T) (*Archive, string, *memCatalog) {
	t.Helper()
	dir, cat := t.TempDir(), newMemCatalog()
	a, err := Open(Config{
		StoreDir: filepath.Join(dir, "store"), SpoolDir: filepath.Join(dir, "spool"), Sealer: testSealer(), Catalog: cat,
	})
	if err != nil {
		t.Fatal(err)
	}
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	record(t, a, newTestCall(testID[:len(testID)-1]+"1", codec.WAVPCMU))
	return a, dir, cat
}

// putOld makes a file that is so old.
func putOld(t *testing.T, age time.Duration, elem ...string) {
	t.Helper()
	name := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("some bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age)
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
}

// TestSweep: everything that is too much or missing is told; only what is
// provably nobody's and old enough goes, and only when asked.
func TestSweep(t *testing.T) {
	a, dir, cat := sweepWorld(t)
	ctx := context.Background()
	if r, err := a.Sweep(ctx, true); err != nil || len(r.Strays) > 0 || r.Recordings != 2 || r.Deleted > 0 {
		t.Fatalf("clean: %+v, %v", r, err)
	}
	day, store := 25*time.Hour, filepath.Join(dir, "store")
	other := filepath.Join(store, "2026/11/22/0123456789abcdef01234567/20261122T000000Z-lost")
	putOld(t, day, store, testPrefix, "0009.seg")       // not named, old: goes
	putOld(t, time.Hour, store, testPrefix, "0008.seg") // not named, and young: stays
	putOld(t, day, store, testPrefix, "notes.txt")      // not ours to judge
	putOld(t, day, other, "0001.seg")                   // audio without a manifest: stays
	putOld(t, day, store, "2026/11/.tmp-x")             // torn: goes
	putOld(t, time.Hour, store, "2026/11/.tmp-young")
	putOld(t, day, store, "catalog/backup.db") // somebody else's
	putOld(t, day, dir, "spool", ".tmp-torn")  // goes
	putOld(t, day, dir, "spool/quarantine/x-0001.seg")
	lost := cat.rows[testID]
	lost.Manifest.ID, lost.Prefix = "20261122T000000Z-gone", "2026/11/22/20261122T000000Z-gone"
	cat.rows[lost.Manifest.ID] = lost
	second := testID[:len(testID)-1] + "1"
	row := cat.rows[second]
	delete(cat.rows, second)
	segment := filepath.Join(store, testPrefix, "0002.seg")
	if err := os.Rename(segment, segment+".away"); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{
		StrayUnnamed: 1, StrayNoManifest: 1, StrayTemp: 2, StrayNoRow: 1, StrayNoObject: 1, StrayMissing: 1, StrayQuarantine: 1,
	}
	for _, remove := range []bool{false, true} {
		r, err := a.Sweep(ctx, remove)
		if err != nil || a.Swept() == nil {
			t.Fatal(err)
		}
		for _, c := range StrayClasses {
			if r.Counts[c] != want[c] {
				t.Errorf("remove %v: %d of %s, want %d", remove, r.Counts[c], c, want[c])
			}
		}
		if r.Other != 1 || (r.Deleted == 3) != remove || (r.Deleted == 0) == remove {
			t.Errorf("remove %v: %+v", remove, r)
		}
	}
	if err := os.Rename(segment+".away", segment); err != nil {
		t.Fatal(err)
	}
	cat.rows[second] = row
	for name, gone := range map[string]bool{
		testPrefix + "/0009.seg": true, "2026/11/.tmp-x": true, testPrefix + "/0008.seg": false, testPrefix + "/notes.txt": false,
		"2026/11/.tmp-young": false, "catalog/backup.db": false, testPrefix + "/0001.seg": false,
	} {
		if _, err := os.Stat(filepath.Join(store, name)); os.IsNotExist(err) != gone {
			t.Errorf("%s: gone %v, want %v", name, !gone, gone)
		}
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("audio without a manifest was deleted: %v", err)
	}
}

// TestSweepWaits: what is being recorded, waits for its store, or is coded anew, is
// no stray, however old it looks.
func TestSweepWaits(t *testing.T) {
	a, dir, _ := sweepWorld(t)
	ctx := context.Background()
	id := testID[:len(testID)-1] + "2"
	sink, err := a.NewSink(ctx, id, "2026/11/22/"+id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sink.Close() }() // nothing is promised
	putOld(t, 48*time.Hour, dir, "store/2026/11/22", id, "0001.seg")
	putOld(t, 48*time.Hour, dir, "store", testPrefix, "0001-opus.seg")
	if err := a.writeJob(&job{Version: 1, Recording: testID, Prefix: testPrefix}); err != nil {
		t.Fatal(err)
	}
	if r, err := a.Sweep(ctx, true); err != nil || len(r.Strays) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := a.dropJob(&job{Recording: testID}); err != nil {
		t.Fatal(err)
	}
	if r, err := a.Sweep(ctx, true); err != nil || r.Counts[StrayUnnamed] != 1 || r.Deleted != 1 {
		t.Errorf("without its job: %+v, %v", r, err)
	}
	m, err := a.Get(ctx, testID)
	if err != nil || len(m.Segments) == 0 {
		t.Fatal(err)
	}
	mustVerifyOne(t, a, testID)
}

func mustVerifyOne(t *testing.T, a *Archive, id string) {
	t.Helper()
	if r, err := a.Verify(context.Background(), VerifyQuery{IDs: []string{id}}, nil); err != nil || !r.OK() {
		t.Errorf("%+v, %v", r.Findings, err)
	}
}

// TestSweepStoreDown: a store that cannot be read is told, the others are swept.
func TestSweepStoreDown(t *testing.T) {
	a, _, _ := sweepWorld(t)
	r := newRemote(a.fsys)
	r.down = true
	a.shelves = append(a.shelves, &shelf{name: "far", store: r, queue: newQueue(a, &shelf{name: "far"})})
	got, err := a.Sweep(context.Background(), false)
	if err != nil || got.Recordings != 2 || got.Counts[StrayStore] != 1 || got.Counts[StrayNoObject] != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
