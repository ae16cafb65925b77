package recorder

import (
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/mix"
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
)

// output takes what the core has sealed, in order. Implementations neither
// block nor fail: what cannot be taken is refused by audio and becomes a gap.
type output interface {
	begin(SegmentInfo)
	// audio returns false when there is no room for it.
	audio(a Audio, account *Manifest) bool
	finish(seg Segment, account *Manifest)
	abandon() // the open segment has no audio: it was a journal
	publish(m *Manifest)
	discard()
	refusal() string // why audio was refused last, for the gap's detail
}

// core is the pipeline of one recording: packets, signals and times go in,
// sealed frames and the account come out. It starts no goroutine and reads no
// clock. Times are nanoseconds since base and never run backwards.
type core struct {
	// constant after newCore
	plan    Plan
	session media.Session
	base    time.Time
	hold    int64 // ns between a sample and its sealing
	out     output
	perMS   int64 // samples a millisecond

	now      int64
	origin   int64 // ns; valid when started
	started  bool
	answered time.Time
	ended    bool

	streams map[media.StreamID]*lane
	sides   [2]*side

	timeline *suppress.Timeline
	gate     *suppress.Gate
	sealedMS int64
	endMS    int64 // -1 while the call goes on
	endTime  time.Time
	cause    media.Cause

	chunk [2][]int16
	marks []mix.Mark
	spans []suppress.Span

	seg     segmentState
	account accountState
	parties partySet
	digits  []pendingDigit // not yet sealed, in order of position
	dtmf    []Digit
	attrs   map[string]string
	conv    string
}

// newCore returns a core for a session whose plan is valid.
func newCore(s media.Session, p Plan, out output) *core {
	c := &core{
		plan: p, session: s, base: s.Start, out: out,
		hold:     int64(max(p.Lookback, holdMin)),
		perMS:    int64(p.SampleRate / 1000),
		streams:  make(map[media.StreamID]*lane),
		timeline: suppress.New(p.Rules),
		gate:     suppress.NewGate(suppress.Cut),
		endMS:    -1,
		conv:     media.ConversationID(s.SIPCallID),
	}
	if p.Suppressed == SuppressedSilence {
		c.gate = suppress.NewGate(suppress.Silence)
	}
	for i := range c.sides {
		c.sides[i] = newSide(media.Side(i), p.SampleRate)
		c.chunk[i] = make([]int16, chunkMS*c.perMS)
	}
	c.parties.init(s)
	return c
}

func (c *core) ns(t time.Time) int64      { return int64(t.Sub(c.base)) }
func (c *core) timeOf(ns int64) time.Time { return c.base.Add(time.Duration(ns)) }
func (c *core) msTime(ms int64) time.Time { return c.timeOf(c.origin + ms*int64(time.Millisecond)) }
func (c *core) reorderWindow() int64      { return c.hold - int64(reorderSlack) }
func (c *core) realMSOf(ns int64) int64   { return (ns - c.origin) / int64(time.Millisecond) }

// beginning is read after a panic: plain fields alone.
func (c *core) beginning() beginning {
	b := beginning{started: c.started, origin: c.timeOf(c.origin).UTC().Round(0)}
	if !c.answered.IsZero() {
		b.answered = c.answered.UTC().Round(0)
	}
	return b
}

// start fixes the origin of the timeline.
func (c *core) start(ns int64) {
	if c.started {
		return
	}
	c.started, c.origin = true, ns
	c.timeline.SetOrigin(c.timeOf(ns))
	for _, s := range c.sides {
		s.track.SetOrigin(ns)
	}
	c.journal()
}

// journal opens the first segment before there is audio, so that a call that
// is suppressed at first leaves its account behind when the daemon dies. Not
// before consent: until then nothing is kept of the call.
func (c *core) journal() {
	if !c.plan.Rules.ConsentRequired {
		c.seg.begin(c, 0)
	}
}

// answer is the 200 OK to the INVITE.
func (c *core) answer(t time.Time) {
	if c.ended || !c.answered.IsZero() {
		return
	}
	c.answered = t
	c.advance(c.ns(t))
	c.start(c.now)
}

// stream announces a stream or what a renegotiation made of it.
func (c *core) stream(s media.Stream) {
	if c.ended {
		return
	}
	c.advance(c.ns(s.At))
	l := c.streams[s.ID]
	if l == nil {
		if len(c.streams) >= streamsMax {
			c.account.refuse("streams")
			return
		}
		l = &lane{}
		c.streams[s.ID] = l
	}
	// What waits in reorder windows keeps the meaning that it arrived with.
	c.sides[l.side].drainAll(c, l)
	l.negotiate(s)
	c.negotiated(s.Side)
}

// streamEnded says that no more packets of a stream come.
func (c *core) streamEnded(id media.StreamID, t time.Time) {
	l := c.streams[id]
	if c.ended || l == nil {
		return
	}
	c.advance(c.ns(t))
	l.sending = false
	c.negotiated(l.side)
}

// negotiated tells a side's track whether anything is to be expected of it.
func (c *core) negotiated(side media.Side) {
	sending := false
	for _, l := range c.streams {
		sending = sending || l.side == side && l.sending
	}
	c.sides[side].track.Negotiated(c.now, sending)
}

// packet takes one RTP or RTCP packet; dropped counts those that the tap had
// no room for since the one before.
func (c *core) packet(id media.StreamID, arrival int64, wire []byte, dropped uint32) {
	l := c.streams[id]
	if l == nil || c.ended {
		return
	}
	c.advance(arrival)
	s := c.sides[l.side]
	if !s.accept(c, l, arrival, wire, dropped) {
		return
	}
	if c.plan.EarlyMedia && !c.started {
		c.start(arrival)
	}
	s.drain(c, c.now)
}

// signal applies a call-state signal and says what it did.
func (c *core) signal(sig suppress.Signal) suppress.Effect {
	received := sig.Received
	if received.IsZero() {
		received = sig.At
	}
	if !c.ended {
		c.advance(c.ns(received))
	}
	e := c.timeline.Apply(sig)
	if e.Duplicate || c.ended {
		return e
	}
	c.account.dirty = true
	c.parties.apply(sig, func() int64 { return c.effectiveMS(e.AppliedAt) })
	if sig.Event == suppress.AttrsSet {
		c.setAttrs(sig.Attrs)
	}
	if sig.Conversation != "" {
		c.conv = sig.Conversation
	}
	return e
}

// effectiveMS is the position at which something that happened at t may still act.
func (c *core) effectiveMS(t time.Time) int64 {
	if !c.started {
		return 0
	}
	return max(c.realMSOf(c.ns(t)), c.sealedMS)
}

const (
	attrsMax     = 64
	attrBytesMax = 1024
	streamsMax   = 64
	sourcesMax   = 64 // synchronisation sources a side
	attrKeyBytes = 128
)

func (c *core) setAttrs(attrs map[string]string) {
	if c.attrs == nil {
		c.attrs = make(map[string]string)
	}
	for k, v := range attrs {
		if _, known := c.attrs[k]; !known && len(c.attrs) >= attrsMax || len(k) > attrKeyBytes || len(v) > attrBytesMax {
			c.account.refuse("attrs")
			continue
		}
		c.attrs[k] = v
	}
}

// advance seals what has become old enough at now.
func (c *core) advance(now int64) {
	c.now = max(c.now, now)
	if !c.started || c.ended {
		return
	}
	for {
		next := c.sealedMS + chunkMS
		due := c.origin + next*int64(time.Millisecond) + c.hold
		if due > c.now {
			return
		}
		for _, s := range c.sides {
			s.drain(c, due)
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
	c.cause, c.endTime = cause, c.timeOf(c.now)
	if !c.started {
		c.ended = true // without an answer: there is nothing to record
		c.out.discard()
		return
	}
	c.endMS = max(c.realMSOf(c.now), c.sealedMS)
	for _, s := range c.sides {
		s.flush(c)
	}
	c.timeline.End(c.endMS)
	for c.sealedMS < c.endMS {
		c.sealTo(min(c.sealedMS+chunkMS, c.endMS))
	}
	c.ended = true
	c.finishSegment()
	c.out.publish(c.manifest())
}

// sealTo moves the frontier: the samples before it go through the gate into
// the segment and are never touched again.
func (c *core) sealTo(toMS int64) {
	from := c.sealedMS
	n := int((toMS - from) * c.perMS)
	ch := [2][]int16{c.chunk[0][:n], c.chunk[1][:n]}
	before := c.timeline.Pending()
	c.spans = c.timeline.Seal(toMS, c.spans[:0])
	if c.timeline.Pending() < before {
		c.account.dirty = true // a window begins or ends; what was written when its signal came tells nothing of it
	}
	var silenced [2]span
	for i, s := range c.sides {
		c.marks = s.track.Read(ch[i], c.marks[:0])
		for _, m := range c.marks {
			c.addGap(i, m)
		}
		c.resolve(i)
		silenced[i] = s.mute(from*c.perMS, ch[i])
	}
	kept := c.gate.Pass(c.spans, c.plan.SampleRate, from, ch)
	c.sealedMS = toMS
	for i := range c.sides {
		c.muted(i, silenced[i])
	}
	c.keepDigits()
	c.record(kept)
}

// record appends what the gate let through to the open segment.
func (c *core) record(kept [2][]int16) {
	at := 0
	for _, sp := range c.spans {
		if sp.Suppressed && c.plan.Suppressed == SuppressedCut {
			continue
		}
		for from := sp.FromMS; from < sp.ToMS; {
			if c.parties.take(from) {
				c.finishSegment()
			}
			to := c.parties.next(from+1, sp.ToMS)
			n := int((to - from) * c.perMS)
			c.seg.append(c, from, [2][]int16{kept[0][at : at+n], kept[1][at : at+n]})
			at += n
			from = to
		}
	}
	for i := range kept {
		clear(kept[i])
	}
	c.seg.tick(c)
}

// addGap lists the captured-side parts of a mark: what lies inside a window is
// not listed.
func (c *core) addGap(channel int, m mix.Mark) {
	to := m.At + int64(m.N)
	for _, sp := range c.spans {
		if sp.Suppressed {
			continue
		}
		s := span{max(m.At, sp.FromMS*c.perMS), min(to, sp.ToMS*c.perMS)}
		if s.from < s.to {
			c.account.gaps[channel].add(gap{s, gapCause(m.Cause), c.sides[channel].detail(m.Cause)})
			c.account.dirty = true
		}
	}
}

// resolve corrects gaps of which later packets told what they really were.
func (c *core) resolve(channel int) {
	l := &c.account.gaps[channel]
	for _, r := range c.sides[channel].track.Resolved() {
		c.account.dirty = true
		c.seg.stale(r.From / c.perMS)
		if r.Withdrawn {
			l.recause(span{r.From, r.To}, "", "")
			continue
		}
		for _, s := range c.keptSpans(span{r.From, r.To}) {
			l.cover(s, gapCause(r.Cause), c.sides[channel].detail(r.Cause))
		}
	}
}

// keptSpans are the parts of sealed samples that lie outside windows.
func (c *core) keptSpans(s span) []span {
	var out []span
	for ms := max(s.from, 0) / c.perMS; ms*c.perMS < s.to; ms++ {
		if !c.gate.Kept(ms) {
			continue
		}
		p := span{max(s.from, ms*c.perMS), min(s.to, (ms+1)*c.perMS)}
		if n := len(out); n > 0 && out[n-1].to == p.from {
			out[n-1].to = p.to
			continue
		}
		out = append(out, p)
	}
	return out
}

func gapCause(m mix.Cause) string {
	switch m {
	case mix.Late:
		return GapLate
	case mix.Absent:
		return GapAbsent
	case mix.Undecodable:
		return GapUndecodable
	case mix.Overrun:
		return GapOverrun
	case mix.Loss:
	}
	return GapLoss
}

// newEncoder makes the encoder of a segment.
func (c *core) newEncoder() (codec.Encoder, error) {
	return codec.NewEncoder(c.plan.Format, c.plan.SampleRate, codec.Options{
		Channels: c.channels(), Bitrate: c.plan.OpusBitrate, Complexity: c.plan.OpusComplexity,
	})
}

func (c *core) channels() int {
	if c.plan.Mono {
		return 1
	}
	return 2
}
