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

// Span is a stretch of sealed time that is kept, suppressed or kept without
// the microphone as a whole.
type Span struct {
	FromMS, ToMS int64
	Suppressed   bool // on both channels
	Mic          bool // kept, but channel 1 is silent (Rules.HoldMic); never with Suppressed
}

// Effect says what a signal did.
type Effect struct {
	AppliedAt time.Time // from when on it acts: its own time, or the sealed frontier when that has passed it
	LateMS    int64     // how long after its own time it arrived
	MissedMS  int64     // of a start: how much of its window was sealed, and captured, by then
	Reasons   []Reason  // active right after it, sorted; a hold of the microphone alone is "hold" too, see Timeline.Captured
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
//
// With Rules.PauseAutoResume a secure pause ends by itself that long after the
// latest pause.start by its own time; one that is later than that only tells
// what was missed. When a source is lost (SourceLost) in a pause that had a
// start of it, the pause does not end by itself unless a further start follows
// the loss. A loss that is reported after the pause ended by itself opens it
// again.
type Timeline struct {
	rules Rules
	seen  seen

	origin    time.Time
	hasOrigin bool
	sealedMS  int64
	endMS     int64 // math.MaxInt64 until the BYE

	now      state       // at the frontier
	ahead    state       // memory for a look beyond it
	windows  ledger      // as of the frontier
	sealed   past        // before the frontier
	resume   autoResume  // how pauses end by themselves
	latestNS int64       // time of the signal that was applied last
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
	t := &Timeline{rules: r, endMS: math.MaxInt64, resume: autoResume{after: r.PauseAutoResume, forgottenNS: math.MinInt64}}
	t.now[idPause].pause, t.ahead[idPause].pause = &pause{after: &t.resume}, &pause{}
	if r.ConsentRequired {
		e := event{reason: idConsent, start: true, stamp: stamp{atNS: math.MinInt64, source: sourceRules}}
		t.now[idConsent].begin(e, e.atNS)
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
		shift := int64(t.origin.Sub(o))
		t.now.shift(shift)
		t.latestNS = addNS(t.latestNS, shift)
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

// frontierNS is Sealed; before the origin is known all time lies beyond it.
func (t *Timeline) frontierNS() int64 {
	if !t.hasOrigin {
		return math.MinInt64
	}
	return t.sealedMS * msNS
}

// Pending is how much acts beyond the frontier: signals, and what pauses come
// to by themselves. When Seal passes some of it the number falls, and then
// Windows tells what became of that.
func (t *Timeline) Pending() int {
	n := len(t.pending)
	if t.now.resumesAt() != math.MaxInt64 {
		n++
	}
	if t.rules.PauseAutoResume <= 0 {
		return n
	}
	for i := range t.pending {
		if t.pending[i].reason == idPause && t.pending[i].start {
			n++
		}
	}
	return n
}

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
	t.latestNS = atNS
	eff := Effect{AppliedAt: t.actsAt(s.At, atNS)}
	if late := s.Received.Sub(s.At); !s.Received.IsZero() && late > 0 {
		eff.LateMS = late.Milliseconds()
	}
	if t.seen.repeat(s.Source, s.Seq) {
		t.counts.Duplicates++
		eff.Duplicate = true
		eff.Reasons = t.activeAt(atNS).list()
		return eff
	}
	e, ok := t.rules.event(s)
	e.stamp = stamp{atNS: atNS, source: s.Source, seq: s.Seq, arrival: t.arrivals}
	e.lateMS = eff.LateMS
	switch {
	case t.endMS != math.MaxInt64 && atNS >= t.endMS*msNS, !ok && s.Event != SourceLost:
		eff.Reasons = t.activeAt(atNS).list()
	case s.Event == SourceLost:
		t.lose(e, &eff)
	case t.hasOrigin && atNS < t.sealedMS*msNS:
		t.applyLate(e, &eff)
	case len(t.pending) >= pendingEventsMax:
		t.applyFull(e, &eff)
	default:
		if !t.hasOrigin {
			t.early = append(t.early, earlySign{e, s.At})
		}
		before, after := t.activeAround(t.insert(e))
		eff.Reasons, eff.Changed = after.list(), before != after
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
// the same instant, but before those of the same source and reason that it
// precedes; other reasons have no part in that.
func (t *Timeline) insert(e event) int {
	i, _ := slices.BinarySearchFunc(t.pending, e.atNS, func(p event, at int64) int {
		if p.atNS <= at {
			return -1
		}
		return 1
	})
	for k := i - 1; k >= 0 && t.pending[k].atNS == e.atNS; k-- {
		if p := &t.pending[k]; p.reason == e.reason && p.sequenced(e.stamp) && p.seq > e.seq {
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

// copyNow returns a copy of the state at the frontier, good until the next one.
func (t *Timeline) copyNow() *state {
	t.ahead.set(&t.now)
	return &t.ahead
}

// activeAround returns what is active just before and just after a pending event.
func (t *Timeline) activeAround(i int) (before, after reasons) {
	st := t.copyNow()
	for n := 0; n < i || st.resumesAt() < t.pending[i].atNS; {
		n += st.step(t.pending[n:])
	}
	before = st.active()
	st.step(t.pending[i:])
	return before, st.active()
}

// activeAt returns what is active right after an instant.
func (t *Timeline) activeAt(atNS int64) reasons {
	if t.endMS != math.MaxInt64 && atNS >= t.endMS*msNS {
		return 0
	}
	return t.stateAt(atNS).active()
}

// stateAt returns what is known right after an instant, which is only to be
// read; at the frontier for one before it.
func (t *Timeline) stateAt(atNS int64) *state {
	if t.now.next(t.pending) > atNS {
		return &t.now
	}
	st := t.copyNow()
	for n := 0; n < len(t.pending) || st.resumesAt() != math.MaxInt64; {
		if st.next(t.pending[n:]) > atNS {
			break
		}
		n += st.step(t.pending[n:])
	}
	return st
}

// applyLate lets an event act whose time is sealed already.
func (t *Timeline) applyLate(e event, eff *Effect) {
	rs, before := &t.now[e.reason], t.now.active()
	fromMS, untilMS := floorMS(e.atNS), int64(math.MaxInt64)
	missFrom, missTo := noPos, ceilMS(e.atNS)
	if e.start {
		untilMS = ceilMS(min(rs.endAfter(e), rs.endsItself(e)))
		missFrom, missTo = fromMS, math.MaxInt64
	}
	rs.applyLate(e, t.frontierNS())
	w := t.walk()
	w.change(before, t.frontierNS(), missFrom, missTo)
	after := t.now.active()
	eff.Reasons, eff.Changed = after.list(), before != after
	if !e.start {
		return
	}
	if eff.Changed {
		untilMS = t.sealedMS
	}
	eff.MissedMS = t.sealed.captured(e.reason, fromMS, min(t.sealedMS, untilMS))
	if !eff.Changed {
		t.noteMissed(e, fromMS, eff.MissedMS, untilMS)
	}
}

// lose takes the loss of a source, which opens a pause again that should not
// have ended by itself.
func (t *Timeline) lose(e event, eff *Effect) {
	t.resume.lose(e.stamp)
	rs := &t.now[idPause]
	before, endedNS := t.now.active(), rs.pause.untilNS
	if rs.active > 0 {
		rs.pause.arm(t.frontierNS())
	}
	eff.Changed = t.now.active() != before
	if eff.Changed {
		endedMS := ceilMS(endedNS)
		eff.MissedMS = t.sealed.captured(idPause, endedMS, t.sealedMS)
		rs.opener.lateMS = eff.LateMS
		w := t.walk()
		w.change(before, t.frontierNS(), endedMS, math.MaxInt64)
	}
	eff.Reasons = t.activeAt(e.atNS).list()
}

// noteMissed lists what a late start that opened no window missed: its reason
// is active already, or was over before it arrived.
func (t *Timeline) noteMissed(e event, from, missedMS, untilMS int64) {
	if missedMS == 0 {
		return
	}
	r := t.windows.latest(e.reason)
	switch {
	case r != nil && r.open && untilMS >= r.claims():
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
	before := t.now.active()
	if e.start {
		t.counts.StartsEarly++
		t.now[e.reason].begin(e, t.frontierNS())
		if t.hasOrigin {
			eff.AppliedAt = t.origin.Add(time.Duration(t.sealedMS) * time.Millisecond)
		}
		w := t.walk()
		w.change(before, t.sealedMS*msNS, noPos, math.MaxInt64)
	} else {
		t.counts.EndsDropped++
	}
	after := t.now.active()
	eff.Reasons, eff.Changed = after.list(), before != after
}

// Seal makes everything before toMS final and appends what lies between the
// old frontier and the new one to dst: spans that touch differ from each other.
// Without an origin nothing can be sealed, nor anything after the end.
func (t *Timeline) Seal(toMS int64, dst []Span) []Span {
	toMS = min(toMS, t.endMS, maxMS)
	if !t.hasOrigin || toMS <= t.sealedMS {
		return dst
	}
	w := t.walk()
	w.emits, w.spans, w.first, w.atMS = true, dst, len(dst), t.sealedMS
	t.drop(w.until(t.pending, toMS*msNS))
	w.emit(toMS, t.now.active().level())
	for _, s := range w.spans[w.first:] {
		t.sealed.add(s)
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
	w := t.dryWalk()
	w.until(t.pending, toMS*msNS)
	return w.lg.list(toMS, &t.sealed)
}

// Reasons returns why the millisecond at atMS is suppressed, or its microphone
// silenced (Captured tells which), sorted; nothing when all is kept. Without an
// origin: what is active at the time of the signal that was applied last.
func (t *Timeline) Reasons(atMS int64) []Reason {
	if !t.hasOrigin {
		return t.activeAt(t.latestPending()).list()
	}
	atMS = min(atMS, maxMS-1)
	var active reasons
	for _, w := range t.Windows(atMS + 1) {
		if w.RealMS <= atMS && atMS < w.EndRealMS {
			active |= 1 << slices.Index(reasonNames[:], w.Reason)
		}
	}
	return active.list()
}

// latestPending is the time by which all events of a recording without origin
// have acted.
func (t *Timeline) latestPending() int64 {
	if n := len(t.pending); n > 0 {
		return max(t.latestNS, t.pending[n-1].atNS)
	}
	return t.latestNS
}

// Captured tells whether the millisecond at atMS is captured, as the signals so
// far have it: no reason suppresses it. A hold of the microphone alone does not,
// though Reasons names it. False without an origin, before 0 and after the end.
// It costs little while no signals wait before atMS.
func (t *Timeline) Captured(atMS int64) bool {
	if !t.hasOrigin || atMS < 0 || atMS >= min(t.endMS, maxMS) {
		return false
	}
	if atMS < t.sealedMS {
		return !t.sealed.cut.contains(atMS)
	}
	if t.now.next(t.pending) >= (atMS+1)*msNS {
		return t.now.active().level() != levelSuppressed
	}
	w := t.dryWalk()
	w.emits, w.atMS = true, t.sealedMS
	w.until(t.pending, (atMS+1)*msNS)
	w.emit(atMS+1, w.st.active().level())
	return !w.spans[len(w.spans)-1].Suppressed
}

// PausedBy tells whether a secure pause is active that has a start of the
// source: at the frontier, or at the time of the signal that was applied last
// when that is later.
func (t *Timeline) PausedBy(source string) bool {
	if t.endMS != math.MaxInt64 && t.latestNS >= t.endMS*msNS {
		return false
	}
	rs := &t.stateAt(max(t.latestNS, t.frontierNS()))[idPause]
	return rs.active > 0 && rs.on() && rs.pause.begunBy(source)
}
