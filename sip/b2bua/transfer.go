package b2bua

import (
	"cmp"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// referWait is how long a transfer may go on without a NOTIFY that names its
// expiry (RFC 3515 section 2.4.4).
const referWait = 5 * time.Minute

// dialogName names a dialog as Replaces does (RFC 3891 section 6.1).
type dialogName struct {
	callID string
	tags   [2]string
}

// dialogIn reads the value of Replaces; false when it names no dialog.
func dialogIn(v string) (n dialogName, ok bool) {
	id, rest, _ := strings.Cut(v, ";")
	n.callID = strings.TrimSpace(id)
	for p := range strings.SplitSeq(rest, ";") {
		name, value, _ := strings.Cut(p, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "to-tag":
			n.tags[0] = strings.TrimSpace(value)
		case "from-tag":
			n.tags[1] = strings.TrimSpace(value)
		}
	}
	return n, n.callID != "" && n.tags[0] != "" && n.tags[1] != ""
}

// behind returns the Contact of the party that is on a side of a trunk in the
// dialog named, which may be named as either side knows it. Empty: unknown.
func (b *B2BUA) behind(n dialogName, trunk *sip.Trunk, side media.Side) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, tag := range n.tags {
		for _, c := range b.calls[callKey{n.callID, tag}] {
			if c.trunk.Name != trunk.Name || c.over || !slices.Contains(c.tags, n.tags[1-i]) {
				continue
			}
			if c.side == side {
				return c.reach[dialog.Caller]
			}
			return c.reach[dialog.Callee]
		}
	}
	return ""
}

// reachable lets others know where the parties of a dialog are reached.
func (b *B2BUA) reachable(c *call, d *dialogState) {
	targets := [2]string{d.Ends[dialog.Caller].Target, d.Ends[dialog.Callee].Target}
	instances := [2]string{d.Ends[dialog.Caller].Instance, d.Ends[dialog.Callee].Instance}
	streams := [2]bool{d.Ends[dialog.Caller].Flow.Reliable(), d.Ends[dialog.Callee].Flow.Reliable()}
	b.mu.Lock()
	defer b.mu.Unlock()
	c.reach, c.instances, c.streams = targets, instances, streams
}

// replacing returns where a call goes that is to take the place of a known one: to
// the party which has that, whatever the next hops are.
func (c *call) replacing(req *sip.Message) (hop sip.NextHop, uri string, ok bool) {
	if c.method != sip.Invite {
		return hop, "", false
	}
	v := req.Get("Replaces")
	if v == "" {
		return hop, "", false
	}
	n, ok := dialogIn(v)
	if !ok {
		return hop, "", false
	}
	callee := c.side.Other()
	uri = c.b.behind(n, c.trunk, callee)
	u, err := sip.ParseURI(uri)
	if err != nil {
		return hop, "", false
	}
	ip, err := netip.ParseAddr(u.Host)
	if err != nil || !c.table.Allows(sip.Peer{Trunk: c.trunk, Side: callee}, ip) {
		return hop, "", false
	}
	hop = sip.NextHop{Host: ip.String(), Port: u.Port, Transport: "udp"}
	if t, given := u.Params.Get("transport"); given {
		hop.Transport = strings.ToLower(t)
	}
	return hop, uri, hop.Transport == "udp" || hop.Transport == "tcp" || hop.Transport == "tls"
}

// firstHops returns where the first request goes: the next hops of the trunk, and
// before them the party whose call is to be replaced.
func (c *call) firstHops(req *sip.Message) []sip.NextHop {
	hops := c.b.hops.choose(c.trunk, c.at(dialog.Callee), req.Arrival)
	hop, uri, ok := c.replacing(req)
	if !ok {
		return hops
	}
	c.takeover, c.takeoverHop = uri, hop
	return append([]sip.NextHop{hop}, hops...)
}

// requestURI returns the Request-URI of the first request towards a next hop.
func (c *call) requestURI(uri string) string {
	if c.targetURI != "" {
		return c.targetURI
	}
	if c.phone != nil {
		return c.phone.uri
	}
	if c.takeover != "" && c.hop == c.takeoverHop {
		return c.takeover
	}
	return towardsHop(uri, c.hop)
}

// refer makes the Refer-To of a REFER lead where its recipient can go, for an
// address of the sender's side is out of its reach: what names a party of a call
// that goes through us becomes that party's own address; what names us the
// recipient's own; and what names a peer of the sender's side ours, from where it
// goes to that side's next hop. Names of domains stay. far is the recipient.
func (c *call) refer(out *sip.Message, x crossing, far netip.AddrPort) {
	for i, h := range out.Headers {
		if !h.Is("Refer-To") {
			continue
		}
		a, err := sip.ParseAddress(h.Value)
		if err != nil {
			continue
		}
		bare, query, _ := strings.Cut(a.URI, "?")
		u, err := sip.ParseURI(bare)
		if err != nil {
			continue
		}
		ip, err := netip.ParseAddr(u.Host)
		if err != nil {
			continue
		}
		switch {
		case netip.AddrPortFrom(ip, uint16(cmp.Or(u.Port, 5060))) == x.here:
			if contact := c.referred(query, x.from.Other()); contact != "" {
				a.URI = contact
			} else {
				a.URI = contactURI(u, far, x.network)
			}
		case c.table.Allows(sip.Peer{Trunk: c.trunk, Side: x.from}, ip):
			a.URI = contactURI(u, x.there, x.network)
		default:
			continue
		}
		if query != "" {
			a.URI, _, _ = strings.Cut(a.URI, "?")
			a.URI += "?" + query
		}
		out.Headers[i].Value = a.String()
	}
}

// referred returns the Contact of the party that a transfer leads to, when the
// header fields of its URI name a call through us.
func (c *call) referred(query string, side media.Side) string {
	for f := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(f, "=")
		if !strings.EqualFold(name, "Replaces") {
			continue
		}
		text, err := url.PathUnescape(value)
		if err != nil {
			return ""
		}
		if n, ok := dialogIn(text); ok {
			return c.b.behind(n, c.trunk, side)
		}
	}
	return ""
}

// transferring keeps a call for the NOTIFYs of a transfer that go on after its BYE
// (RFC 5057 section 4): its dialog lives as long as that subscription.
func (c *call) transferring(d time.Duration, now time.Time) {
	c.transfer.stop()
	c.transfer = c.after(min(d, usageMax), now, func(time.Time) {})
}

// referAccepted takes the acceptance of a REFER.
func (c *call) referAccepted(req, res *sip.Message, now time.Time) {
	if c.method != sip.Invite || strings.EqualFold(strings.TrimSpace(res.Get("Refer-Sub")), "false") ||
		req.HasToken("Require", "norefersub") {
		return
	}
	c.transferring(referWait, now)
}

// progressed takes a NOTIFY of a transfer.
func (c *call) progressed(m *sip.Message, now time.Time) {
	kind, _, _ := strings.Cut(m.Get("Event"), ";")
	if c.transfer == nil || !strings.EqualFold(strings.TrimSpace(kind), "refer") {
		return
	}
	state, params, _ := strings.Cut(m.Get("Subscription-State"), ";")
	if strings.EqualFold(strings.TrimSpace(state), "terminated") {
		c.transferring(sip.TransactionTimeout, now)
		return
	}
	v, _ := sip.Params(";" + params).Get("expires")
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		c.transferring(time.Duration(n)*time.Second+sip.TransactionTimeout, now)
	}
}
