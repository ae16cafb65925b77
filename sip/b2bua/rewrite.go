package b2bua

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/trunktap/trunktap/sip"
)

// What changes on the way from one leg to the other: Via, Route, Record-Route,
// Contact, Max-Forwards and the body. Everything else stays as it came.

// maxForwards returns the value for the next hop; false when the request may go
// no further (RFC 3261 section 16.6 step 3).
func maxForwards(req *sip.Message) (string, bool) {
	n, ok := req.MaxForwards()
	if !ok {
		return "70", true // none, or nonsense: that is replaced, no reason to lose a call
	}
	if n == 0 {
		return "", false
	}
	return strconv.FormatUint(uint64(min(n-1, 255)), 10), true
}

// outgoing makes of a request of one leg that of the other.
func outgoing(req *sip.Message, uri string, routes []string, via sip.Via, body []byte) *sip.Message {
	m := req.Clone()
	m.URI = uri
	m.Flow = sip.Flow{}
	m.Body = body
	m.SetVia(via)
	m.Set("Route", routes...)
	m.Set("Record-Route")
	if v, ok := maxForwards(req); ok {
		m.Set("Max-Forwards", v)
	}
	return m
}

// incoming makes of a response of one leg that of the other: it answers req,
// whose Via and Record-Route it takes (RFC 3261 section 12.1.1).
func incoming(res, req *sip.Message, body []byte) *sip.Message {
	m := res.Clone()
	m.Flow = sip.Flow{}
	m.Body = body
	m.Set("Via", req.Fields("Via")...)
	if rr := req.Fields("Record-Route"); res.Status > 100 && res.Status < 300 && createsDialog(req.Method) {
		m.Set("Record-Route", rr...)
	} else {
		m.Set("Record-Route")
	}
	return m
}

func createsDialog(method string) bool {
	return method == sip.Invite || method == sip.Subscribe || method == sip.Refer
}

// targets says whether Contact of a request, and of what answers it with 101 to
// 299, is where the sender is reached in this dialog. Elsewhere (REGISTER, the
// Contact of a redirection) it is content and passes.
func targets(method string) bool {
	return createsDialog(method) || method == sip.Update || method == sip.Notify
}

// ownContact puts our address in the place of the party's: user part, display
// name and parameters stay, so that the far end still sees who it talks to and
// its next request reaches us.
func ownContact(m *sip.Message, ours netip.AddrPort, network string, needed bool) {
	list := m.List("Contact")
	if len(list) == 0 {
		if needed {
			m.Add("Contact", "<"+contactURI(sip.URI{Scheme: "sip"}, ours, network)+">")
		}
		return
	}
	for i, v := range list {
		a, err := sip.ParseAddress(v)
		if err != nil {
			continue // "*" and what nobody can read
		}
		u, err := sip.ParseURI(a.URI)
		if err != nil {
			u = sip.URI{Scheme: "sip"} // tel: and others lead nowhere
		}
		a.URI = contactURI(u, ours, network)
		list[i] = a.String()
	}
	m.Set("Contact", list...)
}

func contactURI(u sip.URI, ours netip.AddrPort, network string) string {
	u.Host, u.Port = ours.Addr().WithZone("").String(), int(ours.Port())
	u.Params = u.Params.Without("transport", "maddr", "ttl", "lr", "alias") + transportParam(network)
	u.Query = ""
	if network != "tls" {
		u.Scheme = "sip"
	}
	return u.String()
}

func transportParam(network string) sip.Params {
	switch network {
	case "udp", "":
		return ""
	case "wss":
		network = "ws" // RFC 7118 section 5.4 has one word for both
	}
	return sip.Params(";transport=" + network)
}

// towardsHop makes the Request-URI of a request that begins something: user part
// and parameters stay, the host becomes that of the next hop. URIs of other
// schemes (tel:, urn:service:) stay whole.
func towardsHop(uri string, hop sip.NextHop) string {
	u, err := sip.ParseURI(uri)
	if err != nil {
		return uri
	}
	u.Host, u.Port = hop.Host, hop.Port
	u.Params = u.Params.Without("transport", "maddr", "ttl") + transportParam(hop.Transport)
	u.Query = "" // header fields in it would be the far end's (RFC 3261 section 19.1.5)
	return u.String()
}

// withTag returns a To or From value with a tag.
func withTag(v, tag string) string { return v + ";tag=" + tag }

// addressOf returns the URI of a From or To value without its parameters.
func addressOf(v string) (uri, name string) {
	a, err := sip.ParseAddress(v)
	if err != nil {
		return strings.TrimSpace(v), ""
	}
	return a.URI, a.DisplayName()
}
