package catalog

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"
)

// TestScaleRows: what TestScale measures are rows as Save writes them, although it
// puts them in by other ways.
func TestScaleRows(t *testing.T) {
	const rows = 20 * scaleCopies
	tables := []string{"SELECT * FROM recordings ORDER BY key", "SELECT * FROM manifests ORDER BY key", "SELECT * FROM usage ORDER BY 1, 2, 3, 4, 5, 6"}
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		bulk, saved := mustOpen(t, filepath.Join(dir, "bulk.db")), mustOpen(t, filepath.Join(dir, "saved.db"))
		loadSQLite(t, bulk, rows)
		saveCopies(t, saved, rows, 0)
		for _, c := range []*Catalog{bulk, saved} {
			if _, err := c.db.Exec("CREATE VIRTUAL TABLE v USING fts5vocab(recordings_terms, instance)"); err != nil {
				t.Fatal(err)
			}
		}
		same(t, bulk, saved, append(tables, "SELECT term, doc FROM v ORDER BY 1, 2"))
	})
	t.Run("postgres", func(t *testing.T) {
		pg := mustPG(t)
		var of [2]*Catalog
		var name string
		for i := range of {
			raw, err := pg.NewDatabase()
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			of[i], name = mustOpenURL(t, raw, Options{}), strings.TrimPrefix(u.Path, "/")
		}
		loadPostgres(t, pg, of[1], name, rows)
		saveCopies(t, of[0], rows, 1)
		same(t, of[1], of[0], tables)
	})
}

// saveCopies saves what the load of an engine puts in; apart is by how many microseconds more
// the copies differ.
func saveCopies(t *testing.T, c *Catalog, rows int, apart int64) {
	t.Helper()
	generate(t, rows/scaleCopies, rows, func(base []row) error {
		return c.transact(func(ctx context.Context, tx bun.Tx) error {
			for i := range scaleCopies {
				var copies []row
				for _, r := range base {
					copies = append(copies, scaleCopy(r, i, int64(i)*(scaleSpan.Microseconds()+apart)))
				}
				if err := c.put(ctx, tx, copies); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// same compares what two catalogues answer.
func same(t *testing.T, got, want *Catalog, queries []string) {
	t.Helper()
	for _, q := range queries {
		g, w := rowsOf(t, got, q), rowsOf(t, want, q)
		if d := gocmp.Diff(w, g); d != "" || len(g) == 0 {
			t.Errorf("%s: %d rows (-saved +loaded):\n%.2000s", q, len(g), d)
		}
	}
}

func rowsOf(t *testing.T, c *Catalog, query string) (out []string) {
	t.Helper()
	rows, err := c.db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values := make([]any, len(names))
		into := make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprint(values...))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}
