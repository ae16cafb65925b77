package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/pressly/goose/v3"

	"github.com/trunktap/trunktap/recorder"
)

// mustMigrate makes a catalogue as the version before knew it and returns it open.
func mustMigrate(t *testing.T, path string, version int64) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(context.Background(), version); err != nil {
		t.Fatal(err)
	}
	return db
}

// mustInsert writes a row as the first version did, which knew no users.
func mustInsert(t *testing.T, db *sql.DB, r recorder.Row, manifest string) {
	t.Helper()
	m := &r.Manifest
	_, err := db.Exec(`INSERT INTO recordings (id, conversation, kind, trunk, sip_call_id, from_uri, to_uri, direction,
		origin_ns, start_ns, real_ms, audio_ms, prefix, manifest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		m.ID, m.Conversation, string(m.Kind), m.Trunk, m.Call.SIPCallID, m.Call.From, m.Call.To, m.Call.Direction,
		originOf(r).UnixNano(), m.Call.Start.UnixNano(), m.RealMS, m.AudioMS, r.Prefix, manifest)
	if err != nil {
		t.Fatal(err)
	}
}

// TestOpenFirstVersion opens a catalogue of the version that had no users: its
// rows are all there, with the users that their manifests name.
func TestOpenFirstVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	db := mustMigrate(t, path, 1)
	var rows []recorder.Row
	for i := range 24 {
		r := testRow(i)
		js, err := json.Marshal(r.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
		mustInsert(t, db, r, string(js))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		c := mustOpen(t, path)
		for _, q := range []recorder.Query{{}, {User: "Agent 1'"}, {Kind: recorder.KindConsult}, {User: "none"}} {
			if d := gocmp.Diff(naive(rows, q), pages(t, c, q)); d != "" {
				t.Errorf("%+v (-want +got):\n%s", q, d)
			}
		}
	}
	c := mustOpen(t, path)
	if got, err := c.Get(context.Background(), rows[4].Manifest.ID); err != nil || gocmp.Diff(rows[4], got) != "" {
		t.Errorf("Get: %v\n%s", err, gocmp.Diff(rows[4], got))
	}
	if err := c.Save(context.Background(), testRow(30)); err != nil {
		t.Error(err)
	}
}

// TestOpenFirstVersionWithDamage: a row whose manifest is damaged stands in
// nobody's way; rebuild mends it.
func TestOpenFirstVersionWithDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	db := mustMigrate(t, path, 1)
	mustInsert(t, db, testRow(0), `{"user":`)
	mustInsert(t, db, testRow(4), `{"id":"x","kind":"consult"}`)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	c := mustOpen(t, path)
	p, err := c.Find(context.Background(), recorder.Query{User: testRow(0).Manifest.User})
	if err != nil || len(p.Rows) != 0 {
		t.Errorf("%d rows, %v", len(p.Rows), err)
	}
	if err := c.Save(context.Background(), testRow(0)); err != nil {
		t.Error(err)
	}
}

// TestOpenWithoutClasses opens catalogues of versions that had no terms of durations, or
// none of hours: what is found by them is found again.
func TestOpenWithoutClasses(t *testing.T) {
	for _, sqlite := range []int{5, 6} {
		testOpenWithoutClasses(t, map[string][]string{
			"sqlite": {"INSERT INTO recordings_terms (recordings_terms) VALUES ('delete-all')", fmt.Sprintf("DELETE FROM goose_db_version WHERE version_id > %d", sqlite)},
			"postgres": {
				"UPDATE recordings SET terms = (SELECT array_to_tsvector(array_agg(t)) FROM unnest(tsvector_to_array(terms)) AS t WHERE t NOT LIKE '2%' AND t NOT LIKE '3%')",
				"DELETE FROM goose_db_version WHERE version_id > 1",
			},
		})
	}
}

func testOpenWithoutClasses(t *testing.T, before map[string][]string) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) {
		c := open()
		fill(t, c, 40)
		old := testRow(40)
		old.Manifest.Origin = time.Date(1969, 12, 31, 23, 30, 0, 0, time.UTC)
		if err := c.Save(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		_, engine, _ := strings.Cut(strings.TrimSuffix(t.Name(), "#01"), "/")
		termsNow := func(c *Catalog) (all []string) {
			if engine == "postgres" {
				if err := c.db.NewRaw("SELECT terms::text FROM recordings ORDER BY key").Scan(t.Context(), &all); err != nil {
					t.Fatal(err)
				}
			}
			return all
		}
		want := termsNow(c)
		for _, s := range before[engine] {
			if _, err := c.db.Exec(s); err != nil {
				t.Fatal(err)
			}
		}
		c = open()
		if d := gocmp.Diff(want, termsNow(c)); d != "" {
			t.Errorf("terms (-want +got):\n%s", d)
		}
		c.pace = pace{budget: 1, firstStep: 1, lazyShare: -1, lazyPart: 0.3}
		for _, order := range []string{recorder.OrderNewest, recorder.OrderLongest} {
			if got := pages(t, c, recorder.Query{Kind: recorder.KindTrunk, Order: order}); len(got) < 10 {
				t.Errorf("%s: %d found", order, len(got))
			}
		}
	})
}

// TestSaveReplacesEveryColumn: what a row is found by is what was saved last.
func TestSaveReplacesEveryColumn(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) { testSaveReplaces(t, open()) })
}

func testSaveReplaces(t *testing.T, c *Catalog) {
	r := testRow(4)
	fill(t, c, 3)
	for _, user := range []string{"alice", "bob", ""} {
		r.Manifest.User = user
		if err := c.Save(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		for _, q := range []string{"alice", "bob"} {
			if found := slices.Contains(pages(t, c, recorder.Query{User: q}), r.Manifest.ID); found != (q == user) {
				t.Errorf("user %q found by %q: %v", user, q, found)
			}
		}
	}
}
