package catalog

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"github.com/trunktap/trunktap/recorder"
)

// stalling is an engine of which each n-th statement takes too long.
type stalling struct {
	engine
	n, done int
}

func (e *stalling) sorted(ctx context.Context, db *bun.DB, q *bun.SelectQuery, order string, limit int64) ([]hit, error) {
	if e.done++; e.done%e.n == 0 {
		return nil, context.DeadlineExceeded
	}
	return e.engine.sorted(ctx, db, q, order, limit)
}

// TestTooSlow: a step that takes too long ends a page, which says that it is partial; the
// pages behind it have the rest. The first step is an error.
func TestTooSlow(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) {
		c := open()
		for i := range 40 {
			r := testRow(i)
			r.Manifest.RealMS = classLeast[i]
			if err := c.Save(context.Background(), r); err != nil {
				t.Fatal(err)
			}
		}
		q := recorder.Query{Kind: recorder.KindTrunk, DurationMax: 24 * time.Hour}
		for _, q.Order = range []string{recorder.OrderNewest, recorder.OrderOldest, recorder.OrderLongest, recorder.OrderShortest} {
			c.pace = paceDefault
			c.pace.budget = testBudget
			want := pages(t, c, q)
			slow := &stalling{engine: c.e, n: 2}
			// One step of a page is done, and the second takes too long.
			c.e, c.pace = slow, pace{budget: testBudget, firstStep: 1, lazyShare: -1, lazyPart: 0.05}
			page, err := c.Find(context.Background(), q)
			if err != nil || slow.done != slow.n || !page.Partial || page.Next == "" {
				t.Errorf("%s: %d steps, partial %v, next %q, %v", q.Order, slow.done, page.Partial, page.Next, err)
			}
			var got []string
			for at, more := q, true; more; more = at.Cursor != "" {
				slow.done = 0
				p, err := c.Find(context.Background(), at)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range p.Rows {
					got = append(got, r.Manifest.ID)
				}
				at.Cursor = p.Next
			}
			if d := gocmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", q.Order, d)
			}
			slow.n, slow.done = 1, 0
			if _, err := c.Find(context.Background(), q); err == nil {
				t.Errorf("%s: no error when the first step takes too long", q.Order)
			}
			c.e = slow.engine
		}
	})
}

// TestSQLiteSortsNothing: FTS5 gives rows in the order of their keys, so that a page's
// end ends the search, with and without looking at rows.
func TestSQLiteSortsNothing(t *testing.T) {
	c := mustOpen(t, filepath.Join(t.TempDir(), "c.db"))
	must := []match{{term: term(termKind, "trunk"), short: true}}
	for _, q := range []func() *bun.SelectQuery{
		func() *bun.SelectQuery { return c.e.byTerms(c.db, must) },
		func() *bun.SelectQuery { return c.e.byTerms(c.db, must).Where("r.gap_ms = 0") },
		func() *bun.SelectQuery { return c.e.keysByTerms(c.db, must) },
	} {
		for _, order := range []string{"key ASC", "key DESC"} {
			for _, detail := range plan(t, c, c.e.within(q(), 1, 1000).OrderExpr(order).Limit(3)) {
				if strings.Contains(detail, "TEMP B-TREE") {
					t.Errorf("%s: %s", order, detail)
				}
			}
		}
	}
}

// TestSQLiteWalksDurations: their index is gone through, and not all keys that are asked for.
func TestSQLiteWalksDurations(t *testing.T) {
	c := mustOpen(t, filepath.Join(t.TempDir(), "c.db"))
	s, err := c.plan.compile(&recorder.Query{Trunk: "a", Order: recorder.OrderLongest})
	if err != nil {
		t.Fatal(err)
	}
	w := walk{c: c, s: s}
	q := w.rows(c.e.byDurations(c.db)).Where("r.key >= ? AND r.key < ?", s.lo, s.hi).OrderExpr("r.real_ms ?, r.key ?", w.way(), w.way()).Limit(3)
	for _, detail := range plan(t, c, q) {
		if strings.Contains(detail, "TEMP B-TREE") || !strings.Contains(detail, "recordings_duration") {
			t.Error(detail)
		}
	}
}

// plan is how SQLite means to run a query.
func plan(t *testing.T, c *Catalog, q *bun.SelectQuery) (details []string) {
	t.Helper()
	var plan []struct {
		ID, Parent, Notused int
		Detail              string
	}
	if err := c.db.NewRaw("EXPLAIN QUERY PLAN ?", q).Scan(t.Context(), &plan); err != nil {
		t.Fatal(err)
	}
	for _, p := range plan {
		details = append(details, p.Detail)
	}
	return details
}
