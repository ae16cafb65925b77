package ami

import (
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// syncTimeout bounds how long the answers to the questions after a connection
// may take. What is not answered by then stays as it was.
const syncTimeout = 20 * time.Second

// part is a list that tells of the present state.
type part uint8

const (
	partNone part = iota
	partChannels
	partQueues
)

// resumption is the time between a login and the complete lists.
type resumption struct {
	on       bool
	due      time.Time
	lost     bool // a connection broke before: its return is to be told
	channels listing
	queues   listing
}

// listing is one list on its way.
type listing struct {
	id   string
	done bool
	full bool // and complete
}

func (r *resumption) part(id string) part {
	switch {
	case !r.on || id == "":
		return partNone
	case id == r.channels.id:
		return partChannels
	case id == r.queues.id:
		return partQueues
	}
	return partNone
}

// Connected begins a connection: the login succeeded at now. Until the present
// state is known, what happens is noted and told afterwards.
func (t *Translator) Connected(now time.Time) Output {
	t.begin(now)
	t.gen++
	n := strconv.FormatUint(t.gen, 10)
	t.sync = resumption{
		on: true, due: now.Add(syncTimeout), lost: t.sync.lost,
		channels: listing{id: "tt-channels-" + n}, queues: listing{id: "tt-queues-" + n},
	}
	t.out.Actions = append(t.out.Actions,
		action("CoreShowChannels", "ActionID", t.sync.channels.id),
		action("QueueStatus", "ActionID", t.sync.queues.id))
	return t.out
}

// Lost ends a connection that Connected began.
func (t *Translator) Lost(now time.Time) Output {
	t.begin(now)
	t.settle()
	for _, a := range t.asking.open {
		t.forgetAsk(a)
	}
	for i := range t.asking.queue {
		t.forgetAsk(&t.asking.queue[i])
	}
	t.asking.open, t.asking.queue = nil, nil
	t.out.Signals = append(t.out.Signals, t.signal(suppress.Signal{Event: suppress.SourceLost}, now))
	t.sync = resumption{lost: true}
	return t.out
}

// forgetAsk gives up a question whose answer cannot come any more. What a spy
// does counts as the default then.
func (t *Translator) forgetAsk(a *ask) {
	switch a.kind {
	case askCallID:
		a.channel.call.asked, a.channel.call.asks = false, 0
	case askSpy:
		t.spies(a.channel, a.other, t.cfg.SpyRole)
	case askHold:
	}
}

// listedChannel takes one line of the list of channels.
func (t *Translator) listedChannel(m Message) {
	if t.sync.part(m.Get("ActionID")) != partChannels {
		return
	}
	c := t.learn(m, "")
	if c == nil {
		return
	}
	t.touch(c)
	if id := m.Get("BridgeId"); id == "" {
		t.model.leave(c)
	} else {
		t.model.enter(c, id)
		if strings.EqualFold(m.Get("Application"), "ConfBridge") {
			c.bridge.conf = true
		}
	}
	if app := m.Get("Application"); c.spying != nil && !strings.EqualFold(app, "ChanSpy") && !strings.EqualFold(app, "ExtenSpy") {
		t.model.spyOn(c, nil, "")
	}
	t.touch(c)
}

// listedCaller takes one line of the list of callers in queues.
func (t *Translator) listedCaller(m Message) {
	if t.sync.part(m.Get("ActionID")) != partQueues {
		return
	}
	c := t.model.channels[m.Get("Uniqueid")]
	if c == nil {
		c = t.learn(m, "")
	}
	if c != nil {
		c.queue, c.queueGen = clean(m.Get("Queue")), t.gen
		t.touch(c)
	}
}

// listed ends one of the lists, refused or complete.
func (t *Translator) listed(m Message, p part, refused bool) {
	if p == partNone || t.sync.part(m.Get("ActionID")) != p {
		return
	}
	l := &t.sync.channels
	if p == partQueues {
		l = &t.sync.queues
	}
	l.done, l.full = true, !refused
	if t.sync.channels.done && t.sync.queues.done {
		t.endSync()
	}
}

// endSync drops what the lists do not have, and tells the differences. What
// an event told since the login is as good as a list.
func (t *Translator) endSync() {
	t.at = t.now
	for _, c := range t.model.byOrder() {
		switch {
		case t.sync.channels.full && c.gen != t.gen:
			t.hangup(c)
		case t.sync.queues.full && c.queue != "" && c.queueGen != t.gen:
			c.queue = ""
			t.touch(c)
		}
	}
	for _, c := range t.model.byOrder() {
		if t.sync.channels.full && c.connecting != nil { // from here on the bridges tell
			t.touch(c)
			t.model.disconnect(c)
		}
		t.resume(c)
	}
	restored := t.sync.lost
	t.sync = resumption{}
	t.settle()
	if restored {
		t.out.Signals = append(t.out.Signals, t.signal(suppress.Signal{Event: suppress.SourceRestored}, t.now))
	}
}

// resume asks for what no list tells of a channel.
func (t *Translator) resume(c *channel) {
	if c.call != nil && c.call.id == "" {
		c.call.asks = 0
		t.askCallID(c.call)
	}
	if c.kind != kindParty || c.bridge == nil && c.call == nil {
		return
	}
	group := t.model.group(c)
	ours, talking := false, false
	for _, o := range group {
		ours = ours || o.call != nil
		talking = talking || o != c && o.kind == kindParty && o.inside()
	}
	if c.music && talking { // an agent is back on the call
		c.music = false
		t.touch(c)
	}
	if ours && strings.HasPrefix(c.name, "PJSIP/") {
		t.ask(ask{kind: askHold, channel: c})
	}
}
