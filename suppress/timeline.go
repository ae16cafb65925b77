package suppress

import (
	"math"
	"slices"
	"time"
)

// pendingEventsMax bounds the events that wait for the seal to reach them.
// Beyond it a start acts at once, from the sealed frontier on, and an end is
// dropped and counted: what is in doubt stays closed.
const pendingEventsMax = 1024

// Span is a stretch of sealed time that is kept or suppressed as a whole.
type Span struct {
	FromMS, ToMS int64
	Suppressed   bool // on both channels
	Mic          bool // kept, but channel 1 is silent (Rules.HoldMic)
}

// Effect says what a signal did.
type Effect struct {
	AppliedAt time.Time // from when on it acts: its own time, or the sealed frontier when that has passed it
	LateMS    int64     // how long after its own time it arrived
	MissedMS  int64     // of a start: how much of its window was sealed, and captured, by then
	Reasons   []Reason  // active right after it, sorted
	Duplicate bool      // its (source, seq) was applied before; it did nothing
	Changed   bool      // a reason began or ended by it
}

// Counts tells where limits were reached.
type Counts struct {
	Duplicates    int64 // signals that came again
	EndsDropped   int64 // ends that did not act because too much was pending
	StartsEarly   int64 // starts that acted before their time because too much was pending
	WindowsStuck  int64 // reasons that stay active because there were too many windows
	MissedDropped int64 // missed windows that are not listed because there were too many
}

// Timeline turns the signals of one recording into windows and spans. Real
// time is counted in whole milliseconds from the origin; a millisecond is
// suppressed when a reason is active at any instant of it. One goroutine owns
// a Timeline.
//
// A reason is active as long as one of its holders is: a party for hold, a flow
// for ivr, a queue for queue; the others have one. The state of a holder is
// that of the latest of its events by their own time. Events at one instant
// are ordered by sequence number when one source gave them, else as they
// arrived. So signals may come in any order, as long as their time is not
// sealed.
//
// What is sealed never changes. An event whose time is sealed acts from the
// frontier on, if it still counts: a start does unless an end of the same
// source surely follows it, an end does unless its holder may have started
// after it. So a doubt (clocks of two sources, a time that contradicts a
// sequence number) leaves the window open, which loses audio that might have
// been kept and never keeps audio that had to be lost.
type Timeline struct {
	rules Rules
	seen  seen

	origin    time.Time
	hasOrigin bool
	sealedMS  int64
	endMS     int64 // math.MaxInt64 until the BYE

	now      state       // at the frontier
	windows  ledger      // as of the frontier
	sealed   cuts        // what is suppressed before the frontier
	pending  []event     // at or after the frontier, in their order
	early    []earlySign // those that wait for the origin, as they arrived
	arrivals uint64
	counts   Counts
}

// earlySign is a pending event of a recording without origin.
type earlySign struct {
	event
	at time.Time
}

// New returns the timeline of a recording that follows the rules.
func New(r Rules) *Timeline {
	t := &Timeline{rules: r, endMS: math.MaxInt64}
	if r.ConsentRequired {
		e := event{reason: idConsent, start: true, stamp: stamp{atNS: math.MinInt64, source: sourceRules}}
		t.now[idConsent].begin(e)
		t.windows.open(e, 0, noPos)
	}
	return t
}

// SetOrigin gives the time of position 0. Signals applied before are placed
// now, those of an earlier time at 0. Only the first call counts.
func (t *Timeline) SetOrigin(o time.Time) {
	if t.hasOrigin {
		return
	}
	if !t.origin.IsZero() {
		t.now.shift(int64(t.origin.Sub(o)))
	}
	t.origin, t.hasOrigin = o, true
	t.pending = t.pending[:0]
	for _, s := range t.early {
		s.atNS = int64(s.at.Sub(o))
		t.insert(s.event)
	}
	t.early = nil
	w := t.walk()
	t.drop(w.until(t.pending, 0))
}

// Sealed returns the frontier: everything before it is final.
func (t *Timeline) Sealed() int64 { return t.sealedMS }

// Pending is how many signals act beyond the frontier: Seal passes them, and
// then Windows tells what became of them.
func (t *Timeline) Pending() int { return len(t.pending) }

// Counts returns where limits were reached so far.
func (t *Timeline) Counts() Counts { return t.counts }

// End sets the end of the recording, the BYE: all windows close there and
// signals of a later time do nothing. It never lies before what is sealed.
// Only the first call counts.
func (t *Timeline) End(atMS int64) {
	if t.endMS == math.MaxInt64 {
		t.endMS = min(max(atMS, t.sealedMS), maxMS)
	}
}

// Apply takes a signal. It acts from its own time At on, or from the sealed
// frontier when that is later. Signals that open and close no window, by
// their kind or by the rules, are noted for their sequence number alone.
func (t *Timeline) Apply(s Signal) Effect {
	t.arrivals++
	atNS := t.place(s.At)
	eff := Effect{AppliedAt: t.actsAt(s.At, atNS)}
	if late := s.Received.Sub(s.At); !s.Received.IsZero() && late > 0 {
		eff.LateMS = late.Milliseconds()
	}
	if t.seen.repeat(s.Source, s.Seq) {
		t.counts.Duplicates++
		eff.Duplicate = true
		eff.Reasons = reasonsOf(t.maskAt(atNS))
		return eff
	}
	e, ok := t.rules.event(s)
	if !ok || t.endMS != math.MaxInt64 && atNS >= t.endMS*msNS {
		eff.Reasons = reasonsOf(t.maskAt(atNS))
		return eff
	}
	e.stamp = stamp{atNS: atNS, source: s.Source, seq: s.Seq, arrival: t.arrivals}
	e.lateMS = eff.LateMS
	switch {
	case t.hasOrigin && atNS < t.sealedMS*msNS:
		t.applyLate(e, &eff)
	case len(t.pending) >= pendingEventsMax:
		t.applyFull(e, &eff)
	default:
		if !t.hasOrigin {
			t.early = append(t.early, earlySign{e, s.At})
		}
		before, after := t.maskAround(t.insert(e))
		eff.Reasons, eff.Changed = reasonsOf(after), before != after
	}
	return eff
}

// place gives the position of a time. Before the origin is known the first
// signal stands for it, which is enough to order them.
func (t *Timeline) place(at time.Time) int64 {
	if !t.hasOrigin && t.origin.IsZero() {
		t.origin = at
	}
	return int64(at.Sub(t.origin))
}

func (t *Timeline) actsAt(at time.Time, atNS int64) time.Time {
	if !t.hasOrigin || atNS >= t.sealedMS*msNS {
		return at
	}
	return t.origin.Add(time.Duration(t.sealedMS) * time.Millisecond)
}

// insert puts an event in its place among the pending ones: after those of
// the same instant, but before those of the same source that it precedes.
func (t *Timeline) insert(e event) int {
	i, _ := slices.BinarySearchFunc(t.pending, e.atNS, func(p event, at int64) int {
		if p.atNS <= at {
			return -1
		}
		return 1
	})
	for k := i - 1; k >= 0 && t.pending[k].atNS == e.atNS; k-- {
		if p := &t.pending[k]; p.sequenced(e.stamp) && p.seq > e.seq {
			i = k
		}
	}
	t.pending = slices.Insert(t.pending, i, e)
	return i
}

// drop removes the first n pending events.
func (t *Timeline) drop(n int) {
	if n > 0 {
		t.pending = slices.Delete(t.pending, 0, n)
	}
}

// maskAround returns what is active just before and just after a pending event.
func (t *Timeline) maskAround(i int) (before, after uint8) {
	st := t.now.clone()
	for k := range t.pending[:i] {
		st[t.pending[k].reason].apply(t.pending[k])
	}
	before = st.mask()
	st[t.pending[i].reason].apply(t.pending[i])
	return before, st.mask()
}

// maskAt returns what is active right after an instant.
func (t *Timeline) maskAt(atNS int64) uint8 {
	if t.endMS != math.MaxInt64 && atNS >= t.endMS*msNS {
		return 0
	}
	n := 0
	for n < len(t.pending) && t.pending[n].atNS <= atNS {
		n++
	}
	if n == 0 {
		return t.now.mask()
	}
	_, after := t.maskAround(n - 1)
	return after
}

// applyLate lets an event act whose time is sealed already.
func (t *Timeline) applyLate(e event, eff *Effect) {
	rs := &t.now[e.reason]
	from, until := floorMS(e.atNS), int64(math.MaxInt64)
	if e.start {
		until = rs.endAfter(e)
		eff.MissedMS = t.sealed.captured(from, min(t.sealedMS, ceilMS(until)))
	}
	before := t.now.mask()
	rs.applyLate(e)
	missFrom, missTo := noPos, int64(math.MaxInt64)
	if e.start {
		missFrom = from
	} else {
		missTo = ceilMS(e.atNS)
	}
	w := t.walk()
	w.change(before, t.sealedMS*msNS, missFrom, missTo)
	after := t.now.mask()
	if e.start && before == after {
		t.noteMissed(e, from, eff.MissedMS, until)
	}
	eff.Reasons, eff.Changed = reasonsOf(after), before != after
}

// noteMissed lists what a late start that opened no window missed: its reason
// is active already, or was over before it arrived.
func (t *Timeline) noteMissed(e event, from, missedMS, until int64) {
	if missedMS == 0 {
		return
	}
	r := t.windows.latest(e.reason)
	switch {
	case r != nil && r.open && until == math.MaxInt64:
		if r.missFrom == noPos || from < r.missFrom {
			r.missFrom = from
		}
	case r != nil && (r.open || r.EndRealMS >= t.sealedMS):
		r.MissedMS += missedMS
	case t.windows.full():
		t.counts.MissedDropped++
	default:
		t.windows.add(e, t.sealedMS).MissedMS = missedMS
	}
}

// applyFull lets a start act at once when no more events can wait.
func (t *Timeline) applyFull(e event, eff *Effect) {
	before := t.now.mask()
	if e.start {
		t.counts.StartsEarly++
		t.now[e.reason].begin(e)
		if t.hasOrigin {
			eff.AppliedAt = t.origin.Add(time.Duration(t.sealedMS) * time.Millisecond)
		}
		w := t.walk()
		w.change(before, t.sealedMS*msNS, noPos, math.MaxInt64)
	} else {
		t.counts.EndsDropped++
	}
	after := t.now.mask()
	eff.Reasons, eff.Changed = reasonsOf(after), before != after
}

// Seal makes everything before toMS final and appends what lies between the
// old frontier and the new one to dst, kept and suppressed spans alternating.
// Without an origin nothing can be sealed, nor anything after the end.
func (t *Timeline) Seal(toMS int64, dst []Span) []Span {
	toMS = min(toMS, t.endMS, maxMS)
	if !t.hasOrigin || toMS <= t.sealedMS {
		return dst
	}
	w := t.walk()
	w.emits, w.spans, w.first, w.atMS = true, dst, len(dst), t.sealedMS
	t.drop(w.until(t.pending, toMS*msNS))
	w.emit(toMS, t.now.mask() != 0)
	for _, s := range w.spans[w.first:] {
		if s.Suppressed {
			t.sealed.add(s.FromMS, s.ToMS)
		}
	}
	t.sealedMS = toMS
	return w.spans
}

// Windows returns the windows within [0, toMS), in order of start then reason;
// those beyond the frontier as the signals so far have them.
func (t *Timeline) Windows(toMS int64) []Window {
	toMS = min(toMS, t.endMS, maxMS)
	if !t.hasOrigin || toMS < 0 {
		return nil
	}
	lg := ledger{records: slices.Clone(t.windows.records), last: t.windows.last}
	w := walk{st: t.now.clone(), lg: &lg, sealed: &t.sealed, counts: new(Counts)}
	w.until(t.pending, toMS*msNS)
	return lg.list(toMS, &t.sealed)
}

// Reasons returns why the millisecond at atMS is suppressed, sorted; nothing
// when it is kept. Without an origin: why nothing would be kept now.
func (t *Timeline) Reasons(atMS int64) []Reason {
	if !t.hasOrigin {
		return reasonsOf(t.maskAt(math.MaxInt64))
	}
	atMS = min(atMS, maxMS-1)
	var mask uint8
	for _, w := range t.Windows(atMS + 1) {
		if w.RealMS <= atMS && atMS < w.EndRealMS {
			mask |= 1 << slices.Index(reasonNames[:], w.Reason)
		}
	}
	return reasonsOf(mask)
}

// walk goes through pending events in their order and keeps state, windows
// and spans in step.
type walk struct {
	st     *state
	lg     *ledger
	sealed *cuts
	counts *Counts

	emits bool
	spans []Span
	first int   // index of the first span of this walk
	atMS  int64 // spans reach to here
}

func (t *Timeline) walk() walk {
	return walk{st: &t.now, lg: &t.windows, sealed: &t.sealed, counts: &t.counts}
}

// until folds the events before toNS and returns their number. Events of one
// instant change the state together. What lies before 0 acts at 0.
func (w *walk) until(pending []event, toNS int64) int {
	n := 0
	for n < len(pending) && pending[n].atNS < toNS {
		pos, before := max(0, pending[n].atNS), w.st.mask()
		for n < len(pending) && pending[n].atNS < toNS && max(0, pending[n].atNS) == pos {
			w.st[pending[n].reason].apply(pending[n])
			n++
		}
		w.change(before, pos, noPos, math.MaxInt64)
	}
	return n
}

// change books the difference between a mask and the state at a position.
func (w *walk) change(before uint8, posNS, missFrom, missTo int64) {
	after := w.st.mask()
	for i := range w.st {
		bit := uint8(1) << i
		switch {
		case after&bit != 0 && before&bit == 0:
			w.lg.open(w.st[i].opener, floorMS(posNS), missFrom)
		case after&bit == 0 && before&bit != 0 && w.lg.full():
			w.st[i].stuck = true
			after |= bit
			w.counts.WindowsStuck++
		case after&bit == 0 && before&bit != 0:
			w.lg.close(i, ceilMS(posNS), missTo, w.sealed)
		}
	}
	switch {
	case !w.emits:
	case before == 0 && after != 0:
		w.emit(floorMS(posNS), false)
	case before != 0 && after == 0:
		w.emit(ceilMS(posNS), true)
	}
}

// emit extends the spans to toMS.
func (w *walk) emit(toMS int64, suppressed bool) {
	if toMS <= w.atMS {
		return
	}
	if n := len(w.spans); n > w.first && w.spans[n-1].Suppressed == suppressed {
		w.spans[n-1].ToMS = toMS
	} else {
		w.spans = append(w.spans, Span{FromMS: w.atMS, ToMS: toMS, Suppressed: suppressed})
	}
	w.atMS = toMS
}
