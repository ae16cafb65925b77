package ami

import (
	"cmp"
	"slices"
	"strings"

	"github.com/trunktap/trunktap/suppress"
)

// Limits of the model.
const (
	channelsMax   = 16384
	deadIDsMax    = 1024 // channels that hung up, remembered so that a belated event does not revive them
	agentsSeenMax = 64   // of a call
)

// kind tells what a channel is.
type kind uint8

const (
	kindParty     kind = iota // somebody's phone, or a trunk
	kindLocal                 // half of a pair that joins two bridges
	kindTechnical             // announcer, recorder and the like: nobody
)

// technical are the channel technologies behind which nobody is.
var technical = []string{
	"Announcer", "CBAnn", "CBRec", "Recorder", "Message", "Snoop", "Surrogate",
	"UnicastRTP", "MulticastRTP", "AudioSocket", "WebSocket", "Bridge", "ConfBridgeRecorder",
}

func kindOf(name string) kind {
	tech, _, _ := strings.Cut(name, "/")
	switch {
	case tech == "Local":
		return kindLocal
	case slices.Contains(technical, tech):
		return kindTechnical
	}
	return kindParty
}

// channel is what is known of one channel of Asterisk.
type channel struct {
	id, name, linked string
	kind             kind
	trunk            bool
	order            uint64 // counts channels as they were learnt
	gen              uint64 // of the latest resumption that knew it
	call             *call  // when it is one of ours
	user             string

	bridge *bridge
	held   bool
	music  bool // that counts as a hold

	queue    string
	queueGen uint64

	agent      bool     // a queue gave it a call
	connecting *channel // the agent a queue gave this caller, until one of them leaves a bridge
	caller     *channel // the other way round

	spying *channel
	role   suppress.Role // of the spy
	spies  []*channel

	consults bool    // this is the newer channel of an agent who consults
	met      []*call // that it was an agent of

	visit uint64 // of the latest walk that came here
}

type bridge struct {
	id      string
	conf    bool
	members []*channel
}

// model is Asterisk's channels, bridges and queues as far as its events tell.
type model struct {
	cfg      *Config
	channels map[string]*channel // by Uniqueid
	byName   map[string]*channel
	byUser   map[string][]*channel
	byLinked map[string][]*call
	bridges  map[string]*bridge
	order    uint64
	walks    uint64
	dead     map[string]struct{}
	deadRing []string
	deadNext int
}

func newModel(cfg *Config) model {
	return model{
		cfg: cfg, channels: make(map[string]*channel), byName: make(map[string]*channel), byUser: make(map[string][]*channel),
		byLinked: make(map[string][]*call), bridges: make(map[string]*bridge), dead: make(map[string]struct{}),
	}
}

// add enters a channel; nil when it cannot be.
func (m *model) add(id, name string) *channel {
	if _, dead := m.dead[id]; dead || id == "" || name == "" || len(m.channels) >= channelsMax {
		return nil
	}
	m.order++
	c := &channel{id: id, order: m.order}
	m.channels[id] = c
	m.rename(c, name)
	return c
}

// rename gives a channel its name and what follows from that.
func (m *model) rename(c *channel, name string) {
	if c.name == name || strings.HasSuffix(name, ">") { // <MASQ> and <ZOMBIE> are names for a moment
		return
	}
	if m.byName[c.name] == c {
		delete(m.byName, c.name)
	}
	c.name, c.kind = name, kindOf(name)
	m.byName[name] = c
	c.trunk = c.kind == kindParty && matches(m.cfg.Trunks, name)
	if c.call == nil && (c.trunk || c.kind == kindParty && matches(m.cfg.Stations, name)) {
		c.call = newCall(c)
		if c.linked != "" {
			m.byLinked[c.linked] = append(m.byLinked[c.linked], c.call)
		}
	}
	switch {
	case c.agent:
	case c.trunk:
		m.setUser(c, externalUser)
	case c.kind == kindParty:
		m.setUser(c, m.cfg.userOf(deviceOf(name)))
	default:
		m.setUser(c, "")
	}
}

// inside tells whether a party is one of ours: a queue may give a call to an
// agent behind a trunk.
func (c *channel) inside() bool { return !c.trunk || c.agent }

// externalUser stands for the party behind a trunk, as the signals found
// in SDP have it.
const externalUser = "external"

func (m *model) setUser(c *channel, user string) {
	if c.user == user {
		return
	}
	dropFrom(m.byUser, c.user, c)
	c.user = user
	if user != "" && user != externalUser {
		m.byUser[user] = append(m.byUser[user], c)
	}
}

func (m *model) setLinked(c *channel, linked string) {
	if linked == "" || linked == c.linked {
		return
	}
	if c.call != nil {
		dropFrom(m.byLinked, c.linked, c.call)
		m.byLinked[linked] = append(m.byLinked[linked], c.call)
	}
	c.linked = linked
}

func dropFrom[T comparable](index map[string][]T, key string, v T) {
	list := index[key]
	i := slices.Index(list, v)
	if i < 0 {
		return
	}
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(index, key)
	} else {
		index[key] = list
	}
}

// remove forgets a channel that hung up.
func (m *model) remove(c *channel) {
	m.leave(c)
	m.spyOn(c, nil, "")
	for len(c.spies) > 0 {
		m.spyOn(c.spies[0], nil, "")
	}
	m.disconnect(c)
	dropFrom(m.byUser, c.user, c)
	if c.call != nil {
		dropFrom(m.byLinked, c.linked, c.call)
	}
	delete(m.channels, c.id)
	if m.byName[c.name] == c {
		delete(m.byName, c.name)
	}
	c.queue, c.held, c.music = "", false, false
	m.bury(c.id)
}

func (m *model) bury(id string) {
	if len(m.deadRing) < deadIDsMax {
		m.deadRing = append(m.deadRing, id)
	} else {
		delete(m.dead, m.deadRing[m.deadNext])
		m.deadRing[m.deadNext] = id
		m.deadNext = (m.deadNext + 1) % deadIDsMax
	}
	m.dead[id] = struct{}{}
}

// enter puts a channel into a bridge, out of the one it is in.
func (m *model) enter(c *channel, id string) {
	if id == "" || c.bridge != nil && c.bridge.id == id {
		return
	}
	m.leave(c)
	b := m.bridges[id]
	if b == nil {
		b = &bridge{id: id}
		m.bridges[id] = b
	}
	b.members = append(b.members, c)
	c.bridge = b
}

func (m *model) leave(c *channel) {
	b := c.bridge
	if b == nil {
		return
	}
	if i := slices.Index(b.members, c); i >= 0 {
		b.members = slices.Delete(b.members, i, i+1)
	}
	if len(b.members) == 0 {
		delete(m.bridges, b.id)
	}
	m.disconnect(c)
	c.bridge, c.consults = nil, false
}

// connect notes that a queue gave a caller an agent. The bridge follows, and
// behind a Local channel the agent's own channel does.
func (m *model) connect(caller, agent *channel) {
	m.disconnect(caller)
	m.disconnect(agent)
	if agent.bridge == nil || agent.kind == kindLocal {
		caller.connecting, agent.caller = agent, caller
	}
}

func (m *model) disconnect(c *channel) {
	if a := c.connecting; a != nil {
		a.caller, c.connecting = nil, nil
	}
	if k := c.caller; k != nil {
		k.connecting, c.caller = nil, nil
	}
}

func (m *model) spyOn(spy, spied *channel, role suppress.Role) {
	if old := spy.spying; old != nil {
		if i := slices.Index(old.spies, spy); i >= 0 {
			old.spies = slices.Delete(old.spies, i, i+1)
		}
	}
	spy.spying, spy.role = spied, role
	if spied != nil {
		spied.spies = append(spied.spies, spy)
	}
}

// pair returns the other half of a Local channel, nil without one.
func (m *model) pair(c *channel) *channel {
	if c.kind != kindLocal {
		return nil
	}
	if stem, ok := strings.CutSuffix(c.name, ";1"); ok {
		return m.byName[stem+";2"]
	}
	if stem, ok := strings.CutSuffix(c.name, ";2"); ok {
		return m.byName[stem+";1"]
	}
	return nil
}

// group returns who hears each other: the channel, those in its bridge, and on
// through Local channels.
func (m *model) group(c *channel) []*channel {
	m.walks++
	c.visit = m.walks
	list := []*channel{c}
	reach := func(o *channel) {
		if o != nil && o.visit != m.walks {
			o.visit = m.walks
			list = append(list, o)
		}
	}
	for i := 0; i < len(list); i++ {
		if b := list[i].bridge; b != nil {
			for _, o := range b.members {
				reach(o)
			}
		}
		reach(m.pair(list[i]))
	}
	return list
}

// byOrder returns the channels as they were learnt.
func (m *model) byOrder() []*channel {
	list := make([]*channel, 0, len(m.channels))
	for _, c := range m.channels {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *channel) int { return cmp.Compare(a.order, b.order) })
	return list
}
