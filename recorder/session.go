package recorder

import (
	"cmp"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// controlsMax bounds what the signalling side may have queued for one session.
// A session that reaches it is not recorded any further (fail closed).
const controlsMax = 1 << 14

// ErrEnded is returned for a signal to a call that is over or not recorded.
var ErrEnded = errors.New("the call is not recorded any more")

// control is one event of a session that is not a packet.
type control struct {
	at     time.Time
	kind   controlKind
	stream media.Stream
	id     media.StreamID
	sig    suppress.Signal
	cause  media.Cause
	conv   string
	digit  infoDigit
	others []media.OtherMedia
	doc    media.Metadata
	passed bool        // the signal is another call's of the conversation
	reply  chan effect // buffered; nil when nobody waits
}

// answer is the effect of a signal that somebody waits for.
type answer struct {
	to     chan effect
	effect effect
}

type controlKind uint8

const (
	controlStream controlKind = iota
	controlStreamEnded
	controlAnswered
	controlSignal
	controlDigit
	controlMedia
	controlMetadata
	controlConversation
	controlBridged
	controlEnded
)

// session is the inbox of one call: it merges controls and packets by their
// times into its core. Producers enqueue; the owner processes.
type session struct {
	// constant after newSession
	rec  *Recorder
	info media.Session

	slot uint64 // its place among the sessions of its worker; constant after shard.add

	capturing atomic.Bool // written by the owner, read on the packet path
	waiting   atomic.Bool // controls wait: it is looked into each tick

	// guarded by mu; producers and the owner
	mu       sync.Mutex
	controls []control
	taps     []*streamTap
	overflow bool
	closed   bool // Ended was called
	answered time.Time
	conv     string
	liveRecs []LiveRecording
	reasons  []string
	failed   bool

	// owned by whoever calls process: a worker, or the replaying goroutine
	core    *core
	batch   []control
	feeds   []*streamTap
	done    bool
	ending  *control  // the end of the call, once the core has been told
	broken  string    // why the rest of the call is not recorded
	begun   beginning // of a call that broke before its core knew
	answers []answer
	lastTap time.Time // replay: the time up to which the inbox was processed
}

// newSession makes the inbox of a call; x is what it goes on with, or nil.
func newSession(r *Recorder, s media.Session, p Plan, conv string, x *resumption) *session {
	n := &session{rec: r, info: s, conv: conv, reasons: []string{}}
	noTrunk, heard := p.NoTrunk, p
	if x != nil {
		heard.NoTrunk = !x.records(p)
		p = x.plan(p)
	}
	n.core = newCore(s, p, conv, r.vault, func(info recordingInfo) output { return newWriter(r, s.ID, info, x) })
	n.core.kinds.claims = r
	n.core.monitor = r.listen(s, &heard)
	if x != nil {
		n.answered = s.Resumed.Answered
		n.core.resume(x, noTrunk)
	}
	n.publishState()
	return n
}

// enqueue adds a control; false when there is no room or the session is over.
func (s *session) enqueue(c control) bool {
	if s.rec.cfg.Synchronous {
		s.catchUp(c.at)
	}
	return s.add(c)
}

// add is enqueue for what another session tells, whose owner may be at work.
func (s *session) add(c control) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && !c.passed {
		return false // what other calls tell may still be of the time before the end
	}
	if len(s.controls) >= controlsMax && c.kind != controlEnded {
		s.overflow = true
		return false
	}
	s.closed = s.closed || c.kind == controlEnded
	if c.kind == controlAnswered {
		s.answered = c.at
	}
	s.controls = append(s.controls, c)
	if c.kind == controlSignal {
		s.note(c.sig)
	}
	s.waiting.Store(true)
	return true
}

// StreamStarted implements media.SessionTap.
func (s *session) StreamStarted(m media.Stream) media.Tap {
	s.mu.Lock()
	var tap *streamTap
	for _, t := range s.taps {
		if t.id == m.ID {
			tap = t
		}
	}
	room := cmp.Or(s.rec.cfg.RingBytes, ringBytes(m.Formats))
	if (tap == nil || tap.room < room) && len(s.taps) < streamsMax { // what is in a smaller one comes first
		tap = &streamTap{id: m.ID, ring: media.NewRing(room, s.info.Start), room: room, s: s}
		s.taps = append(s.taps, tap)
	}
	s.mu.Unlock()
	s.enqueue(control{at: m.At, kind: controlStream, stream: m})
	switch {
	case tap == nil:
		return nil
	case s.rec.cfg.Synchronous:
		return replayTap{tap}
	}
	return tap.ring
}

// StreamEnded implements media.SessionTap.
func (s *session) StreamEnded(id media.StreamID, at time.Time) {
	s.enqueue(control{at: at, kind: controlStreamEnded, id: id})
}

// Answered implements media.SessionTap.
func (s *session) Answered(at time.Time) {
	s.enqueue(control{at: at, kind: controlAnswered})
	s.rec.events.publish(Event{Type: "call.answered", At: at, Call: s.info.ID})
}

// Signal implements media.SessionTap.
func (s *session) Signal(sig suppress.Signal) { s.post(sig, nil) }

func (s *session) post(sig suppress.Signal, reply chan effect) bool {
	if sig.Received.IsZero() {
		sig.Received = sig.At
	}
	return s.enqueue(control{at: sig.Received, kind: controlSignal, sig: sig, reply: reply})
}

// Capturing implements media.Capturing.
func (s *session) Capturing() bool { return s.capturing.Load() }

// Ended implements media.SessionTap.
func (s *session) Ended(at time.Time, cause media.Cause) {
	if !s.enqueue(control{at: at, kind: controlEnded, cause: cause}) {
		return
	}
	if f := s.rec.cfg.Restart.Forget; f != nil {
		f(s.info.ID)
	}
	s.rec.events.publish(Event{Type: "call.ended", At: at, Call: s.info.ID, Data: map[string]string{"cause": string(cause)}})
	if s.rec.cfg.Synchronous {
		s.process(time.Time{}, true)
		s.rec.remove(s)
	}
}

// process takes everything up to cutoff into the core, all there is when all
// is set. It returns true once the session has ended. A panic of the pipeline
// ends the recording, with the gap named, and nothing else.
func (s *session) process(cutoff time.Time, all bool) (ended bool) {
	if s.done {
		return true
	}
	defer func() {
		if p := recover(); p != nil {
			s.fail(fmt.Sprintf("pipeline fault: %v", p), debug.Stack())
			ended = s.skip()
		}
	}()
	overflow := s.collect()
	if overflow && s.broken == "" {
		s.fail("too many call-state events at once", nil)
	}
	if s.broken != "" {
		return s.skip()
	}
	if h := s.rec.cfg.Fault; h != nil {
		h(s.info.ID)
	}
	s.merge(cutoff, all)
	if len(s.batch) > 0 {
		s.waiting.Store(true) // they are not settled yet
	}
	if !s.done && !all {
		s.core.advance(s.core.ns(cutoff))
	}
	s.tellTyped()
	s.tellPreroll()
	s.tellCopies()
	s.publishState()
	for _, a := range s.answers { // whoever hears it finds the state as told
		a.to <- a.effect
	}
	clear(s.answers)
	s.answers = s.answers[:0]
	return s.done
}

// tellTyped tells of the codes that were typed in this call.
func (s *session) tellTyped() {
	all := s.core.emitted
	s.core.emitted = nil
	for _, e := range all {
		s.note(e.sig)
		s.rec.signalled(s, e.sig, e.effect)
		s.rec.pass(s, e.sig)
	}
}

// tellPreroll raises the alarm for recordings that have no memory to wait for
// consent in.
func (s *session) tellPreroll() {
	for _, r := range s.core.recs {
		if err := r.preroll.failed; err != nil {
			r.preroll.failed = nil
			s.rec.alarm(s.info.ID, "consent-preroll", err)
		}
	}
}

// collect moves what was enqueued to the owner's side, in order of time.
func (s *session) collect() (overflow bool) {
	s.mu.Lock()
	s.batch = append(s.batch, s.controls...)
	s.controls = s.controls[:0]
	s.waiting.Store(false)
	s.feeds = append(s.feeds[:0], s.taps...)
	overflow = s.overflow
	s.mu.Unlock()
	slices.SortStableFunc(s.batch, func(a, b control) int { return a.at.Compare(b.at) })
	return overflow
}

// merge feeds the core in order of time. At one instant controls come before
// packets and the end comes last, whatever order they were enqueued in.
func (s *session) merge(cutoff time.Time, all bool) {
	for !s.done {
		tap := s.earliest()
		var c *control
		if len(s.batch) > 0 {
			c = &s.batch[0]
		}
		if c != nil && tap != nil {
			before := c.at.Before(tap.arrival) || c.at.Equal(tap.arrival) && c.kind != controlEnded
			if before {
				tap = nil
			} else {
				c = nil
			}
		}
		switch {
		case c != nil && (all || !c.at.After(cutoff)):
			next := *c
			s.batch = s.batch[1:]
			s.apply(next)
		case tap != nil && (all || !tap.arrival.After(cutoff)):
			s.core.packet(tap.id, s.core.ns(tap.arrival), tap.wire, tap.dropped)
			tap.head = false
		default:
			return
		}
	}
}

// earliest returns the tap whose next packet came first, nil when all are empty.
func (s *session) earliest() *streamTap {
	var best *streamTap
	for _, t := range s.feeds {
		if !t.head {
			t.arrival, t.wire, t.dropped, t.head = t.ring.Next()
		}
		if t.head && (best == nil || t.arrival.Before(best.arrival)) {
			best = t
		}
	}
	return best
}

func (s *session) apply(c control) {
	switch c.kind {
	case controlStream:
		s.core.stream(c.stream)
	case controlStreamEnded:
		s.core.streamEnded(c.id, c.at)
	case controlAnswered:
		s.core.answer(c.at)
	case controlSignal:
		if c.passed {
			c.sig = s.core.foreign(c.sig)
		}
		e := s.core.signal(c.sig)
		s.rec.signalled(s, c.sig, e)
		if c.reply != nil {
			s.answers = append(s.answers, answer{c.reply, e})
		}
		if !c.passed && !e.Duplicate {
			s.rec.pass(s, c.sig)
		}
	case controlDigit:
		s.core.pressed(c.at, c.digit)
	case controlMedia:
		s.core.otherMedia(c.at, c.others)
	case controlMetadata:
		s.core.metadata(c.doc)
	case controlBridged:
		s.core.bridged(c.sig.At)
	case controlConversation:
		s.core.belongTo(c.conv)
	case controlEnded:
		s.ending = &c
		s.core.end(c.at, c.cause)
		s.done = true
		for _, late := range s.batch {
			if late.reply != nil {
				close(late.reply)
			}
		}
	}
}

// fail gives up the audio of the rest of the call: what comes until its end is
// a gap, with why it is one. Nothing of the call itself depends on it.
func (s *session) fail(why string, stack []byte) {
	s.broken = why
	if c := s.core; c.waiting {
		s.begun = beginning{started: true, origin: c.answered.UTC().Round(0), answered: c.answered.UTC().Round(0)}
	}
	s.capturing.Store(false)
	s.mu.Lock()
	s.failed, s.liveRecs = true, nil
	s.mu.Unlock()
	for _, r := range s.core.recs {
		r.preroll.drop(r)
		s.core.release(r)
	}
	s.rec.failed(s, why, stack)
}

// skip is process for a session that failed: everything is thrown away but the end.
func (s *session) skip() (ended bool) {
	s.tellTyped()
	for _, t := range s.feeds {
		t.drain()
	}
	for _, a := range s.answers {
		close(a.to)
	}
	s.answers = nil
	for _, c := range s.batch {
		switch {
		case c.kind == controlSignal:
			if !c.passed {
				s.rec.pass(s, c.sig) // it may hold for other calls
			}
			if c.reply != nil {
				close(c.reply)
			}
		case c.kind == controlAnswered && !s.core.started:
			s.begun = beginning{started: true, origin: c.at.UTC().Round(0), answered: c.at.UTC().Round(0)}
		case c.kind == controlEnded:
			s.salvage(c)
			s.done = true
		}
	}
	if s.ending != nil && !s.done { // the core broke over it
		s.salvage(*s.ending)
		s.done = true
	}
	clear(s.batch)
	s.batch = s.batch[:0]
	return s.done
}

// drain throws away what waits in a ring.
func (t *streamTap) drain() {
	t.head = false
	for {
		if _, _, _, ok := t.ring.Next(); !ok {
			return
		}
	}
}

// salvage closes the accounts of the call's recordings.
func (s *session) salvage(end control) {
	for _, r := range s.core.recs {
		w, b := r.out.(*writer), r.beginning()
		if !b.started {
			b = s.begun
		}
		if r.refused() && w.audioMS == 0 {
			w.refuse(b, r.consent, end.at, end.cause)
			continue
		}
		w.salvage(b, end.at, end.cause, s.broken)
	}
}

// publishState makes the call's state visible to the API and to the relay.
func (s *session) publishState() {
	c := s.core
	at := c.realMSOf(c.now)
	reasons, list := []string{}, make([]LiveRecording, 0, len(c.recs))
	capturing := false
	if !s.done {
		for _, r := range c.recs {
			list = append(list, r.live())
			capturing = capturing || r.capturing()
		}
		if c.started {
			reasons = c.active.at(c.state, c.applied, max(at, c.sealedMS), c.now)
		}
	}
	s.capturing.Store(capturing)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(reasons, s.reasons) {
		s.reasons = reasons
	}
	if !slices.EqualFunc(list, s.liveRecs, LiveRecording.equal) {
		s.liveRecs = list
	}
}

func (a LiveRecording) equal(b LiveRecording) bool {
	return a.ID == b.ID && slices.Equal(a.Reasons, b.Reasons)
}

func (s *session) live() LiveCall {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := LiveCall{
		ID: s.info.ID, Conversation: s.conv, Trunk: s.info.Trunk, SIPCallID: s.info.SIPCallID, OtherCallID: s.info.OtherSIPCallID,
		Direction: string(s.info.Direction), From: s.info.From, To: s.info.To, Start: s.info.Start, Answer: s.answered,
		Recording: !s.failed && len(s.liveRecs) > 0, Reasons: append([]string{}, s.reasons...),
		Recordings: append([]LiveRecording{}, s.liveRecs...),
	}
	return l
}
