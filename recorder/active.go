package recorder

import (
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// activeEvery is how often the reasons of a timeline on which something waits are
// looked at although no signal came.
const activeEvery = 200 * time.Millisecond

// activeReasons remembers why nothing is captured on a timeline at the moment:
// finding out costs time in proportion to its windows, and it is asked in each
// round.
type activeReasons struct {
	known   bool
	signals int   // applied by then
	atNS    int64 // when that was
	waiting bool  // something was to happen by itself
	words   []string
}

// at returns the reasons at a position, which is reached at now; signals counts
// those that were applied. The result must be left as it is.
func (a *activeReasons) at(t *suppress.Timeline, signals int, ms, now int64) []string {
	waits := t.Pending() > 0
	due := (waits || a.waiting) && now-a.atNS >= int64(activeEvery)
	if a.known && a.signals == signals && !due {
		return a.words
	}
	*a = activeReasons{true, signals, now, waits, words(t.Reasons(ms))}
	return a.words
}
