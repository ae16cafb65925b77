package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/uptrace/bun"
	"modernc.org/sqlite"
)

func (e *sqliteEngine) windowExpr(reason string) cond {
	return cond{"coalesce(json_extract(" + recordings.Windows.sql() + ", ?), 0)", []any{`$."` + reason + `"`}}
}

// matchOf spells a search of FTS5.
func matchOf(must []match) string {
	var b strings.Builder
	for i, m := range must {
		if i > 0 {
			b.WriteString(" AND ")
		}
		if len(m.or) > 0 {
			b.WriteString(`("` + strings.Join(m.or, `" OR "`) + `")`)
			continue
		}
		b.WriteString(`"` + m.term + `"`)
		if m.prefix {
			b.WriteString(" *")
		}
	}
	return b.String()
}

// ftsRow is the row that the index of terms has in its own way: FTS5 is no table of both
// databases. It is the key of the recording.
var ftsRow = column[int64]{table{"recordings_terms", "t"}, "rowid"}

// fts selects what has terms.
func fts(db *bun.DB, must []match) *bun.SelectQuery {
	return ftsRow.of.from(db).Where("t.recordings_terms MATCH ?", matchOf(must))
}

// has looks fields up in the row itself, words and grams in their index.
func (e *sqliteEngine) has(must []match) []cond {
	var out []cond
	var rest []match
	for _, m := range must {
		if m.short {
			out = append(out, cond{"instr(" + recordings.Terms.sql() + ", ?) > 0", []any{" " + m.term + " "}})
		} else {
			rest = append(rest, m)
		}
	}
	if len(rest) > 0 {
		out = append(out, cond{"EXISTS (SELECT 1 FROM recordings_terms WHERE recordings_terms MATCH ? AND rowid = " + recordings.Key.sql() + ")", []any{matchOf(rest)}})
	}
	return out
}

func (e *sqliteEngine) lacks(m match) cond {
	return cond{"instr(" + recordings.Terms.sql() + ", ?) = 0", []any{" " + m.term + " "}}
}

// byTerms joins so that FTS5 comes first: its rows come in order of keys, when it is
// its own that they are sorted by.
func (e *sqliteEngine) byTerms(db *bun.DB, must []match) *bun.SelectQuery {
	return fts(db, must).Join("CROSS JOIN " + recordings.as() + " ON " + recordings.Key.sql() + " = " + ftsRow.sql()).
		ColumnExpr(ftsRow.sql() + " AS " + recordings.Key.bare()).Column(recordings.RealMS.sql())
}

// keysByTerms reads no row.
func (e *sqliteEngine) keysByTerms(db *bun.DB, must []match) *bun.SelectQuery {
	return fts(db, must).ColumnExpr(ftsRow.sql() + " AS " + recordings.Key.bare()).ColumnExpr("0 AS " + recordings.RealMS.bare())
}

// byDurations names the index: without statistics it is the keys that would be gone through.
func (e *sqliteEngine) byDurations(db *bun.DB) *bun.SelectQuery {
	return db.NewSelect().TableExpr(recordings.as() + " INDEXED BY recordings_duration")
}

const expandBudget = 30 * time.Millisecond

// expand: FTS5 reads and merges all rows of a beginning before its first one; those of
// single terms it reads as they are wanted.
func (e *sqliteEngine) expand(ctx context.Context, db *bun.DB, must []match, most int) (_ []match, wide bool) {
	ctx, cancel := context.WithTimeout(ctx, expandBudget)
	defer cancel()
	out := slices.Clone(must)
	for i, m := range must {
		if !m.prefix || most == 0 {
			continue
		}
		var terms []string
		err := db.NewRaw("SELECT term FROM recordings_vocabulary WHERE term >= ? AND term < ? LIMIT ?", m.term, m.term+string(utf8.MaxRune), most+1).Scan(ctx, &terms)
		if err == nil && len(terms) > 0 && len(terms) <= most {
			out[i] = match{or: terms, inRow: m.inRow}
		}
	}
	return out, true
}

const fewBudget = 30 * time.Millisecond

// few counts, for orders that need it, and looks how often the newest rows have the
// terms. Words and grams are not in the row: it is the index of terms that tells them.
func (e *sqliteEngine) few(ctx context.Context, db *bun.DB, s *search, p pace, common func() bool) share {
	if slices.ContainsFunc(s.must, isPrefix) && common() {
		return share{late: true}
	}
	if !s.byDuration() {
		return share{lazy: true}
	}
	ctx, cancel := context.WithTimeout(ctx, fewBudget)
	defer cancel()
	var n int64
	sub := ftsRow.within(s.lo, s.hi).on(fts(db, s.must).ColumnExpr("1")).Limit(p.fewApart + 1)
	err := db.NewSelect().TableExpr("(?) AS x", sub).ColumnExpr("count(*)").Scan(ctx, &n)
	if err == nil && n <= p.fewApart {
		return share{few: true}
	}
	for _, m := range s.must {
		if !m.short {
			return share{lazy: true}
		}
	}
	newest := recordings.Key.within(s.lo, s.hi).on(recordings.from(db).ColumnExpr(recordings.Terms.sql())).
		OrderExpr(recordings.Key.sql() + " DESC").Limit(p.firstStep)
	q := db.NewSelect().TableExpr("(?) AS r", newest).ColumnExpr("count(*)")
	for _, c := range e.has(s.must) {
		q = c.on(q)
	}
	err = q.Scan(ctx, &n)
	return share{lazy: err != nil || float64(n)*p.lazyShare <= float64(p.firstStep)}
}

func (e *sqliteEngine) tooSlow(err error) bool {
	var se *sqlite.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &se) && se.Code()&0xff == sqliteInterrupt
}

const sqliteInterrupt = 9 // result code

// hoursFew is how many spans of hours a search names: each costs a look for each row
// that may match.
const hoursFew = 6

// hours keep FTS5 from going through all of its lists before it minds a span of keys: the
// first row that has everything is one of the span, or there is none.
func (e *sqliteEngine) hours(from, to int64) []string { return spansAround(from, to, hoursFew) }

func (e *sqliteEngine) apart(q *bun.SelectQuery, _, _ int64) *bun.SelectQuery { return q }

// wholeFirst: FTS5 ends with the page, and goes through its lists at once where nothing is found.
func (e *sqliteEngine) wholeFirst() bool { return true }

func (e *sqliteEngine) within(q *bun.SelectQuery, from, to int64) *bun.SelectQuery {
	return ftsRow.within(from, to).on(q)
}

// bounded relies on the driver, which interrupts a statement whose context ends.
func (e *sqliteEngine) bounded(ctx context.Context, db *bun.DB, most time.Duration, f func(context.Context, bun.IDB) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return f(ctx, db)
}

func (e *sqliteEngine) sorted(ctx context.Context, db bun.IDB, q *bun.SelectQuery, order string, limit int64) ([]hit, error) {
	var list []hit
	err := q.Conn(db).OrderExpr(order).Limit(limit).Scan(ctx, &list)
	return list, err
}
