package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
)

func mustOpen(t testing.TB, path string) *Catalog {
	t.Helper()
	c, err := Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

var epoch = time.Date(2026, 11, 22, 16, 0, 0, 123456789, time.UTC)

// testRow is the i-th of a set in which every field takes some values; several
// share an origin.
func testRow(i int) recorder.Row {
	m := recorder.Manifest{
		Version: 1, ID: fmt.Sprintf("20261122T160000Z-%04d", i), Conversation: fmt.Sprintf("conv%d", i%7), Kind: recorder.KindTrunk,
		Trunk: fmt.Sprintf("trunk-%d", i%3), Format: "ogg-opus", SampleRate: 8000, RealMS: int64(i) * 10, AudioMS: int64(i) * 5,
		Call: recorder.Call{
			SIPCallID: fmt.Sprintf("call%d@example.net", i%11), Direction: "inbound", From: fmt.Sprintf("sip:+4930%04d@Example.net", i),
			To: fmt.Sprintf("sip:agent_%d%%@pbx", i%5), Start: epoch.Add(time.Duration(i/4) * time.Second),
		},
		Windows: []recorder.Window{{Reason: "hold", RealMS: 1, EndRealMS: 2}},
	}
	if i%9 != 0 { // the others were never answered
		m.Origin = m.Call.Start.Add(3 * time.Second)
	}
	if i%4 == 0 {
		m.Kind, m.User = recorder.KindConsult, fmt.Sprintf("Agent %d'", i%3)
	}
	return recorder.Row{Manifest: m, Prefix: "2026/11/22/" + m.ID}
}

func originOf(r recorder.Row) time.Time {
	if r.Manifest.Origin.IsZero() {
		return r.Manifest.Call.Start
	}
	return r.Manifest.Origin
}

func fill(t testing.TB, c *Catalog, n int) []recorder.Row {
	t.Helper()
	var rows []recorder.Row
	for i := range n {
		rows = append(rows, testRow(i))
	}
	if err := c.SaveAll(context.Background(), rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestSaveGetDelete(t *testing.T) { eachEngine(t, testSaveGetDelete) }

func testSaveGetDelete(t *testing.T, open func() *Catalog) {
	c := open()
	ctx := context.Background()
	want := testRow(5)
	if _, err := c.Get(ctx, want.Manifest.ID); !errors.Is(err, recorder.ErrNotFound) {
		t.Errorf("Get before Save: %v", err)
	}
	for _, ms := range []int64{1, 2} {
		want.Manifest.RealMS = ms
		if err := c.Save(ctx, want); err != nil {
			t.Fatal(err)
		}
		got, err := c.Get(ctx, want.Manifest.ID)
		if err != nil {
			t.Fatal(err)
		}
		if d := gocmp.Diff(want, got); d != "" {
			t.Errorf("Get (-want +got):\n%s", d)
		}
	}
	again := open() // another process
	if _, err := again.Get(ctx, want.Manifest.ID); err != nil {
		t.Errorf("Get by another process: %v", err)
	}
	if err := c.Delete(ctx, want.Manifest.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, want.Manifest.ID); !errors.Is(err, recorder.ErrNotFound) {
		t.Errorf("Delete again: %v", err)
	}
}

func TestFileName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a dir?", "c#%.db")
	mustOpen(t, path)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file has another name: %v", err)
	}
}

// TestPagesWhileWriting reads pages while rows come: none that was there
// before may be missing or come twice.
func TestPagesWhileWriting(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) { testPagesWhileWriting(t, open()) })
}

func testPagesWhileWriting(t *testing.T, c *Catalog) {
	before := fill(t, c, 60)
	seen := map[string]int{}
	q := recorder.Query{Limit: 7}
	for i := 60; ; i++ {
		p, err := c.Find(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Rows {
			seen[r.Manifest.ID]++
		}
		if p.Next == "" {
			break
		}
		q.Cursor = p.Next
		r := testRow(i)
		r.Manifest.Origin = epoch.Add(time.Duration(rand.IntN(30)) * time.Second)
		if err := c.Save(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range before {
		if seen[r.Manifest.ID] != 1 {
			t.Errorf("%s seen %d times", r.Manifest.ID, seen[r.Manifest.ID])
		}
	}
}

func TestCheckLeavesNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) { testCheckLeavesNothing(t, open()) })
}

func testCheckLeavesNothing(t *testing.T, c *Catalog) {
	if err := c.Check(context.Background()); err != nil {
		t.Fatal(err)
	}
	p, err := c.Find(context.Background(), recorder.Query{})
	if err != nil || len(p.Rows) != 0 {
		t.Errorf("after Check: %d rows, %v", len(p.Rows), err)
	}
}

// TestLocked holds the write lock from outside: every write ends with an error
// that says so within the bound, and reads go on.
func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	c := mustOpen(t, path)
	fill(t, c, 3)
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	other.SetMaxOpenConns(1)
	if _, err := other.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	start := time.Now()
	for range 3 { // they queue up, and still are bounded
		wg.Go(func() {
			err := c.Save(context.Background(), testRow(9))
			var ce *Error
			if !errors.As(err, &ce) || !strings.Contains(ce.Hint, "another process") {
				t.Errorf("Save: %v, want an *Error that names the lock", err)
			}
		})
	}
	wg.Go(func() {
		if err := c.Check(context.Background()); err == nil {
			t.Error("Check of a locked catalogue succeeded")
		}
	})
	if _, err := c.Get(context.Background(), testRow(1).Manifest.ID); err != nil {
		t.Errorf("Get beside the lock: %v", err)
	}
	wg.Wait()
	if d := time.Since(start); d > callTimeout+time.Second {
		t.Errorf("took %v, want at most %v", d, callTimeout)
	}
	if _, err := other.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := c.Save(context.Background(), testRow(9)); err != nil {
		t.Errorf("after the lock: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"no database": file, "below a file": file + "/c.db", "a directory": dir} {
		_, err := Open(context.Background(), path)
		var ce *Error
		if !errors.As(err, &ce) || ce.Hint == "" || ce.Path != path {
			t.Errorf("%s: %v, want an *Error with path and hint", name, err)
		}
	}
}

func TestModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	c := mustOpen(t, path)
	fill(t, c, 1)
	for _, ext := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + ext)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("c.db%s has mode %04o", ext, info.Mode().Perm())
		}
	}
}

func TestFileURL(t *testing.T) {
	for raw, want := range map[string]string{
		"sqlite:///var/lib/trunktap/catalog.db": "/var/lib/trunktap/catalog.db", "sqlite://x/y": "", "sqlite:y": "",
		"postgres:///x": "", "sqlite:///x?mode=ro": "",
	} {
		if got, err := FileURL(raw); got != want || (err == nil) != (want != "") {
			t.Errorf("FileURL(%q) = %q, %v", raw, got, err)
		}
	}
}

func BenchmarkSave(b *testing.B) {
	c := mustOpen(b, filepath.Join(b.TempDir(), "c.db"))
	for i := 0; b.Loop(); i++ {
		if err := c.Save(context.Background(), testRow(i%1000)); err != nil {
			b.Fatal(err)
		}
	}
}
