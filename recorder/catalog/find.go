package catalog

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/trunktap/trunktap/recorder"
)

// A search reads rows in the order asked for, a step of them at a time, until
// the page is full, nothing is left or its budget is spent: then the page is
// partial and says so. Where few rows have the terms asked for, they are taken
// from the index of terms instead.
const (
	countMax  = 10_000
	stepLong  = 30 * time.Millisecond
	firstTry  = 50 * time.Millisecond // until a first step begins again, by hours
	stepLeast = 2 * time.Millisecond  // that a step may take
)

// pace is how a search goes through rows.
type pace struct {
	budget    time.Duration
	firstStep int64 // rows
	few       int64 // rows that are sorted rather than walked through
	fewApart  int64 // of the index of terms, each of which may lie in a page of its own
	// lazyShare is of how many rows one has the terms where those of a span of keys or a
	// class of durations are taken from the index of terms. Where more have them, a walk
	// through the rows meets them soon.
	lazyShare float64
	// guessShare is the same for beginnings of words, of which the newest rows tell how
	// common they are: the index of terms reads all that begin so.
	guessShare float64
	rowShare   float64 // of beginnings that the rows themselves tell
	lazyPart   float64 // of all keys, that the first span taken from the index of terms holds at most
	expand     int     // terms that the beginning of one may stand for, to be sought each by itself
}

var paceDefault = pace{budget: 80 * time.Millisecond, firstStep: 2000, few: 10_000, fewApart: 500, lazyShare: 20, guessShare: 100, rowShare: 200, lazyPart: 0.02, expand: 128}

// searcher is how an engine searches.
type searcher interface {
	// windowExpr is the sum of the windows of a reason, in milliseconds.
	windowExpr(reason string) cond
	// has are conditions on a row that it has terms; lacks, that it has not.
	has(must []match) []cond
	lacks(m match) cond
	// byTerms selects keys and durations of the rows that have the terms, so that the index of terms is what is read.
	byTerms(db *bun.DB, must []match) *bun.SelectQuery
	// keysByTerms selects the keys of those rows, and nothing else.
	keysByTerms(db *bun.DB, must []match) *bun.SelectQuery
	// byDurations selects from the rows, so that the index of durations is what is read.
	byDurations(db *bun.DB) *bun.SelectQuery
	// hours are terms of which all keys in [from, to) have one; nil: there are too many.
	hours(from, to int64) []string
	// apart restricts a selection of byTerms to the hours of keys in [from, to), in place of
	// hours: what is asked for is sought by itself, which is better where it is rare.
	apart(q *bun.SelectQuery, from, to int64) *bun.SelectQuery
	// wholeFirst tells whether what is asked for by itself is sought among all keys at once, on
	// the first page, and by hours on those behind it.
	wholeFirst() bool
	// expand puts the terms that begin so, if these are at most so many, in the place of
	// beginnings, where single terms are found sooner. Wide: what is asked for is looked up by
	// the index of terms alone, since to look for it in each of some rows costs too much.
	expand(ctx context.Context, db *bun.DB, must []match, most int) (_ []match, wide bool)
	// few tells how many rows have the terms. Common tells whether, of the newest rows, many
	// have what s asks for the beginnings of; it looks into their manifests.
	few(ctx context.Context, db *bun.DB, s *search, p pace, common func() bool) share
	// within restricts a selection of byTerms to keys in [from, to).
	within(q *bun.SelectQuery, from, to int64) *bun.SelectQuery
	// tooSlow tells of errors that say that a statement took too long.
	tooSlow(err error) bool
	// sorted runs a selection of byTerms, in order.
	sorted(ctx context.Context, db bun.IDB, q *bun.SelectQuery, order string, limit int64) ([]hit, error)
	// bounded lets f run statements of which each ends after so long, in the database as well, by an
	// error that is too slow.
	bounded(ctx context.Context, db *bun.DB, most time.Duration, f func(context.Context, bun.IDB) error) error
}

// share is how many rows have the terms of a search.
type share struct {
	few  bool  // so few that all of them can be looked at and sorted
	lazy bool  // those of a span of keys, or of a class of durations, are best taken from the index of terms
	rows int64 // estimated; 0: that costs nothing in advance, whatever the span

	// guessed: the estimate tells little, as of the beginning of a word. The newest rows tell
	// more.
	guessed bool
	// late: beginnings of words are looked up in the manifests of what else matches. They
	// are too common for the index of terms, which reads all that begins so at once.
	late bool
}

// compare compares rows with a hit, as orders of duration have them.
func (h hit) compare(op string) cond {
	return pairs(recordings.RealMS, recordings.Key, op, h.RealMS, h.Key)
}

// hits are what a search found, and how far it came.
type hits struct {
	list    []hit
	more    bool // there may be more behind last
	partial bool // its budget is spent
	last    hit  // that was looked at; valid when there may be more
}

// Find implements recorder.Catalog. ErrCursor when the cursor is none of this
// query; *recorder.QueryError when the query cannot be.
func (c *Catalog) Find(ctx context.Context, q recorder.Query) (recorder.Page, error) {
	s, err := c.plan.compile(&q)
	if err != nil {
		return recorder.Page{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	limit := q.Limit
	if limit <= 0 {
		limit = pageDefault
	}
	limit = min(limit, pageMax)
	most := limit
	if q.Total && !s.after { // the page is the beginning of what is counted
		most = countMax
	}
	found, err := c.run(ctx, s, most)
	if err != nil {
		return recorder.Page{}, c.fail("find", err)
	}
	all := found
	if len(found.list) > limit {
		found.list, found.more, found.partial = found.list[:limit], true, false
		found.last = found.list[limit-1]
	}
	page, err := c.page(ctx, found.list)
	if err != nil {
		return page, err
	}
	page.Partial = found.partial
	if found.more {
		page.Next = s.cursor(found.last.RealMS, found.last.Key)
	}
	if !q.Total {
		return page, nil
	}
	if s.after {
		whole := *s
		whole.after = false
		if all, err = c.run(ctx, &whole, countMax); err != nil {
			return recorder.Page{}, c.fail("count", err)
		}
	}
	page.Total, page.TotalMore = int64(len(all.list)), all.more
	return page, nil
}

// page reads the manifests of rows.
func (c *Catalog) page(ctx context.Context, list []hit) (recorder.Page, error) {
	page := recorder.Page{Rows: make([]recorder.Row, 0, len(list))}
	if len(list) == 0 {
		return page, nil
	}
	byKey, err := c.read(ctx, list)
	if err != nil {
		return page, c.fail("find", err)
	}
	for _, h := range list {
		f := byKey[h.Key]
		if f == nil {
			continue // deleted since
		}
		r, err := f.decode()
		if err != nil {
			return page, c.fail("find", err)
		}
		page.Rows = append(page.Rows, r)
	}
	return page, nil
}

// read reads rows with their manifests, by their keys.
func (c *Catalog) read(ctx context.Context, list []hit) (map[int64]*found, error) {
	keys := make([]int64, len(list))
	for i, h := range list {
		keys[i] = h.Key
	}
	var rows []found
	if err := recordings.Key.among(keys).on(c.selectFound()).Scan(ctx, &rows); err != nil {
		return nil, err
	}
	byKey := make(map[int64]*found, len(rows))
	for i := range rows {
		byKey[rows[i].Key] = &rows[i]
	}
	return byKey, nil
}

// run searches for up to n rows.
func (c *Catalog) run(ctx context.Context, s *search, n int) (hits, error) {
	w := walk{c: c, s: s, n: n, until: time.Now().Add(c.pace.budget), step: c.pace.firstStep, hours: s.after && c.e.wholeFirst()}
	wide := false
	if slices.ContainsFunc(s.must, isPrefix) {
		x := *s
		x.must, wide = c.e.expand(ctx, c.db, s.must, c.pace.expand)
		s, w.s = &x, &x
	}
	if s.someDurations() && !wide && w.fewDurations(ctx) {
		return w.sorted(ctx, w.rows(c.e.byDurations(c.db)))
	}
	var have share
	if len(s.must) > 0 {
		have = c.e.few(ctx, c.db, s, c.pace, func() bool { return w.common(ctx) })
	}
	if have.late {
		w.lookLate()
	}
	switch {
	case s.byDuration() && (have.few || w.shortTime(ctx)):
		if have.few {
			return w.sorted(ctx, w.byTerms(s.must))
		}
		if wide && !have.late {
			return w.sorted(ctx, c.e.within(w.byTerms(s.must), s.lo, s.hi))
		}
		return w.sorted(ctx, w.rows(recordings.from(c.db)))
	case s.byDuration() && have.lazy:
		return w.byClass(ctx)
	case s.byDuration():
		return w.byDuration(ctx)
	}
	return w.byTime(ctx, have)
}

// walk is one run of a search.
type walk struct {
	c     *Catalog
	s     *search
	n     int
	until time.Time
	late  []match // that are looked up in manifests
	step  int64   // rows of the first step
	out   hits
	moved bool // steps are behind it, up to out.last
	hours bool // what is asked for is sought by hours, where that can be chosen
}

// shortTime tells whether the time asked for holds few rows.
func (w *walk) shortTime(ctx context.Context) bool {
	if w.s.lo == math.MinInt64 && w.s.hi == math.MaxInt64 {
		return false
	}
	return w.few(ctx, recordings.Key.within(w.s.lo, w.s.hi).on(recordings.from(w.c.db)))
}

// fewDurations tells whether few rows have the durations asked for.
func (w *walk) fewDurations(ctx context.Context) bool {
	return w.few(ctx, allOf(recordings.RealMS.atLeast(w.s.shortMS), recordings.RealMS.atMost(w.s.longMS)).on(w.c.e.byDurations(w.c.db)))
}

func (w *walk) few(ctx context.Context, q *bun.SelectQuery) bool {
	var n int64
	err := w.c.db.NewSelect().TableExpr("(?) AS x", q.ColumnExpr("1").Limit(w.c.pace.few+1)).ColumnExpr("count(*)").Scan(ctx, &n)
	return err == nil && n <= w.c.pace.few
}

// byTerms selects those that have terms and whose rows have the rest.
func (w *walk) byTerms(must []match) *bun.SelectQuery {
	return w.s.inRows(w.c.e, w.c.e.byTerms(w.c.db, must), false)
}

// rows restricts a selection of rows to those asked for.
func (w *walk) rows(q *bun.SelectQuery) *bun.SelectQuery {
	return w.s.inRows(w.c.e, q.Column(hitColumns...), true)
}

// orderBy is the order of what a statement itself selects.
func (w *walk) orderBy() string {
	if w.s.byDuration() {
		return w.ordered(recordings.RealMS.bare(), recordings.Key.bare())
	}
	return w.ordered(recordings.Key.bare())
}

// ordered is the order of a search, by columns.
func (w *walk) ordered(columns ...string) string {
	way := " ASC"
	if w.s.desc() {
		way = " DESC"
	}
	return strings.Join(columns, way+", ") + way
}

// behind restricts q to what comes after the page before, in order of duration.
func (w *walk) behind(q *bun.SelectQuery, h hit) *bun.SelectQuery {
	if w.s.desc() {
		return h.compare("<").on(q)
	}
	return h.compare(">").on(q)
}

// sorted looks at all rows that q selects and sorts them.
func (w *walk) sorted(ctx context.Context, q *bun.SelectQuery) (hits, error) {
	lo, hi := w.keys()
	if lo != math.MinInt64 || hi != math.MaxInt64 {
		q = recordings.Key.within(lo, hi).on(q)
	}
	if w.s.after && w.s.byDuration() {
		q = w.behind(q, hit{w.s.key, w.s.realMS})
	}
	list, err := w.sort(ctx, q)
	if err != nil {
		return hits{}, err
	}
	w.take(list)
	return w.out, nil
}

// sort reads the first rows of those that q selects, in order.
func (w *walk) sort(ctx context.Context, q *bun.SelectQuery) ([]hit, error) {
	if len(w.late) > 0 {
		return w.scan(ctx, w.c.db, q.OrderExpr(w.orderBy()), int64(w.n+1))
	}
	return w.c.e.sorted(ctx, w.c.db, q, w.orderBy(), int64(w.n+1))
}

// keys are those that are still to be looked at.
func (w *walk) keys() (lo, hi int64) {
	lo, hi = w.s.lo, w.s.hi
	if w.s.after && !w.s.byDuration() {
		if w.s.desc() {
			hi = min(hi, w.s.key)
		} else {
			lo = max(lo, w.s.key+1)
		}
	}
	return lo, hi
}

// take adds what was found, and notes when that is more than wanted.
func (w *walk) take(list []hit) (full bool) {
	w.out.list = append(w.out.list, list...)
	if len(w.out.list) > w.n {
		w.out.list = w.out.list[:w.n]
		w.out.more, w.out.last = true, w.out.list[w.n-1]
		return true
	}
	return false
}

// spent ends a search whose budget is spent behind h.
func (w *walk) spent(h hit) bool {
	w.out.last, w.moved = h, true
	if time.Now().Before(w.until) {
		return false
	}
	w.out.more, w.out.partial = true, true
	return true
}

// failed ends a search by an error. That a step took too long is none when others
// are behind it: the page is partial.
func (w *walk) failed(err error) (hits, error) {
	if !w.moved || !w.c.e.tooSlow(err) {
		return hits{}, err
	}
	w.out.more, w.out.partial = true, true
	return w.out, nil
}
