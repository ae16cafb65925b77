package b2bua

import (
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// Phones that register through a trunk are reached through it: what the registrar
// keeps of a phone leads to us, and says by itself where the phone is. So nothing
// is kept here that a restart could lose. Who may be reached is what it always is,
// the peers of the side.

// bindingPrefix begins the user part of our URI that stands for a phone's.
const bindingPrefix = "tt."

// bindingVersion is the first octet of what follows it, in base64url: then the
// transport, the port (big endian), the length of the address, the address, and
// the phone's own URI.
const bindingVersion = 1

const bindingBytesMax = 512 // of a phone's URI

// servicePrefix begins the user part of our URI that stands for a Service-Route of the
// registrar (RFC 3608): what follows is that, in base64url.
const servicePrefix = "tr."

// serviceRoutesMax bounds the routes that a phone may ask for.
const serviceRoutesMax = 8

// bindingTransports are numbered in bindings: only append.
var bindingTransports = []string{"udp", "tcp", "tls", "ws", "wss"}

// binding is where a phone is: its own URI, and the way its REGISTER came.
type binding struct {
	uri  string // empty: that of the request stays
	flow sip.Flow

	outbound bool // whoever calls it knows of flows (RFC 5626)
}

// user is the user part that stands for a binding; "" when it cannot be made.
func (b binding) user() string {
	n := slices.Index(bindingTransports, b.flow.Network)
	if n < 0 || len(b.uri) > bindingBytesMax {
		return ""
	}
	addr := b.flow.Remote.Addr().WithZone("").AsSlice()
	raw := append([]byte{bindingVersion, byte(n)}, binary.BigEndian.AppendUint16(nil, b.flow.Remote.Port())...)
	raw = append(append(append(raw, byte(len(addr))), addr...), b.uri...)
	return bindingPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

// bindingOf reads a URI of ours that stands for a phone.
func bindingOf(uri string) (b binding, ok bool) {
	u, err := sip.ParseURI(uri)
	if err != nil {
		return b, false
	}
	text, ok := strings.CutPrefix(u.User, bindingPrefix)
	if !ok || len(text) > 2*bindingBytesMax {
		return b, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) < 5 || raw[0] != bindingVersion || int(raw[1]) >= len(bindingTransports) || len(raw) < 5+int(raw[4]) {
		return b, false
	}
	addr, ok := netip.AddrFromSlice(raw[5 : 5+int(raw[4])])
	if !ok {
		return b, false
	}
	b.flow = sip.Flow{Network: bindingTransports[raw[1]], Remote: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(raw[2:]))}
	b.uri = string(raw[5+int(raw[4]):])
	_, b.outbound = u.Params.Get("ob")
	return b, !strings.ContainsFunc(b.uri, notInURI)
}

// notInURI says whether a character would end a URI, or the line that it stands in.
func notInURI(r rune) bool { return r <= ' ' || r == '<' || r == '>' || r == 0x7f }

// phoneOf finds the phone that a request is for: by its Request-URI, or by the
// Route that a Path has become (RFC 3327).
func phoneOf(req *sip.Message) (binding, bool) {
	if b, ok := bindingOf(req.URI); ok {
		return b, true
	}
	routes := req.List("Route")
	if len(routes) == 0 {
		return binding{}, false
	}
	a, err := sip.ParseAddress(routes[0])
	if err != nil {
		return binding{}, false
	}
	return bindingOf(a.URI)
}

// forPhone directs the first request to the phone that it is for; false: it is
// for none, or for one that is not among the peers of the side.
func (c *call) forPhone(req *sip.Message) bool {
	if c.trunk.Registrations == sip.RegistrationsPass || c.side != media.External {
		return false
	}
	b, ok := phoneOf(req)
	if !ok || !c.table.Allows(sip.Peer{Trunk: c.trunk, Side: media.Internal}, b.flow.Remote.Addr()) {
		return false
	}
	if b.uri == "" {
		b.uri = req.URI
	}
	c.phone, c.flows = &b, c.phoneFlows(b, req.Arrival)
	c.hop = sip.NextHop{Host: b.flow.Remote.Addr().String(), Port: int(b.flow.Remote.Port()), Transport: b.flow.Network}
	return true
}

// toPhone says whether a request is for a phone that registered through its trunk.
func (b *B2BUA) toPhone(m *sip.Message) bool {
	peer, ok := (*b.tables.Load())[0].Lookup(m.Flow.Remote)
	if !ok || peer.Trunk.Registrations == sip.RegistrationsPass {
		return false
	}
	_, ok = phoneOf(m)
	return ok && peer.Side == media.External
}

// register makes a phone's REGISTER lead calls to us.
func (c *call) register(out, req *sip.Message, ours netip.AddrPort, network string) {
	if req.Method != sip.Register || c.side != media.Internal {
		return
	}
	lead := func(uri string, params sip.Params) string {
		user := binding{uri: uri, flow: req.Flow}.user()
		if user == "" {
			return ""
		}
		return contactURI(sip.URI{Scheme: "sip", User: user, Params: params}, ours, network)
	}
	switch c.trunk.Registrations {
	case sip.RegistrationsContact:
		eachContact(out, func(uri string) string { return lead(uri, "") })
	case sip.RegistrationsPath:
		uri := lead("", "")
		if uri == "" {
			return
		}
		ob := ""
		if outbound(out) { // RFC 5626 section 5.1: the URI names a flow
			ob = ";ob"
		}
		list := append([]string{"<" + uri + ";lr" + ob + ">"}, out.Fields("Path")...)
		out.Set("Path", list...)
		if supported := out.List("Supported"); !slices.Contains(supported, "path") {
			out.Set("Supported", strings.Join(append(supported, "path"), ", "))
		}
	case sip.RegistrationsPass:
	}
}

// outbound says whether a phone wants flows to be kept (RFC 5626 section 4.2).
func outbound(m *sip.Message) bool {
	for _, v := range m.List("Contact") {
		if a, err := sip.ParseAddress(v); err == nil {
			if _, ok := a.Param("reg-id"); ok {
				return true
			}
		}
	}
	return false
}

// registered shows a phone its own addresses in what the registrar answers, and lets the
// routes that this names lead over us. ours is our address towards the phone.
func (c *call) registered(out *sip.Message, ours netip.AddrPort, network string) {
	if c.method != sip.Register || c.trunk.Registrations == sip.RegistrationsPass {
		return
	}
	if routes := out.List("Service-Route"); len(routes) > 0 && ours.IsValid() {
		for i, r := range routes {
			if a, err := sip.ParseAddress(r); err == nil && len(a.URI) <= bindingBytesMax {
				u := sip.URI{Scheme: "sip", User: servicePrefix + base64.RawURLEncoding.EncodeToString([]byte(a.URI))}
				routes[i] = "<" + contactURI(u, ours, network) + ";lr>"
			}
		}
		out.Set("Service-Route", routes...)
	}
	if c.trunk.Registrations != sip.RegistrationsContact {
		return
	}
	eachContact(out, func(uri string) string {
		b, _ := bindingOf(uri)
		return b.uri
	})
}

// serviceRoutes returns the routes of the registrar that a phone asks for, by what we
// made of them.
func (c *call) serviceRoutes(req *sip.Message) (routes []string) {
	if c.trunk.Registrations == sip.RegistrationsPass || c.side != media.Internal {
		return nil
	}
	for _, v := range req.List("Route") {
		a, err := sip.ParseAddress(v)
		if err != nil {
			return routes
		}
		u, err := sip.ParseURI(a.URI)
		if err != nil {
			return routes
		}
		text, ok := strings.CutPrefix(u.User, servicePrefix)
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if !ok || err != nil || len(raw) > bindingBytesMax || len(routes) == serviceRoutesMax {
			continue
		}
		if _, err := sip.ParseURI(string(raw)); err == nil && !strings.ContainsFunc(string(raw), notInURI) {
			routes = append(routes, "<"+string(raw)+">")
		}
	}
	return routes
}

// eachContact replaces the URIs of a message's Contacts; "" leaves one as it is.
func eachContact(m *sip.Message, of func(uri string) string) {
	list := m.List("Contact")
	for i, v := range list {
		a, err := sip.ParseAddress(v)
		if err != nil {
			continue // "*" and what nobody can read
		}
		if uri := of(a.URI); uri != "" {
			a.URI = uri
			list[i] = a.String()
		}
	}
	if len(list) > 0 {
		m.Set("Contact", list...)
	}
}

// unreachable is what the first request gets when it can go nowhere.
func (c *call) unreachable() (status int, reason string) {
	switch {
	case c.phone != nil && c.phone.outbound:
		return 430, "Flow Failed" // RFC 5626 section 5.3: the registrar tries another one
	case c.phone != nil:
		return 480, "Temporarily Unavailable"
	case len(c.trunk.Sides[c.at(dialog.Callee)].NextHops) == 0:
		return 404, "Not Found"
	}
	return 503, "Service Unavailable"
}
