package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
)

// Trunk joins the two sides between which calls are passed.
type Trunk struct {
	Name  string
	Sides [2]Side // indexed by media.Side

	SRTP *srtp.Config // nil, or off on both sides: descriptions and media pass as they are

	Limits Limits

	// Follow says that redirections of first requests are followed where their
	// targets may be reached. False: they pass to the caller.
	Follow bool

	// Hide keeps each side from seeing the other's Call-IDs, tags and addresses:
	// what is sent to a callee is a dialog of our own. False: Call-ID, tags and
	// CSeq are the same on both sides.
	Hide bool

	// Registrations is how phones of the internal side are reached that register
	// on the external side.
	Registrations Registrations

	Timers SessionTimers

	Headers [2]HeaderRules // by the side that messages go to
}

// Registrar is a binding at a registrar (RFC 3261 section 10).
type Registrar struct {
	Server  NextHop
	Contact string        // user part; empty: that of the credentials
	Expires time.Duration // asked for
}

// Limits of a trunk; 0: none.
type Limits struct {
	CallsMax             int // going on at once
	CallsPerSecondMax    int // begun
	InDialogPerSecondMax int // requests inside of calls, but for those that end or complete something
}

// Registrations says what becomes of a REGISTER from the internal side.
type Registrations string

// What becomes of it.
const (
	RegistrationsPass    Registrations = ""        // it passes; calls to the phone take another way
	RegistrationsContact Registrations = "contact" // its Contact leads to us
	RegistrationsPath    Registrations = "path"    // a Path leads to us (RFC 3327)
)

// Side is one side of a trunk.
type Side struct {
	// Peers are the sources that may send on this side. The addresses of
	// NextHops may as well, without being listed.
	Peers []netip.Prefix
	// NextHops get the calls that go out on this side, the first that answers.
	NextHops []NextHop
	// Address is our address in Via and Contact towards this side. Zero: the
	// address of the listener; where that listens on all, the one that the
	// routing table gives for the peer.
	Address netip.Addr
	// MediaAddr is the address advertised in SDP towards this side.
	MediaAddr netip.Addr
	// MediaBind is the address that the relay binds; zero: MediaAddr.
	MediaBind netip.Addr
	// ICELite answers the connectivity checks of peers that speak ICE, as an agent
	// with one candidate (RFC 8445 section 2.5). Else they hear nothing of ICE.
	ICELite bool

	// Auth answers challenges of this side; nil: they pass to the requester.
	Auth *Credentials
	// Gate challenges those who begin something from this side; nil: nobody is.
	Gate *Gate
	// Register is the binding that is kept up at a registrar of this side, by
	// Auth; nil: none.
	Register *Registrar
	// RedirectHosts are names that redirections may lead to beside those of peers
	// and next hops: "sip2.example.net", or "*.example.net".
	RedirectHosts []string
	// Ping says how the next hops are asked whether they are there.
	Ping Ping
	// TLS is what connections that are opened to this side are like; nil: Config.TLS.
	TLS *ClientTLS
	// PeerName is the name that the certificate of whoever connects from this side
	// by TLS must have; empty: any that the listener takes.
	PeerName string
}

// NextHop is where requests are sent.
type NextHop struct {
	Host      string // name or address, without brackets
	Port      int    // 0: what SRV says, else the port of the transport
	Transport string // udp, tcp, tls, ws or wss; empty: what NAPTR and SRV say, else udp

	Priority int // the lowest are tried first; 0: the place in the list, from 1
	Weight   int // share among those of one priority; 0: 1
}

// ParseNextHop reads "sip:host[:port][;transport=udp|tcp|tls|ws|wss]", "sips:" meaning tls.
func ParseNextHop(s string) (NextHop, error) {
	u, err := ParseURI(s)
	if err != nil {
		return NextHop{}, fmt.Errorf("next hop %q: %w (write sip:host:port;transport=udp)", s, err)
	}
	h := NextHop{Host: u.Host, Port: u.Port, Transport: "udp"}
	if strings.EqualFold(u.Scheme, "sips") {
		h.Transport = "tls"
	}
	if t, ok := u.Params.Get("transport"); ok {
		h.Transport = strings.ToLower(t)
	}
	if !knownNetwork(h.Transport) {
		return NextHop{}, fmt.Errorf("next hop %q: transport %q is not udp, tcp, tls, ws or wss", s, h.Transport)
	}
	return h, nil
}

// port returns the port to send to (RFC 3263 section 4.2, without SRV).
func (h NextHop) port() uint16 {
	if h.Port != 0 {
		return uint16(h.Port)
	}
	return DefaultPort(h.Transport)
}

// DefaultPort is the port of a transport (RFC 3261 section 19.1.2, RFC 7118 section 5.4).
func DefaultPort(network string) uint16 {
	switch network {
	case "tls":
		return 5061
	case "ws":
		return 80
	case "wss":
		return 443
	}
	return 5060
}

// URI is the URI of a user at h; without one, of h itself.
func (h NextHop) URI(user string) string {
	if user != "" {
		user += "@"
	}
	uri := "sip:" + user + joinHostPort(h.Host, h.Port)
	switch h.Transport {
	case "udp", "":
		return uri
	case "wss":
		return uri + ";transport=ws" // RFC 7118 section 5.4
	}
	return uri + ";transport=" + h.Transport
}

// String writes h as ParseNextHop reads it.
func (h NextHop) String() string {
	if h.Transport == "" {
		return "sip:" + joinHostPort(h.Host, h.Port)
	}
	return "sip:" + joinHostPort(h.Host, h.Port) + ";transport=" + h.Transport
}

func knownNetwork(s string) bool {
	return s == "udp" || s == "tcp" || s == "tls" || s == "ws" || s == "wss"
}

// secured says whether a transport runs over TLS.
func secured(network string) bool { return network == "tls" || network == "wss" }

// framed says whether a transport brings whole messages in frames of WebSocket.
func framed(network string) bool { return network == "ws" || network == "wss" }

// Validate lists every fault of t.
func (t *Trunk) Validate() error {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("trunk %q: "+format, append([]any{t.Name}, args...)...))
	}
	if t.Name == "" {
		fault("has no name")
	}
	if t.SRTP != nil {
		if err := t.SRTP.Validate(); err != nil {
			fault("%w", err)
		}
	}
	for i := range t.Headers {
		for what, e := range map[string]*HeaderEdit{"requests": &t.Headers[i].Requests, "responses": &t.Headers[i].Responses} {
			if err := e.Validate(); err != nil {
				fault("%s to the %s side: %w", what, media.Side(i), err)
			}
		}
	}
	for i := range t.Sides {
		s, side := &t.Sides[i], media.Side(i)
		if len(s.NextHops) == 0 && (side == media.External || t.Registrations == RegistrationsPass) {
			fault("%s side has no next hop", side)
		}
		if !s.MediaAddr.IsValid() {
			fault("%s side has no media address", side)
		}
		for _, p := range s.Peers {
			if !p.IsValid() {
				fault("%s side has a peer that is no prefix", side)
			}
		}
		for _, h := range s.NextHops {
			if h.Host == "" || h.Port < 0 || h.Port > 65535 || h.Transport != "" && !knownNetwork(h.Transport) {
				fault("%s side has a next hop without host, port from 1 to 65535 and known transport: %+v", side, h)
			}
		}
	}
	return errors.Join(errs...)
}

// Peer is what a source address stands for.
type Peer struct {
	Trunk *Trunk
	Side  media.Side
}

// Table tells trunk and side by source address: the access list. It is not
// changed once made, but for the addresses that the names of next hops resolve to.
type Table struct {
	trunks []Trunk
	exact  map[netip.AddrPort]Peer // next hops given as addresses
	rows   []tableRow

	mu       sync.RWMutex
	resolved map[netip.Addr]Peer // guarded by mu
}

type tableRow struct {
	prefix netip.Prefix
	peer   Peer
}

// resolvedMax bounds the addresses learnt from DNS.
const resolvedMax = 1024

// NewTable makes the access list of trunks.
func NewTable(trunks []Trunk) (*Table, error) {
	t := &Table{
		trunks:   append([]Trunk(nil), trunks...),
		exact:    map[netip.AddrPort]Peer{},
		resolved: map[netip.Addr]Peer{},
	}
	var errs []error
	names := map[string]bool{}
	for i := range t.trunks {
		trunk := &t.trunks[i]
		errs = append(errs, trunk.Validate())
		for j := range trunk.Sides {
			trunk.Sides[j].NextHops = Ranked(trunk.Sides[j].NextHops)
		}
		if names[trunk.Name] {
			errs = append(errs, fmt.Errorf("trunk %q: the name is taken by an earlier trunk", trunk.Name))
		}
		names[trunk.Name] = true
		t.add(trunk)
	}
	return t, errors.Join(errs...)
}

func (t *Table) add(trunk *Trunk) {
	for i := range trunk.Sides {
		p := Peer{trunk, media.Side(i)}
		for _, prefix := range trunk.Sides[i].Peers {
			if prefix.IsValid() {
				t.rows = append(t.rows, tableRow{prefix.Masked(), p})
			}
		}
		for _, h := range trunk.Sides[i].NextHops {
			addr, err := netip.ParseAddr(h.Host)
			if err != nil {
				continue
			}
			addr = addr.Unmap().WithZone("")
			if _, taken := t.exact[netip.AddrPortFrom(addr, h.port())]; !taken {
				t.exact[netip.AddrPortFrom(addr, h.port())] = p
			}
			t.rows = append(t.rows, tableRow{netip.PrefixFrom(addr, addr.BitLen()), p})
		}
	}
}

// Lookup tells to which trunk and side a source belongs. Where several fit, a
// next hop's address and port goes before prefixes, a longer prefix before a
// shorter one and an earlier trunk before a later one.
func (t *Table) Lookup(src netip.AddrPort) (Peer, bool) {
	addr := src.Addr().Unmap().WithZone("")
	if p, ok := t.exact[netip.AddrPortFrom(addr, src.Port())]; ok {
		return p, true
	}
	best := -1
	for i := range t.rows {
		if r := &t.rows[i]; r.prefix.Contains(addr) && (best < 0 || r.prefix.Bits() > t.rows[best].prefix.Bits()) {
			best = i
		}
	}
	if best >= 0 {
		return t.rows[best].peer, true
	}
	t.mu.RLock()
	p, ok := t.resolved[addr]
	t.mu.RUnlock()
	return p, ok
}

// Allows says whether addr may be sent to as a peer of that side.
func (t *Table) Allows(peer Peer, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for i := range t.rows {
		if r := &t.rows[i]; r.peer == peer && r.prefix.Contains(addr) {
			return true
		}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.resolved[addr] == peer
}

// Learn lets the addresses of a next hop's name in.
func (t *Table) Learn(peer Peer, addrs []netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		if _, known := t.resolved[a]; !known && len(t.resolved) < resolvedMax {
			t.resolved[a] = peer
		}
	}
}

// Trunks returns the trunks in their order.
func (t *Table) Trunks() []Trunk { return t.trunks }
