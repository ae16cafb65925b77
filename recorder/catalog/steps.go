package catalog

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/uptrace/bun"
)

// byTime reads rows in order of their keys, some span of keys at a time. Lazy:
// from the index of terms.
func (w *walk) byTime(ctx context.Context, have share) (hits, error) {
	lo, hi, err := w.clip(ctx)
	if err != nil || lo >= hi {
		return w.out, err
	}
	guess := have
	if guess.guessed {
		have.lazy = false
	}
	span, err := w.firstSpan(ctx, lo, hi, have)
	if err != nil {
		return w.out, err
	}
	for first := true; lo < hi; first = false {
		from, to := lo, hi
		if w.s.desc() {
			from = max(lo, satSub(hi, span))
		} else {
			to = min(hi, satAdd(lo, span))
		}
		began := time.Now()
		list, err := w.span(ctx, have.lazy, from, to)
		if w.tryByHours(err, have) {
			if span, err = w.spanByHours(ctx, span, lo, hi, have); err != nil {
				return w.failed(err)
			}
			continue
		}
		if err != nil {
			return w.failed(err)
		}
		if w.s.desc() {
			hi = from
		} else {
			lo = to
		}
		// What was looked at ends just before the next span.
		if w.take(list) || lo < hi && w.spent(hit{Key: edge(w.s.desc(), from, to)}) {
			break
		}
		span = w.adapt(span, time.Since(began))
		if first && guess.guessed && float64(len(list))*w.c.pace.guessShare < float64(w.c.pace.firstStep) {
			have = share{lazy: true}
		}
	}
	return w.out, nil
}

// span reads what is wanted of a span of keys.
func (w *walk) span(ctx context.Context, lazy bool, from, to int64) (list []hit, err error) {
	most := int64(w.n + 1 - len(w.out.list))
	err = w.inTime(ctx, w.tries(lazy), func(ctx context.Context, db bun.IDB) error {
		if !lazy {
			q := recordings.Key.within(from, to).on(w.rows(recordings.from(w.c.db)))
			list, err = w.scan(ctx, db, q.OrderExpr(w.timeOrder()), most)
			return err
		}
		list, err = w.c.e.sorted(ctx, db, w.c.e.within(w.spanTerms(from, to), from, to), w.orderBy(), most)
		return err
	})
	return list, err
}

// spanTerms selects those of a span of keys by the index of terms.
func (w *walk) spanTerms(from, to int64) *bun.SelectQuery {
	must := w.s.must
	if or := w.c.e.hours(from, to); w.hours && len(or) > 0 {
		must = append(slices.Clone(must), match{or: or})
	}
	q := w.byTerms(must)
	if w.bare() {
		q = w.c.e.keysByTerms(w.c.db, must)
	}
	if !w.hours {
		q = w.c.e.apart(q, from, to)
	}
	return q
}

// tries tells whether the first step may be too slow, and be begun again by hours.
func (w *walk) tries(lazy bool) bool {
	return lazy && !w.hours && !w.moved
}

// tryByHours tells whether a first step that failed is to be begun again, by hours.
func (w *walk) tryByHours(err error, have share) bool {
	if err == nil || !w.tries(have.lazy) || !w.c.e.tooSlow(err) {
		return false
	}
	w.hours = true
	return true
}

// spanByHours is the span to begin again with.
func (w *walk) spanByHours(ctx context.Context, span, lo, hi int64, have share) (int64, error) {
	if w.c.e.wholeFirst() {
		return w.firstSpan(ctx, lo, hi, have)
	}
	return max(span/8, 1), nil
}

// bare tells whether the terms tell all that is asked for.
func (w *walk) bare() bool { return len(w.s.where) == 0 && len(w.s.not) == 0 }

// edge is the last key of a span that was looked at.
func edge(desc bool, from, to int64) int64 {
	if desc {
		return from
	}
	return to - 1
}

// clip narrows the keys down to those that there are.
func (w *walk) clip(ctx context.Context) (lo, hi int64, err error) {
	lo, hi = w.keys()
	var first, last sql.NullInt64
	if err := w.c.db.NewRaw("SELECT "+recordings.Key.extreme("min")+", "+recordings.Key.extreme("max")).Scan(ctx, &first, &last); err != nil {
		return 0, 0, err
	}
	if !first.Valid || !last.Valid {
		return 0, 0, nil
	}
	return max(lo, first.Int64), min(hi, satAdd(last.Int64, 1)), nil
}

// firstSpan is how many keys the first rows take, or those of a page where it is known
// how many there are: as if they came at all times alike.
func (w *walk) firstSpan(ctx context.Context, lo, hi int64, have share) (int64, error) {
	if have.lazy && have.rows > 0 {
		// The estimate may be far too low, and what it promises be most of the table.
		part := min(2*float64(w.n)/float64(have.rows), w.c.pace.lazyPart)
		return max(int64(float64(hi-lo)*part), 1), nil
	}
	if have.lazy && w.bare() && !w.hours && w.c.e.wholeFirst() {
		return math.MaxInt64, nil
	}
	q := recordings.Key.within(lo, hi).on(recordings.from(w.c.db).Column(recordings.Key.sql())).OrderExpr(w.timeOrder())
	var key int64
	err := q.Offset(w.step).Limit(1).Scan(ctx, &key)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return math.MaxInt64, nil
	case err != nil:
		return 0, err
	case w.s.desc():
		return max(hi-key, 1), nil
	}
	return max(key-lo, 1), nil
}

func (w *walk) timeOrder() string {
	return w.ordered(recordings.Key.sql())
}

// adapt makes steps so long that each costs a part of what is left of the budget.
func (w *walk) adapt(span int64, took time.Duration) int64 {
	aim := min(stepLong, time.Until(w.until)/2)
	switch {
	case took*8 < aim:
		return satMul(span, 8)
	case took*2 < aim:
		return satMul(span, 2)
	case took > aim:
		return max(int64(float64(span)*max(float64(aim)/float64(took), 0.1)), 1)
	}
	return span
}

// stepClasses are read at once where few rows come of one. Never more of them: from class
// to class there may be many times as many rows.
const stepClasses = classesPerOctave

// byClass reads rows in order of their durations, from the index of terms, some
// classes of durations at a time.
func (w *walk) byClass(ctx context.Context) (hits, error) {
	lo, hi, err := w.durations(ctx)
	if err != nil || lo > hi {
		return w.out, err
	}
	after := hit{w.s.key, w.s.realMS}
	from, to := classOf(lo), classOf(hi)+1
	for width := int64(1); from < to; {
		began := time.Now()
		a, b := from, min(to, from+width)
		if w.s.desc() {
			a, b = max(from, to-width), to
			to = a
		} else {
			from = b
		}
		q := w.byTerms(append(slices.Clone(w.s.must), classes(a, b)))
		if w.s.lo != math.MinInt64 || w.s.hi != math.MaxInt64 {
			q = w.c.e.apart(q, w.s.lo, w.s.hi)
			q = w.c.e.within(q, w.s.lo, w.s.hi)
		}
		if w.s.after {
			q = w.behind(q, after)
		}
		list, err := w.stepSorted(ctx, q)
		if err != nil {
			return w.failed(err)
		}
		if w.take(list) || from < to && w.spent(w.classEdge(a, b)) {
			break
		}
		width = min(w.adapt(width, time.Since(began)), stepClasses)
	}
	return w.out, nil
}

func (w *walk) stepSorted(ctx context.Context, q *bun.SelectQuery) (list []hit, err error) {
	err = w.inTime(ctx, false, func(ctx context.Context, db bun.IDB) error {
		list, err = w.c.e.sorted(ctx, db, q, w.orderBy(), int64(w.n+1-len(w.out.list)))
		return err
	})
	return list, err
}

// inTime bounds a step that is not the first: without it the page is partial, and the next
// one begins with it. The first is bounded if it can be begun in another way.
func (w *walk) inTime(ctx context.Context, try bool, step func(context.Context, bun.IDB) error) error {
	switch {
	case w.moved:
		return w.c.e.bounded(ctx, w.c.db, max(time.Until(w.until), stepLeast), step)
	case try:
		return w.c.e.bounded(ctx, w.c.db, firstTry, step)
	}
	return step(ctx, w.c.db)
}

// classEdge lies behind all rows of classes in [from, to).
func (w *walk) classEdge(from, to int64) hit {
	if w.s.desc() {
		return hit{RealMS: classStart(from), Key: math.MinInt64}
	}
	return hit{RealMS: classStart(to) - 1, Key: math.MaxInt64}
}

// durations are those that are still to be looked at, from the shortest there is to the
// longest, in milliseconds.
func (w *walk) durations(ctx context.Context) (lo, hi int64, err error) {
	var first, last sql.NullInt64
	if err := w.c.db.NewRaw("SELECT "+recordings.RealMS.extreme("min")+", "+recordings.RealMS.extreme("max")).Scan(ctx, &first, &last); err != nil {
		return 0, 0, err
	}
	if !first.Valid || !last.Valid {
		return 1, 0, nil
	}
	lo, hi = max(first.Int64, w.s.shortMS), min(last.Int64, w.s.longMS)
	switch at := w.s.realMS; {
	case !w.s.after:
	case w.s.desc() && w.s.key == math.MinInt64: // the edge of a class: nothing of that duration is left
		hi = min(hi, at-1)
	case w.s.desc():
		hi = min(hi, at)
	case w.s.key == math.MaxInt64:
		lo = max(lo, at+1)
	default:
		lo = max(lo, at)
	}
	return lo, hi, nil
}

// byDuration reads rows in order of their durations, some of them at a time.
func (w *walk) byDuration(ctx context.Context) (hits, error) {
	at, after := hit{w.s.key, w.s.realMS}, w.s.after
	for rows := w.step; ; {
		began := time.Now()
		list, end, err := w.stepDurations(ctx, at, after, rows)
		if err != nil {
			return w.failed(err)
		}
		if w.take(list) || end == nil || w.spent(*end) {
			return w.out, nil
		}
		at, after = *end, true
		rows = w.adapt(rows, time.Since(began))
	}
}

// stepDurations reads what is wanted of so many rows behind one, and returns the last of
// these rows; nil: there are fewer.
func (w *walk) stepDurations(ctx context.Context, at hit, after bool, rows int64) (list []hit, end *hit, err error) {
	err = w.inTime(ctx, false, func(ctx context.Context, db bun.IDB) error {
		if end, err = w.durationAt(ctx, db, at, after, rows); err != nil {
			return err
		}
		q := recordings.Key.within(w.s.lo, w.s.hi).on(w.rows(w.c.e.byDurations(w.c.db)))
		if after {
			q = w.behind(q, at)
		}
		if end != nil {
			q = w.upTo(q, *end)
		}
		list, err = w.scan(ctx, db, q.OrderExpr(w.durationOrder()), int64(w.n+1-len(w.out.list)))
		return err
	})
	return list, end, err
}

func (w *walk) durationOrder() string {
	return w.ordered(recordings.RealMS.sql(), recordings.Key.sql())
}

func (w *walk) upTo(q *bun.SelectQuery, h hit) *bun.SelectQuery {
	if w.s.desc() {
		return h.compare(">=").on(q)
	}
	return h.compare("<=").on(q)
}

// durationAt is the row that comes so many behind another, in order of duration; nil: there are fewer.
func (w *walk) durationAt(ctx context.Context, db bun.IDB, at hit, after bool, rows int64) (*hit, error) {
	q := w.c.e.byDurations(w.c.db).Conn(db).Column(hitColumns...)
	if after {
		q = w.behind(q, at)
	}
	var end hit
	err := q.OrderExpr(w.durationOrder()).Offset(rows).Limit(1).Scan(ctx, &end)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &end, err
}

// Sums that end at the ends of int64.

func satAdd(a, b int64) int64 {
	if c := a + b; c >= a == (b >= 0) {
		return c
	}
	if b > 0 {
		return math.MaxInt64
	}
	return math.MinInt64
}

func satSub(a, b int64) int64 {
	if b == math.MinInt64 {
		return math.MaxInt64
	}
	return satAdd(a, -b)
}

func satMul(a, n int64) int64 {
	if a > math.MaxInt64/n {
		return math.MaxInt64
	}
	return a * n
}
