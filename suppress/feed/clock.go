package feed

import "time"

const (
	// clockOffMin is how far a clock must at least be off before it is corrected:
	// what is less may be the way that a message took.
	clockOffMin = 250 * time.Millisecond
	// clockSpan is how long the least delay of a message is remembered, once and
	// at most twice.
	clockSpan = time.Minute
	// delayMax is how long a message may take. One that seems to have taken longer
	// comes from a clock that was set.
	delayMax = 10 * time.Second
)

// Clock brings the times that a source tells to the clock of this machine. A
// clock that is slow would end a secure pause before its end, as far back as a
// signal acts, and one that is fast would begin it too late. What the least
// delayed message of the last minutes says is how far the clock is off: messages
// come often, and the first counts as not delayed. The zero value is ready; one
// goroutine owns it.
type Clock struct {
	begun      time.Time // of the present span; zero: nothing was told yet
	least      time.Duration
	before     time.Duration // the least of the span before
	spanBefore bool
}

// Time returns when something happened that a message which arrived now tells
// the time of. It is never after now.
func (c *Clock) Time(told, now time.Time) time.Time {
	delay := now.Sub(told)
	if c.learn(delay, now); delay-c.off() > delayMax {
		*c = Clock{}
		c.learn(delay, now)
	}
	return c.Past(told, now)
}

// Past is Time for an earlier time, one that does not tell of the message's way.
func (c *Clock) Past(told, now time.Time) time.Time {
	// Derived from now, so that it keeps the monotonic reading.
	return now.Add(-max(0, now.Sub(told)-c.off()))
}

// off is how far the clock is behind.
func (c *Clock) off() time.Duration {
	off := c.least
	if c.spanBefore {
		off = min(off, c.before)
	}
	if off.Abs() < clockOffMin {
		return 0
	}
	return off
}

// learn notes how long a message took, by the two clocks.
func (c *Clock) learn(delay time.Duration, now time.Time) {
	switch since := now.Sub(c.begun); {
	case c.begun.IsZero() || since >= 2*clockSpan || since < 0:
		c.begun, c.least, c.spanBefore = now, delay, false
	case since >= clockSpan:
		c.begun, c.before, c.spanBefore, c.least = now, c.least, true, delay
	default:
		c.least = min(c.least, delay)
	}
}
