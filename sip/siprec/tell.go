package siprec

import (
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// tell brings the recorder up to date. r.mu is held.
func (r *recording) tell(at time.Time) {
	if !r.answered {
		return
	}
	var lines []*line
	var tracks []track
	for _, l := range r.legs {
		for i, t := range l.tracks() {
			lines, tracks = append(lines, l.lines[i]), append(tracks, t)
		}
	}
	places := r.source.arrange(r.known, tracks)
	for i, n := range lines {
		r.place(n, places[i], at)
	}
	r.tellAttrs(places, at)
	r.tellAgents(lines, at)
	r.tellHold(lines, at)
}

// place tells of one stream what has changed.
func (r *recording) place(n *line, p place, at time.Time) {
	n.held = r.held(n, p)
	if !n.live() {
		r.untell(n, at)
		return
	}
	st := media.Stream{
		Side: p.side, At: at, Formats: n.formats, Sending: n.sends() && !n.held, Source: n.remote, Ptime: n.ptime,
		Local: n.stream.Local(relaySide), Label: n.label, SideBy: p.by, Mixed: p.mixed,
	}
	if f, ok := n.stream.(followedPort); ok {
		st.Secure = f.Secure()
	}
	for _, q := range p.parties {
		st.Parties = append(st.Parties, media.Participant{Side: p.side, URI: q.AOR(), Name: q.Name()})
	}
	if n.told && (n.place.side != p.side || n.fresh && n.as.Label != n.label) {
		r.untell(n, at)
	}
	n.fresh = false
	if n.told && same(n.as, st) {
		return
	}
	if !n.told && !n.again {
		r.nextID++
		n.id = r.nextID
	}
	n.again = false
	st.ID = n.id
	n.told, n.place, n.as = true, p, st
	n.stream.SetTap(relaySide, r.tap.StreamStarted(st))
}

// same compares what is told of a stream.
func same(a, b media.Stream) bool {
	return a.Sending == b.Sending && a.Source == b.Source && a.SideBy == b.SideBy && a.Mixed == b.Mixed && a.Label == b.Label &&
		slices.Equal(a.Formats, b.Formats) && slices.Equal(a.Parties, b.Parties)
}

func (r *recording) untell(n *line, at time.Time) {
	if !n.told {
		return
	}
	n.told = false
	if n.stream != nil {
		n.stream.SetTap(relaySide, nil)
	}
	r.tap.StreamEnded(n.id, at)
}

// held says whether the metadata tells that nobody sends a stream any more that
// somebody sent, though that one is still there: the call is on hold.
func (r *recording) held(n *line, p place) bool {
	if len(p.parties) > 0 {
		n.senders = n.senders[:0]
		for _, q := range p.parties {
			n.senders = append(n.senders, q.ID)
		}
		return false
	}
	st, ok := r.known.Stream(p.stream)
	if !ok || len(n.senders) == 0 || len(r.known.Senders(st.ID)) > 0 {
		return false
	}
	return slices.ContainsFunc(n.senders, func(id string) bool {
		_, there := r.known.Participant(id)
		return there && !r.known.Left(id)
	})
}

// tellHold turns streams that are not sent into holds of their side.
func (r *recording) tellHold(lines []*line, at time.Time) {
	for side := range r.holding {
		any, sending := false, false
		for _, n := range lines {
			if n.told && n.place.side == media.Side(side) {
				any, sending = true, sending || n.as.Sending
			}
		}
		hold := any && !sending
		if hold == r.holding[side] || !any {
			continue
		}
		r.holding[side] = hold
		event := suppress.HoldEnd
		if hold {
			event = suppress.HoldStart
		}
		r.tap.Signal(suppress.Signal{V: 1, Event: event, At: at, Source: sourceName, Party: media.Side(side).String()})
	}
}

// tellAgents tells of the parties of the internal side that come and go.
func (r *recording) tellAgents(lines []*line, at time.Time) {
	there := map[string]bool{}
	var order []string
	for _, n := range lines {
		if !n.told || n.place.side != media.Internal || n.place.mixed {
			continue
		}
		for _, q := range n.place.parties {
			if u := userOf(q); u != "" && !there[u] {
				there[u] = true
				order = append(order, u)
			}
		}
		if n.held { // who is on hold has not left
			for _, id := range n.senders {
				if q, ok := r.known.Participant(id); ok {
					there[userOf(q)] = true
				}
			}
		}
	}
	for _, u := range order {
		if !r.agents[u] && len(r.agents) < agentsMax {
			r.agents[u] = true
			r.tap.Signal(suppress.Signal{V: 1, Event: suppress.AgentJoin, At: at, Source: sourceName, User: u, Role: suppress.RoleAgent})
		}
	}
	var gone []string
	for u := range r.agents {
		if !there[u] {
			gone = append(gone, u)
		}
	}
	slices.Sort(gone)
	for _, u := range gone {
		delete(r.agents, u)
		r.tap.Signal(suppress.Signal{V: 1, Event: suppress.AgentLeave, At: at, Source: sourceName, User: u})
	}
}

// userOf names a party as agents are named: by the user part of its address.
func userOf(p Participant) string {
	u, _ := userHost(p.AOR())
	if u == "" {
		u = p.Name()
	}
	if len(u) > fieldMax {
		return ""
	}
	return u
}

// own is the session that the recording is of, among those that a client names: what
// it was transferred from, or is consulted about, it may name as well. It is that of
// the first line whose stream has one, else the first one associated with the
// recording session, else the first.
func (m *Metadata) own(places []place) (Session, bool) {
	named := func(id string) (Session, bool) {
		i := slices.IndexFunc(m.Sessions, func(s Session) bool { return SameID(s.ID, id) })
		if i < 0 {
			return Session{}, false
		}
		return m.Sessions[i], true
	}
	for i := range places {
		if st, ok := m.Stream(places[i].stream); ok && st.Session != "" {
			if s, ok := named(st.Session); ok {
				return s, true
			}
		}
	}
	for _, x := range m.Recordings {
		if s, ok := named(x.Session); ok && x.Disassociate.IsZero() {
			return s, true
		}
	}
	if len(m.Sessions) > 0 {
		return m.Sessions[0], true
	}
	return Session{}, false
}

// group is the id of the group that a session belongs to; one that says nothing of it
// belongs to the first.
func (m *Metadata) group(s Session) string {
	if s.GroupRef != "" {
		return s.GroupRef
	}
	if len(m.Groups) > 0 {
		return m.Groups[0].ID
	}
	return ""
}

// tellAttrs tells what identifies the session at the client.
func (r *recording) tellAttrs(places []place, at time.Time) {
	now := map[string]string{}
	set := func(name, value string) {
		if value != "" && len(value) <= fieldMax && r.attrs[name] != value && len(now) < attrsMax {
			now[name] = value
		}
	}
	own, _ := r.known.own(places)
	set("siprec.session", own.ID)
	if n := len(own.SIPSessionIDs); n > 0 {
		set("siprec.sip_session_id", own.SIPSessionIDs[n-1]) // an id is added when it changes
	}
	set("siprec.group", r.known.group(own))
	for _, name := range []string{"ucid", "UCID", "callId", "extTrackingID"} {
		if v, ok := valueOf(r.known.Extensions, name); ok {
			set("siprec."+strings.ToLower(name), v)
		}
	}
	if len(now) > 0 {
		for k, v := range now {
			r.attrs[k] = v
		}
		r.tap.Signal(suppress.Signal{V: 1, Event: suppress.AttrsSet, At: at, Source: sourceName, Attrs: now})
	}
	for _, k := range r.conversation() {
		if !slices.Contains(r.links, k) && len(r.links) < agentsMax {
			r.links = append(r.links, k)
			r.tap.Signal(suppress.Signal{V: 1, Event: suppress.CallLinked, At: at, Source: sourceName, Links: []string{k}})
		}
	}
}
