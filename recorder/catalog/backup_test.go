package catalog

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
)

// TestBackup takes a backup while rows are written, and restores it: every row
// that was there before is there, as it was, and what is stored is accounted for.
func TestBackup(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) {
		c := open()
		before := fill(t, c, 1300)
		var file bytes.Buffer
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 2000; ctx.Err() == nil && i < 4000; i++ {
				if err := c.Save(context.Background(), testRow(i)); err != nil {
					t.Error(err)
				}
			}
		})
		n, err := c.Backup(context.Background(), &file)
		stop()
		wg.Wait()
		if err != nil || n < int64(len(before)) {
			t.Fatalf("%d rows, %v", n, err)
		}
		// A database of the other kind would do as well: the format is the same.
		again := mustOpen(t, filepath.Join(t.TempDir(), "restored.db"))
		for range 2 { // it may be repeated
			if m, err := again.Restore(context.Background(), bytes.NewReader(file.Bytes())); err != nil || m != n {
				t.Fatalf("restored %d of %d rows, %v", m, n, err)
			}
		}
		for _, want := range before {
			got, err := again.Get(context.Background(), want.Manifest.ID)
			if d := gocmp.Diff(want, got); err != nil || d != "" {
				t.Fatalf("%v\n%s", err, d)
			}
		}
		if got := len(pages(t, again, recorder.Query{Limit: 1000})); int64(got) != n {
			t.Errorf("%d rows, want %d", got, n)
		}
		checkUsage(t, again)
		damaged(t, again, file.Bytes())
	})
}

// damaged holds that nothing of an altered backup is restored.
func damaged(t *testing.T, c *Catalog, file []byte) {
	t.Helper()
	flipped := bytes.Replace(file, []byte(`"kind":"consult"`), []byte(`"kind":"station"`), 1)
	for name, b := range map[string][]byte{"a row altered": flipped, "cut": file[:len(file)/2], "without its end": file[:bytes.LastIndex(file[:len(file)-1], []byte("\n"))+1], "empty": nil, "longer": append(bytes.Clone(file), "{}\n"...)} {
		if _, err := c.Restore(context.Background(), bytes.NewReader(b)); !errors.Is(err, ErrBackup) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCopyTo(t *testing.T) {
	dir := t.TempDir()
	c := mustOpen(t, filepath.Join(dir, "c.db"))
	fill(t, c, 50)
	if err := c.CopyTo(context.Background(), filepath.Join(dir, "copy.db")); err != nil {
		t.Fatal(err)
	}
	if got := pages(t, mustOpen(t, filepath.Join(dir, "copy.db")), recorder.Query{Number: "493000"}); len(got) != 50 {
		t.Errorf("%d rows in the copy", len(got))
	}
}

// checkUsage holds that the account is the sum of the rows.
func checkUsage(t *testing.T, c *Catalog) {
	t.Helper()
	want := map[string]recorder.Usage{}
	q := recorder.Query{Limit: 1000}
	for {
		p, err := c.Find(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Rows {
			k := originOf(r).UTC().Format("2006-01-02") + "|" + r.Manifest.Trunk + "|" + r.Manifest.User + "|" + string(r.Manifest.Kind) + "|" + r.Store + "|" + r.Node
			u := want[k]
			u.Recordings++
			u.AudioMS += r.Manifest.AudioMS
			u.ManifestBytes += r.ManifestBytes
			u.OtherBytes += r.OtherBytes
			for _, s := range r.Manifest.Segments {
				u.AudioBytes += s.Bytes
			}
			want[k] = u
		}
		if q.Cursor = p.Next; p.Next == "" {
			break
		}
	}
	rows, err := c.Usage(context.Background(), recorder.UsageQuery{Group: recorder.UsageGroups})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]recorder.Usage{}
	for _, u := range rows {
		k := u.Day + "|" + u.Trunk + "|" + u.User + "|" + string(u.Kind) + "|" + u.Store + "|" + u.Node
		u.Day, u.Trunk, u.User, u.Kind, u.Store, u.Node = "", "", "", "", "", ""
		got[k] = u
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("usage (-want +got):\n%s", d)
	}
}
