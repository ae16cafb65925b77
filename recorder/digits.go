package recorder

import (
	"cmp"
	"slices"

	"github.com/trunktap/trunktap/media"
)

const (
	digitsMax        = 4096   // of a recording
	digitsPendingMax = 256    // not sealed yet
	digitLagMaxMS    = 10_000 // between its place and its arrival: beyond that its time is in doubt
)

// pendingDigit is a digit whose place is not sealed yet.
type pendingDigit struct {
	channel int
	at      int64 // ns: where audio of its timestamp lies, never later than arrival
	arrival int64 // ns
	digit   string
}

// digit gives every recording a digit that is no part of a code.
func (c *core) digit(side media.Side, at, arrival int64, digit byte) {
	for _, r := range c.recs {
		if len(r.digits) >= digitsPendingMax {
			r.account.refuse("dtmf")
			continue
		}
		r.digits = append(r.digits, pendingDigit{r.channel(side), at, arrival, string(rune(digit))})
	}
}

// keepDigits moves the digits whose place and arrival are sealed into the
// account, when nothing between the two lies in a window: neither a digit that
// was dialled in a window and came late, nor one that came in a window with an
// old timestamp, is one to keep.
func (r *recording) keepDigits() {
	rest := r.digits[:0]
	for _, d := range r.digits {
		if r.realMSOf(d.arrival) >= r.sealedMS && d.arrival >= r.origin {
			rest = append(rest, d)
			continue
		}
		if d.at < r.origin || d.arrival-d.at > digitLagMaxMS*1e6 || !r.keptBetween(d.channel, r.realMSOf(d.at), r.realMSOf(d.arrival)) {
			continue
		}
		if len(r.dtmf) >= digitsMax {
			r.account.refuse("dtmf")
			continue
		}
		x := Digit{Channel: d.channel, RealMS: r.realMSOf(d.at), Digit: d.digit}
		i, _ := slices.BinarySearchFunc(r.dtmf, x.RealMS+1, func(e Digit, ms int64) int { return cmp.Compare(e.RealMS, ms) })
		r.dtmf = slices.Insert(r.dtmf, i, x)
		r.seg.stale(x.RealMS)
		r.account.dirty = true
	}
	clear(r.digits[len(rest):])
	r.digits = rest
}

// keptBetween tells whether all sealed milliseconds of a channel from one to
// another are kept.
func (r *recording) keptBetween(channel int, from, to int64) bool {
	for ms := from; ms <= to; ms++ {
		if !r.gate.Heard(channel, ms) {
			return false
		}
	}
	return true
}
