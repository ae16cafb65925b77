package ami

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// Variables that hold a channel's Call-ID, and whether its peer holds.
const (
	varPJSIP = "CHANNEL(pjsip,call-id)"
	varSIP   = "SIPCALLID"
	varHold  = "CHANNEL(rtp,hold)" // "1" when the far end of a PJSIP channel holds
)

// Limits of questions, and of what waits for their answers.
const (
	pendingMax     = 64 // signals of one call
	asksOpenMax    = 64 // sent and not answered: more wait, so that no buffer fills
	asksPerCallMax = 3  // for its Call-ID
	askTimeout     = 5 * time.Second
	waitMax        = 10 * time.Second // for a Call-ID
)

// askKind is what is asked.
type askKind uint8

const (
	askCallID askKind = iota
	askHold
	askSpy
)

// ask is a question about a channel.
type ask struct {
	kind    askKind
	channel *channel
	other   *channel  // askSpy: who is spied on
	at      time.Time // askSpy: since when
	id      string
	due     time.Time // of the answer, once sent
	role    suppress.Role
}

// asking is the questions that are sent, and those that wait to be.
type asking struct {
	open  map[string]*ask
	queue []ask
	count uint64
}

func (t *Translator) ask(a ask) {
	if len(t.asking.queue) < channelsMax {
		t.asking.queue = append(t.asking.queue, a)
	}
}

// pumpAsks sends as many questions as may be open.
func (t *Translator) pumpAsks() {
	if t.asking.open == nil {
		t.asking.open = make(map[string]*ask)
	}
	for len(t.asking.queue) > 0 && len(t.asking.open) < asksOpenMax {
		a := t.asking.queue[0]
		t.asking.queue = t.asking.queue[1:]
		if t.model.channels[a.channel.id] != a.channel {
			continue
		}
		t.asking.count++
		a.id, a.due, a.role = "tt-"+strconv.FormatUint(t.asking.count, 10), t.now.Add(askTimeout), t.cfg.SpyRole
		t.asking.open[a.id] = &a
		t.out.Actions = append(t.out.Actions, a.action())
	}
}

func (a *ask) action() Action {
	switch a.kind {
	case askSpy:
		return action("Status", "ActionID", a.id, "Channel", a.channel.name)
	case askHold:
		return action("Getvar", "ActionID", a.id, "Channel", a.channel.name, "Variable", varHold)
	default:
		variable := varPJSIP
		if strings.HasPrefix(a.channel.name, "SIP/") {
			variable = varSIP
		}
		return action("Getvar", "ActionID", a.id, "Channel", a.channel.name, "Variable", variable)
	}
}

func (t *Translator) dropAsks(c *channel, k askKind) {
	t.asking.queue = slices.DeleteFunc(t.asking.queue, func(a ask) bool { return a.channel == c && a.kind == k })
	for id, a := range t.asking.open {
		if a.channel == c && a.kind == k {
			delete(t.asking.open, id)
		}
	}
}

// response takes the answer to a question, or to the request of a list.
func (t *Translator) response(m Message) {
	id := m.Get("ActionID")
	failed := !strings.EqualFold(m.Get("Response"), "Success")
	if text := m.Get("Message"); failed && (strings.Contains(text, "ermission") || strings.Contains(text, "orbidden")) {
		t.refusal = clean(text)
	}
	a := t.asking.open[id]
	switch {
	case a == nil && failed:
		t.listed(m, t.sync.part(id), true)
	case a == nil:
	case a.kind == askSpy && !failed: // the Status event follows
	default:
		delete(t.asking.open, id)
		t.answered(a, m.Get("Value"), !failed)
	}
}

// answered acts on the answer to a question; ok is false for a refusal and for
// no answer.
func (t *Translator) answered(a *ask, value string, ok bool) {
	c := a.channel
	if t.model.channels[c.id] != c {
		return
	}
	switch a.kind {
	case askSpy:
		t.at = a.at
		t.spies(c, a.other, a.role)
	case askHold:
		if ok && (value == "0" || value == "1") {
			t.hold(c, value == "1")
		}
	case askCallID:
		c.call.asked = false
		if ok && value != "" {
			t.resolved(c.call, value)
		}
	}
}

// status takes what a spy's channel executes.
func (t *Translator) status(m Message) {
	a := t.asking.open[m.Get("ActionID")]
	if a == nil || a.kind != askSpy {
		return
	}
	delete(t.asking.open, a.id)
	if app := m.Get("Application"); strings.EqualFold(app, "ChanSpy") || strings.EqualFold(app, "ExtenSpy") {
		a.role = spyRole(m.Get("Data"), t.cfg.SpyRole)
	}
	t.answered(a, "", true)
}

// spyRole reads the options of ChanSpy or ExtenSpy, what stands behind the
// first comma: B is barge, w and W are coach. With d the mode changes with the
// spy's digits, which nobody tells.
func spyRole(data string, unknown suppress.Role) suppress.Role {
	_, options, _ := strings.Cut(data, ",")
	role, depth := suppress.RoleMonitor, 0
	for _, c := range options {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case depth > 0:
		case c == 'd':
			return unknown
		case c == 'B':
			role = suppress.RoleBarge
		case (c == 'w' || c == 'W') && role == suppress.RoleMonitor:
			role = suppress.RoleCoach
		}
	}
	return role
}

func (t *Translator) expireAsks() {
	var late []*ask
	for _, a := range t.asking.open {
		if !t.now.Before(a.due) {
			late = append(late, a)
		}
	}
	slices.SortFunc(late, func(a, b *ask) int { return a.due.Compare(b.due)*2 + strings.Compare(a.id, b.id) })
	for _, a := range late {
		delete(t.asking.open, a.id)
		t.answered(a, "", false)
	}
}

// identify looks for the Call-ID of a channel in a message, else asks for it.
func (t *Translator) identify(c *channel, m Message, prefix string) {
	for _, h := range m.Headers {
		if !strings.EqualFold(h.Name, prefix+"ChanVariable") {
			continue
		}
		name, value, _ := strings.Cut(h.Value, "=")
		if value != "" && slices.Contains(t.cfg.CallIDVariables, name) {
			t.resolved(c.call, value)
			return
		}
	}
	t.askCallID(c.call)
}

func (t *Translator) askCallID(k *call) {
	if k.asked || k.asks >= asksPerCallMax {
		return
	}
	k.asked = true
	k.asks++
	t.ask(ask{kind: askCallID, channel: k.channel})
}

// resolved gives a call its Call-ID and sends what waited for it.
func (t *Translator) resolved(k *call, id string) {
	if id = clean(id); id == "" || k.id != "" {
		return
	}
	k.id = id
	t.dropAsks(k.channel, askCallID)
	t.unawait(k)
	if k.given { // what waited was dropped: the state is told anew
		k.given, k.external, k.last = false, false, state{}
	}
	for _, s := range k.pending {
		s.SIPCall, s.Received = id, t.now
		t.out.Signals = append(t.out.Signals, s)
	}
	k.pending = nil
	t.touch(k.channel)
	t.touchLinked(k.channel)
}

// await bounds how long a call's signals wait.
func (t *Translator) await(k *call) {
	if k.due.IsZero() {
		k.due = t.now.Add(waitMax)
		t.waiting = append(t.waiting, k)
	}
}

func (t *Translator) unawait(k *call) {
	if !k.due.IsZero() {
		k.due = time.Time{}
		t.waiting = slices.DeleteFunc(t.waiting, func(o *call) bool { return o == k })
	}
}

func (t *Translator) expireWaiting() {
	for len(t.waiting) > 0 && !t.now.Before(t.waiting[0].due) {
		t.giveUp(t.waiting[0])
	}
}

// giveUp lets go of what waits for a Call-ID. Should it come yet, the state of
// that moment is told.
func (t *Translator) giveUp(k *call) {
	t.drop(k)
	k.given = true
}
