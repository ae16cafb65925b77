package recorder

import (
	"cmp"
	"slices"
)

const (
	digitsMax        = 4096 // of a recording
	digitsPendingMax = 256  // not sealed yet
)

// pendingDigit is a digit whose place is not sealed yet.
type pendingDigit struct {
	channel int
	at      int64 // ns: where audio of its timestamp lies, never later than arrival
	arrival int64 // ns
	digit   string
}

// keepDigits moves the digits whose place and arrival are sealed into the
// account, when nothing between the two lies in a window: neither a digit that
// was dialled in a window and came late, nor one that came in a window with an
// old timestamp, is one to keep.
func (c *core) keepDigits() {
	rest := c.digits[:0]
	for _, d := range c.digits {
		if c.realMSOf(d.arrival) >= c.sealedMS && d.arrival >= c.origin {
			rest = append(rest, d)
			continue
		}
		if d.at < c.origin || !c.keptBetween(c.realMSOf(d.at), c.realMSOf(d.arrival)) {
			continue
		}
		if len(c.dtmf) >= digitsMax {
			c.account.refuse("dtmf")
			continue
		}
		x := Digit{Channel: d.channel, RealMS: c.realMSOf(d.at), Digit: d.digit}
		i, _ := slices.BinarySearchFunc(c.dtmf, x.RealMS+1, func(e Digit, ms int64) int { return cmp.Compare(e.RealMS, ms) })
		c.dtmf = slices.Insert(c.dtmf, i, x)
		c.seg.stale(x.RealMS)
		c.account.dirty = true
	}
	clear(c.digits[len(rest):])
	c.digits = rest
}

// keptBetween tells whether all sealed milliseconds from one to another are kept.
func (c *core) keptBetween(from, to int64) bool {
	for ms := from; ms <= to; ms++ {
		if !c.gate.Kept(ms) {
			return false
		}
	}
	return true
}
