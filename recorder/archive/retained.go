package archive

import (
	"sync"
	"time"
)

// retained is what runs of Expire have done. Safe for concurrent use.
type retained struct {
	mu    sync.Mutex // guards all following
	last  *ExpireReport
	total Retained
	later map[string]later // recordings that are not to be tried now
}

// Retained sums up what retention has deleted since the start.
type Retained struct {
	Deleted int64
	Bytes   int64         // of those that a run has deleted without a fault
	GaveWay int64         // of the deleted, those that made room on a disk that was low
	Last    *ExpireReport // of the last run that was not cut short; nil: there was none
}

// Retained tells what retention has done.
func (a *Archive) Retained() Retained {
	a.retained.mu.Lock()
	defer a.retained.mu.Unlock()
	out := a.retained.total
	if a.retained.last != nil {
		last := *a.retained.last
		out.Last = &last
	}
	return out
}

// note counts what a run has done. One that was cut short is not the last: it has not
// looked at all.
func (t *retained) note(r ExpireReport, whole bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total.Deleted += int64(r.Deleted)
	t.total.Bytes += r.Bytes
	if r.Room {
		t.total.GaveWay += int64(r.Deleted)
		return // what is due was not looked for
	}
	if whole {
		t.last = &r
	}
}

// ended counts a deletion that DeleteDue has ended.
func (t *retained) ended() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total.Deleted++
}

// later says until when a recording is not tried again, and why.
type later struct {
	until      time.Time
	unreadable bool // else its store keeps it
}

// postpone notes that a recording cannot be deleted, or not be read: each try would leave
// its trace in the log, or ask a key service. A zero time is a day from now.
func (t *retained) postpone(id string, l later, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.until.IsZero() {
		l.until = now.Add(againAfter)
	}
	if t.later == nil || len(t.later) >= laterMax {
		t.later = map[string]later{} // they are tried once more
	}
	t.later[id] = l
}

// postponed tells whether a recording is not to be tried now.
func (t *retained) postponed(id string, now time.Time) (later, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.later[id]
	if ok && !now.Before(l.until) {
		delete(t.later, id)
		return l, false
	}
	return l, ok
}
