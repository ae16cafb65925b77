package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/uptrace/bun"
)

func (e *postgresEngine) windowExpr(reason string) cond {
	return cond{"coalesce((" + recordings.Windows.sql() + "->>?)::bigint, 0)", []any{reason}}
}

// tsquery spells a search of the terms.
func tsquery(must []match) string {
	var b strings.Builder
	for i, m := range must {
		if i > 0 {
			b.WriteString(" & ")
		}
		if len(m.or) > 0 {
			b.WriteString("('" + strings.Join(m.or, "' | '") + "')")
			continue
		}
		b.WriteString("'" + m.term + "'")
		if m.prefix {
			b.WriteString(":*")
		}
	}
	return b.String()
}

// matches is a condition on the terms of a row.
func matches(must []match) cond {
	return cond{recordings.Terms.sql() + " @@ ?::tsquery", []any{tsquery(must)}}
}

// looked is a condition that is looked up in rows: in this form no index serves it.
func looked(c cond) cond { return cond{"(" + c.sql + ") IS TRUE", c.args} }

func (e *postgresEngine) has(must []match) []cond {
	if len(must) == 0 {
		return nil
	}
	// Beside a span of keys or durations the planner would rather read all of a common prefix
	// from the index of terms.
	return []cond{looked(matches(must))}
}

func (e *postgresEngine) lacks(m match) cond {
	c := matches([]match{m})
	return cond{"NOT " + c.sql, c.args}
}

func (e *postgresEngine) byTerms(db *bun.DB, must []match) *bun.SelectQuery {
	return matches(must).on(recordings.from(db).Column(hitColumns...))
}

func (e *postgresEngine) keysByTerms(db *bun.DB, must []match) *bun.SelectQuery {
	return e.byTerms(db, must)
}

func (e *postgresEngine) byDurations(db *bun.DB) *bun.SelectQuery {
	return recordings.from(db)
}

// few asks the planner, whose statistics know the most common terms.
func (e *postgresEngine) few(ctx context.Context, db *bun.DB, s *search, p pace, _ func() bool) share {
	var plan []byte
	q := e.byTerms(db, s.must)
	if err := db.NewRaw("EXPLAIN (FORMAT JSON) ?", q).Scan(ctx, &plan); err != nil {
		return share{}
	}
	var out []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		}
	}
	if json.Unmarshal(plan, &out) != nil || len(out) != 1 {
		return share{}
	}
	rows := out[0].Plan.Rows
	// The estimate takes terms to be independent, so it may be far too low: spans do not mind.
	var all float64
	err := db.NewRaw("SELECT reltuples FROM pg_class WHERE oid = ?::regclass", recordings.name).Scan(ctx, &all)
	return share{few: rows <= float64(p.fewApart), lazy: err == nil && rows*p.lazyShare <= all, rows: max(int64(rows), 1), guessed: slices.ContainsFunc(s.must, isPrefix)}
}

func (e *postgresEngine) tooSlow(err error) bool {
	var pe *pgconn.PgError
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &pe) && pe.Code == queryCanceled
}

const queryCanceled = "57014" // by statement_timeout

// bounded leaves it to the server to end a statement. To be asked to by a request of its own
// costs pgx 100 ms, in which no late one can meet the next statement.
func (e *postgresEngine) bounded(ctx context.Context, db *bun.DB, most time.Duration, f func(context.Context, bun.IDB) error) error {
	return db.RunInTx(ctx, &sql.TxOptions{ReadOnly: true}, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.Tx.ExecContext(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", max(most.Milliseconds(), 1))); err != nil {
			return err
		}
		return f(ctx, tx)
	})
}

// hours stand in the same query as the other terms: GIN walks through the rarest, and looks
// for the others there.
func (e *postgresEngine) hours(from, to int64) []string { return spansOf(from, to) }

// apart lets GIN seek what is asked for through all lists, whatever the span, and only then the
// hours: that is quick unless all of it is common and nothing has everything.
func (e *postgresEngine) apart(q *bun.SelectQuery, from, to int64) *bun.SelectQuery {
	if or := e.hours(from, to); len(or) > 0 {
		q = matches([]match{{or: or}}).on(q)
	}
	return q
}

func (e *postgresEngine) wholeFirst() bool { return false }

// expand: GIN reads beginnings well.
func (e *postgresEngine) expand(_ context.Context, _ *bun.DB, must []match, _ int) ([]match, bool) {
	return must, false
}

func (e *postgresEngine) within(q *bun.SelectQuery, from, to int64) *bun.SelectQuery {
	// Of the index of keys the planner would read all in the span.
	return looked(recordings.Key.within(from, to)).on(q)
}

// sorted keeps the planner from walking through a whole table in order, hoping
// to meet what is asked for soon.
func (e *postgresEngine) sorted(ctx context.Context, db bun.IDB, q *bun.SelectQuery, order string, limit int64) ([]hit, error) {
	var list []hit
	err := db.NewRaw("WITH x AS MATERIALIZED (?) SELECT ? FROM x ORDER BY ? LIMIT ?", q, bun.Safe(names(recordings.Key, recordings.RealMS)), bun.Safe(order), limit).Scan(ctx, &list)
	return list, err
}
