package b2bua

import "time"

// drainRetry is after how long those are to try again that a draining daemon refuses.
const drainRetry = time.Minute

// Drain refuses new calls from now on, with 503 and Retry-After; those that are going
// on stay, until Calls tells that there are none left.
func (b *B2BUA) Drain() { b.draining.Store(true) }

// Draining tells whether new calls are refused because of Drain.
func (b *B2BUA) Draining() bool { return b.draining.Load() }
