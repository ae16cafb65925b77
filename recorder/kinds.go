package recorder

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

const (
	recordingsMax     = 1000 // of one call
	recordingsLiveMax = 32   // of one call at a time
	stateSignalsMax   = 4096 // remembered for recordings that begin later
	agentsMax         = 256  // known to have joined
)

// consultGrace is how long after its answer a call may be told to be a
// consultation from its beginning: a PBX tells when it knows, by its own clock.
const consultGrace = time.Second

// Causes of the end of a recording whose call goes on.
const (
	causeLeft    media.Cause = "left"    // the party whose side is recorded left the call
	causeStopped media.Cause = "stopped" // whoever began it ended it
	causeBridged media.Cause = "bridged" // it goes on in the recording of the conversation's first call
)

// suffixes make the ids of recordings that are not their call's first.
var suffixes = map[Kind]string{KindStation: "st", KindConsult: "co", KindAdhoc: "ad", KindSnippet: "sn"}

// kindState is what decides which recordings a call has.
type kindState struct {
	numbers map[Kind]int
	opened  int
	history []suppress.Signal // that a recording which begins later must know
	forgot  bool              // more than history holds
	acd     bool              // the call has seen a queue or an agent
	agents  map[string]presence
	hidden  map[string]bool  // monitors
	consult *suppress.Signal // the call was a consultation from its beginning
	claims  claims
}

// claims keeps adhoc recordings of a user apart over all calls.
type claims interface {
	// claim returns false when the user has one.
	claim(user, recording string) bool
	release(user, recording string)
}

func (k *kindState) init() {
	k.numbers, k.agents, k.hidden = map[Kind]int{}, map[string]presence{}, map[string]bool{}
}

// effect is what a signal did to a call.
type effect struct {
	suppress.Effect
	refused   string // why it was not acted upon
	recording string // id of what it began or ended
	hidden    bool   // it must not be told of
	orphaned  bool   // a secure pause is on whose source was lost
}

// signal applies a call-state signal and says what it did.
func (c *core) signal(sig suppress.Signal) effect {
	received := sig.Received
	if received.IsZero() {
		received = sig.At
	}
	if !c.ended {
		c.advance(c.ns(received))
		if c.now > c.waitingNS {
			c.takeAnswer()
		}
	}
	return c.apply(sig)
}

// foreign makes a signal of another call fit for this one: calls of one source
// may number their signals alike, so its number counts only for the same signal.
func (c *core) foreign(sig suppress.Signal) suppress.Signal {
	same := slices.ContainsFunc(c.kinds.history, func(h suppress.Signal) bool {
		return h.Source == sig.Source && h.Seq == sig.Seq && h.Event == sig.Event && h.At.Equal(sig.At)
	})
	if !same {
		sig.Seq = 0
	}
	return sig
}

// takeTyped applies the codes that were typed.
func (c *core) takeTyped() {
	for len(c.typed) > 0 {
		sig := c.typed[0]
		c.typed = c.typed[1:]
		c.emitted = append(c.emitted, emitted{sig, c.apply(sig)})
	}
}

// apply is signal at the present time.
func (c *core) apply(sig suppress.Signal) effect {
	c.applied++
	e := effect{Effect: c.state.Apply(sig)}
	if e.Duplicate || c.ended {
		return e
	}
	e.hidden = c.kinds.hides(sig)
	e.orphaned = sig.Event == suppress.SourceLost && c.state.PausedBy(sig.Source)
	c.remember(sig)
	var effects []suppress.Effect
	for i, r := range c.recs {
		x := r.signal(sig)
		effects = append(effects, x)
		if i == 0 {
			e.Effect = x
		}
	}
	told := slices.Clone(c.recs)
	c.lifecycle(sig, &e)
	for i, r := range told {
		r.noteSignal(sig, effects[i], e)
	}
	for _, r := range c.recs {
		if !slices.Contains(told, r) {
			r.noteSignal(sig, e.Effect, e)
		}
	}
	return e
}

// hides tells whether a signal is about somebody who leaves no trace.
func (k *kindState) hides(sig suppress.Signal) bool {
	switch {
	case sig.Event == suppress.AgentJoin && sig.Role == suppress.RoleMonitor:
		if len(k.hidden) < agentsMax {
			k.hidden[sig.User] = true
		}
		return true
	case sig.Event == suppress.AgentJoin:
		delete(k.hidden, sig.User)
	}
	return k.hidden[sig.User]
}

// remember keeps what a recording that begins later must know.
func (c *core) remember(sig suppress.Signal) {
	k := &c.kinds
	switch sig.Event {
	case suppress.SnippetStart, suppress.SnippetEnd, suppress.AdhocStart, suppress.AdhocEnd,
		suppress.ConsultStart, suppress.ConsultEnd, suppress.CallLinked:
		return
	case suppress.QueueStart:
		k.acd = true
	case suppress.AgentJoin, suppress.AgentLeave:
		if sig.Role == suppress.RoleMonitor || k.hidden[sig.User] {
			return
		}
		k.acd = true
		user := c.userNamed(sig.User)
		if p, known := k.agents[user]; !known && len(k.agents) < agentsMax || known && !sig.At.Before(p.at) {
			k.agents[user] = presence{sig.Event == suppress.AgentJoin, sig.Role, sig.At}
		}
	default:
	}
	if len(k.history) >= stateSignalsMax {
		k.forgot = true
		return
	}
	k.history = append(k.history, sig)
}

// open makes a recording that begins now or, before the answer, with it; nil
// and the reason when it may not be.
func (c *core) open(kind Kind, user, other string, internal media.Side) (*recording, string) {
	k := &c.kinds
	p, ok := c.planOf(kind, user)
	switch {
	case !ok:
		return nil, fmt.Sprintf("recordings of kind %s are not made here", kind)
	case k.forgot:
		return nil, "the call has had too many signals"
	case len(c.recs) >= recordingsLiveMax || k.opened >= recordingsMax:
		return nil, "the call has too many recordings"
	}
	id := c.nextID(kind)
	k.opened++
	k.numbers[kind]++
	r := c.newRecording(id, kind, user, other, p, internal)
	for _, sig := range k.history {
		r.inherit(sig)
	}
	c.recs = append(c.recs, r)
	return r, ""
}

// nextID is the id of the next recording of a kind.
func (c *core) nextID(kind Kind) string {
	if kind == KindTrunk {
		return c.session.ID
	}
	return fmt.Sprintf("%s-%s%d", c.session.ID, suffixes[kind], c.kinds.numbers[kind]+1)
}

// openAt makes a recording that begins at a time of a call that was answered.
func (c *core) openAt(kind Kind, user, other string, internal media.Side, t time.Time) (*recording, string) {
	if !c.started {
		return nil, "the call is not answered"
	}
	r, why := c.open(kind, user, other, internal)
	if r != nil {
		ns := c.ns(t) + int64(time.Millisecond) - 1 // a millisecond that is not wholly its own is not the recording's
		c.begin(r, c.positionOf(c.timeOf(ns)))
		r.before = c.rows()
	}
	return r, why
}

// positionOf is where something that happened at t may still act.
func (c *core) positionOf(t time.Time) int64 { return max(c.realMSOf(c.ns(t)), c.sealedMS) }

// planOf returns how recordings of a kind are made here.
func (c *core) planOf(kind Kind, user string) (Plan, bool) {
	p := c.plan
	switch kind {
	case KindStation:
		if p.Stations == nil {
			return p, false
		}
		p, ok := p.Stations.Plan(user)
		if c.plan.Rules.ConsentRequired && !p.Rules.ConsentRequired {
			p.requireConsent(c.plan)
		}
		if p.SampleRate == RateAuto {
			p.SampleRate = c.plan.SampleRate // its samples are the call's
		}
		return p, ok && p.SampleRate == c.plan.SampleRate && p.Validate() == nil
	case KindConsult:
		return p, p.Consult
	case KindAdhoc:
		p.Rules.HoldMic = true
		return p, p.Adhoc
	case KindSnippet:
		return p, p.Snippets
	case KindTrunk:
	}
	return p, !p.NoTrunk
}

// openStations begins the recordings of the parties that are stations, at the answer.
func (c *core) openStations() {
	if k := &c.kinds; k.consult != nil {
		c.consultation(*k.consult)
	}
	if c.plan.Stations == nil {
		return
	}
	for _, p := range c.session.Parties {
		user, ok := c.plan.Stations.Station(p)
		if !ok || c.consulting(user, p.Side) || c.live(KindStation, user) != nil {
			continue
		}
		c.openAt(KindStation, user, "", p.Side, c.answered)
	}
	c.openJoined()
}

// live returns the recording of a kind that a user has going on.
func (c *core) live(kind Kind, user string) *recording {
	for _, r := range c.recs {
		if r.kind == kind && r.user == user && r.stopMS < 0 {
			return r
		}
	}
	return nil
}

// lifecycle begins and ends recordings.
func (c *core) lifecycle(sig suppress.Signal, e *effect) {
	switch sig.Event {
	case suppress.AgentJoin:
		c.joined(c.userNamed(sig.User), sig.Role, sig.At)
	case suppress.AgentLeave:
		r := c.live(KindStation, c.userNamed(sig.User))
		if r != nil && !c.party(r.user) && !sig.At.Before(c.kinds.agents[r.user].at) {
			c.stop(r, sig.At, causeLeft)
		}
	case suppress.ConsultStart:
		c.consultStarted(sig, e)
	case suppress.ConsultEnd:
		for _, r := range c.recs {
			if r.consults() {
				c.stop(r, sig.At, causeStopped)
				e.recording = r.id
			}
		}
	case suppress.SnippetStart:
		c.demand(KindSnippet, sig, e)
	case suppress.SnippetEnd:
		c.dismiss(KindSnippet, sig, e)
	case suppress.AdhocStart:
		c.demand(KindAdhoc, sig, e)
	case suppress.AdhocEnd:
		c.dismiss(KindAdhoc, sig, e)
	default:
	}
}

func (c *core) stop(r *recording, at time.Time, cause media.Cause) {
	pos := c.positionOf(at)
	r.stop(pos-r.offsetMS, c.timeOf(c.origin+pos*int64(time.Millisecond)), cause)
}

// bridged ends the trunk's recording of a call that was bridged with another
// external party: the conversation's oldest call has both of them.
func (c *core) bridged(at time.Time) {
	c.takeAnswer()
	for _, r := range c.recs {
		if r.kind == KindTrunk && r.stopMS < 0 && c.started {
			c.stop(r, at, causeBridged)
		}
	}
}

// caller is the side that the INVITE came from.
func (c *core) caller() media.Side {
	if c.session.Direction == media.Outbound {
		return media.Internal
	}
	return media.External
}

// consulting tells whether a user's own recording gives way to that of the
// consultation which the call is.
func (c *core) consulting(user string, side media.Side) bool {
	k := c.kinds.consult
	return k != nil && (k.User == user || k.User == "" && side == c.caller())
}

// consultStarted takes the news that this call is, or holds, a consultation. A
// call that was one from its beginning, or is told so within consultGrace of its
// answer, has no recording of its trunk; one that comes from outside can be none.
func (c *core) consultStarted(sig suppress.Signal, e *effect) {
	if c.party(sig.Other) && !c.party(sig.User) {
		return // the other agent's leg: the consultation is recorded on that of who consults
	}
	whole := !c.started || sig.At.Sub(c.answered) <= consultGrace
	if whole && (c.plan.NoTrunk || c.session.Direction == media.Outbound) {
		if c.kinds.consult == nil {
			c.kinds.consult = &sig
			if c.started && !c.answered.IsZero() {
				e.recording = c.consultation(sig)
			}
		}
		return
	}
	if c.plan.Consult && c.started && !slices.ContainsFunc(c.recs, (*recording).consults) {
		if r, why := c.openAt(KindConsult, sig.User, sig.Other, media.Internal, sig.At); r != nil {
			e.recording = r.id
		} else {
			e.refused = why
		}
	}
}

// consults tells whether the recording is a consultation that goes on.
func (r *recording) consults() bool { return r.kind == KindConsult && r.stopMS < 0 }

// consultation replaces the automatic recordings of a call that is one: what
// two agents say to each other is kept as that, or not at all.
func (c *core) consultation(sig suppress.Signal) (id string) {
	rest := c.recs[:0:0]
	for _, r := range c.recs {
		side := r.side(1)
		if r.kind == KindTrunk || r.kind == KindStation && c.consulting(r.user, side) {
			r.preroll.drop(r)
			r.out.discard("the call is a consultation")
			continue
		}
		rest = append(rest, r)
	}
	c.recs = rest
	r, _ := c.openAt(KindConsult, sig.User, sig.Other, c.sideOf(sig.User), c.answered)
	if r == nil {
		return ""
	}
	return r.id
}

// sideOf is the side that a user is heard on: that of the party who is the
// user, else the internal one.
func (c *core) sideOf(user string) media.Side {
	for _, p := range c.session.Parties {
		if c.plan.Stations != nil {
			if u, ok := c.plan.Stations.Station(p); ok && u == user {
				return p.Side
			}
		}
		if userOf(p.URI) == user && user != "" {
			return p.Side
		}
	}
	return media.Internal
}

// userOf returns the user part of a SIP URI.
func userOf(uri string) string {
	_, rest, ok := strings.Cut(uri, ":")
	if !ok {
		rest = uri
	}
	user, _, _ := strings.Cut(rest, "@")
	return user
}

// demand begins a recording that a user asks for.
func (c *core) demand(kind Kind, sig suppress.Signal, e *effect) {
	switch {
	case kind == KindSnippet && !c.kinds.acd:
		e.refused = "the call came from no queue and no agent has joined it"
	case kind == KindAdhoc && !c.present(sig.User):
		e.refused = "the user is not on the call"
	case c.live(kind, sig.User) != nil:
		e.refused = fmt.Sprintf("the user has a recording of kind %s going on", kind)
	case c.refusedConsent(sig):
		e.refused = "the recording was not consented to"
	}
	if e.refused != "" {
		return
	}
	side, id := media.Internal, c.nextID(kind) // a snippet is of the call
	if kind == KindAdhoc {
		side = c.sideOf(sig.User)
		if c.kinds.claims != nil && !c.kinds.claims.claim(sig.User, id) {
			e.refused = "the user has a recording of kind adhoc going on in another call"
			return
		}
	}
	r, why := c.openAt(kind, sig.User, "", side, sig.At)
	if r == nil {
		e.refused = why
		if kind == KindAdhoc && c.kinds.claims != nil {
			c.kinds.claims.release(sig.User, id)
		}
		return
	}
	e.recording = r.id
}

// refusedConsent tells whether whoever is recorded has said no; not to have been
// asked yet is no refusal.
func (c *core) refusedConsent(sig suppress.Signal) bool {
	if !c.plan.Rules.ConsentRequired {
		return slices.Contains(c.state.Reasons(c.positionOf(sig.At)), suppress.ReasonConsent)
	}
	return slices.ContainsFunc(c.recs, func(r *recording) bool { return r.consent == consentDenied })
}

// dismiss ends a recording that a user asked for.
func (c *core) dismiss(kind Kind, sig suppress.Signal, e *effect) {
	r := c.live(kind, sig.User)
	if r == nil {
		e.refused = fmt.Sprintf("the user has no recording of kind %s going on", kind)
		return
	}
	c.stop(r, sig.At, causeStopped)
	c.release(r)
	e.recording = r.id
}

// release lets a user begin another adhoc recording.
func (c *core) release(r *recording) {
	if r.kind == KindAdhoc && c.kinds.claims != nil {
		c.kinds.claims.release(r.user, r.id)
	}
}
