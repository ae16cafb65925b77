package suppress

import (
	"cmp"
	"math"
	"slices"
	"sort"
)

// windowsMax bounds the windows of one recording. Once there are so many, a
// window that is open then stays open to the end of the call: the account
// stays exact and nothing is kept in doubt.
const windowsMax = 10_000

const (
	msNS  = int64(1_000_000) // nanoseconds of a millisecond
	noPos = int64(-1)
	maxMS = math.MaxInt64/msNS - 1 // the last position that fits
)

// floorMS and ceilMS give the milliseconds in which a window opens and closes:
// a millisecond is suppressed when any instant of it is.
func floorMS(ns int64) int64 {
	if ns <= 0 {
		return 0
	}
	return ns / msNS
}

func ceilMS(ns int64) int64 {
	if ns <= 0 {
		return 0
	}
	return (ns-1)/msNS + 1
}

// Window is a span that is suppressed for one reason. Windows of one reason
// neither overlap nor touch; those of different reasons may. A window without
// length tells of one that was over before the signal of its start arrived:
// its MissedMS are in the recording.
type Window struct {
	Reason    Reason
	RealMS    int64  // where it acts from
	EndRealMS int64  // the first millisecond after it
	LateMS    int64  // how long after its time the signal of its start arrived
	MissedMS  int64  // how much of it was sealed, and captured, by then
	Source    string // of the signal of its start; "rules" for a consent that is required from the start
	Mic       bool   // it silences channel 1 alone and takes no time out of the audio; where another window overlaps it, that one does
}

// record is a window in the making.
type record struct {
	Window
	reason   int
	open     bool
	openedMS int64 // where it was opened last; a window that is opened where it ended goes on
	missFrom int64 // the earliest time a late start claims, noPos without one
}

// ledger holds the windows in order of opening.
type ledger struct {
	records []record
	last    [reasonCount]int // index of the reason's latest record plus one
}

func (lg *ledger) latest(reason int) *record {
	if i := lg.last[reason]; i > 0 {
		return &lg.records[i-1]
	}
	return nil
}

// open begins a window at atMS, or goes on with the one that ended there.
func (lg *ledger) open(e event, atMS, missFrom int64) {
	r := lg.latest(e.reason)
	if r == nil || r.EndRealMS < atMS {
		r = lg.add(e, atMS)
	}
	r.open, r.openedMS, r.missFrom = true, atMS, missFrom
}

func (lg *ledger) add(e event, atMS int64) *record {
	lg.records = append(lg.records, record{reason: e.reason, missFrom: noPos, Window: Window{
		Reason: reasonNames[e.reason], RealMS: atMS, EndRealMS: atMS, LateMS: e.lateMS, Source: e.source, Mic: e.reason == idHoldMic,
	}})
	lg.last[e.reason] = len(lg.records)
	return &lg.records[len(lg.records)-1]
}

// close ends the reason's window at atMS; missTo is the time that its end
// claims, which lies before atMS when the end was late.
func (lg *ledger) close(reason int, atMS, missTo int64, sealed *past) {
	r := lg.latest(reason)
	r.MissedMS += r.pendingMissed(missTo, sealed)
	r.open, r.missFrom = false, noPos
	r.EndRealMS = max(r.EndRealMS, atMS)
	if r.RealMS == r.EndRealMS && r.MissedMS == 0 && lg.last[reason] == len(lg.records) {
		lg.forget(reason)
	}
}

// forget takes back the youngest record, which is the reason's.
func (lg *ledger) forget(reason int) {
	n := len(lg.records) - 1
	lg.records = lg.records[:n]
	for n > 0 && lg.records[n-1].reason != reason {
		n--
	}
	lg.last[reason] = n
}

// pendingMissed is what the open window's late start missed.
func (r *record) pendingMissed(missTo int64, sealed *past) int64 {
	if !r.open || r.missFrom == noPos {
		return 0
	}
	return sealed.captured(r.reason, r.missFrom, min(r.openedMS, missTo))
}

// claims is from when on the open window has, or should have, been.
func (r *record) claims() int64 {
	if r.missFrom != noPos {
		return r.missFrom
	}
	return r.openedMS
}

// full tells whether one more window would be too many.
func (lg *ledger) full() bool { return len(lg.records) >= windowsMax }

// list returns the windows within [0, toMS), in order of start then reason.
func (lg *ledger) list(toMS int64, sealed *past) []Window {
	var ws []Window
	for i := range lg.records {
		r := &lg.records[i]
		w := r.Window
		if r.open {
			w.EndRealMS = toMS
		}
		w.EndRealMS = min(w.EndRealMS, toMS)
		w.MissedMS += r.pendingMissed(toMS, sealed)
		if w.RealMS < w.EndRealMS || w.RealMS == w.EndRealMS && w.MissedMS > 0 {
			ws = append(ws, w)
		}
	}
	slices.SortStableFunc(ws, func(a, b Window) int {
		return cmp.Or(cmp.Compare(a.RealMS, b.RealMS), cmp.Compare(a.Reason, b.Reason))
	})
	return ws
}

// past is what became of sealed time.
type past struct {
	cut   cuts // suppressed on both channels
	quiet cuts // suppressed, or channel 1 silent
}

func (p *past) add(s Span) {
	if s.Suppressed {
		p.cut.add(s.FromMS, s.ToMS)
	}
	if s.Suppressed || s.Mic {
		p.quiet.add(s.FromMS, s.ToMS)
	}
}

// captured returns how many milliseconds of [from, to) were captured that the
// reason would not have let through.
func (p *past) captured(reason int, from, to int64) int64 {
	if reason == idHoldMic {
		return p.quiet.captured(from, to)
	}
	return p.cut.captured(from, to)
}

// cut is one suppressed interval of sealed time.
type cut struct {
	from, to int64
	before   int64 // ms suppressed before it
}

// cuts are disjoint suppressed intervals in order, for look-ups.
type cuts struct{ list []cut }

// add appends an interval that does not lie before the end of the last one.
func (c *cuts) add(from, to int64) {
	if to <= from {
		return
	}
	n := len(c.list)
	if n > 0 && c.list[n-1].to == from {
		c.list[n-1].to = to
		return
	}
	before := int64(0)
	if n > 0 {
		before = c.list[n-1].before + c.list[n-1].to - c.list[n-1].from
	}
	c.list = append(c.list, cut{from, to, before})
}

// before returns how many of the milliseconds before atMS are suppressed.
func (c *cuts) before(atMS int64) int64 {
	i := sort.Search(len(c.list), func(i int) bool { return c.list[i].from >= atMS })
	if i == 0 {
		return 0
	}
	k := c.list[i-1]
	return k.before + min(atMS, k.to) - k.from
}

// contains tells whether a millisecond is suppressed.
func (c *cuts) contains(atMS int64) bool { return c.before(atMS+1) > c.before(atMS) }

// captured returns how many milliseconds of [from, to) are not suppressed.
func (c *cuts) captured(from, to int64) int64 {
	if to <= from {
		return 0
	}
	return to - from - (c.before(to) - c.before(from))
}
