package catalog

import (
	"crypto/sha256"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"github.com/trunktap/trunktap/recorder"
)

// match is a term that a recording must have, or one of several.
type match struct {
	term   string
	or     []string // instead of term
	inRow  bool     // what the row has itself tells exactly whether it is there
	prefix bool     // it is the beginning of one
	short  bool     // it is also in the row's own list
}

func isPrefix(m match) bool { return m.prefix }

// search is a query as both engines understand it.
type search struct {
	must  []match // found by the index of terms
	not   []match // none of these, which is looked up in each row
	where []cond  // looked up in each row

	lo, hi  int64 // keys in [lo, hi)
	shortMS int64 // durations in [shortMS, longMS]
	longMS  int64
	order   string
	bounded bool // by both ends of time

	// after is where the page before ended: not for a first page.
	after  bool
	key    int64
	realMS int64 // of orders by duration
	hash   [hashLen]byte
}

func (s *search) byDuration() bool {
	return s.order == recorder.OrderLongest || s.order == recorder.OrderShortest
}

func (s *search) desc() bool {
	return s.order == recorder.OrderNewest || s.order == recorder.OrderLongest
}

// someDurations tells whether not all durations are asked for.
func (s *search) someDurations() bool { return s.shortMS > 0 || s.longMS < math.MaxInt64 }

// keySlack is how far behind its origin a key may lie, in microseconds.
const keySlack = keyTriesMax + saveBatchMax

// compile makes a search of a query. Errors are *recorder.QueryError or ErrCursor.
func (p numberPlan) compile(q *recorder.Query) (*search, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	s := &search{lo: math.MinInt64, hi: math.MaxInt64, longMS: math.MaxInt64, order: q.Order, hash: hashOf(q)}
	if s.order == "" {
		s.order = recorder.OrderNewest
	}
	s.times(q)
	s.fields(q)
	s.spans(q)
	s.quality(q)
	if strings.ContainsAny(q.Window, `"\\`) {
		return nil, &recorder.QueryError{Field: "window", Why: "no reason has quotes"}
	}
	s.windows(q)
	for _, a := range q.Attrs {
		k, v, pair := strings.Cut(a, "=")
		if pair {
			k = clean(k) + "=" + clean(v)
		}
		s.exact(termAttr, k)
	}
	if err := s.text(q.Text); err != nil {
		return nil, err
	}
	if err := p.numbers(s, q); err != nil {
		return nil, err
	}
	if q.Cursor != "" {
		err := s.resume(q.Cursor)
		return s, err
	}
	return s, nil
}

func (s *search) times(q *recorder.Query) {
	if !q.From.IsZero() {
		s.lo = micros(q.From)
		s.and(recordings.OriginNS.atLeast(bound(q.From)))
	}
	if !q.To.IsZero() {
		s.hi = micros(q.To)
		if s.hi < math.MaxInt64/1000-keySlack {
			s.hi += keySlack
		}
		s.and(recordings.OriginNS.below(bound(q.To)))
	}
	s.bounded = !q.From.IsZero() && !q.To.IsZero()
}

// bound is the limit of a search as nanos, which do not reach as far as times do.
func bound(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

func (s *search) and(c cond) { s.where = append(s.where, c) }

func (s *search) exact(field rune, value string) {
	if value != "" {
		s.must = append(s.must, match{term: term(field, clean(value)), short: inRow(field)})
	}
}

func (s *search) fields(q *recorder.Query) {
	for _, f := range []struct {
		field rune
		value string
	}{
		{termTrunk, q.Trunk},
		{termQueue, q.Queue},
		{termFlow, q.Flow},
		{termAgent, q.Agent},
		{termUser, q.User},
		{termKind, string(q.Kind)},
		{termDirection, q.Direction},
		{termEndCause, q.EndCause},
		{termCodec, strings.ToLower(q.Codec)},
		{termFormat, q.Format},
		{termConsent, q.Consent},
		{termNode, q.Node},
		{termStore, q.Store},
		{termCallID, q.SIPCallID},
		{termConversation, q.Conversation},
		{termWindow, q.Window},
		{termRecorded, q.Recorded},
	} {
		s.exact(f.field, f.value)
	}
	if q.Party != "" {
		full, _ := partyOf(clean(q.Party))
		s.exact(termParty, full)
	}
	if q.NoWindow != "" {
		s.not = append(s.not, match{term: term(termWindow, clean(q.NoWindow)), short: true})
	}
	switch q.Gaps {
	case recorder.GapsYes:
		s.exact(termGap, recorder.GapsYes)
	case recorder.GapsNo:
		s.and(recordings.GapMS.is(0))
	}
}

// tail adds the term of the greatest limit that what is asked for reaches.
func (s *search) tail(field rune, prefix string, tails []int64, least float64) {
	for i := len(tails) - 1; i >= 0; i-- {
		if least >= float64(tails[i]) {
			s.exact(field, prefix+fmt.Sprint(tails[i]))
			return
		}
	}
}

func (s *search) spans(q *recorder.Query) {
	if q.DurationMin > 0 {
		s.tail(termLonger, "", longerTails, q.DurationMin.Seconds())
		s.shortMS = q.DurationMin.Milliseconds()
		s.and(recordings.RealMS.atLeast(s.shortMS))
	}
	if q.DurationMax > 0 {
		s.longMS = q.DurationMax.Milliseconds()
		s.and(recordings.RealMS.atMost(s.longMS))
	}
	if q.GapsMin > 0 {
		s.tail(termGapMS, "", gapTails, q.GapsMin.Seconds())
		s.and(recordings.GapMS.atLeast(q.GapsMin.Milliseconds()))
	}
}

func (s *search) quality(q *recorder.Query) {
	if q.MOSBelow > 0 {
		for _, n := range mosTails {
			if q.MOSBelow <= float64(n)/10 {
				s.exact(termMOS, fmt.Sprint(n))
				break
			}
		}
		s.and(allOf(recordings.MOS.above(0), recordings.MOS.below(q.MOSBelow)))
	}
	if q.LossAbove > 0 {
		s.tail(termLoss, "", lossTails, q.LossAbove)
		s.and(recordings.Loss.above(q.LossAbove))
	}
}

func (s *search) windows(q *recorder.Query) {
	reason := clean(q.Window)
	if q.WindowMin > 0 {
		s.tail(termWindowMS, reason+"=", windowTails, q.WindowMin.Seconds())
		s.windowSum(reason, ">=", q.WindowMin)
	}
	if q.WindowMax > 0 {
		s.windowSum(reason, "<=", q.WindowMax)
	}
}

// windowOf stands for the sum of one reason's windows; each engine has its own words for it.
const windowOf = "WINDOW_OF"

func (s *search) windowSum(reason, op string, d time.Duration) {
	if reason == "" {
		s.and(recordings.SuppressedMS.compare(op, d.Milliseconds()))
		return
	}
	s.and(cond{windowOf + " " + op + " ?", []any{reason, d.Milliseconds()}})
}

// text adds the words of a free text.
func (s *search) text(text string) error {
	for _, w := range strings.Fields(text) {
		stem, prefix := strings.CutSuffix(w, "*")
		words := wordsOf(stem)
		if len(words) == 0 || prefix && utf8.RuneCountInString(words[len(words)-1]) < 2 {
			return &recorder.QueryError{Field: "text", Why: "a word has letters or digits, at least two before a *"}
		}
		for i, x := range words {
			s.must = append(s.must, match{term: term(termWord, x), prefix: prefix && i == len(words)-1})
		}
	}
	return nil
}

// numbers adds conditions on the numbers of From and To.
func (p numberPlan) numbers(s *search, q *recorder.Query) error {
	if q.NumberIs != "" {
		n := cut(p.normal(clean(q.NumberIs)))
		s.exact(termNumber, n)
		s.and(anyOf(recordings.FromNumber.is(n), recordings.ToNumber.is(n)))
	}
	if q.NumberPrefix != "" {
		n := cut(p.prefix(clean(q.NumberPrefix)))
		s.grams("^" + n)
		s.like(escapeLike(n) + "%")
	}
	if q.NumberSuffix != "" {
		n := numberPart(clean(q.NumberSuffix))
		if err := s.least("number_suffix", n); err != nil {
			return err
		}
		s.grams(n + "$")
		s.like("%" + escapeLike(n))
	}
	if q.Number != "" {
		n := numberPart(clean(q.Number))
		if err := s.least("number", n); err != nil {
			return err
		}
		s.grams(n)
		s.like("%" + escapeLike(n) + "%")
	}
	return nil
}

// least refuses to look for less than what is indexed, unless time bounds it.
func (s *search) least(field, part string) error {
	if utf8.RuneCountInString(part) < recorder.NumberPartMin && !s.bounded {
		return &recorder.QueryError{Field: field, Why: fmt.Sprintf("fewer than %d characters need from and to", recorder.NumberPartMin)}
	}
	return nil
}

// prefix is the beginning of a number, which tells less than a whole one.
func (p numberPlan) prefix(s string) string {
	bare := withoutSeparators(s)
	switch {
	case strings.HasPrefix(bare, "+"), strings.Trim(bare, "0123456789") != "":
		return numberPart(s)
	case strings.HasPrefix(bare, "00"):
		return bare[2:]
	case p.country != "" && strings.HasPrefix(bare, "0"):
		return p.country + bare[1:]
	}
	return bare
}

func cut(s string) string {
	if r := []rune(s); len(r) > numberMax {
		return string(r[:numberMax])
	}
	return s
}

const gramsMax = 3 // that are looked up; rows tell the rest

// grams adds terms of what is known of ^number$: some that lie apart, from the end, because
// beginnings are common to a whole country. A piece of three characters is the
// beginning of one.
func (s *search) grams(part string) {
	r := []rune(part)
	if len(r) < gramLen {
		if r[len(r)-1] != '$' && (len(r) == gramLen-1 || r[0] == '^') {
			s.must = append(s.must, match{term: term(termGram, part), prefix: true, inRow: true})
		}
		return
	}
	at := len(r) - gramLen
	for n := 0; n < gramsMax; n++ {
		s.must = append(s.must, match{term: term(termGram, string(r[at:at+gramLen]))})
		if at == 0 || at < gramLen && r[0] == '^' && n > 0 {
			return
		}
		at = max(at-gramLen, 0)
	}
}

func (s *search) like(pattern string) {
	s.and(anyOf(likePattern(recordings.FromNumber, pattern), likePattern(recordings.ToNumber, pattern)))
}

func escapeLike(s string) string {
	return strings.NewReplacer(`!`, `!!`, `%`, `!%`, `_`, `!_`).Replace(s)
}

// hashOf tells queries apart, but for what concerns the page.
func hashOf(q *recorder.Query) (h [hashLen]byte) {
	sum := sha256.New()
	for i := range recorder.QueryFields {
		f := &recorder.QueryFields[i]
		if f.Paged && f.Name != "order" {
			continue
		}
		for _, v := range f.Get(q) {
			if f.Name == "order" && v == recorder.OrderNewest {
				continue // the default
			}
			fmt.Fprintf(sum, "%s=%d:%s\n", f.Name, len(v), v)
		}
	}
	copy(h[:], sum.Sum(nil))
	return h
}

// inRows applies the conditions that are looked up in each row.
func (s *search) inRows(e engine, q *bun.SelectQuery, terms bool) *bun.SelectQuery {
	for _, c := range s.where {
		if op, ok := strings.CutPrefix(c.sql, windowOf); ok {
			expr := e.windowExpr(c.args[0].(string))
			c = cond{expr.sql + op, append(expr.args, c.args[1:]...)}
		}
		q = c.on(q)
	}
	for _, m := range s.not {
		q = e.lacks(m).on(q)
	}
	if terms {
		for _, c := range e.has(s.must) {
			q = c.on(q)
		}
	}
	return q
}
