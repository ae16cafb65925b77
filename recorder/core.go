package recorder

import (
	"math"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/quality"
	"github.com/trunktap/trunktap/suppress"
)

const (
	// chunkMS is the step in which the timeline is sealed.
	chunkMS = 20
	// frameMS is the audio a frame holds when it is written.
	frameMS = 500
	// accountEvery is how often the account is written although it did not change in essence.
	accountEvery = 5 * time.Second
	// reorderSlack is how much earlier than its sealing a packet is given up for lost.
	reorderSlack = 60 * time.Millisecond
	// holdMin is the least time between a sample and its sealing: the room that
	// reordered packets have whatever lookback says.
	holdMin = 200 * time.Millisecond
	// horizonSlack is what packets may lie beyond the time that audio is held back.
	horizonSlack = 1500 * time.Millisecond
	// codeHoldMax is how long a code that is being typed holds audio back, the
	// last key's being down included.
	codeHoldMax = 5 * time.Second
)

// output takes what a recording has sealed, in order. Implementations neither
// block nor fail: what cannot be taken is refused by audio and becomes a gap.
type output interface {
	begin(SegmentInfo)
	// audio returns false when there is no room for it.
	audio(a Audio, account *Manifest) bool
	finish(seg Segment, account *Manifest)
	abandon() // the open segment has no audio: it was a journal
	publish(m *Manifest)
	discard(why string)
	refusal() (cause, detail string) // why audio was refused last, for the gap
}

// core is the pipeline of one call: packets, signals and times go in, what its
// recordings make of them comes out. It starts no goroutine and reads no clock.
// Times are nanoseconds since base and never run backwards. Streams are decoded
// and mixed once; each recording takes the sealed chunks by rules of its own.
type core struct {
	monitor monitoring // of the trunk recording

	// constant after newCore
	session media.Session
	base    time.Time
	hold    int64 // ns between a sample and its sealing
	outlet  func(recordingInfo) output
	vault   vault

	// constant after settle
	plan  Plan
	perMS int64 // samples a millisecond; 0: not settled, no side has a track

	now      int64
	look     int64 // the time at which packets are looked at; never beyond now
	stepMS   int64 // steps were taken up to here
	origin   int64 // ns; valid when started
	started  bool
	answered time.Time
	ended    bool

	waiting   bool // the answer has come and not been taken; see takeAnswer
	waitingNS int64

	others  []otherSpan
	streams []streamLane // in the order in which they were announced
	rtcp    quality.Relay
	sides   [2]*side
	typists [2]typist
	masks   [2]masks // by side

	sealedMS int64
	endMS    int64 // -1 while the call goes on
	endTime  time.Time
	cause    media.Cause
	chunk    chunk
	restart  *restartGap     // nil: there was none, or it lies behind
	spans    []suppress.Span // of state, for nobody

	applied int // signals
	active  activeReasons
	state   *suppress.Timeline // the call's state by the plan's rules, whatever is recorded
	recs    []*recording       // not closed, in the order in which they began
	kinds   kindState
	conv    string
	docs    documents

	typed   []suppress.Signal // of codes that were typed, until takeTyped applies them
	emitted []emitted         // by takeTyped: the other calls of the conversation must hear of them
}

// emitted is a signal that was found in the call itself.
type emitted struct {
	sig    suppress.Signal
	effect effect
}

// chunk is a stretch of sealed time as all recordings get it. The samples must
// be left as they are.
type chunk struct {
	fromMS, toMS int64 // on the call's timeline
	pcm          [2][]int16
	marks        [2][]mix.Mark
	resolved     [2][]mix.Resolution
	blends       [2][]blend // by side, those that reach behind fromMS
	detail       [2]string  // the codec that is not understood
	refused      [2]*refusedList
}

// newCore returns a core for a session whose plan is valid. outlet gives each
// recording its output; nothing of a recording is asked for before it begins.
func newCore(s media.Session, p Plan, conv string, v vault, outlet func(recordingInfo) output) *core {
	c := &core{
		plan: p, session: s, base: s.Start, outlet: outlet, vault: v, conv: conv,
		hold:  int64(max(p.Lookback, holdMin+p.maskLag())),
		state: suppress.New(p.Rules),
		endMS: -1,
	}
	for i := range c.sides {
		c.sides[i] = newSide(media.Side(i))
		c.typists[i] = newTypist(p, media.Side(i))
	}
	c.kinds.init()
	if p.SampleRate != RateAuto {
		c.settle()
	}
	if !p.NoTrunk {
		c.open(KindTrunk, "", "", media.Internal)
	}
	return c
}

func (c *core) ns(t time.Time) int64      { return int64(t.Sub(c.base)) }
func (c *core) timeOf(ns int64) time.Time { return c.base.Add(time.Duration(ns)) }
func (c *core) reorderWindow() int64      { return c.hold - int64(reorderSlack+c.plan.maskLag()) }
func (c *core) realMSOf(ns int64) int64   { return (ns - c.origin) / int64(time.Millisecond) }

// horizon is how far the newest audio may lie before what is sealed, in ns: as
// far as audio is held back, for late signals and for codes that are being typed.
func (c *core) horizon() int64 {
	h := c.hold + int64(horizonSlack)
	if len(c.plan.Codes[0])+len(c.plan.Codes[1]) > 0 {
		h += int64(codeHoldMax)
	}
	return h
}

// belongTo says which conversation the call turned out to be part of.
func (c *core) belongTo(conv string) {
	c.conv = conv
	for _, r := range c.recs {
		r.conv, r.account.dirty = conv, true
	}
}

// start fixes the origin of the timeline.
func (c *core) start(ns int64) {
	if c.started {
		return
	}
	c.started, c.origin = true, ns
	c.state.SetOrigin(c.timeOf(ns))
	for _, s := range c.sides {
		s.track.SetOrigin(ns)
	}
	for _, r := range c.recs {
		c.begin(r, 0)
	}
}

// answer is the 200 OK to the INVITE.
func (c *core) answer(t time.Time) {
	if c.ended || !c.answered.IsZero() {
		return
	}
	c.answered = t
	c.advance(c.ns(t))
	c.waiting, c.waitingNS = true, c.now
	if c.perMS != 0 || c.agreedRate() > 0 {
		c.takeAnswer()
	}
}

// stream announces a stream or what a renegotiation made of it.
func (c *core) stream(s media.Stream) {
	if c.ended {
		return
	}
	c.advance(c.ns(s.At))
	c.look = c.now
	l := c.lane(s.ID)
	if l == nil {
		if len(c.streams) >= streamsMax {
			c.refuse("streams")
			return
		}
		l = &lane{}
		c.streams = append(c.streams, streamLane{s.ID, l})
	}
	// What waits in reorder windows keeps the meaning that it arrived with.
	c.sides[l.side].drainAll(c, l)
	l.negotiate(s)
	c.negotiated(s.Side)
	c.labelled(s)
	c.takeTyped()
}

// refuse counts, in every recording, something beyond a limit of the call.
func (c *core) refuse(key string) {
	for _, r := range c.recs {
		r.account.refuse(key)
	}
}

// streamLane is a stream by its id.
type streamLane struct {
	id   media.StreamID
	lane *lane
}

// lane returns a stream, nil when it was not announced. There are two of them,
// seldom more.
func (c *core) lane(id media.StreamID) *lane {
	for i := range c.streams {
		if c.streams[i].id == id {
			return c.streams[i].lane
		}
	}
	return nil
}

// streamEnded says that no more packets of a stream come.
func (c *core) streamEnded(id media.StreamID, t time.Time) {
	l := c.lane(id)
	if c.ended || l == nil {
		return
	}
	c.advance(c.ns(t))
	c.takeAnswer()
	l.sending = false
	c.negotiated(l.side)
}

// negotiated tells a side's track whether anything is to be expected of it.
func (c *core) negotiated(side media.Side) {
	if c.perMS == 0 {
		return // settle makes up for it
	}
	sending, events := false, false
	for _, s := range c.streams {
		if s.lane.side == side {
			sending, events = sending || s.lane.sending, events || s.lane.events()
		}
	}
	c.sides[side].track.Negotiated(c.now, sending)
	c.typists[side].negotiated(events)
}

// packet takes one RTP or RTCP packet; dropped counts those that the tap had
// no room for since the one before.
func (c *core) packet(id media.StreamID, arrival int64, wire []byte, dropped uint32) {
	l := c.lane(id)
	if l == nil || c.ended {
		return
	}
	c.advance(arrival)
	c.look = c.now
	if c.perMS == 0 {
		c.settleBy(l, wire)
	}
	s := c.sides[l.side]
	if !s.accept(c, l, arrival, wire, dropped) {
		return
	}
	if c.restart != nil {
		c.restart.heard(l.side, c.now)
	}
	if c.plan.EarlyMedia && !c.started {
		c.start(arrival)
	}
	s.drain(c, c.now)
	c.takeTyped()
}

const (
	attrsMax     = 64
	attrBytesMax = 1024
	streamsMax   = 64
	sourcesMax   = 64 // synchronisation sources a side
	attrKeyBytes = 128
)

// advance lets the time pass up to now. What that does depends on the steps in
// between alone, not on when it is called.
func (c *core) advance(now int64) {
	c.now = max(c.now, now)
	if c.waiting && c.now >= c.waitingNS+c.answerWait() {
		c.takeAnswer()
	}
	if !c.started || c.ended {
		return
	}
	for {
		next := c.stepMS + chunkMS
		due := c.origin + next*int64(time.Millisecond) + c.hold
		if due > c.now {
			break
		}
		c.stepMS = next
		c.step(due)
	}
	for _, r := range c.recs {
		r.tick(c.now)
	}
}

// step takes out of the reorder windows what is due at a time, then moves the
// frontier as far as typed codes let it.
func (c *core) step(due int64) {
	c.look = due
	for _, r := range c.recs {
		r.tick(due)
	}
	for _, s := range c.sides {
		s.drain(c, due)
	}
	for i := range c.typists {
		c.typists[i].advance(c, due-c.reorderWindow()) // everything before that has been seen
	}
	c.takeTyped()
	for c.sealedMS < c.stepMS {
		next := c.sealedMS + chunkMS
		if c.typing(c.origin + next*int64(time.Millisecond)) {
			return
		}
		c.sealTo(next)
	}
}

// end is the BYE, or what took its place.
func (c *core) end(t time.Time, cause media.Cause) {
	if c.ended {
		return
	}
	c.advance(c.ns(t))
	c.takeAnswer()
	c.look = c.now
	c.cause, c.endTime = cause, c.timeOf(c.now)
	if !c.started {
		c.ended = true // without an answer: there is nothing to record
		for _, r := range c.recs {
			r.out.discard("the call was not answered")
		}
		c.recs = nil
		return
	}
	c.endMS = max(c.realMSOf(c.now), c.sealedMS)
	for _, s := range c.sides {
		s.flush(c)
	}
	for i := range c.typists {
		c.typists[i].advance(c, math.MaxInt64)
	}
	c.takeTyped()
	c.state.End(c.endMS)
	for _, r := range c.recs {
		r.stop(c.endMS-r.offsetMS, c.endTime, cause)
	}
	for c.sealedMS < c.endMS {
		c.sealTo(min(c.sealedMS+chunkMS, c.endMS))
	}
	c.ended = true
	for _, r := range c.recs {
		r.close()
		c.release(r)
	}
	c.recs = nil
}

// sealTo moves the frontier: the samples before it go to the recordings and are
// never touched again.
func (c *core) sealTo(toMS int64) {
	k := &c.chunk
	k.fromMS, k.toMS = c.sealedMS, toMS
	n := (toMS - c.sealedMS) * c.perMS
	for i, s := range c.sides {
		k.pcm[i] = k.pcm[i][:n]
		k.marks[i] = s.track.Read(k.pcm[i], k.marks[i][:0])
		if c.plan.MaskDTMF {
			k.marks[i] = c.masks[i].silence(c.sealedMS*c.perMS, k.pcm[i], k.marks[i])
		}
		k.resolved[i] = s.track.Resolved()
		k.detail[i], k.refused[i] = s.undecodable, &s.refused
		k.blends[i] = s.blendsFrom(k.fromMS * c.perMS)
	}
	if c.restart != nil && !c.restart.mark(c, k) {
		c.restart = nil
	}
	c.spans = c.state.Seal(toMS, c.spans[:0])
	c.sealedMS = toMS
	closed := false
	for _, r := range c.recs {
		r.take(k)
		closed = closed || r.over()
	}
	for i := range k.pcm {
		clear(k.pcm[i])
	}
	if closed {
		c.reap()
	}
}

// reap closes the recordings whose end is sealed.
func (c *core) reap() {
	rest := c.recs[:0]
	for _, r := range c.recs {
		if r.over() && c.endMS < 0 {
			r.close()
			c.release(r)
			continue
		}
		rest = append(rest, r)
	}
	clear(c.recs[len(rest):])
	c.recs = rest
}
