package ami

import (
	"maps"
	"slices"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// musicParty is who holds when nobody's Hold tells.
const musicParty = "music"

const linksMax = 64 // calls that one call is linked with

// call is a channel whose SIP call passes through trunktap.
type call struct {
	channel *channel
	id      string // Call-ID, "" while not known

	asks    int
	asked   bool              // a question is on its way
	pending []suppress.Signal // that wait for the Call-ID
	due     time.Time         // until when; zero when none waits
	given   bool              // up: nothing waits any more

	last     state // what its signals so far amount to
	dirty    bool
	dirtyAt  time.Time
	hadAgent bool
	agents   []*channel // that were on it
	external bool       // transfer.external was sent
	links    map[string]struct{}

	transferring bool
	transferers  []*channel // may hold nil
}

func newCall(c *channel) *call { return &call{channel: c} }

// state is what the lasting signals say of a call at one moment.
type state struct {
	queues   map[string]struct{}
	holders  map[string]struct{}
	agents   map[string]suppress.Role
	consults map[string]string // user → other
}

func newState() state {
	return state{queues: map[string]struct{}{}, holders: map[string]struct{}{}, agents: map[string]suppress.Role{}, consults: map[string]string{}}
}

// gone lets go of what a forgotten channel points at.
func (c *channel) gone() { c.met = nil }

// mark notes that a call's state may have changed.
func (t *Translator) mark(k *call) {
	if !k.dirty {
		k.dirty, k.dirtyAt = true, t.at
		t.dirty = append(t.dirty, k)
	}
}

// touch marks the calls that a change of the channel may concern. It is called
// before the change and after it.
func (t *Translator) touch(c *channel) {
	t.touchGroup(c)
	for _, o := range []*channel{c.spying, c.caller, c.connecting} {
		if o != nil {
			t.touchGroup(o)
		}
	}
	if c.inside() && c.user != "" {
		for _, o := range t.model.byUser[c.user] {
			if o != c {
				t.touchGroup(o)
			}
		}
	}
}

// touchLinked marks the calls that share a channel's Linkedid.
func (t *Translator) touchLinked(c *channel) {
	for _, k := range t.model.byLinked[c.linked] {
		t.mark(k)
	}
}

func (t *Translator) touchGroup(c *channel) {
	for _, o := range t.model.group(c) {
		if o.call != nil {
			t.mark(o.call)
		}
	}
}

// settle tells every marked call how its state differs from what it was told.
func (t *Translator) settle() {
	for i := 0; i < len(t.dirty); i++ { // a look at one may mark others
		k := t.dirty[i]
		k.dirty = false
		t.look(k, k.dirtyAt)
	}
	t.dirty = t.dirty[:0]
}

func (t *Translator) look(k *call, at time.Time) {
	group := t.model.group(k.channel)
	now := newState()
	if t.model.channels[k.channel.id] == k.channel {
		t.observe(k, group, &now)
		t.link(k, group, at)
		if t.transferred(k, group, &now, at) {
			for p := range k.last.holders {
				now.holders[p] = struct{}{}
			}
		}
	}
	for user, role := range now.agents {
		k.hadAgent = k.hadAgent || role == suppress.RoleAgent && user != ""
	}
	t.tell(k, now, at)
	k.last = now
	if t.model.channels[k.channel.id] != k.channel {
		t.drop(k)
	}
}

// drop lets go of what waits for a Call-ID.
func (t *Translator) drop(k *call) {
	t.unawait(k)
	t.ignored += uint64(len(k.pending))
	k.pending = nil
}

// observe reads a call's state off the model.
func (t *Translator) observe(k *call, group []*channel, s *state) {
	self := k.channel
	parties, inside, insideHolds, holds := 0, 0, 0, 0 // of the others, but for parties
	for _, c := range group {
		if c.queue != "" {
			s.queues[c.queue] = struct{}{}
		}
		for _, spy := range c.spies {
			s.agent(spy.user, spy.role)
		}
		if c.connecting != nil {
			s.agent(c.connecting.user, suppress.RoleAgent)
		}
		if c.kind != kindParty {
			continue
		}
		parties++
		switch {
		case c == self:
		case !c.inside() && c.held:
			holds++
		case c.held:
			holds, insideHolds, inside = holds+1, insideHolds+1, inside+1
		case c.inside():
			inside++
		}
	}
	onHold := holds > 0 && holds == parties-1
	if self.trunk && inside > 0 { // who else is outside does not end what the agents' hold began
		onHold = insideHolds == inside
	}
	if self.held {
		s.holders[self.user] = struct{}{}
	}
	if self.music {
		s.holders[musicParty] = struct{}{}
	}
	for _, c := range group {
		if c.kind != kindParty || parties < 2 {
			continue
		}
		if c.inside() && (!t.cfg.QueueAgentsOnly || c.agent || c.bridge != nil && c.bridge.conf) {
			s.agent(c.user, suppress.RoleAgent)
			k.met(c)
		}
		if c != self && c.held && onHold {
			s.holders[c.user] = struct{}{}
		}
		t.consult(k, c, group, s)
	}
}

// rank orders the roles that one user has at once.
var rank = map[suppress.Role]int{suppress.RoleMonitor: 1, suppress.RoleCoach: 2, suppress.RoleBarge: 3, suppress.RoleAgent: 4}

func (s *state) agent(user string, role suppress.Role) {
	if user != "" && rank[role] > rank[s.agents[user]] {
		s.agents[user] = role
	}
}

// met remembers an agent's channel: when all have hung up, what remains is
// external.
func (k *call) met(c *channel) {
	if slices.Contains(k.agents, c) {
		return
	}
	if len(k.agents) >= agentsSeenMax {
		k.agents = slices.Delete(k.agents, 0, 1)
	}
	k.agents = append(k.agents, c)
	if len(c.met) >= agentsSeenMax {
		c.met = slices.Delete(c.met, 0, 1)
	}
	c.met = append(c.met, k)
}

// consult finds out whether c is the newer channel of an agent who consults.
func (t *Translator) consult(k *call, c *channel, group []*channel, s *state) {
	if !c.inside() || c.user == "" {
		return
	}
	var main *call
	for _, older := range t.model.byUser[c.user] {
		if older.order < c.order && !slices.Contains(group, older) {
			main = t.consultedFrom(c, older, main)
		}
	}
	if main == nil {
		return
	}
	c.consults = true
	other := ""
	for _, o := range group {
		if o != c && o.kind == kindParty && (other == "" || other == externalUser) {
			other = o.user
		}
	}
	s.consults[c.user] = other
	t.linkCalls(main, k, k.dirtyAt)
}

// consultedFrom returns the trunk's call that an agent's older channel is on
// and that waits for the end of a consultation on the newer one.
func (t *Translator) consultedFrom(newer, older *channel, found *call) *call {
	for _, o := range t.model.group(older) {
		if o.trunk && o.call != nil && (newer.consults || older.held || o.music) {
			return o.call
		}
	}
	return found
}

// transferred finds out where a transfer went. It returns true while a call
// that had an agent is bridged with trunks alone and nothing tells yet whether
// that lasts: until then a hold goes on.
func (t *Translator) transferred(k *call, group []*channel, s *state, at time.Time) (open bool) {
	parties, inside := 0, 0
	for _, c := range group {
		if slices.Contains(k.transferers, c) {
			return false // not done yet
		}
		if c.kind == kindParty {
			parties++
			if c.inside() {
				inside++
			}
		}
	}
	switch {
	case k.transferring && (inside > 0 || len(s.queues) > 0):
		k.endTransfer()
		t.emit(k, suppress.Signal{Event: suppress.TransferInternal}, at)
	case k.channel.inside() || k.external || !k.hadAgent || parties < 2 || inside > 0:
	case !k.transferring && !t.agentsGone(k):
		return true
	default:
		k.endTransfer()
		k.external = true
		t.emit(k, suppress.Signal{Event: suppress.TransferExternal}, at)
	}
	return false
}

func (k *call) endTransfer() { k.transferring, k.transferers = false, nil }

func (t *Translator) agentsGone(k *call) bool {
	for _, c := range k.agents {
		if t.model.channels[c.id] == c {
			return false
		}
	}
	return len(k.agents) > 0
}

// link tells of calls that are one conversation with this one.
func (t *Translator) link(k *call, group []*channel, at time.Time) {
	first := k
	earlier := func(o *call) {
		if o.id != "" && o.channel.order < first.channel.order {
			first = o
		}
	}
	for _, c := range group {
		if c.call != nil {
			earlier(c.call)
		}
	}
	for _, o := range t.model.byLinked[k.channel.linked] {
		earlier(o)
	}
	t.linkCalls(first, k, at)
}

// linkCalls links two calls, once, when both Call-IDs are known.
func (t *Translator) linkCalls(a, b *call, at time.Time) {
	if a == b || a.id == "" || b.id == "" || a.id == b.id {
		return
	}
	if _, done := b.links[a.id]; done || len(b.links) >= linksMax {
		return
	}
	if _, done := a.links[b.id]; done {
		return
	}
	if b.links == nil {
		b.links = make(map[string]struct{})
	}
	b.links[a.id] = struct{}{}
	t.emit(a, suppress.Signal{Event: suppress.CallLinked, Links: []string{"call-id:" + b.id}}, at)
}

// tell sends what differs between the state that a call was told and now.
// Windows open before others close, so that no instant lies between them.
func (t *Translator) tell(k *call, now state, at time.Time) {
	was := k.last
	send := func(s suppress.Signal) { t.emit(k, s, at) }
	for _, q := range added(was.queues, now.queues) {
		send(suppress.Signal{Event: suppress.QueueStart, Queue: q})
	}
	for _, p := range added(was.holders, now.holders) {
		send(suppress.Signal{Event: suppress.HoldStart, Party: p})
	}
	for _, q := range added(now.queues, was.queues) {
		send(suppress.Signal{Event: suppress.QueueEnd, Queue: q})
	}
	for _, p := range added(now.holders, was.holders) {
		send(suppress.Signal{Event: suppress.HoldEnd, Party: p})
	}
	for _, u := range changed(now.agents, was.agents) {
		send(suppress.Signal{Event: suppress.AgentLeave, User: u})
	}
	for _, u := range changed(now.consults, was.consults) {
		send(suppress.Signal{Event: suppress.ConsultEnd, User: u, Other: was.consults[u]})
	}
	for _, u := range changed(was.agents, now.agents) {
		send(suppress.Signal{Event: suppress.AgentJoin, User: u, Role: now.agents[u]})
	}
	for _, u := range changed(was.consults, now.consults) {
		send(suppress.Signal{Event: suppress.ConsultStart, User: u, Other: now.consults[u]})
	}
}

// added returns what is in b and not in a, sorted.
func added(a, b map[string]struct{}) []string { return changed(a, b) }

// changed returns the keys of b that a lacks or has another value for, sorted.
func changed[V comparable](a, b map[string]V) []string {
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if v, ok := a[k]; !ok || v != b[k] {
			keys = append(keys, k)
		}
	}
	return keys
}
