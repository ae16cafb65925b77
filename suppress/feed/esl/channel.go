package esl

import (
	"net/netip"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/trunktap/trunktap/suppress"
)

// Limits of what is remembered.
const (
	channelsMax          = 20_000 // beyond it the channel that was silent longest is forgotten
	conferenceMembersMax = 256
	conferencesMax       = 2_000
	presencesMax         = 256 // calls that one channel takes part in
	linksMax             = 16  // calls that one channel was linked with
	textBytesMax         = 256 // as of every string of a signal
	queuesMax            = 500
)

// Trunks say which channels lead out to the external side. A channel is one
// when any of the lists names it. With all lists empty a channel is one when it
// uses a gateway or the profile "external".
type Trunks struct {
	Gateways []string       // names of gateways
	Profiles []string       // names of SIP profiles
	Prefixes []netip.Prefix // of the far end's address
}

func (r Trunks) match(e Event) bool {
	gateway := e.first("variable_sip_gateway_name", "variable_sip_gateway")
	profile := e["variable_sofia_profile_name"]
	if len(r.Gateways)+len(r.Profiles)+len(r.Prefixes) == 0 {
		return gateway != "" || profile == "external"
	}
	if gateway != "" && slices.Contains(r.Gateways, gateway) || profile != "" && slices.Contains(r.Profiles, profile) {
		return true
	}
	for _, name := range []string{"variable_sip_received_ip", "variable_sip_network_ip", "variable_sip_reply_host"} {
		addr, err := netip.ParseAddr(e[name])
		if err == nil && slices.ContainsFunc(r.Prefixes, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) }) {
			return true
		}
	}
	return false
}

// channel is what is known of one leg of the FreeSWITCH.
type channel struct {
	uuid  string
	seen  time.Time // when it was last heard of
	known bool      // its variables were seen
	asked bool      // its dump is on the way

	call  string // Call-ID, once known
	user  string // who sits at it; never empty when known
	trunk bool

	peer      *channel
	bridgedAt time.Time
	lastAgent *agent // of a trunk: with whom it was bridged latest
	external  bool   // of a trunk: transfer.external was told

	hold       hold
	queue      string // it waits in
	queueAt    time.Time
	queueTold  bool
	conference string
	target     string // uuid of the channel it listens to
	targetRole suppress.Role
	consult    *consult

	in     map[string]presence // by the uuid of the channel whose call it takes part in
	links  []string            // calls it was linked with
	anchor string              // of an internal one: uuid of the trunk it was linked with
}

type agent struct{ uuid, user string }

// presence is what was told of a channel in a call.
type presence struct {
	call, user string
	role       suppress.Role
}

type hold struct {
	on    bool
	at    time.Time
	party string
	told  []string // calls
}

// consult is a consultation that a channel makes beside the held call.
type consult struct{ call, user, other string }

// get returns the channel of that uuid, adding it when it is new; nil without
// a uuid.
func (t *Translator) get(uuid string) *channel {
	if uuid == "" || clean(uuid) == "" {
		return nil
	}
	c := t.channels[uuid]
	if c == nil {
		if len(t.channels) >= channelsMax {
			t.forgetOldest()
		}
		c = &channel{uuid: uuid}
		t.channels[uuid] = c
	}
	c.seen = t.now
	return c
}

func (t *Translator) forgetOldest() {
	var oldest *channel
	for _, c := range t.channels {
		if oldest == nil || c.seen.Before(oldest.seen) || c.seen.Equal(oldest.seen) && c.uuid < oldest.uuid {
			oldest = c
		}
	}
	t.forgotten++
	t.gone(oldest, t.now)
}

// need returns the channel of that uuid and asks for its variables when they
// were never seen.
func (t *Translator) need(uuid string) *channel {
	c := t.get(uuid)
	if c != nil && !c.known {
		t.askDump(c)
	}
	return c
}

func (t *Translator) askDump(c *channel) {
	if c.asked {
		return
	}
	c.asked = true
	t.ask = append(t.ask, cmdDump+c.uuid+" json")
}

// learn takes what an event or a dump that carries variables tells of its
// channel.
func (t *Translator) learn(e Event) *channel {
	c := t.get(e["Unique-ID"])
	if c == nil {
		return nil
	}
	if !carriesVariables(e) {
		return t.need(c.uuid)
	}
	first := !c.known
	c.known = true
	c.trunk = c.trunk || t.trunks.match(e)
	if u := clean(userOf(e)); u != "" && (first || c.user == c.uuid) {
		c.user = u
	}
	if c.user == "" {
		c.user = c.uuid
	}
	if call := clean(e["variable_sip_call_id"]); call != "" && c.call == "" {
		c.call = call
		first = true
	}
	if first {
		t.settle(c)
	}
	return c
}

// carriesVariables tells an event that has the variables of its channel from one
// that does not; every channel has these.
func carriesVariables(e Event) bool {
	return e["Event-Name"] == "CHANNEL_DATA" || e.first("variable_uuid", "variable_sofia_profile_name", "variable_sip_call_id") != ""
}

// settle tells what could not be told before the channel was known.
func (t *Translator) settle(c *channel) {
	t.tellHold(c)
	t.tellQueue(c)
	if c.peer != nil {
		t.tellBridge(c, c.peer, c.bridgedAt)
		t.tellHold(c.peer)
	}
	if c.conference != "" {
		t.tellConference(c, t.at)
	}
	if c.asked {
		for _, s := range t.channels {
			if s.target == c.uuid {
				t.join(s, c, s.targetRole, "", t.at)
			}
		}
	}
}

// userOf finds who sits at a leg: of one that came in the authenticated user,
// of one that was called the user who was.
func userOf(e Event) string {
	if e["Call-Direction"] == "outbound" {
		return e.first("variable_dialed_user", "variable_sip_to_user", "Caller-Callee-ID-Number", "Caller-Destination-Number")
	}
	return e.first("variable_user_name", "variable_sip_auth_username", "variable_sip_from_user", "Caller-Username", "Caller-Caller-ID-Number")
}

// clean returns a text that may stand in a signal, or nothing.
func clean(s string) string {
	if len(s) > textBytesMax || !utf8.ValidString(s) {
		return ""
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return ""
		}
	}
	return s
}
