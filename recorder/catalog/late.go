package catalog

import (
	"context"
	"slices"
	"strings"

	"github.com/uptrace/bun"
)

const (
	lateStep  = 300 // rows of which the manifests are looked at first
	lateBatch = 50  // manifests that are read at once
)

// common tells whether many of the newest rows have what the search asks for the beginnings of.
func (w *walk) common(ctx context.Context) bool {
	late := prefixes(w.s.must)
	if len(late) == 0 {
		return w.commonRows(ctx)
	}
	var list []hit
	err := recordings.Key.within(w.s.lo, w.s.hi).on(recordings.from(w.c.db).Column(recordings.Key.sql())).
		OrderExpr(recordings.Key.sql()+" DESC").Limit(lateStep).Scan(ctx, &list)
	if err != nil {
		return false
	}
	some := walk{c: w.c, late: late}
	list, err = some.keep(ctx, list, lateStep)
	return err == nil && float64(len(list))*w.c.pace.guessShare >= lateStep
}

// commonRows tells the same where the rows themselves have it.
func (w *walk) commonRows(ctx context.Context) bool {
	newest := recordings.Key.within(w.s.lo, w.s.hi).on(recordings.from(w.c.db)).
		OrderExpr(recordings.Key.sql() + " DESC").Limit(w.c.pace.firstStep)
	some := walk{c: w.c, s: w.s}
	some.lookLate()
	var n int64
	err := some.s.inRows(w.c.e, w.c.db.NewSelect().TableExpr("(?) AS r", newest).ColumnExpr("count(*)"), true).Scan(ctx, &n)
	return err == nil && float64(n)*w.c.pace.rowShare >= float64(w.c.pace.firstStep)
}

// prefixes are those that manifests alone tell.
func prefixes(must []match) []match {
	return slices.DeleteFunc(slices.Clone(must), func(m match) bool { return !m.prefix || m.inRow })
}

// lookLate leaves beginnings of words out of what is searched for, to be looked up in manifests.
func (w *walk) lookLate() {
	s := *w.s
	s.must = slices.DeleteFunc(slices.Clone(s.must), isPrefix)
	w.late = prefixes(w.s.must)
	if w.s = &s; len(w.late) > 0 {
		w.step = min(w.step, lateStep)
	}
}

// scan reads the first rows that q selects, at most so many, and looks into their manifests when
// there is something to be looked up late.
func (w *walk) scan(ctx context.Context, db bun.IDB, q *bun.SelectQuery, most int64) (list []hit, err error) {
	q = q.Conn(db)
	if len(w.late) == 0 {
		err = q.Limit(most).Scan(ctx, &list)
		return list, err
	}
	if err := q.Scan(ctx, &list); err != nil {
		return nil, err
	}
	return w.keep(ctx, list, int(most))
}

// keep drops what has not what is looked up late, and what is beyond most.
func (w *walk) keep(ctx context.Context, list []hit, most int) ([]hit, error) {
	var kept []hit
	for batch := range slices.Chunk(list, lateBatch) {
		byKey, err := w.c.read(ctx, batch)
		if err != nil {
			return nil, err
		}
		for _, h := range batch {
			f := byKey[h.Key]
			if f == nil {
				continue // deleted since
			}
			r, err := f.decode()
			if err != nil {
				return nil, err
			}
			t := termsOf(&r, measure(&r.Manifest), w.c.plan.numberOf(r.Manifest.Call.From), w.c.plan.numberOf(r.Manifest.Call.To))
			if t.begin(w.late) {
				kept = append(kept, h)
			}
		}
		if len(kept) >= most {
			return kept[:most], nil
		}
	}
	return kept, nil
}

// begin tells whether terms begin with each of those.
func (t *terms) begin(with []match) bool {
	for _, m := range with {
		if !slices.ContainsFunc(t.other, func(x string) bool { return strings.HasPrefix(x, m.term) }) {
			return false
		}
	}
	return true
}
