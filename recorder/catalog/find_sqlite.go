package catalog

import (
	"context"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

func (e *sqliteEngine) windowExpr(reason string) cond {
	return cond{"coalesce(json_extract(r.windows, ?), 0)", []any{`$."` + reason + `"`}}
}

// matchOf spells a search of FTS5.
func matchOf(must []match) string {
	var b strings.Builder
	for i, m := range must {
		if i > 0 {
			b.WriteString(" AND ")
		}
		b.WriteString(`"` + m.term + `"`)
		if m.prefix {
			b.WriteString(" *")
		}
	}
	return b.String()
}

// has looks fields up in the row itself, words and grams in their index.
func (e *sqliteEngine) has(must []match) []cond {
	var out []cond
	var rest []match
	for _, m := range must {
		if m.short {
			out = append(out, cond{"instr(r.terms, ?) > 0", []any{" " + m.term + " "}})
		} else {
			rest = append(rest, m)
		}
	}
	if len(rest) > 0 {
		out = append(out, cond{"EXISTS (SELECT 1 FROM recordings_terms WHERE recordings_terms MATCH ? AND rowid = r.key)", []any{matchOf(rest)}})
	}
	return out
}

func (e *sqliteEngine) lacks(m match) cond {
	return cond{"instr(r.terms, ?) = 0", []any{" " + m.term + " "}}
}

// byTerms joins so that FTS5 comes first: its rows come in order of keys.
func (e *sqliteEngine) byTerms(db *bun.DB, must []match) *bun.SelectQuery {
	return db.NewSelect().TableExpr("recordings_terms AS t CROSS JOIN recordings AS r ON r.key = t.rowid").
		Where("t.recordings_terms MATCH ?", matchOf(must))
}

// byDurations names the index: without statistics it is the keys that would be gone through.
func (e *sqliteEngine) byDurations(db *bun.DB) *bun.SelectQuery {
	return db.NewSelect().TableExpr("recordings AS r INDEXED BY recordings_duration")
}

const fewBudget = 30 * time.Millisecond

// few counts, for orders that need it.
func (e *sqliteEngine) few(ctx context.Context, db *bun.DB, s *search, p pace) share {
	if !s.byDuration() {
		return share{lazy: true}
	}
	ctx, cancel := context.WithTimeout(ctx, fewBudget)
	defer cancel()
	var n int64
	sub := db.NewSelect().TableExpr("recordings_terms AS t").ColumnExpr("1").Where("t.recordings_terms MATCH ?", matchOf(s.must)).
		Where("t.rowid >= ? AND t.rowid < ?", s.lo, s.hi).Limit(p.few + 1)
	err := db.NewSelect().TableExpr("(?) AS x", sub).ColumnExpr("count(*)").Scan(ctx, &n)
	return share{few: err == nil && n <= p.few, lazy: true}
}

func (e *sqliteEngine) within(q *bun.SelectQuery, from, to int64) *bun.SelectQuery {
	return q.Where("t.rowid >= ? AND t.rowid < ?", from, to)
}

func (e *sqliteEngine) sorted(ctx context.Context, _ *bun.DB, q *bun.SelectQuery, order string, limit int64) ([]hit, error) {
	var list []hit
	err := q.OrderExpr("r."+strings.ReplaceAll(order, ", ", ", r.")).Limit(limit).Scan(ctx, &list)
	return list, err
}
