package catalog

import (
	"strings"

	"github.com/uptrace/bun"
)

// Statements name tables and columns by what is generated of the migrated tables
// of both databases (schema_gen.go), so that one which asks for a column that is
// not there, or compares it with a value of another type, does not compile. What
// is left in words of SQL is what the databases do not share (indexes of terms,
// JSON, plans), and migrations, which know the tables as they were.

//go:generate go test -run ^TestSchema$ -update .

// table is one of both databases.
type table struct {
	name  string
	alias string // what statements call it; empty: its name
}

// as is the table as FROM and JOIN have it.
func (t table) as() string {
	if t.alias == "" {
		return t.name
	}
	return t.name + " AS " + t.alias
}

// from selects of the table.
func (t table) from(db bun.IDB) *bun.SelectQuery { return db.NewSelect().TableExpr(t.as()) }

// column is one of a table, with values of T.
type column[T any] struct {
	of   table
	name string
}

// sql is the column as conditions and lists of columns have it.
func (c column[T]) sql() string {
	if c.of.alias == "" {
		return c.name
	}
	return c.of.alias + "." + c.name
}

// unaliased is the column where its table has no other name.
func (c column[T]) unaliased() column[T] {
	c.of.alias = ""
	return c
}

// bare is its name, as lists of what is written or returned have it, and orders of what a
// statement itself selects.
func (c column[T]) bare() string { return c.name }

func (c column[T]) ident() bun.Ident { return bun.Ident(c.name) }

func (c column[T]) compare(op string, v T) cond { return cond{c.sql() + " " + op + " ?", []any{v}} }

func (c column[T]) is(v T) cond      { return c.compare("=", v) }
func (c column[T]) above(v T) cond   { return c.compare(">", v) }
func (c column[T]) atLeast(v T) cond { return c.compare(">=", v) }
func (c column[T]) atMost(v T) cond  { return c.compare("<=", v) }
func (c column[T]) below(v T) cond   { return c.compare("<", v) }

// within is [lo, hi).
func (c column[T]) within(lo, hi T) cond { return allOf(c.atLeast(lo), c.below(hi)) }

func (c column[T]) among(values []T) cond { return cond{c.sql() + " IN (?)", []any{bun.List(values)}} }

// extreme selects the least (min) or greatest (max) value of the whole table.
func (c column[T]) extreme(of string) string {
	return "(SELECT " + of + "(" + c.name + ") FROM " + c.of.name + ")"
}

// likePattern compares a text with a pattern whose escape is an exclamation mark.
func likePattern(c column[string], pattern string) cond {
	return cond{c.sql() + " LIKE ? ESCAPE '!'", []any{pattern}}
}

// pairs compares two columns together, as rows are sorted by both.
func pairs[A, B any](a column[A], b column[B], op string, x A, y B) cond {
	return cond{"(" + a.sql() + ", " + b.sql() + ") " + op + " (?, ?)", []any{x, y}}
}

// cond is a condition.
type cond struct {
	sql  string
	args []any
}

func allOf(list ...cond) cond { return joined(" AND ", list) }

func anyOf(list ...cond) cond {
	c := joined(" OR ", list)
	return cond{"(" + c.sql + ")", c.args}
}

func joined(by string, list []cond) cond {
	var out cond
	words := make([]string, len(list))
	for i, c := range list {
		words[i] = c.sql
		out.args = append(out.args, c.args...)
	}
	out.sql = strings.Join(words, by)
	return out
}

// on restricts a selection.
func (c cond) on(q *bun.SelectQuery) *bun.SelectQuery { return q.Where(c.sql, c.args...) }

// drop deletes what a condition on columns without alias tells, and returns columns of it.
func drop(tx bun.Tx, of table, c cond, returning ...named) *bun.RawQuery {
	sql := "DELETE FROM " + of.name + " WHERE " + c.sql
	if len(returning) > 0 {
		sql += " RETURNING " + names(returning...)
	}
	return tx.NewRaw(sql, c.args...)
}

// named is a column of any type.
type named interface{ bare() string }

// names lists columns of what is returned.
func names(list ...named) string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = c.bare()
	}
	return strings.Join(out, ", ")
}
