package policy

import (
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

// Station is a user whose own side of calls is recorded.
type Station struct {
	User      string
	Addresses []string // SIP URIs, numbers and user parts; empty: User
	Settings  Settings
}

// Settings is what recordings of a station do not have from the trunk.
type Settings struct {
	Format       string // see recorder.Plan
	Mono         bool
	Suppressed   string // cut | silence
	DiscardBelow time.Duration
	Storage      *string // see recorder.Plan; nil: that of the trunk
}

// Directory finds stations. It is immutable and may be shared by trunks.
type Directory struct {
	list  []Station
	users map[string]int // user, in lower case
	uris  map[string]int // user@host
	parts map[string]int // folded user parts
}

// NewDirectory makes a directory. Of two stations with one user or address
// the first has it.
func NewDirectory(list []Station) *Directory {
	d := &Directory{list: list, users: make(map[string]int, len(list)), uris: map[string]int{}, parts: make(map[string]int, len(list))}
	for i := range list {
		s := &list[i]
		first(d.users, strings.ToLower(s.User), i)
		addresses := s.Addresses
		if len(addresses) == 0 {
			addresses = []string{s.User}
		}
		for _, a := range addresses {
			if uri, ok := address(a); ok {
				first(d.uris, uri, i)
			} else {
				first(d.parts, User(a), i)
			}
		}
	}
	return d
}

func first(m map[string]int, key string, i int) {
	if _, taken := m[key]; !taken && key != "" {
		m[key] = i
	}
}

// Len is the number of stations.
func (d *Directory) Len() int { return len(d.list) }

// byAddress finds a station by its URI, or else by the user part of it.
func (d *Directory) byAddress(uri string) (*Station, bool) {
	if whole, ok := address(uri); ok {
		if i, ok := d.uris[whole]; ok {
			return &d.list[i], true
		}
	}
	i, ok := d.parts[User(uri)]
	if !ok {
		return nil, false
	}
	return &d.list[i], true
}

// On returns the stations as calls of one trunk see them: their recordings
// follow its rules for IVR, queue, consent and secure pause, and its times.
// byState: agent.join begins and agent.leave ends them.
func (d *Directory) On(trunk recorder.Plan, byState bool) recorder.Stations {
	p := trunk
	p.Kind = recorder.KindStation
	p.Rules = suppress.Rules{
		IVR: trunk.Rules.IVR, Queue: trunk.Rules.Queue, Flows: trunk.Rules.Flows, Queues: trunk.Rules.Queues,
		Hold: true, HoldMic: true,
		ConsentRequired: trunk.Rules.ConsentRequired, PauseAutoResume: trunk.Rules.PauseAutoResume,
	}
	p.Stations = nil
	return &stations{Directory: d, plan: p, byState: byState}
}

// stations is a Directory on one trunk.
type stations struct {
	*Directory
	plan    recorder.Plan
	byState bool
}

// Station implements recorder.Stations. Only the internal side has stations: a
// customer may have the number of one.
func (s *stations) Station(p media.Participant) (string, bool) {
	if p.Side != media.Internal {
		return "", false
	}
	st, ok := s.byAddress(p.URI)
	if !ok {
		return "", false
	}
	return st.User, true
}

// Plan implements recorder.Stations. A signal may call the user by an address
// as well.
func (s *stations) Plan(user string) (recorder.Plan, bool) {
	var st *Station
	if i, known := s.users[strings.ToLower(user)]; known {
		st = &s.list[i]
	} else if st, known = s.byAddress(user); !known {
		return recorder.Plan{}, false
	}
	p := s.plan
	p.Format, p.Mono, p.Suppressed, p.DiscardBelow = st.Settings.Format, st.Settings.Mono, st.Settings.Suppressed, st.Settings.DiscardBelow
	if st.Settings.Storage != nil {
		p.Storage = *st.Settings.Storage
	}
	return p, true
}

// ByState implements recorder.Stations.
func (s *stations) ByState() bool { return s.byState }
