package esl

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// callcenter translates what mod_callcenter tells (callcenter::info).
//
// member-queue-end comes when the talk with the agent is over, not when the
// waiting is; the waiting ends with bridge-agent-start.
func (t *Translator) callcenter(e Event) {
	queue := clean(e["CC-Queue"])
	switch e["CC-Action"] {
	case "member-queue-start", "member-queue-resume":
		t.learn(e)
		t.queueStart(t.need(e["CC-Member-Session-UUID"]), queue, t.at)
	case "bridge-agent-start":
		t.learn(e)
		member, who := t.need(e["CC-Member-Session-UUID"]), t.need(e["CC-Agent-UUID"])
		t.queueEnd(member, queue, t.at)
		if member != nil && who != nil {
			t.join(who, member, suppress.RoleAgent, e["CC-Agent"], t.at)
			t.join(who, who, suppress.RoleAgent, e["CC-Agent"], t.at)
		}
	case "bridge-agent-end":
		if who := t.channels[e["CC-Agent-UUID"]]; who != nil {
			t.leave(who, e["CC-Member-Session-UUID"], t.at)
			t.leave(who, who.uuid, t.at)
		}
	case "member-queue-end":
		member := t.channels[e["CC-Member-Session-UUID"]]
		if member != nil && (member.queue != "" || e["CC-Cause"] == "Cancel") {
			t.queueEnd(member, queue, t.at)
		}
	default:
		t.ignored++
	}
}

func (t *Translator) queueStart(c *channel, queue string, at time.Time) {
	if c == nil || c.queue == queue {
		return
	}
	c.queue, c.queueAt, c.queueTold = queue, at, false
	t.tellQueue(c)
}

func (t *Translator) tellQueue(c *channel) {
	if c.queue != "" && !c.queueTold && c.call != "" {
		c.queueTold = true
		t.emit(c.call, c.queueAt, suppress.Signal{Event: suppress.QueueStart, Queue: c.queue})
	}
}

// queueEnd ends the waiting; a queue that is not named is not ended, for an
// end without a name ends all.
func (t *Translator) queueEnd(c *channel, queue string, at time.Time) {
	if c == nil {
		return
	}
	if queue == "" {
		queue = c.queue
	}
	c.queue, c.queueTold = "", false
	if queue != "" {
		t.emit(c.call, at, suppress.Signal{Event: suppress.QueueEnd, Queue: queue})
	}
}

// conferenceEvent translates what mod_conference tells (conference::maintenance).
func (t *Translator) conferenceEvent(e Event) {
	id := e.first("Conference-Unique-ID", "Conference-Name")
	switch e["Action"] {
	case "add-member":
		c := t.need(e["Unique-ID"])
		if c == nil || clean(id) == "" {
			t.ignored++
			return
		}
		role := suppress.RoleAgent
		if e["Speak"] == "false" {
			role = suppress.RoleMonitor
		}
		t.confJoin(c, id, role, t.at)
	case "del-member":
		if c := t.channels[e["Unique-ID"]]; c != nil {
			t.confLeave(c, t.at)
		}
	case "unmute-member":
		// Who came to listen and speaks now is a barge-in; an agent who was mute is still an agent.
		c := t.channels[e["Unique-ID"]]
		if members := t.conferences[id]; c != nil && members[c.uuid] == suppress.RoleMonitor {
			members[c.uuid] = suppress.RoleBarge
			t.tellConference(c, t.at)
		}
	case "conference-destroy":
		for _, uuid := range slices.Sorted(maps.Keys(t.conferences[id])) {
			if c := t.channels[uuid]; c != nil {
				t.confLeave(c, t.at)
			}
		}
		delete(t.conferences, id)
	default:
		t.ignored++
	}
}

func (t *Translator) confJoin(c *channel, id string, role suppress.Role, at time.Time) {
	if c.conference != "" {
		t.confLeave(c, at)
	}
	members := t.conferences[id]
	if members == nil {
		if len(t.conferences) >= conferencesMax {
			t.forgotten++
			return
		}
		members = map[string]suppress.Role{}
		t.conferences[id] = members
	}
	if len(members) >= conferenceMembersMax {
		t.forgotten++
		return
	}
	members[c.uuid], c.conference = role, id
	t.tellConference(c, at)
}

// tellConference tells who takes part in whose call by a conference.
func (t *Translator) tellConference(c *channel, at time.Time) {
	members := t.conferences[c.conference]
	if !c.known {
		return
	}
	for _, uuid := range slices.Sorted(maps.Keys(members)) {
		o := t.channels[uuid]
		if o == nil || !o.known {
			continue
		}
		if !c.trunk {
			t.join(c, o, members[c.uuid], "", at)
		}
		if o == c {
			continue
		}
		if !o.trunk {
			t.join(o, c, members[o.uuid], "", at)
		}
		t.link(c, o, at)
	}
}

func (t *Translator) confLeave(c *channel, at time.Time) {
	if c.conference == "" {
		return
	}
	members := t.conferences[c.conference]
	for _, uuid := range slices.Sorted(maps.Keys(members)) {
		t.leave(c, uuid, at)
		if o := t.channels[uuid]; o != nil && o != c {
			t.leave(o, c.uuid, at)
		}
	}
	delete(members, c.uuid)
	if len(members) == 0 {
		delete(t.conferences, c.conference)
	}
	c.conference = ""
}

// eavesdrop translates the applications by which one channel listens to
// another: Application-Data is the uuid of the other one. What the listener
// changes by digits later on is not told by any event.
func (t *Translator) eavesdrop(e Event) {
	app := e["Application"]
	if app != "eavesdrop" && app != "three_way" {
		t.ignored++
		return
	}
	c := t.learn(e)
	if c == nil {
		return
	}
	t.endEavesdrop(c, t.at)
	if e["Event-Name"] == "CHANNEL_EXECUTE_COMPLETE" {
		return
	}
	uuid := strings.TrimSpace(e["Application-Data"])
	if uuid == "all" {
		t.ignored++
		return
	}
	target := t.need(uuid)
	if target == nil || target == c {
		return
	}
	c.target, c.targetRole = target.uuid, eavesdropRole(e)
	t.join(c, target, c.targetRole, "", t.at)
	if target.peer != nil {
		t.join(c, target.peer, c.targetRole, "", t.at)
	}
}

// endEavesdrop undoes the presences that are neither of a bridge nor of a
// conference.
func (t *Translator) endEavesdrop(c *channel, at time.Time) {
	if c.target == "" {
		return
	}
	c.target = ""
	for _, on := range slices.Sorted(maps.Keys(c.in)) {
		if c.in[on].role == c.targetRole {
			t.leave(c, on, at)
		}
	}
}

// eavesdropRole: who is heard by both barges in, who is heard by one coaches.
func eavesdropRole(e Event) suppress.Role {
	a, b := isTrue(e["variable_eavesdrop_whisper_aleg"]), isTrue(e["variable_eavesdrop_whisper_bleg"])
	switch {
	case a && b || e["Application"] == "three_way":
		return suppress.RoleBarge
	case a || b:
		return suppress.RoleCoach
	}
	return suppress.RoleMonitor
}

// dialplan translates a signal that the dialplan fires itself, by
//
//	<action application="event" data="Event-Name=CUSTOM,Event-Subclass=trunktap::signal,event=ivr.start,flow=main"/>
//
// The names are those of a signal's JSON, an attribute is attrs.NAME. Without
// sip_call_id and call it is about the channel that fired it, and
// the one that it is bridged with.
func (t *Translator) dialplan(e Event) {
	c := t.learn(e)
	s := suppress.Signal{
		Event: suppress.Event(e["event"]), Call: e["call"], Flow: e["flow"], Queue: e["queue"], User: e["user"],
		Role: suppress.Role(e["role"]), Party: e["party"], Other: e["other"], Conversation: e["conversation"],
	}
	for name, value := range e {
		if attr, ok := strings.CutPrefix(name, attrPrefix); ok {
			if s.Attrs == nil {
				s.Attrs = map[string]string{}
			}
			s.Attrs[attr] = value
		}
	}
	calls := t.concerned(c, s.Event)
	if call := e["sip_call_id"]; call != "" {
		calls = []string{call}
	} else if s.Call != "" {
		calls = []string{""}
	}
	if len(calls) == 0 {
		t.ignored++
	}
	for _, call := range calls {
		t.emit(call, t.at, s)
	}
}

// externalAlone are events that are for the external party's call alone.
var externalAlone = []suppress.Event{
	suppress.SnippetStart, suppress.SnippetEnd, suppress.AdhocStart, suppress.AdhocEnd,
	suppress.AgentJoin, suppress.AgentLeave, suppress.ConsultStart, suppress.ConsultEnd,
}

// concerned returns the calls that a signal of a channel is for: what decides
// whether anything may be kept is for both ends of the bridge, what begins a
// recording or names people for one, the external party's.
func (t *Translator) concerned(c *channel, event suppress.Event) []string {
	if c == nil {
		return nil
	}
	both := []*channel{c}
	if c.peer != nil && c.peer.call != c.call {
		both = append(both, c.peer)
	}
	if slices.Contains(externalAlone, event) {
		both = both[:1]
		if c.peer != nil && c.peer.trunk && !c.trunk {
			both[0] = c.peer
		}
	}
	var calls []string
	for _, o := range both {
		if o.call != "" {
			calls = append(calls, o.call)
		}
	}
	return calls
}
