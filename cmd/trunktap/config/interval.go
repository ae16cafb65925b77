package config

import (
	"slices"
	"strings"
	"time"
)

// Interval is a span of the calendar, or of time. The zero value is none.
type Interval struct {
	Months int
	For    time.Duration
}

const day = 24 * time.Hour

// intervals are those that have a word.
var intervals = map[string]Interval{"daily": {For: day}, "weekly": {For: 7 * day}, "monthly": {Months: 1}, "yearly": {Months: 12}}

// After returns the time that is an interval after another; a day that its month
// does not have becomes the last one that it has.
func (i Interval) After(t time.Time) time.Time {
	if i.Months > 0 {
		there := t.AddDate(0, i.Months, 0)
		if there.Day() != t.Day() { // AddDate went over into the month after
			there = there.AddDate(0, 0, -there.Day())
		}
		t = there
	}
	return t.Add(i.For)
}

// IsZero tells that there is none.
func (i Interval) IsZero() bool { return i == Interval{} }

// interval is a word or a duration.
func interval(target *Interval, least time.Duration) *node {
	const most = 5 * 366 * day
	var words []string
	for w := range intervals {
		words = append(words, w)
	}
	slices.SortFunc(words, func(a, b string) int {
		from := time.Time{}
		return intervals[a].After(from).Compare(intervals[b].After(from))
	})
	want := strings.Join(words, ", ") + " or a duration such as 720h, from " + short(least) + " to " + short(most)
	schema := map[string]any{"type": "string", "pattern": "^(" + strings.Join(words, "|") + ")$|" + durationShape.String()}
	return leaf(target, want, schema, func(s scalar) (Interval, *wrong) {
		if i, ok := intervals[s.text]; ok && s.kind == stringScalar {
			return i, nil
		}
		if w := near(s.text, words); w != "" && s.kind == stringScalar {
			return Interval{}, wrongf("%v is not known, did you mean %q?", s, w)
		}
		var d time.Duration
		w := duration(&d, least, most).set(s)
		return Interval{For: d}, w
	})
}
