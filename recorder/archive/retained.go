package archive

import (
	"sync"
	"time"
)

// retained is what runs of Expire have done. Safe for concurrent use.
type retained struct {
	mu     sync.Mutex // guards all following
	last   *ExpireReport
	total  Retained
	locked map[string]time.Time // recordings that are not to be tried before
}

// Retained sums up what retention has deleted since the start.
type Retained struct {
	Deleted int64
	Bytes   int64
	GaveWay int64         // of the deleted, those that made room on a disk that was low
	Last    *ExpireReport // of the last run; nil: there was none
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

func (t *retained) note(r ExpireReport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total.Deleted += int64(r.Deleted)
	t.total.Bytes += r.Bytes
	if r.Room {
		t.total.GaveWay += int64(r.Deleted)
		return // what is due was not looked for
	}
	t.last = &r
}

// lock notes that a store keeps a recording from being deleted. Each try would leave
// its trace in the log.
func (t *retained) lock(id string, until, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if until.IsZero() {
		until = now.Add(lockedAgain)
	}
	if t.locked == nil || len(t.locked) >= lockedMax {
		t.locked = map[string]time.Time{} // they are tried once more
	}
	t.locked[id] = until
}

func (t *retained) isLocked(id string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	until, ok := t.locked[id]
	if ok && !now.Before(until) {
		delete(t.locked, id)
		return false
	}
	return ok
}
