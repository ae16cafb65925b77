package siprec

import (
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
)

// joinKey is what two dialogs of one call have in common. Keys of one source mean
// nothing to another.
type joinKey struct{ source, key string }

const joinKeysMax = 32

// joinKeys returns by what a dialog may be joined to another: the sessions of its
// metadata; the reference that built-in bridges give both ends; configured header
// fields. The latter two count within the window alone.
func joinKeys(s *Source, invite *sip.Message, c content) (lasting, passing []joinKey) {
	add := func(list *[]joinKey, kind, v string) {
		k := joinKey{s.Name, kind + v}
		if v != "" && len(v) <= metadataValueMax && len(*list) < joinKeysMax && !slices.Contains(*list, k) {
			*list = append(*list, k)
		}
	}
	for _, p := range c.metadata {
		m, err := Parse(p.content)
		if err != nil {
			continue
		}
		for _, id := range m.sessionsOf(c.sdp) {
			add(&lasting, "session:", idKey(id))
		}
	}
	if near, far := halves(invite); near+far != "" {
		add(&passing, "refci:", fromParam(invite, "x-refci"))
	}
	for _, name := range s.JoinHeaders {
		for _, v := range invite.Fields(name) {
			add(&passing, "header:"+strings.ToLower(name)+":", strings.TrimSpace(v))
		}
	}
	return lasting, passing
}

// sessionsOf returns the sessions that the lines of a description belong to: those of their
// streams, else those that are associated with the recording session, else all. A document
// may tell of others, too, which a call came from or goes to.
func (m *Metadata) sessionsOf(description []byte) (own []string) {
	var all []string
	for _, x := range m.Sessions {
		all = append(all, x.ID)
	}
	known := func(id string) bool { return slices.ContainsFunc(all, func(x string) bool { return SameID(x, id) }) }
	if d, err := sdp.Parse(description); err == nil {
		for i := range d.Media() {
			label, _ := d.Attribute(i, "label")
			if st, ok := m.Labelled(clip(label)); ok && known(st.Session) {
				own = append(own, st.Session)
			}
		}
	}
	if len(own) > 0 {
		return own
	}
	for _, x := range m.Recordings {
		if known(x.Session) && x.Disassociate.IsZero() {
			own = append(own, x.Session)
		}
	}
	if len(own) > 0 {
		return own
	}
	return all
}

// recordingFor returns the recording that a new dialog belongs to: one that is
// there and shares a key, else a new one; nil when no new one is to begin.
func (s *Server) recordingFor(l *leg, invite *sip.Message, c content) *recording {
	lasting, passing := joinKeys(l.source, invite, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range slices.Concat(lasting, passing) {
		for _, r := range s.joins[k] {
			if r.count > 0 && r.count < legsMax {
				r.count++
				s.counters.DialogsJoined.Add(1)
				return r
			}
		}
	}
	if s.draining.Load() {
		return nil
	}
	r := newRecording(s, l.source, l.log)
	r.count, r.lasting, r.passing = 1, lasting, passing
	s.joinable(r, l.source.JoinWindow, invite.Arrival)
	return r
}

// joinable lets others join a recording. s.mu is held.
func (s *Server) joinable(r *recording, window time.Duration, now time.Time) {
	keys := r.lasting
	if window > 0 && len(r.passing) > 0 {
		keys = slices.Concat(r.lasting, r.passing)
		s.after(window, now, func() { s.unjoin(r, r.passing) })
	}
	for _, k := range keys {
		s.joins[k] = append(s.joins[k], r)
	}
}

// after does something when d has passed since now, by the clock of the dialogs.
func (s *Server) after(d time.Duration, now time.Time, do func()) {
	if s.follower == nil {
		time.AfterFunc(d, do)
		return
	}
	s.follower.later = append(s.follower.later, deferred{now.Add(d), do})
}

// leaveRecording takes a leg off the count; of a recording without legs nothing can
// be joined.
func (s *Server) leaveRecording(r *recording) {
	s.mu.Lock()
	r.count--
	gone := r.count == 0
	s.mu.Unlock()
	if gone {
		s.unjoin(r, slices.Concat(r.lasting, r.passing))
	}
}

func (s *Server) unjoin(r *recording, keys []joinKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		list := slices.DeleteFunc(s.joins[k], func(x *recording) bool { return x == r })
		if s.joins[k] = list; len(list) == 0 {
			delete(s.joins, k)
		}
	}
}

// fromParam returns a parameter of From, be it of the URI or of the field.
func fromParam(m *sip.Message, name string) string {
	a, err := sip.ParseAddress(m.Get("From"))
	if err != nil {
		return ""
	}
	if v, ok := a.Param(name); ok {
		return v
	}
	if u, err := sip.ParseURI(a.URI); err == nil {
		v, _ := u.Params.Get(name)
		return v
	}
	return ""
}

// halves returns the addresses of both ends of the call where a dialog carries one
// end of it, as the built-in bridge of a phone forks them; both are empty else.
func halves(invite *sip.Message) (near, far string) {
	if halfOf(invite) == wholeCall {
		return "", ""
	}
	a, err := sip.ParseAddress(invite.Get("From"))
	if err != nil {
		return "", ""
	}
	_, host := userHost(a.URI)
	full := func(v string) string {
		if v == "" {
			return ""
		}
		return "sip:" + v + "@" + host
	}
	return full(fromParam(invite, "x-nearendaddr")), full(fromParam(invite, "x-farendaddr"))
}

func halfOf(invite *sip.Message) half {
	from := strings.ToLower(invite.Get("From"))
	has := func(name string) bool {
		return strings.Contains(from, ";"+name+";") || strings.Contains(from, ";"+name+">") || strings.HasSuffix(from, ";"+name)
	}
	switch {
	case has("x-nearend"):
		return nearEnd
	case has("x-farend"):
		return farEnd
	}
	return wholeCall
}
