package catalog

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/uptrace/bun"
)

func (e *postgresEngine) windowExpr(reason string) cond {
	return cond{"coalesce((r.windows->>?)::bigint, 0)", []any{reason}}
}

// tsquery spells a search of the terms.
func tsquery(must []match) string {
	var b strings.Builder
	for i, m := range must {
		if i > 0 {
			b.WriteString(" & ")
		}
		b.WriteString("'" + m.term + "'")
		if m.prefix {
			b.WriteString(":*")
		}
	}
	return b.String()
}

func (e *postgresEngine) has(must []match) []cond {
	if len(must) == 0 {
		return nil
	}
	// In this form no index serves it: beside a span of keys or durations the planner
	// would rather read all of a common prefix from the index of terms.
	return []cond{{"(r.terms @@ ?::tsquery) IS TRUE", []any{tsquery(must)}}}
}

func (e *postgresEngine) lacks(m match) cond {
	return cond{"NOT r.terms @@ ?::tsquery", []any{tsquery([]match{m})}}
}

func (e *postgresEngine) byTerms(db *bun.DB, must []match) *bun.SelectQuery {
	return db.NewSelect().TableExpr("recordings AS r").Where("r.terms @@ ?::tsquery", tsquery(must))
}

// fewEstimated is how many rows, as the planner estimates, are taken from the
// index of terms and sorted.
const fewEstimated = 20_000

// few asks the planner, whose statistics know the most common terms.
func (e *postgresEngine) few(ctx context.Context, db *bun.DB, s *search) (few, lazy bool) {
	var plan []byte
	q := e.byTerms(db, s.must).ColumnExpr("1")
	if err := db.NewRaw("EXPLAIN (FORMAT JSON) ?", q).Scan(ctx, &plan); err != nil {
		return false, false
	}
	var out []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		}
	}
	if json.Unmarshal(plan, &out) != nil || len(out) != 1 {
		return false, false
	}
	return out[0].Plan.Rows <= fewEstimated, false
}

// sorted keeps the planner from walking through a whole table in order, hoping
// to meet what is asked for soon.
func (e *postgresEngine) sorted(ctx context.Context, db *bun.DB, q *bun.SelectQuery, order string, limit int64) ([]hit, error) {
	var list []hit
	err := db.NewRaw("WITH x AS MATERIALIZED (?) SELECT key, real_ms FROM x ORDER BY ? LIMIT ?", q, bun.Safe(order), limit).Scan(ctx, &list)
	return list, err
}
