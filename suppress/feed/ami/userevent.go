package ami

import (
	"strings"

	"github.com/trunktap/trunktap/suppress"
)

// userEventName is the UserEvent that carries a signal.
const userEventName = "TrunktapSignal"

// userEvent passes on a signal that the dialplan, or another manager, gives.
func (t *Translator) userEvent(m Message) {
	c := t.find(m, "")
	if !strings.EqualFold(m.Get("UserEvent"), userEventName) {
		t.ignored++
		return
	}
	body := m.After("UserEvent")
	s := suppress.Signal{
		Event: suppress.Event(body.Get("Event")), Flow: body.Get("Flow"), Queue: body.Get("Queue"), User: body.Get("User"),
		Role: suppress.Role(body.Get("Role")), Party: body.Get("Party"), Other: body.Get("Other"), Conversation: body.Get("Conversation"),
	}
	for _, h := range body.Headers {
		if len(h.Name) > 5 && strings.EqualFold(h.Name[:5], "Attr-") {
			if s.Attrs == nil {
				s.Attrs = make(map[string]string)
			}
			s.Attrs[strings.ToLower(h.Name[5:])] = h.Value
		}
	}
	probe := s
	probe.At, probe.SIPCall = t.now, body.Get("Call-ID")
	if err := probe.Validate(); err != nil {
		t.ignored++
		return
	}
	if probe.SIPCall != "" {
		s.SIPCall = probe.SIPCall
		t.out.Signals = append(t.out.Signals, t.signal(s, t.at))
		return
	}
	if c == nil {
		c = t.named(body)
	}
	calls := t.callsOf(c)
	for _, k := range calls {
		t.emit(k, s, t.at)
	}
	if len(calls) == 0 {
		t.ignored++
	}
}

// named returns the channel that a manager's UserEvent speaks of.
func (t *Translator) named(body Message) *channel {
	if c := t.model.channels[body.Get("Uniqueid")]; c != nil {
		return c
	}
	return t.model.byName[body.Get("Channel")]
}

// callsOf returns the calls that something about a channel concerns: those it
// talks with, else those it is linked with.
func (t *Translator) callsOf(c *channel) []*call {
	if c == nil {
		return nil
	}
	var calls []*call
	for _, o := range t.model.group(c) {
		if o.call != nil {
			calls = append(calls, o.call)
		}
	}
	if len(calls) == 0 {
		calls = append(calls, t.model.byLinked[c.linked]...)
	}
	return calls
}
