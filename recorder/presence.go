package recorder

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// presence is the latest that is known of whether somebody is on the call.
type presence struct {
	on   bool
	role suppress.Role
	at   time.Time // of that event
}

// openJoined begins the recordings of stations that had joined before the answer,
// in the order in which they did.
func (c *core) openJoined() {
	users := slices.Collect(maps.Keys(c.kinds.agents))
	slices.SortFunc(users, func(a, b string) int {
		return cmp.Or(c.kinds.agents[a].at.Compare(c.kinds.agents[b].at), cmp.Compare(a, b))
	})
	for _, user := range users {
		if p := c.kinds.agents[user]; p.on {
			c.joined(user, p.role, c.answered)
		}
	}
}

// joined begins the recording of a station that call state tells of; up to when
// it left, should that be known already.
func (c *core) joined(user string, role suppress.Role, at time.Time) {
	s := c.plan.Stations
	if s == nil || !s.ByState() || !c.started || user == "" || c.live(KindStation, user) != nil {
		return
	}
	switch role {
	case suppress.RoleMonitor, suppress.RoleCoach:
		return
	case suppress.RoleAgent, suppress.RoleConsult, suppress.RoleBarge:
	}
	p := c.kinds.agents[user]
	left := !p.at.IsZero() && !p.on
	if left && c.positionOf(p.at) <= c.positionOf(at) || c.kinds.consult != nil && c.kinds.consult.User == user {
		return
	}
	if r, _ := c.openAt(KindStation, user, "", media.Internal, at); r != nil && left {
		c.stop(r, p.at, causeLeft)
	}
}

// userNamed is the station's user that a name or number stands for, else the
// name itself.
func (c *core) userNamed(name string) string {
	if c.plan.Stations == nil {
		return name
	}
	if user, ok := c.plan.Stations.Station(media.Participant{Side: media.Internal, URI: name}); ok {
		return user
	}
	return name
}

// party tells whether a user is a party of the call's signalling as a station.
func (c *core) party(user string) bool {
	if c.plan.Stations == nil {
		return false
	}
	for _, p := range c.session.Parties {
		if u, ok := c.plan.Stations.Station(p); ok && u == user {
			return true
		}
	}
	return false
}

// present tells whether a user is on the call, as far as anybody has told who is.
func (c *core) present(user string) bool {
	known := c.plan.NoTrunk // a phone's leg has no parties but those of its signalling
	for u, p := range c.kinds.agents {
		if u == user {
			return p.on
		}
		known = known || p.on
	}
	if c.party(user) {
		return true
	}
	for _, p := range c.session.Parties {
		if userOf(p.URI) == user {
			return true
		}
	}
	return !known
}
