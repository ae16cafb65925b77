// Package retention decides how long recordings are kept. It is pure: no clock, no
// store.
package retention

import (
	"cmp"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// Rule says how long recordings of one sort are kept. Empty fields hold for all.
type Rule struct {
	Trunk string
	User  string // whose recording it is
	Kind  recorder.Kind
	Store *string // by name; nil: any
	Attr  string  // key=value, or key for any value

	// DeleteAfter is how long after its end a recording is deleted; 0: never.
	DeleteAfter time.Duration
	// GiveWayAfter is how long after its end it may be deleted to make room on a disk
	// that is low; 0: not before DeleteAfter.
	GiveWayAfter time.Duration
}

// after is how long the rule keeps a recording; low: while room is wanted. 0: for ever.
func (r Rule) after(low bool) time.Duration {
	if low {
		return cmp.Or(r.GiveWayAfter, r.DeleteAfter)
	}
	return r.DeleteAfter
}

// match tells whether a rule is for a recording, and whether that is known: of a
// shredded one nobody knows trunk, user and attributes any more.
func (r Rule) match(m *recorder.Manifest, store string) (may, sure bool) {
	if r.Kind != "" && r.Kind != m.Kind || r.Store != nil && *r.Store != store {
		return false, true
	}
	if m.Shredded != nil {
		return true, r.Trunk == "" && r.User == "" && r.Attr == ""
	}
	key, value, valued := strings.Cut(r.Attr, "=")
	have, ok := m.Attrs[key]
	may = (r.Trunk == "" || r.Trunk == m.Trunk) && (r.User == "" || r.User == m.User) &&
		(r.Attr == "" || ok && (!valued || have == value))
	return may, true
}

// Policy is a list of rules, of which the first that is for a recording counts. What
// none is for is kept for ever.
type Policy []Rule

// Keep tells how long after its end a recording is kept; false: for ever. A shredded
// one is kept for as long as any rule would that may have been its own.
func (p Policy) Keep(m *recorder.Manifest, store string, low bool) (time.Duration, bool) {
	longest := time.Duration(0)
	for _, r := range p {
		may, sure := r.match(m, store)
		if !may {
			continue
		}
		d := r.after(low)
		if d <= 0 {
			return 0, false
		}
		if longest = max(longest, d); sure {
			return longest, true
		}
	}
	return 0, false
}

// Least is the shortest time that any rule keeps a recording; false: all are kept for
// ever.
func (p Policy) Least(low bool) (least time.Duration, any bool) {
	for _, r := range p {
		if d := r.after(low); d > 0 && (!any || d < least) {
			least, any = d, true
		}
	}
	return least, any
}

// Ended is when a recording ended, as far as its account tells: nothing of it is later.
func Ended(m *recorder.Manifest) time.Time {
	end := m.Origin.Add(time.Duration(m.RealMS) * time.Millisecond)
	for _, t := range []time.Time{m.Call.Start, m.Call.Answer, m.Call.End} {
		if t.After(end) {
			end = t
		}
	}
	if m.Shredded != nil {
		return end.Add(2 * 24 * time.Hour) // of it only the day is known on which it began
	}
	return end
}

// Due tells since when a recording need not be kept any more; false: it is to be kept.
func (p Policy) Due(m *recorder.Manifest, store string, low bool, now time.Time) (time.Time, bool) {
	keep, ok := p.Keep(m, store, low)
	end := Ended(m)
	if !ok || end.IsZero() {
		return time.Time{}, false
	}
	due := end.Add(keep)
	return due, !due.After(now)
}
