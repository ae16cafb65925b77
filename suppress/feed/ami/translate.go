package ami

import (
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/suppress"
	"github.com/trunktap/trunktap/suppress/feed"
)

// Output is what a Translator wants done.
type Output struct {
	Signals []suppress.Signal
	Actions []Action
}

// Translator turns the messages of one Asterisk into signals. It does no I/O
// and reads no clock; one goroutine owns it. It lives as long as its source,
// across connections: what it knew before a break is what the state after it
// is compared with.
//
// A signal's At is the event's own time (its Timestamp header), but not later
// than its arrival nor earlier than that of the signal before, so that At and
// Seq never contradict each other. Its Seq counts from the seed on.
type Translator struct {
	cfg   Config
	model model

	// Of the message in hand.
	now    time.Time
	at     time.Time
	out    Output
	dirty  []*call // to be looked at again
	lastAt time.Time

	clock feed.Clock

	seq     uint64
	ignored uint64
	refusal string // what Asterisk did not permit

	asking  asking
	waiting []*call // whose Call-ID is not known, in order of their limits
	sync    resumption
	gen     uint64
}

// NewTranslator returns a translator that knows nothing yet. The sequence
// numbers of its signals follow seed: give one that is above all that a
// translator of the same name has used, as the time in microseconds is.
func NewTranslator(cfg Config, seed uint64) *Translator {
	t := &Translator{cfg: cfg.withDefaults(), seq: seed, gen: 1}
	t.model = newModel(&t.cfg)
	return t
}

// Ignored counts the messages and signals that came to nothing: events that
// are none of ours, user events that are no valid signal, and what waited in
// vain for a Call-ID.
func (t *Translator) Ignored() uint64 { return t.ignored }

// Refusal returns what Asterisk did not permit of late, and "" for nothing.
func (t *Translator) Refusal() string { return t.refusal }

// Handle takes a message that arrived at now.
func (t *Translator) Handle(m Message, now time.Time) Output {
	t.begin(now)
	t.at = t.eventTime(m)
	handle, known := handlers[m.Get("Event")]
	switch {
	case m.Banner != "":
	case m.Get("Response") != "":
		t.response(m)
	case known:
		handle(t, m)
	default:
		t.ignored++
	}
	return t.finish()
}

// Tick does what is due at now.
func (t *Translator) Tick(now time.Time) Output {
	t.begin(now)
	t.expireAsks()
	t.expireWaiting()
	if t.sync.on && !now.Before(t.sync.due) {
		t.endSync()
	}
	return t.finish()
}

// Deadline returns when Tick wants to be called, and false for never.
func (t *Translator) Deadline() (time.Time, bool) {
	var due time.Time
	earlier := func(at time.Time) {
		if due.IsZero() || at.Before(due) {
			due = at
		}
	}
	for _, a := range t.asking.open {
		earlier(a.due)
	}
	if len(t.waiting) > 0 {
		earlier(t.waiting[0].due)
	}
	if t.sync.on {
		earlier(t.sync.due)
	}
	return due, !due.IsZero()
}

func (t *Translator) begin(now time.Time) { t.now, t.at, t.out = now, now, Output{} }

func (t *Translator) finish() Output {
	if !t.sync.on {
		t.settle()
	}
	t.pumpAsks()
	return t.out
}

// eventTime returns a message's own time: that of timestampevents=yes, by our clock.
func (t *Translator) eventTime(m Message) time.Time {
	sec, frac, _ := strings.Cut(m.Get("Timestamp"), ".")
	s, err := strconv.ParseInt(sec, 10, 64)
	if err != nil || len(frac) > 9 {
		return t.now
	}
	ns, err := strconv.ParseUint((frac + "000000000")[:9], 10, 64)
	if err != nil {
		return t.now
	}
	return t.clock.Time(time.Unix(s, int64(ns)), t.now)
}

// signal completes a signal that happened at at.
func (t *Translator) signal(s suppress.Signal, at time.Time) suppress.Signal {
	if at.Before(t.lastAt) {
		at = t.lastAt
	}
	t.lastAt = at
	t.seq++
	s.V, s.At, s.Received, s.Seq, s.Source = 1, at, t.now, t.seq, t.cfg.Name
	if at.After(s.Received) {
		s.Received = at
	}
	return s
}

// emit sends a signal to a call, or lets it wait for the call's Call-ID.
func (t *Translator) emit(k *call, s suppress.Signal, at time.Time) {
	s = t.signal(s, at)
	switch {
	case k.id != "":
		s.SIPCall = k.id
		t.out.Signals = append(t.out.Signals, s)
	case k.given:
		t.ignored++
	case len(k.pending) >= pendingMax:
		t.giveUp(k)
	default:
		k.pending = append(k.pending, s)
		t.await(k)
	}
}

// handlers tell what an event means; the model's own words do the rest.
var handlers = map[string]func(*Translator, Message){
	"Newchannel":      func(t *Translator, m Message) { t.learn(m, "") },
	"Newstate":        func(t *Translator, m Message) { t.learn(m, "") },
	"DialBegin":       func(t *Translator, m Message) { t.learn(m, ""); t.learn(m, "Dest") },
	"DialEnd":         func(t *Translator, m Message) { t.find(m, ""); t.find(m, "Dest") },
	"Rename":          (*Translator).renamed,
	"Hangup":          (*Translator).hungUp,
	"BridgeEnter":     (*Translator).entered,
	"BridgeLeave":     (*Translator).left,
	"ConfbridgeJoin":  (*Translator).entered,
	"ConfbridgeLeave": (*Translator).left,

	"QueueCallerJoin":    (*Translator).queued,
	"QueueCallerLeave":   (*Translator).unqueued,
	"QueueCallerAbandon": (*Translator).unqueued,
	"AgentConnect":       (*Translator).agentConnected,
	"AgentComplete":      (*Translator).agentCompleted,

	"Hold":             func(t *Translator, m Message) { t.hold(t.find(m, ""), true) },
	"Unhold":           func(t *Translator, m Message) { t.hold(t.find(m, ""), false) },
	"MusicOnHoldStart": (*Translator).musicStarted,
	"MusicOnHoldStop":  (*Translator).musicStopped,

	"BlindTransfer":    (*Translator).blindTransfer,
	"AttendedTransfer": (*Translator).attendedTransfer,
	"ChanSpyStart":     (*Translator).spyStarted,
	"ChanSpyStop":      (*Translator).spyStopped,
	"UserEvent":        (*Translator).userEvent,

	"Status":                   (*Translator).status,
	"StatusComplete":           func(*Translator, Message) {},
	"CoreShowChannel":          (*Translator).listedChannel,
	"CoreShowChannelsComplete": func(t *Translator, m Message) { t.listed(m, partChannels, false) },
	"QueueParams":              func(*Translator, Message) {},
	"QueueMember":              func(*Translator, Message) {},
	"QueueEntry":               (*Translator).listedCaller,
	"QueueStatusComplete":      func(t *Translator, m Message) { t.listed(m, partQueues, false) },
}

// find returns the channel that a message speaks of under a prefix ("", "Dest",
// "Spyer", ...), brought up to date by the message; nil when it is not known.
func (t *Translator) find(m Message, prefix string) *channel {
	c := t.model.channels[m.Get(prefix+"Uniqueid")]
	if c != nil {
		t.update(c, m, prefix)
	}
	return c
}

// learn is find, but a channel that is not known is entered.
func (t *Translator) learn(m Message, prefix string) *channel {
	if c := t.find(m, prefix); c != nil {
		return c
	}
	c := t.model.add(m.Get(prefix+"Uniqueid"), m.Get(prefix+"Channel"))
	if c == nil {
		if m.Get(prefix+"Channel") != "" {
			t.ignored++
		}
		return nil
	}
	t.update(c, m, prefix)
	return c
}

func (t *Translator) update(c *channel, m Message, prefix string) {
	c.gen = t.gen
	if name := m.Get(prefix + "Channel"); name != "" {
		t.model.rename(c, name)
	}
	if linked := m.Get(prefix + "Linkedid"); linked != c.linked && linked != "" {
		t.model.setLinked(c, linked)
		t.touchLinked(c)
	}
	if c.call != nil && c.call.id == "" {
		t.identify(c, m, prefix)
	}
}

func (t *Translator) renamed(m Message) {
	if c := t.model.channels[m.Get("Uniqueid")]; c != nil && m.Get("Newname") != "" {
		t.touch(c)
		t.model.rename(c, m.Get("Newname"))
		t.touch(c)
	}
}

func (t *Translator) hungUp(m Message) {
	if c := t.find(m, ""); c != nil {
		t.hangup(c)
	} else if id := m.Get("Uniqueid"); id != "" {
		t.model.bury(id)
	}
}

// hangup forgets a channel; a call of ours gets its last signals first.
func (t *Translator) hangup(c *channel) {
	t.touch(c)
	for _, k := range c.met {
		t.mark(k)
	}
	t.model.remove(c)
	c.gone()
}

func (t *Translator) entered(m Message) {
	c := t.learn(m, "")
	if c == nil {
		return
	}
	t.touch(c)
	t.model.enter(c, m.Get("BridgeUniqueid"))
	if c.bridge != nil && (m.Get("Conference") != "" || m.Get("BridgeCreator") == "ConfBridge") {
		c.bridge.conf = true
	}
	t.nameByMember(c)
	t.touch(c)
}

func (t *Translator) left(m Message) {
	c := t.find(m, "")
	if c == nil || c.bridge == nil || c.bridge.id != m.Get("BridgeUniqueid") {
		return
	}
	t.touch(c)
	t.model.leave(c)
	t.touch(c)
}

func (t *Translator) queued(m Message) {
	c := t.learn(m, "")
	if c == nil {
		return
	}
	c.queue, c.queueGen = clean(m.Get("Queue")), t.gen
	c.music = false
	t.touch(c)
}

func (t *Translator) unqueued(m Message) {
	if c := t.find(m, ""); c != nil {
		c.queue = ""
		t.touch(c)
	}
}

func (t *Translator) agentConnected(m Message) {
	caller, agent := t.find(m, ""), t.learn(m, "Dest")
	if caller == nil {
		return
	}
	caller.queue = ""
	t.touch(caller)
	if agent == nil {
		return
	}
	t.touch(agent)
	agent.agent = true
	t.model.setUser(agent, t.member(m))
	t.model.connect(caller, agent)
	if far := t.model.pair(agent); far != nil && far.bridge != nil {
		for _, o := range far.bridge.members {
			t.nameByMember(o)
		}
	}
	t.touch(caller)
}

// member returns the user of a queue's member.
func (t *Translator) member(m Message) string {
	if name := m.Get("MemberName"); t.cfg.MemberNames && name != "" {
		return clean(name)
	}
	return t.cfg.userOf(m.Get("Interface"))
}

// nameByMember gives a phone that a queue reached through a Local channel the
// name of the queue's member.
func (t *Translator) nameByMember(c *channel) {
	if c.kind != kindParty || c.trunk || c.agent || c.bridge == nil {
		return
	}
	for _, o := range c.bridge.members {
		if near := t.model.pair(o); near != nil && near.agent && near.user != "" {
			c.agent = true
			t.model.setUser(c, near.user)
		}
	}
}

func (t *Translator) agentCompleted(m Message) {
	if agent := t.find(m, "Dest"); agent != nil {
		t.touch(agent)
		t.model.disconnect(agent)
		agent.agent = false
		if agent.trunk {
			t.model.setUser(agent, externalUser)
		}
		t.touch(agent)
	}
}

func (t *Translator) hold(c *channel, held bool) {
	if c != nil && c.held != held {
		c.held = held
		t.touch(c)
	}
}

// musicStarted tells a hold that nobody's Hold reports from the other uses of
// music; see the package comment.
func (t *Translator) musicStarted(m Message) {
	c := t.find(m, "")
	if c == nil || c.call == nil || !c.call.hadAgent {
		return
	}
	for _, o := range t.model.group(c) {
		if o.queue != "" || o.held {
			return
		}
	}
	c.music = true
	t.touch(c)
}

func (t *Translator) musicStopped(m Message) {
	if c := t.find(m, ""); c != nil && c.music {
		c.music = false
		t.touch(c)
	}
}

func (t *Translator) blindTransfer(m Message) {
	if m.Get("Result") != "Success" {
		return
	}
	by := t.find(m, "Transferer")
	for _, c := range []*channel{by, t.find(m, "Transferee"), t.memberOf(m.Get("BridgeUniqueid"))} {
		t.transfer(c, by, nil)
	}
}

func (t *Translator) attendedTransfer(m Message) {
	if m.Get("Result") != "Success" || m.Get("DestType") == "Threeway" {
		return
	}
	first, second := t.find(m, "OrigTransferer"), t.find(m, "SecondTransferer")
	for _, c := range []*channel{
		first, second, t.find(m, "Transferee"), t.find(m, "TransferTarget"),
		t.memberOf(m.Get("OrigBridgeUniqueid")), t.memberOf(m.Get("SecondBridgeUniqueid")), t.memberOf(m.Get("DestBridgeUniqueid")),
	} {
		t.transfer(c, first, second)
	}
}

func (t *Translator) memberOf(bridgeID string) *channel {
	if b := t.model.bridges[bridgeID]; b != nil {
		return b.members[0]
	}
	return nil
}

// transfer notes for the trunks' calls around c that they are being
// transferred; settle finds out where to.
func (t *Translator) transfer(c *channel, by ...*channel) {
	if c == nil {
		return
	}
	for _, o := range t.model.group(c) {
		if o.call != nil && o.trunk {
			o.call.transferers, o.call.transferring = by, true
			t.mark(o.call)
		}
	}
}

func (t *Translator) spyStarted(m Message) {
	spy, spied := t.learn(m, "Spyer"), t.learn(m, "Spyee")
	if spy == nil || spied == nil {
		return
	}
	t.ask(ask{kind: askSpy, channel: spy, other: spied, at: t.at})
}

func (t *Translator) spyStopped(m Message) {
	spy := t.find(m, "Spyer")
	if spy == nil {
		return
	}
	t.dropAsks(spy, askSpy)
	t.touch(spy)
	t.model.spyOn(spy, nil, "")
}

// spies puts a spy on a channel.
func (t *Translator) spies(spy, spied *channel, role suppress.Role) {
	if t.model.channels[spy.id] != spy || t.model.channels[spied.id] != spied {
		return
	}
	t.touch(spy)
	t.model.spyOn(spy, spied, role)
	t.touch(spy)
}
