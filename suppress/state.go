package suppress

import (
	"math"
	"time"
)

// The reasons in alphabetical order, so that lists come out sorted.
const (
	idConsent = iota
	idDTMF
	idExternalTransfer
	idHold
	idHoldMic // hold that silences channel 1 alone; a recording has this one or idHold, see Rules.HoldMic
	idIVR
	idPause
	idQueue
	reasonCount
)

var reasonNames = [reasonCount]Reason{
	ReasonConsent, ReasonDTMF, ReasonExternalTransfer, ReasonHold, ReasonHold, ReasonIVR, ReasonPause, ReasonQueue,
}

// reasons is a set: bit i stands for reason i.
type reasons uint16

const micOnly = reasons(1) << idHoldMic

// What becomes of a millisecond, the stronger the higher.
const (
	levelKept = iota
	levelMic
	levelSuppressed
)

func (r reasons) level() int {
	switch r {
	case 0:
		return levelKept
	case micOnly:
		return levelMic
	}
	return levelSuppressed
}

func (r reasons) list() []Reason {
	names := make([]Reason, 0, reasonCount)
	for i, name := range reasonNames {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// holdersMax bounds the flows, queues or parties remembered for one reason.
// Beyond it the longest ended one is forgotten; when none has ended, a further
// start belongs to the nameless holder, which only an end for all ends.
const holdersMax = 64

// sourceRules is the source of the consent window that the rules open.
const sourceRules = "rules"

// Rules say which events open windows. They hold for a whole recording. Secure
// pause and a refused consent always suppress.
type Rules struct {
	IVR, Queue, Hold     bool            // suppress these
	Flows, Queues        map[string]bool // what holds for a flow or queue of that name instead; never changed
	HoldMic              bool            // hold silences channel 1 alone: a station's own microphone. Only with Hold
	ConsentRequired      bool            // suppress from 0 until consent.granted
	ExternalTransferStop bool            // suppress from transfer.external to the BYE
	PauseAutoResume      time.Duration   // a secure pause ends by itself so long after its latest start; 0: never
}

// stamp places an event among others.
type stamp struct {
	atNS    int64 // since the origin, its own time even when it acts later
	source  string
	seq     uint64
	arrival uint64 // counts the signals as they were applied
}

// sameClock tells whether the order of two events is beyond doubt: one source
// gave both times.
func (a stamp) sameClock(b stamp) bool { return a.source == b.source }

// sequenced tells whether the sequence numbers of both order them.
func (a stamp) sequenced(b stamp) bool { return a.source == b.source && a.seq != 0 && b.seq != 0 }

// follows tells whether a comes after b: by time; at one instant by sequence
// number when they have one source, else by arrival.
func (a stamp) follows(b stamp) bool {
	switch {
	case a.atNS != b.atNS:
		return a.atNS > b.atNS
	case a.sequenced(b):
		return a.seq > b.seq
	}
	return a.arrival > b.arrival
}

// surelyFollows is follows, but false when times and sequence numbers of one
// source contradict each other.
func (a stamp) surelyFollows(b stamp) bool {
	return a.follows(b) && (!a.sequenced(b) || a.seq > b.seq)
}

// event is a signal that opens or closes a reason.
type event struct {
	stamp
	reason int
	start  bool
	holder string // "" with an end: all holders
	lateMS int64
}

// event translates a signal; false for one that touches no window.
func (r Rules) event(s Signal) (event, bool) {
	switch s.Event {
	case IVRStart, IVREnd:
		e := event{reason: idIVR, start: s.Event == IVRStart, holder: s.Flow}
		return e, e.counts(r.IVR, r.Flows)
	case QueueStart, QueueEnd:
		e := event{reason: idQueue, start: s.Event == QueueStart, holder: s.Queue}
		return e, e.counts(r.Queue, r.Queues)
	case HoldStart, HoldEnd:
		e := event{reason: idHold, start: s.Event == HoldStart, holder: s.Party}
		if r.HoldMic {
			e.reason = idHoldMic
		}
		return e, r.Hold
	case DTMFStart, DTMFEnd:
		return event{reason: idDTMF, start: s.Event == DTMFStart, holder: s.Party}, true
	case PauseStart, PauseEnd:
		return event{reason: idPause, start: s.Event == PauseStart}, true
	case ConsentDenied, ConsentGranted:
		return event{reason: idConsent, start: s.Event == ConsentDenied}, true
	case TransferExternal:
		return event{reason: idExternalTransfer, start: true}, r.ExternalTransferStop
	default:
		return event{}, false
	}
}

// counts tells whether an event of a flow or queue opens or closes windows: by
// the name alone, so that a start and its end agree. An end without a name is
// for all that may have begun.
func (e event) counts(byDefault bool, named map[string]bool) bool {
	if e.holder == "" {
		return byDefault || !e.start && len(named) > 0
	}
	if on, ok := named[e.holder]; ok {
		return on
	}
	return byDefault
}

// holder is a flow, queue or party that keeps a reason active.
type holder struct {
	name   string
	active bool
	start  stamp // the latest since it became active
	end    stamp // the latest known, when ended
	ended  bool
}

// reasonState is what is known of one reason at one moment.
type reasonState struct {
	holders  []holder
	active   int   // holders that are
	endAll   stamp // the latest end for all
	endedAll bool
	stuck    bool  // its windows cannot be counted any more: it stays active to the end
	opener   event // the start that made it active
	pause    *pause
}

func (rs *reasonState) on() bool {
	return rs.stuck || rs.active > 0 && (rs.pause == nil || !rs.pause.resumed)
}

func (rs *reasonState) find(name string) *holder {
	for i := range rs.holders {
		if rs.holders[i].name == name {
			return &rs.holders[i]
		}
	}
	return nil
}

// take returns the holder of that name, adding it when it is new, and nil when
// there is no room.
func (rs *reasonState) take(name string) *holder {
	if h := rs.find(name); h != nil {
		return h
	}
	if len(rs.holders) < holdersMax || name == "" {
		rs.holders = append(rs.holders, holder{name: name})
		return &rs.holders[len(rs.holders)-1]
	}
	oldest := -1
	for i := range rs.holders {
		h := &rs.holders[i]
		if !h.active && (oldest < 0 || rs.holders[oldest].end.follows(h.end)) {
			oldest = i
		}
	}
	if oldest < 0 {
		return nil
	}
	rs.holders[oldest] = holder{name: name}
	return &rs.holders[oldest]
}

// begin makes the event's holder active; posNS is where that acts.
func (rs *reasonState) begin(e event, posNS int64) {
	h := rs.take(e.holder)
	if h == nil {
		h = rs.take("")
	}
	if !rs.on() {
		rs.opener = e
	}
	fresh := !h.active
	if fresh {
		h.active, h.start = true, e.stamp
		rs.active++
	}
	if e.follows(h.start) {
		h.start = e.stamp
	}
	if rs.pause != nil {
		rs.pause.begin(e.stamp, h.start, fresh, posNS)
	}
}

// finish ends the event's holder, or all, if ends agrees with its start.
func (rs *reasonState) finish(e event, ends func(end, start stamp) bool) {
	if e.holder == "" {
		if !rs.endedAll || e.follows(rs.endAll) {
			rs.endAll, rs.endedAll = e.stamp, true
		}
		for i := range rs.holders {
			rs.release(&rs.holders[i], e, ends)
		}
		return
	}
	// An unknown holder is remembered as ended, for a start that is still on its way.
	if h := rs.take(e.holder); h != nil {
		rs.release(h, e, ends)
		if !h.ended || e.follows(h.end) {
			h.end, h.ended = e.stamp, true
		}
	}
}

func (rs *reasonState) release(h *holder, e event, ends func(end, start stamp) bool) {
	if h.active && ends(e.stamp, h.start) {
		h.active = false
		rs.active--
	}
}

// endsInOrder: what is folded in order ends all but a start that had to be
// taken before its time.
func endsInOrder(end, start stamp) bool { return end.atNS >= start.atNS }

// apply folds an event in its order.
func (rs *reasonState) apply(e event) {
	if e.start {
		rs.begin(e, e.atNS)
		return
	}
	rs.finish(e, endsInOrder)
}

// applyLate folds an event whose time is sealed already. An end acts unless
// the holder surely or possibly started after it. A start acts unless an end
// surely follows it; see endAfter. What is in doubt stays closed.
func (rs *reasonState) applyLate(e event, frontierNS int64) {
	if !e.start {
		rs.finish(e, stamp.surelyFollows)
		return
	}
	if rs.endAfter(e) == math.MaxInt64 {
		rs.begin(e, frontierNS)
	}
}

// endAfter returns the time of the first known end that surely follows a
// start, and math.MaxInt64 without one. An end of another source proves
// nothing: the clocks of the two may differ.
func (rs *reasonState) endAfter(start event) int64 {
	at := int64(math.MaxInt64)
	if rs.endedAll && rs.endAll.sameClock(start.stamp) && rs.endAll.surelyFollows(start.stamp) {
		at = rs.endAll.atNS
	}
	h := rs.find(start.holder)
	if h != nil && h.ended && h.end.sameClock(start.stamp) && h.end.surelyFollows(start.stamp) {
		at = min(at, h.end.atNS)
	}
	return at
}

// state is what is known of all reasons at one moment.
type state [reasonCount]reasonState

// active returns the reasons that are.
func (st *state) active() reasons {
	var r reasons
	for i := range st {
		if st[i].on() {
			r |= 1 << i
		}
	}
	return r
}

// set makes the state a copy of another one, in its own memory.
func (st *state) set(from *state) {
	for i := range st {
		holders, p := st[i].holders, st[i].pause
		st[i] = from[i]
		st[i].holders, st[i].pause = overwrite(holders, from[i].holders), p
	}
	p, sources := st[idPause].pause, st[idPause].pause.sources
	*p = *from[idPause].pause
	p.sources = overwrite(sources, p.sources)
}

// overwrite gives dst the contents of src.
func overwrite[T any](dst, src []T) []T {
	dst = dst[:0]
	return append(dst, src...)
}

// shift moves the starts of all holders, when the origin becomes known.
func (st *state) shift(ns int64) {
	for i := range st {
		for k := range st[i].holders {
			if h := &st[i].holders[k]; h.start.atNS != math.MinInt64 {
				h.start.atNS += ns
			}
		}
	}
	st[idPause].pause.shift(ns)
}

// resumesAt returns when the secure pause ends by itself, math.MaxInt64 for never.
func (st *state) resumesAt() int64 {
	rs := &st[idPause]
	if rs.stuck || rs.active == 0 || rs.pause.resumed {
		return math.MaxInt64
	}
	return rs.pause.untilNS
}

// next returns the time of the next change, math.MaxInt64 without one.
func (st *state) next(pending []event) int64 {
	at := st.resumesAt()
	if len(pending) > 0 {
		at = min(at, pending[0].atNS)
	}
	return at
}

// step folds what is next and returns how many of the pending events that
// took. A pause ends by itself after all events of that instant, so that a
// start renews it.
func (st *state) step(pending []event) int {
	if len(pending) > 0 && pending[0].atNS <= st.resumesAt() {
		st[pending[0].reason].apply(pending[0])
		return 1
	}
	st[idPause].pause.resumed = true
	return 0
}
