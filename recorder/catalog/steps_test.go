package catalog

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/recorder"
)

// stalling is an engine of which each n-th statement takes too long.
type stalling struct {
	engine
	n, done int
}

func (e *stalling) sorted(ctx context.Context, db bun.IDB, q *bun.SelectQuery, order string, limit int64) ([]hit, error) {
	if e.done++; e.done%e.n == 0 {
		return nil, context.DeadlineExceeded
	}
	return e.engine.sorted(ctx, db, q, order, limit)
}

// fillClasses saves a recording of each of the first classes of durations.
func fillClasses(t *testing.T, c *Catalog) {
	t.Helper()
	for i := range 40 {
		r := testRow(i)
		r.Manifest.RealMS = classLeast[i]
		if err := c.Save(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTooSlow: a step that takes too long ends a page, which says that it is partial; the
// pages behind it have the rest. The first step is an error.
func TestTooSlow(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) {
		c := open()
		fillClasses(t, c)
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
	q := w.rows(c.e.byDurations(c.db)).Where("r.key >= ? AND r.key < ?", s.lo, s.hi).OrderExpr(w.durationOrder()).Limit(3)
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

// endless is an engine whose steps behind the first would never end.
type endless struct {
	engine
	statement string
	done      int
}

func (e *endless) sorted(ctx context.Context, db bun.IDB, q *bun.SelectQuery, order string, limit int64) ([]hit, error) {
	if e.done++; e.done == 1 {
		return e.engine.sorted(ctx, db, q, order, limit)
	}
	var n int64
	return nil, db.NewRaw(e.statement).Scan(ctx, &n)
}

// TestStepsEndWithTheirTime: a step that is not the first ends with the time of its page, at
// the server as well, and its connection goes on.
func TestStepsEndWithTheirTime(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) {
		c := open()
		fillClasses(t, c)
		before := backends(t, c)
		slow := &endless{engine: c.e, statement: "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT count(*) FROM t"}
		if before != nil {
			slow.statement = "SELECT count(*) FROM pg_sleep(600)"
		}
		c.e, c.pace = slow, pace{budget: 300 * time.Millisecond, firstStep: 1, lazyShare: -1, lazyPart: 0.05}
		for _, order := range []string{recorder.OrderNewest, recorder.OrderLongest} {
			slow.done = 0
			p, err := c.Find(context.Background(), recorder.Query{Kind: recorder.KindTrunk, DurationMax: 24 * time.Hour, Order: order})
			if err != nil || slow.done < 2 || !p.Partial || p.Next == "" {
				t.Errorf("%s: %d steps, partial %v, next %q, %v", order, slow.done, p.Partial, p.Next, err)
			}
		}
		c.e = slow.engine
		for pid := range backends(t, c) {
			if !before[pid] {
				t.Errorf("another connection was made, or a statement goes on in it")
			}
		}
	})
}

// backends are the connections of PostgreSQL to this database, nil with SQLite.
func backends(t *testing.T, c *Catalog) map[int64]bool {
	t.Helper()
	if _, ok := c.e.(*postgresEngine); !ok {
		return nil
	}
	var list []int64
	if err := c.db.NewRaw("SELECT pid FROM pg_stat_activity WHERE datname = current_database()").Scan(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	out := map[int64]bool{}
	for _, pid := range list {
		out[pid] = true
	}
	return out
}

// TestSpansAround: the spans that are named hold all keys, are few, and not many times as
// long as what is asked for.
func TestSpansAround(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Int64Range(-hourUS*50_000, hourUS*900_000).Draw(t, "from")
		to := from + 1 + rapid.Int64Range(0, hourUS*rapid.SampledFrom([]int64{1, 30, 900, 60_000}).Draw(t, "hours")).Draw(t, "length")
		most := rapid.IntRange(2, 12).Draw(t, "most")
		or := spansAround(from, to, most)
		if or == nil {
			if (to-from)/hourUS < 4096 {
				t.Fatal("nothing is named for a short span")
			}
			return
		}
		if len(or) > most {
			t.Fatalf("%d spans, at most %d are wanted", len(or), most)
		}
		for _, key := range []int64{from, to - 1, from + (to-from)/2, rapid.Int64Range(from, to-1).Draw(t, "key")} {
			if !slices.ContainsFunc(timeTerms(key), func(x string) bool { return slices.Contains(or, x) }) {
				t.Fatalf("%d is in none of %v", key, or)
			}
		}
		for _, far := range []int64{from - 16*(to-from+hourUS), to + 16*(to-from+hourUS)} {
			if slices.ContainsFunc(timeTerms(far), func(x string) bool { return slices.Contains(or, x) }) {
				t.Fatalf("%d is far from [%d, %d) and in %v", far, from, to, or)
			}
		}
	})
}

// TestSortedLate: where beginnings of words are looked up in manifests, and few rows are of
// the time asked for, these are not all that is found.
func TestSortedLate(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) {
		c := open()
		var rows []recorder.Row
		for i := range 40 {
			r := testRow(i)
			r.Manifest.Attrs = map[string]string{"note": []string{"alpha", "beta"}[i%2]}
			rows = append(rows, r)
		}
		if err := c.SaveAll(context.Background(), rows); err != nil {
			t.Fatal(err)
		}
		for _, order := range []string{recorder.OrderShortest, recorder.OrderLongest} {
			q := recorder.Query{Text: "al*", To: epoch.Add(1000 * time.Hour), Order: order, Limit: 3}
			got := pages(t, c, q)
			if d := gocmp.Diff(sorted(naive(rows, q)), sorted(got)); d != "" || len(got) != 20 {
				t.Errorf("%s (-want +got):\n%s", order, d)
			}
		}
	})
}

// TestExpand: beginnings of few terms are sought as these, others as beginnings.
func TestExpand(t *testing.T) {
	c := mustOpen(t, filepath.Join(t.TempDir(), "c.db"))
	var rows []recorder.Row
	for i := range 12 {
		r := testRow(i)
		r.Manifest.Attrs = map[string]string{"note": []string{"alpha", "alpine", "always", "beta"}[i%4]}
		rows = append(rows, r)
	}
	if err := c.SaveAll(context.Background(), rows); err != nil {
		t.Fatal(err)
	}
	word := func(s string) match { return match{term: term(termWord, s), prefix: true} }
	for _, x := range []struct {
		begin string
		most  int
		want  []string // nil: it stays
	}{
		{"alp", 2, []string{"xalpha", "xalpine"}},
		{"al", 3, []string{"xalpha", "xalpine", "xalways"}},
		{"al", 2, nil},
		{"al", 0, nil},
		{"zz", 3, nil},
		{"beta", 3, []string{"xbeta"}},
	} {
		m := word(x.begin)
		got, wide := c.e.expand(context.Background(), c.db, []match{m}, x.most)
		if want := (match{or: x.want}); x.want != nil {
			m = want
		}
		if d := gocmp.Diff([]match{m}, got, gocmp.AllowUnexported(match{})); d != "" || !wide {
			t.Errorf("%s, at most %d: %s", x.begin, x.most, d)
		}
	}
}
