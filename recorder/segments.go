package recorder

import (
	"fmt"
	"sort"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/suppress"
)

// segmentState is the open segment and the audio that waits for a frame.
type segmentState struct {
	n       int // number of the open or last segment
	open    bool
	enc     codec.Encoder
	info    Segment
	samples int64 // of the open segment, coded
	audio   int64 // of the recording, coded and waiting, in samples
	done    []Segment

	pend       [2][]int16
	pendSpans  []span // real-time spans of what waits, in samples
	lastFlush  int64  // ns
	lastStated int64  // ns of the last account written
	stated     bool   // an account was written into the open segment
	statedMS   int64  // real time that it covers
}

// append adds samples that lie together in real time from realMS on.
func (g *segmentState) append(c *core, realMS int64, ch [2][]int16) {
	for len(ch[0]) > 0 {
		if g.open && g.empty() && g.info.RealMS != realMS {
			g.abandon(c)
		}
		if !g.open {
			g.begin(c, realMS)
		}
		room := c.plan.SegmentMax.Milliseconds()*c.perMS - g.samples - int64(len(g.pend[0]))
		n := min(len(ch[0]), int(room))
		for i := range ch {
			g.pend[i] = append(g.pend[i], ch[i][:n]...)
			ch[i] = ch[i][n:]
		}
		from := realMS * c.perMS
		if k := len(g.pendSpans); k > 0 && g.pendSpans[k-1].to == from {
			g.pendSpans[k-1].to += int64(n)
		} else {
			g.pendSpans = append(g.pendSpans, span{from, from + int64(n)})
		}
		g.audio += int64(n)
		realMS += int64(n) / c.perMS
		g.info.EndRealMS = realMS
		if int64(n) == room {
			c.finishSegment()
		}
	}
}

// begin opens a segment at a position.
func (g *segmentState) begin(c *core, realMS int64) {
	g.n++
	g.open, g.samples, g.stated = true, 0, false
	g.lastFlush = c.now
	g.info = Segment{N: g.n, RealMS: realMS, AudioMS: g.audio / c.perMS, EndRealMS: realMS, Parties: c.parties.names()}
	enc, err := c.newEncoder()
	if err != nil {
		c.account.fault = fmt.Sprintf("encoder: %v", err)
	}
	g.enc = enc
	c.account.dirty = true // goes with the first audio, for recovery
	c.out.begin(SegmentInfo{
		Recording: c.session.ID, Prefix: Prefix(c.session), N: g.n, Format: c.plan.Format,
		SampleRate: c.plan.SampleRate, Channels: c.channels(), RealMS: realMS, AudioMS: g.info.AudioMS,
		Start: c.msTime(realMS),
	})
}

func (g *segmentState) empty() bool { return g.samples == 0 && len(g.pend[0]) == 0 }

// stale says that something changed at a position: an account that would not
// reach back so far must be whole.
func (g *segmentState) stale(ms int64) {
	if ms < g.statedMS-accountTailMS {
		g.stated = false
	}
}

// abandon gives up an open segment without audio.
func (g *segmentState) abandon(c *core) {
	if g.enc != nil {
		g.enc.Close()
	}
	g.open, g.enc = false, nil
	g.n--
	c.out.abandon()
}

// tick writes a frame when enough has gathered, or when the account must be
// stated again.
func (g *segmentState) tick(c *core) {
	if !g.open {
		return
	}
	still := c.now-g.lastFlush >= frameMS*2e6
	switch {
	case int64(len(g.pend[0])) >= frameMS*c.perMS:
		g.flush(c, flushFrame)
		return
	case still && (g.enc == nil || len(g.pend[0]) >= g.enc.Granule()):
		g.flush(c, flushGranules)
		return
	}
	since := c.now - g.lastStated
	if (c.account.dirty || still) && since >= frameMS*2e6 || since >= int64(accountEvery) {
		g.flush(c, flushFrame)
		if g.lastStated != c.now {
			g.state(c)
		}
	}
}

// state writes the account alone: inside a window there is no audio to go with it.
func (g *segmentState) state(c *core) {
	a := Audio{RealMS: c.sealedMS, AudioMS: g.audio / c.perMS, SegMS: g.samples / c.perMS}
	if !c.out.audio(a, c.journalled()) {
		g.stated, c.account.dirty = false, true
	}
}

// flush codes what waits, whole granules unless last, and hands it on.
func (g *segmentState) flush(c *core, how flushing) {
	if g.enc == nil {
		g.lose(c, len(g.pend[0]), c.account.fault)
		return
	}
	n := g.ready(how)
	if n == 0 {
		return
	}
	data, err := g.encode(c, n, how == flushLast)
	if err != nil {
		g.lose(c, n, fmt.Sprintf("encoder: %v", err))
		return
	}
	a := Audio{
		RealMS: g.pendSpans[0].from / c.perMS, AudioMS: (g.audio - int64(len(g.pend[0]))) / c.perMS,
		SegMS: g.samples / c.perMS, Samples: n, Data: data,
	}
	var account *Manifest
	if c.account.dirty || c.now-g.lastStated >= int64(accountEvery) {
		account = c.journalled()
	}
	if !c.out.audio(a, account) {
		g.stated = g.stated && account == nil // what was refused must be said again
		g.lose(c, n, c.out.refusal())
		return
	}
	g.drop(c, n)
}

// flushing says how much of what waits goes into a frame.
type flushing uint8

const (
	flushFrame    flushing = iota // whole granules but the last: the end of a segment needs audio to carry what the encoder still holds
	flushGranules                 // all whole granules: nothing more may come for long
	flushLast                     // everything: the segment ends
)

// ready is how many of the waiting samples a frame takes.
func (g *segmentState) ready(how flushing) int {
	n, gran := len(g.pend[0]), g.enc.Granule()
	switch how {
	case flushFrame:
		if gran > 1 {
			n = max(0, (n-1)/gran*gran)
		}
	case flushGranules:
		n -= n % gran
	case flushLast:
	}
	return n
}

// encode codes the first n waiting samples.
func (g *segmentState) encode(c *core, n int, last bool) ([]byte, error) {
	whole := n - n%g.enc.Granule()
	room := 2 * c.channels() * n // bytes of the largest coding
	if g.enc.Granule() > 1 {
		room /= 8
	}
	data, err := g.enc.Encode(make([]byte, 0, room), [2][]int16{g.pend[0][:whole], g.pend[1][:whole]})
	if err == nil && last {
		data, err = g.enc.Flush(data, [2][]int16{g.pend[0][whole:n], g.pend[1][whole:n]})
	}
	return data, err
}

// lose makes a gap of the first n waiting samples: they were captured but
// could not be kept.
func (g *segmentState) lose(c *core, n int, detail string) {
	left := int64(n)
	for _, s := range g.pendSpans {
		take := min(left, s.to-s.from)
		for _, k := range c.keptSpans(span{s.from, s.from + take}) {
			for i := range c.account.gaps {
				c.account.gaps[i].cover(k, GapOverrun, detail)
			}
		}
		c.seg.stale(s.from / c.perMS)
		if left -= take; left == 0 {
			break
		}
	}
	c.account.dirty = true
	g.drop(c, n)
}

// drop takes the first n waiting samples away and wipes where they lay.
func (g *segmentState) drop(c *core, n int) {
	g.samples += int64(n)
	g.lastFlush = c.now
	for i := range g.pend {
		rest := copy(g.pend[i], g.pend[i][n:])
		clear(g.pend[i][rest:])
		g.pend[i] = g.pend[i][:rest]
	}
	left := int64(n)
	k := 0
	for left > 0 && k < len(g.pendSpans) {
		s := &g.pendSpans[k]
		take := min(left, s.to-s.from)
		s.from += take
		left -= take
		if s.from == s.to {
			k++
		}
	}
	g.pendSpans = append(g.pendSpans[:0], g.pendSpans[k:]...)
}

// finishSegment ends the open segment, if there is one.
func (c *core) finishSegment() {
	g := &c.seg
	if !g.open {
		return
	}
	if g.empty() {
		g.abandon(c)
		return
	}
	g.flush(c, flushLast)
	if g.enc != nil {
		g.enc.Close()
	}
	g.open, g.enc = false, nil
	g.info.DurationMS = g.samples / c.perMS
	g.done = append(g.done, g.info)
	c.account.dirty = false
	g.lastStated = c.now
	c.out.finish(g.info, c.manifest())
}

// partiesMax bounds the internal parties of one recording.
const partiesMax = 64

// partySet is the internal parties heard, and when they change next.
type partySet struct {
	fallback string // the internal side's URI, until call state names agents
	users    map[string]bool
	pending  []partyChange
	named    bool
}

type partyChange struct {
	atMS  int64
	user  string
	leave bool
}

func (p *partySet) init(s media.Session) {
	p.users = make(map[string]bool)
	for _, q := range s.Parties {
		if q.Side == media.Internal {
			p.fallback = q.URI
		}
	}
	if p.fallback == "" {
		p.fallback = s.To
		if s.Direction == media.Outbound {
			p.fallback = s.From
		}
	}
}

// apply notes a change of the parties that are heard. Monitors and coaches are
// not heard by the external side.
func (p *partySet) apply(s suppress.Signal, atMS func() int64) {
	if s.User == "" || len(p.pending) >= partiesMax || len(p.users) >= partiesMax {
		return
	}
	switch s.Event {
	case suppress.AgentJoin:
		if s.Role == suppress.RoleMonitor || s.Role == suppress.RoleCoach {
			return
		}
		p.pending = append(p.pending, partyChange{atMS(), s.User, false})
	case suppress.AgentLeave:
		p.pending = append(p.pending, partyChange{atMS(), s.User, true})
	default:
		return
	}
	sort.SliceStable(p.pending, func(i, j int) bool { return p.pending[i].atMS < p.pending[j].atMS })
}

// next returns the first position in [from, to) at which the parties change;
// to when there is none.
func (p *partySet) next(from, to int64) int64 {
	for _, c := range p.pending {
		if c.atMS >= from && c.atMS < to && p.differs(c) {
			return c.atMS
		}
	}
	return to
}

func (p *partySet) differs(c partyChange) bool { return p.users[c.user] == c.leave }

// take applies the changes up to and including a position; true when the
// parties are others now.
func (p *partySet) take(toMS int64) bool {
	changed := false
	n := 0
	for _, c := range p.pending {
		if c.atMS > toMS {
			break
		}
		n++
		if !p.differs(c) {
			continue
		}
		changed = true
		p.named = true
		if c.leave {
			delete(p.users, c.user)
		} else {
			p.users[c.user] = true
		}
	}
	p.pending = append(p.pending[:0], p.pending[n:]...)
	return changed
}

func (p *partySet) names() []string {
	if len(p.users) == 0 {
		if p.named || p.fallback == "" {
			return []string{}
		}
		return []string{p.fallback}
	}
	out := make([]string, 0, len(p.users))
	for u := range p.users {
		out = append(out, u)
	}
	sort.Strings(out)
	return out
}
