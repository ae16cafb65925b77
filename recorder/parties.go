package recorder

import (
	"sort"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// partiesMax bounds the internal parties of one recording.
const partiesMax = 64

// partySet is the internal parties heard, and when they change next.
type partySet struct {
	fallback string // the internal side's URI, until call state names agents
	users    map[string]bool
	pending  []partyChange
	named    bool
	coaches  bool   // coaches are heard too: a station's own side
	own      string // the station's user, who is always there
}

type partyChange struct {
	atMS  int64
	user  string
	leave bool
}

func (p *partySet) init(s media.Session, kind Kind, user string, internal media.Side) {
	p.users = make(map[string]bool)
	if kind == KindStation || kind == KindAdhoc || kind == KindConsult {
		p.coaches, p.own = true, user
	}
	for _, q := range s.Parties {
		if q.Side == internal {
			p.fallback = q.URI
		}
	}
	if p.fallback == "" {
		p.fallback = s.To
		if (s.Direction == media.Outbound) == (internal == media.Internal) {
			p.fallback = s.From
		}
	}
}

// apply notes a change of the parties that are heard. Monitors and coaches are
// not heard by the external side.
func (p *partySet) apply(s suppress.Signal, atMS func() int64) {
	if s.User == "" || len(p.pending) >= partiesMax || len(p.users) >= partiesMax {
		return
	}
	switch s.Event {
	case suppress.AgentJoin:
		if s.Role == suppress.RoleMonitor || s.Role == suppress.RoleCoach && !p.coaches {
			return
		}
		p.pending = append(p.pending, partyChange{atMS(), s.User, false})
	case suppress.AgentLeave:
		p.pending = append(p.pending, partyChange{atMS(), s.User, true})
	default:
		return
	}
	sort.SliceStable(p.pending, func(i, j int) bool { return p.pending[i].atMS < p.pending[j].atMS })
}

// next returns the first position in [from, to) at which the parties change;
// to when there is none.
func (p *partySet) next(from, to int64) int64 {
	for _, c := range p.pending {
		if c.atMS >= from && c.atMS < to && p.differs(c) {
			return c.atMS
		}
	}
	return to
}

func (p *partySet) differs(c partyChange) bool { return p.users[c.user] == c.leave }

// take applies the changes up to and including a position; true when the
// parties are others now.
func (p *partySet) take(toMS int64) bool {
	changed := false
	n := 0
	for _, c := range p.pending {
		if c.atMS > toMS {
			break
		}
		n++
		if !p.differs(c) {
			continue
		}
		changed = true
		p.named = true
		if c.leave {
			delete(p.users, c.user)
		} else {
			p.users[c.user] = true
		}
	}
	p.pending = append(p.pending[:0], p.pending[n:]...)
	return changed
}

func (p *partySet) names() []string {
	out := make([]string, 0, len(p.users)+1)
	for u := range p.users {
		out = append(out, u)
	}
	switch {
	case p.own != "" && !p.users[p.own]:
		out = append(out, p.own)
	case len(out) == 0 && !p.named && p.fallback != "":
		out = append(out, p.fallback)
	}
	sort.Strings(out)
	return out
}
