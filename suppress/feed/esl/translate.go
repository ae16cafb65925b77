package esl

import (
	"maps"
	"slices"
	"time"

	"github.com/trunktap/trunktap/suppress"
	"github.com/trunktap/trunktap/suppress/feed"
)

// usedSeqsMax is how many sequence numbers are remembered so that none is
// given twice.
const usedSeqsMax = 8192

// implausibleAfter is how far an event's time may lie from its arrival; beyond
// it the arrival counts, for a clock is wrong.
const implausibleAfter = 24 * time.Hour

// Translator turns events into signals. It is pure: the same events at the
// same times give the same signals. One goroutine owns a Translator.
//
// A signal names the SIP call of the channel that it is about, by its Call-ID.
// What concerns both ends of a bridge is told of both: which of the two calls
// passed here it cannot know. Sequence numbers are the microseconds of the
// event's time, raised where two would be equal, so that they order as the
// times do and neither a restart of the FreeSWITCH nor one of ours repeats one.
type Translator struct {
	name   string
	trunks Trunks

	channels    map[string]*channel
	conferences map[string]map[string]suppress.Role // members by uuid
	clock       feed.Clock
	lost        bool // source.lost was told
	seqs        map[uint64]struct{}
	seqRing     []uint64
	seqNext     int
	queues      int // asked for since the connection

	ignored   uint64 // events that are none of ours or could not be understood
	forgotten uint64 // channels beyond the limit

	// Of one call of an exported method.
	now, at time.Time
	out     []suppress.Signal
	ask     []string
}

// NewTranslator returns a translator whose signals have that source.
func NewTranslator(source string, trunks Trunks) *Translator {
	return &Translator{
		name: source, trunks: trunks,
		channels:    map[string]*channel{},
		conferences: map[string]map[string]suppress.Role{},
		seqs:        map[uint64]struct{}{},
	}
}

// Ignored is how many events were none of ours or could not be understood.
func (t *Translator) Ignored() uint64 { return t.ignored }

// begin starts a step.
func (t *Translator) begin(now time.Time) { t.now, t.at, t.out, t.ask = now, now, nil, nil }

// Event translates an event that arrived now. It returns the signals in their
// order, and the commands that ask for what is missing; their answers go to
// Reply.
func (t *Translator) Event(e Event, now time.Time) ([]suppress.Signal, []string) {
	t.begin(now)
	if at := e.micros("Event-Date-Timestamp"); !at.IsZero() {
		t.at = t.clock.Time(at, now).UTC()
	}
	switch e["Event-Name"] {
	case "CHANNEL_CREATE", "CHANNEL_ANSWER":
		t.learn(e)
	case "CHANNEL_BRIDGE":
		t.learn(e)
		a, b := t.need(e.first("Bridge-A-Unique-ID", "Unique-ID")), t.need(e.first("Bridge-B-Unique-ID", "Other-Leg-Unique-ID"))
		t.bridge(a, b, t.at)
	case "CHANNEL_UNBRIDGE":
		t.unbridge(t.learn(e), t.at)
	case "CHANNEL_HOLD":
		t.holdStart(t.need(e["Unique-ID"]), t.at)
	case "CHANNEL_UNHOLD":
		t.holdEnd(t.need(e["Unique-ID"]), t.at)
	case "CHANNEL_HANGUP_COMPLETE":
		t.gone(t.learn(e), t.at)
	case "CHANNEL_EXECUTE", "CHANNEL_EXECUTE_COMPLETE":
		t.eavesdrop(e)
	case "CUSTOM":
		t.custom(e)
	case "HEARTBEAT":
	default:
		t.ignored++
	}
	return t.out, t.ask
}

func (t *Translator) custom(e Event) {
	switch e["Event-Subclass"] {
	case "callcenter::info":
		t.callcenter(e)
	case "conference::maintenance":
		t.conferenceEvent(e)
	case "trunktap::signal":
		t.dialplan(e)
	default:
		t.ignored++
	}
}

// Lost tells that the FreeSWITCH cannot be heard any more, once.
func (t *Translator) Lost(now time.Time) []suppress.Signal {
	t.begin(now)
	if !t.lost {
		t.lost = true
		t.out = append(t.out, suppress.Signal{V: 1, Event: suppress.SourceLost, At: now, Received: now, Source: t.name})
	}
	return t.out
}

// Restored tells that it is heard again and all that was missed is told, if
// Lost was told.
func (t *Translator) Restored(now time.Time) []suppress.Signal {
	t.begin(now)
	if t.lost {
		t.lost = false
		t.out = append(t.out, suppress.Signal{V: 1, Event: suppress.SourceRestored, At: now, Received: now, Source: t.name})
	}
	return t.out
}

// emit tells a signal of a call, when the call is known.
func (t *Translator) emit(call string, at time.Time, s suppress.Signal) {
	if call == "" && s.Call == "" { // it would be for every call that goes on
		return
	}
	s.V, s.SIPCall, s.At, s.Received, s.Source = 1, call, at, t.now, t.name
	if s.Event != suppress.CallLinked && s.Validate() != nil {
		t.ignored++
		return
	}
	s.Seq = t.seq(at)
	t.out = append(t.out, s)
}

// seq gives a sequence number of that time that was not given before.
func (t *Translator) seq(at time.Time) uint64 {
	n := uint64(max(1, at.UnixMicro()))
	for {
		if _, has := t.seqs[n]; !has {
			break
		}
		n++
	}
	t.seqs[n] = struct{}{}
	if len(t.seqRing) < usedSeqsMax {
		t.seqRing = append(t.seqRing, n)
		return n
	}
	delete(t.seqs, t.seqRing[t.seqNext])
	t.seqRing[t.seqNext] = n
	t.seqNext = (t.seqNext + 1) % usedSeqsMax
	return n
}

// bridge notes that two channels hear each other.
func (t *Translator) bridge(a, b *channel, at time.Time) {
	if a == nil || b == nil || a == b || a.peer == b {
		return
	}
	t.unbridge(a, at)
	t.unbridge(b, at)
	a.peer, b.peer, a.bridgedAt, b.bridgedAt = b, a, at, at
	t.tellBridge(a, b, at)
	t.tellHold(a)
	t.tellHold(b)
}

// tellBridge tells who took part in which call by a bridge, once both channels
// are known.
func (t *Translator) tellBridge(a, b *channel, at time.Time) {
	if !a.known || !b.known {
		return
	}
	t.link(a, b, at)
	if a.trunk && b.trunk {
		t.tellExternal(a, at)
		t.tellExternal(b, at)
		return
	}
	for _, on := range []*channel{a, b} {
		t.tellTransfer(on, on.peer, at)
		for _, who := range []*channel{a, b} {
			if !who.trunk {
				t.join(who, on, suppress.RoleAgent, "", at)
			}
		}
	}
	t.tellConsult(a, b, at)
	t.tellConsult(b, a, at)
}

// tellExternal: both parties of the bridge are external.
func (t *Translator) tellExternal(c *channel, at time.Time) {
	if !c.external && c.call != "" {
		c.external = true
		t.emit(c.call, at, suppress.Signal{Event: suppress.TransferExternal})
	}
}

// tellTransfer: an external party that spoke to one agent is bridged with
// another.
func (t *Translator) tellTransfer(c, with *channel, at time.Time) {
	if !c.trunk || with == nil || with.trunk || c.call == "" {
		return
	}
	if l := c.lastAgent; l != nil && l.uuid != with.uuid && l.user != with.user {
		t.emit(c.call, at, suppress.Signal{Event: suppress.TransferInternal, User: with.user})
	}
	c.lastAgent = &agent{with.uuid, with.user}
}

// tellConsult: an agent who has an external party on hold speaks to another
// agent on a further channel.
func (t *Translator) tellConsult(a, b *channel, at time.Time) {
	if a.trunk || b.trunk || a.consult != nil || a.user == a.uuid {
		return
	}
	for _, uuid := range slices.Sorted(maps.Keys(t.channels)) {
		c := t.channels[uuid]
		if c == a || c == b || c.user != a.user || !c.hold.on || c.peer == nil || !c.peer.trunk || c.peer.call == "" {
			continue
		}
		a.consult = &consult{call: c.peer.call, user: a.user, other: b.user}
		t.emit(c.peer.call, at, suppress.Signal{Event: suppress.ConsultStart, User: a.user, Other: b.user})
		t.link(c.peer, a, at)
		t.link(c.peer, b, at)
		return
	}
}

func (t *Translator) endConsult(c *channel, at time.Time) {
	if k := c.consult; k != nil {
		c.consult = nil
		t.emit(k.call, at, suppress.Signal{Event: suppress.ConsultEnd, User: k.user, Other: k.other})
	}
}

// unbridge undoes the bridge of a channel.
func (t *Translator) unbridge(c *channel, at time.Time) {
	if c == nil || c.peer == nil {
		return
	}
	p := c.peer
	c.peer, p.peer = nil, nil
	for _, who := range []*channel{c, p} {
		t.leave(who, c.uuid, at)
		t.leave(who, p.uuid, at)
		t.endConsult(who, at)
	}
	t.untellHold(c, p.call, at)
	t.untellHold(p, c.call, at)
}

// join tells that who takes part in the call of on.
func (t *Translator) join(who, on *channel, role suppress.Role, user string, at time.Time) {
	if on.call == "" {
		return
	}
	if user = clean(user); user == "" {
		user = who.user
	}
	p, has := who.in[on.uuid]
	if has && p.role == role {
		return
	}
	if has {
		user = p.user
	}
	if !has && len(who.in) >= presencesMax {
		t.forgotten++
		return
	}
	if who.in == nil {
		who.in = map[string]presence{}
	}
	who.in[on.uuid] = presence{on.call, user, role}
	t.emit(on.call, at, suppress.Signal{Event: suppress.AgentJoin, User: user, Role: role})
}

// leave undoes join.
func (t *Translator) leave(who *channel, on string, at time.Time) {
	if p, has := who.in[on]; has {
		delete(who.in, on)
		t.emit(p.call, at, suppress.Signal{Event: suppress.AgentLeave, User: p.user, Role: p.role})
	}
}

// link tells that the calls of two channels belong to one conversation. An
// agent's standing channel that serves one caller after the other links none of
// them: it stays with the first as long as that lives.
func (t *Translator) link(a, b *channel, at time.Time) {
	if a.call == "" || b.call == "" || a.call == b.call || slices.Contains(a.links, b.call) || len(a.links) >= linksMax {
		return
	}
	for _, pair := range [][2]*channel{{a, b}, {b, a}} {
		in, trunk := pair[0], pair[1]
		if in.trunk || !trunk.trunk {
			continue
		}
		if in.anchor != "" && in.anchor != trunk.uuid && t.channels[in.anchor] == nil {
			return
		}
		in.anchor = trunk.uuid
	}
	a.links = append(a.links, b.call)
	t.emit(a.call, at, suppress.Signal{Event: suppress.CallLinked, Links: []string{linkKey(b.call)}})
	t.emit(b.call, at, suppress.Signal{Event: suppress.CallLinked, Links: []string{linkKey(a.call)}})
}

// linkKey is the key of a call; see media.Session.
func linkKey(call string) string { return "call-id:" + call }

func (t *Translator) holdStart(c *channel, at time.Time) {
	if c == nil || c.hold.on {
		return
	}
	c.hold = hold{on: true, at: at, party: c.party()}
	t.tellHold(c)
}

// tellHold tells the calls at both ends that this one holds.
func (t *Translator) tellHold(c *channel) {
	if !c.hold.on {
		return
	}
	for _, on := range []*channel{c, c.peer} {
		if on == nil || on.call == "" || slices.Contains(c.hold.told, on.call) {
			continue
		}
		at := c.hold.at
		if on != c && at.Before(c.bridgedAt) {
			at = c.bridgedAt
		}
		c.hold.told = append(c.hold.told, on.call)
		t.emit(on.call, at, suppress.Signal{Event: suppress.HoldStart, Party: c.hold.party})
	}
}

// untellHold ends the hold for a call that is not at the other end any more.
func (t *Translator) untellHold(c *channel, call string, at time.Time) {
	if i := slices.Index(c.hold.told, call); c.hold.on && i >= 0 && call != c.call {
		c.hold.told = slices.Delete(c.hold.told, i, i+1)
		t.emit(call, at, suppress.Signal{Event: suppress.HoldEnd, Party: c.hold.party})
	}
}

// holdEnd ends what holdStart began; of a hold whose start was missed it ends
// what the start would have told.
func (t *Translator) holdEnd(c *channel, at time.Time) {
	if c == nil {
		return
	}
	calls, party := c.hold.told, c.hold.party
	if !c.hold.on {
		party = c.party()
		for _, on := range []*channel{c, c.peer} {
			if on != nil && !slices.Contains(calls, on.call) {
				calls = append(calls, on.call)
			}
		}
	}
	c.hold = hold{}
	for _, call := range calls {
		t.emit(call, at, suppress.Signal{Event: suppress.HoldEnd, Party: party})
	}
}

// party names who holds; never empty, for an end without a name ends all.
func (c *channel) party() string {
	if c.user != "" {
		return c.user
	}
	return c.uuid
}

// gone ends all that a channel took part in and forgets it.
func (t *Translator) gone(c *channel, at time.Time) {
	if c == nil {
		return
	}
	t.unbridge(c, at)
	if c.hold.on {
		t.holdEnd(c, at)
	}
	t.confLeave(c, at)
	for _, on := range slices.Sorted(maps.Keys(c.in)) {
		t.leave(c, on, at)
	}
	delete(t.channels, c.uuid)
}
