package recorder

import (
	"cmp"
	"slices"
	"time"

	"github.com/trunktap/trunktap/media"
)

const (
	digitsMax        = 4096   // of a recording
	digitsPendingMax = 256    // not sealed yet
	digitLagMaxMS    = 10_000 // between its place and its arrival: beyond that its time is in doubt
)

// infoDigit is a key that the signalling told of.
type infoDigit struct {
	side  media.Side
	digit byte
	down  time.Duration
}

// Digit implements media.DigitTap.
func (s *session) Digit(side media.Side, at time.Time, digit byte, down time.Duration) {
	s.enqueue(control{at: at, kind: controlDigit, digit: infoDigit{side, digit, down}})
}

// pressed takes a key that the signalling told of.
func (c *core) pressed(t time.Time, d infoDigit) {
	if c.ended {
		return
	}
	c.advance(c.ns(t))
	if c.now > c.waitingNS {
		c.takeAnswer()
	}
	c.look = c.now
	c.typists[d.side].pressed(c, d.digit, d.down)
	c.takeTyped()
}

// pendingDigit is a digit whose place is not sealed yet. It is kept when
// everything from from to at and arrival is.
type pendingDigit struct {
	channel int
	at      int64 // ns: where audio of its timestamp lies
	from    int64 // ns: the key may have gone down from here on
	arrival int64 // ns
	digit   byte
	method  method
}

// crowd is digits for which there was no room while they waited. They are
// counted when all that lies between the first and the last is kept, so that
// the count tells nothing of a window.
type crowd struct {
	n             int
	from, arrival int64 // ns
}

// digit gives every recording a digit that is no part of a code.
func (c *core) digit(side media.Side, d heldDigit) {
	for _, r := range c.recs {
		channel := r.channel(side)
		if len(r.digits) >= digitsPendingMax {
			r.crowds[channel].add(d)
			continue
		}
		r.digits = append(r.digits, pendingDigit{channel, d.at, d.from, d.arrival, d.digit, d.method})
	}
}

func (w *crowd) add(d heldDigit) {
	if w.n == 0 {
		w.from = d.from
	}
	w.n++
	w.from, w.arrival = min(w.from, d.from), max(w.arrival, d.arrival, d.at)
}

// keepDigits moves the digits whose place and arrival are sealed into the
// account, when nothing between the two lies in a window: neither a digit that
// was dialled in a window and came late, nor one that came in a window with an
// old timestamp, is one to keep.
func (r *recording) keepDigits() {
	rest := r.digits[:0]
	for _, d := range r.digits {
		if r.waits(max(d.at, d.arrival)) {
			rest = append(rest, d)
			continue
		}
		if d.at < r.origin || d.arrival-d.at > digitLagMaxMS*1e6 || !r.heardBetween(d.channel, d.from, max(d.at, d.arrival)) {
			continue
		}
		r.list(d)
	}
	clear(r.digits[len(rest):])
	r.digits = rest
	for i := range r.crowds {
		w := &r.crowds[i]
		if w.n == 0 || r.waits(w.arrival) {
			continue
		}
		if r.heardBetween(i, w.from, w.arrival) {
			for range w.n {
				r.account.refuse("dtmf")
			}
		}
		*w = crowd{}
	}
}

// waits tells whether a time is not sealed yet.
func (r *recording) waits(ns int64) bool { return ns >= r.origin && r.realMSOf(ns) >= r.sealedMS }

// heardBetween tells whether everything of a channel from one time to another
// is kept. What is before the beginning of the call counts as kept, what is
// before that of a recording in mid-call does not.
func (r *recording) heardBetween(channel int, from, to int64) bool {
	if from < r.origin && r.offsetMS > 0 {
		return false
	}
	return r.keptBetween(channel, r.realMSOf(max(from, r.origin)), r.realMSOf(to))
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

// list puts a digit into the account.
func (r *recording) list(d pendingDigit) {
	if len(r.dtmf) >= digitsMax {
		r.account.refuse("dtmf")
		return
	}
	x := Digit{Channel: d.channel, RealMS: r.realMSOf(d.at), Digit: string(rune(d.digit)), Method: d.method.word()}
	i, _ := slices.BinarySearchFunc(r.dtmf, x.RealMS+1, func(e Digit, ms int64) int { return cmp.Compare(e.RealMS, ms) })
	r.dtmf = slices.Insert(r.dtmf, i, x)
	r.seg.stale(x.RealMS)
	r.account.dirty = true
}

// word is the manifest's.
func (m method) word() string {
	switch m {
	case methodInfo:
		return DigitInfo
	case methodInband:
		return DigitInband
	case methodRFC4733:
	}
	return ""
}

// withdraw takes off what told of the same key in a lesser way.
func (r *recording) withdraw(channel int, by heldDigit) {
	r.digits = slices.DeleteFunc(r.digits, func(d pendingDigit) bool {
		return d.channel == channel && d.digit == by.digit && d.method < by.method && max(d.at-by.at, by.at-d.at) <= int64(sameKey)
	})
	if !r.begun {
		return
	}
	at, reach := r.realMSOf(by.at), sameKey.Milliseconds()
	first, _ := slices.BinarySearchFunc(r.dtmf, at-reach, func(e Digit, ms int64) int { return cmp.Compare(e.RealMS, ms) })
	for i := first; i < len(r.dtmf) && r.dtmf[i].RealMS <= at+reach; {
		d := r.dtmf[i]
		lesser := d.Method == DigitInband || d.Method == DigitInfo && by.method == methodRFC4733
		if d.Channel != channel || d.Digit != string(rune(by.digit)) || !lesser {
			i++
			continue
		}
		r.dtmf = slices.Delete(r.dtmf, i, i+1)
		r.seg.stale(d.RealMS)
		r.account.dirty = true
	}
}
