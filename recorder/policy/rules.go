// Package policy turns rules into decisions: which calls are recorded, and
// which users are stations.
package policy

import (
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/trunktap/trunktap/media"
)

// Rule says whether the calls that it matches are recorded. A condition that
// is zero matches every call.
type Rule struct {
	Record  bool
	Percent int // 0…100 of the calls that match; the others get the opposite of Record

	Direction media.Direction // "": both
	From, To  []string        // numbers and user parts, * stands for anything; compared folded, see Fold

	Days   Days          // on which the span begins
	Begin  time.Duration // since midnight of the clock on the wall, whole minutes; in the span
	End    time.Duration // not in the span; before Begin: of the next day; both 0: the whole day
	InZone string        // IANA name; "": UTC
}

// Days is a set of days of the week: bit d is time.Weekday d. 0 is every day.
type Days uint8

// DaysOf returns the set of some days.
func DaysOf(list ...time.Weekday) Days {
	var d Days
	for _, w := range list {
		d |= 1 << w
	}
	return d
}

func (d Days) has(w time.Weekday) bool { return d == 0 || d&(1<<w) != 0 }

const day = 24 * time.Hour

// Rules decides by the first rule that a call matches. It is immutable. The
// zero value records every call.
type Rules struct{ rules []compiled }

type compiled struct {
	Rule
	from, to numbers
	zone     *time.Location
}

// Compile makes rules ready. The error names all that are faulty.
func Compile(rules []Rule) (*Rules, error) {
	out, errs := &Rules{rules: make([]compiled, len(rules))}, []error(nil)
	for i, r := range rules {
		zone, err := time.LoadLocation(r.InZone)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("rule %d: %w", i, err))
		case r.Percent < 0 || r.Percent > 100:
			errs = append(errs, fmt.Errorf("rule %d: %d percent: want 0 to 100", i, r.Percent))
		case r.Begin < 0 || r.Begin >= day || r.End < 0 || r.End > day:
			errs = append(errs, fmt.Errorf("rule %d: from %v to %v: want times within a day", i, r.Begin, r.End))
		}
		out.rules[i] = compiled{Rule: r, from: newNumbers(r.From), to: newNumbers(r.To), zone: zone}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

// Decide tells whether a call is recorded and which rule said so. It depends
// on the session alone: the same call, replayed, is decided alike.
func (r *Rules) Decide(s media.Session) (record bool, why string) {
	from, to := User(s.From), User(s.To)
	for i := range r.rules {
		c := &r.rules[i]
		if !c.matches(s, from, to) {
			continue
		}
		if c.Percent < 100 {
			return c.Record == (sample(s.ID) < c.Percent), fmt.Sprintf("rules[%d], %d percent", i, c.Percent)
		}
		return c.Record, fmt.Sprintf("rules[%d]", i)
	}
	return true, "no rule"
}

func (c *compiled) matches(s media.Session, from, to string) bool {
	return (c.Direction == "" || c.Direction == s.Direction) && c.from.has(from) && c.to.has(to) && c.within(s.Start)
}

// within tells whether a moment lies in the span of the rule, by the clock on
// the wall: an hour that a change of the clock repeats is in it twice, one
// that it leaves out never.
func (c *compiled) within(at time.Time) bool {
	if c.Days == 0 && c.Begin == c.End {
		return true
	}
	local := at.In(c.zone)
	today := local.Weekday()
	if c.Begin == c.End {
		return c.Days.has(today)
	}
	h, m, s := local.Clock()
	clock := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
	if c.Begin < c.End {
		return c.Days.has(today) && c.Begin <= clock && clock < c.End
	}
	yesterday := (today + 6) % 7
	return c.Days.has(today) && clock >= c.Begin || c.Days.has(yesterday) && clock < c.End
}

// sample gives a call its place among 100, by its id.
func sample(id string) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // a hash never fails
	x := h.Sum64()
	x ^= x >> 33 // ids that differ in their last character only differ in low bits only
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return int(x % 100)
}
