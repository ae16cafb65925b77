package sdp

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Target is where the other side is to send the media of one m= line. With an
// invalid Addr the media description is not anchored and stays as it is.
type Target struct {
	Addr netip.Addr
	Port uint16

	// RTCPPort is written into an a=rtcp that is there; no line is added. 0
	// means: Port when the line named the RTP port, else the port above it.
	RTCPPort uint16

	Protection *Protection // nil: that of the description stays

	Refused bool // the line gets port 0: the other side is not to use it

	// ICE are attributes of ICE that the section ends with; the session gets ice-lite.
	ICE []string
}

// Protection is what an m= section says about the protection of its media, in
// place of what it said: a=crypto, a=fingerprint, a=setup and a=tls-id. Other
// configurations that the section proposes by capability negotiation (RFC 5939) are
// left out with those: they are of the other party's protection.
type Protection struct {
	Profile    string   // of the m= line
	Attributes []string // "name:value", without "a="
	Refused    bool     // the line gets port 0
}

func (t Target) anchored() bool { return t.Addr.IsValid() }

// iceAttributes are dropped where media is anchored: the candidates are not
// ours, and without them the far end uses c= and m= (RFC 8839 section 4.2.5).
var iceAttributes = []string{
	"candidate", "remote-candidates", "end-of-candidates",
	"ice-ufrag", "ice-pwd", "ice-options", "ice-lite", "ice-mismatch", "ice-pacing",
}

// Rewrite returns the description with the addresses of the targets, by index
// of the m= lines; there may be fewer targets than m= lines. It changes c=,
// the port of m= and a=rtcp, drops ICE attributes, and writes the protection that
// a target has; every other byte stays. Where a target has one, the attributes of
// protection of the session move into the sections that go on needing them.
// A zero c= (the hold of RFC 2543) stays zero and a port of 0 stays 0. Where
// the session's c= cannot serve all m= lines, an anchored one gets its own.
func (d *Description) Rewrite(targets []Target) []byte {
	return d.RewriteFrom(netip.Addr{}, targets)
}

// naming are attributes that name addresses beside those that are rewritten: of MSRP
// (RFC 4975), source filters (RFC 4570), other addresses (RFC 6947, 6871).
var naming = []string{"path", "msrp-cema", "source-filter", "altc", "alt", "ccap", "x-nat"}

// RewriteFrom is Rewrite that also names origin, when it is valid, as the address of
// who made the session (o=), and leaves out what else names addresses: u= and such
// attributes. The session's id and version stay.
func (d *Description) RewriteFrom(origin netip.Addr, targets []Target) []byte {
	r := rewriter{d: d, targets: targets, origin: origin, out: make([]byte, 0, len(d.body)+64)}
	r.protects = slices.ContainsFunc(targets, func(t Target) bool { return t.Protection != nil })
	session := r.sessionAddr()
	for _, l := range d.lines[:d.session.to] {
		r.sessionLine(l, session)
	}
	if slices.ContainsFunc(targets, func(t Target) bool { return len(t.ICE) > 0 }) {
		r.insert("a=ice-lite")
	}
	for i, part := range d.parts {
		t := r.target(i)
		switch {
		case t.anchored():
			r.part(i, part, t, session)
		case t.Protection != nil: // a refused line
			r.mLine(d.lines[part.from], t)
			for _, l := range d.lines[part.from+1 : part.to] {
				if !d.isProtection(l) && !d.isCapability(l) {
					r.copy(l)
				}
			}
		default:
			r.copy(d.lines[part.from:part.to]...)
		}
		r.protection(i, t)
		for _, attr := range t.ICE {
			r.insert("a=" + attr)
		}
	}
	return r.out
}

type rewriter struct {
	d       *Description
	targets []Target
	origin  netip.Addr
	out     []byte

	protects bool // some target has a protection
}

// protection ends a section with what is to be said about its protection: what its
// target has, or what it had from the session.
func (r *rewriter) protection(i int, t Target) {
	if t.Protection != nil {
		for _, attr := range t.Protection.Attributes {
			r.insert("a=" + attr)
		}
		return
	}
	if !r.protects || !r.d.media[i].Secure {
		return
	}
	session, own := r.d.Protection(i)
	for _, attr := range session {
		name, _ := attribute(attr)
		if !slices.ContainsFunc(own, func(a string) bool { n, _ := attribute(a); return n == name }) {
			r.insert("a=" + attr)
		}
	}
}

func (r *rewriter) target(i int) Target {
	if i < len(r.targets) {
		return r.targets[i]
	}
	return Target{}
}

func (r *rewriter) copy(lines ...line) {
	for _, l := range lines {
		r.out = append(r.out, r.d.body[l.start:l.next]...)
	}
}

// replace writes a line with other content and its own line end.
func (r *rewriter) replace(l line, content string) {
	r.out = append(r.out, content...)
	r.out = append(r.out, r.d.body[l.end:l.next]...)
}

// sessionAddr decides what becomes of the session's c=: the address that all
// m= lines which inherit it are anchored at (or all m= lines, when none
// inherits it); invalid when they differ, for then it stays.
func (r *rewriter) sessionAddr() netip.Addr {
	if conn := r.d.conn; !conn.given || conn.addr.IsUnspecified() {
		return netip.Addr{}
	}
	var space [2][4]netip.Addr
	inherit, all := space[0][:0], space[1][:0]
	for i, part := range r.d.parts {
		if r.d.media[i].Rejected {
			continue
		}
		all = append(all, r.target(i).Addr)
		if !part.ownConn {
			inherit = append(inherit, r.target(i).Addr)
		}
	}
	if len(inherit) == 0 {
		inherit = all
	}
	if len(inherit) == 0 || slices.ContainsFunc(inherit, func(a netip.Addr) bool { return a != inherit[0] }) {
		return netip.Addr{}
	}
	return inherit[0]
}

func (r *rewriter) sessionLine(l line, addr netip.Addr) {
	typ, value := r.d.field(l)
	switch {
	case typ == 'o' && r.origin.IsValid():
		r.originLine(l, value)
	case r.names(typ, value):
	case typ == 'c' && addr.IsValid() && !isZero(value):
		r.replace(l, connectionLine(addr))
	case r.protects && r.d.isProtection(l):
	case typ == 'a' && isICE(value) && slices.ContainsFunc(r.targets, Target.anchored):
	default:
		r.copy(l)
	}
}

// names says whether a line is left out because it names addresses of the other side.
func (r *rewriter) names(typ byte, value string) bool {
	if !r.origin.IsValid() {
		return false
	}
	name, _ := attribute(value)
	return typ == 'u' || typ == 'a' && slices.Contains(naming, strings.ToLower(name))
}

// originLine names another address in "o=user id version IN IP4 address".
func (r *rewriter) originLine(l line, value string) {
	f := strings.Fields(value)
	if len(f) != 6 {
		r.copy(l)
		return
	}
	r.replace(l, "o="+strings.Join(f[:3], " ")+" "+strings.TrimPrefix(connectionLine(r.origin), "c="))
}

// part writes one anchored media description.
func (r *rewriter) part(i int, part section, t Target, session netip.Addr) {
	m := r.d.media[i]
	needs := !part.ownConn && !m.Zero && !m.Rejected && session != t.Addr
	lines := r.d.lines[part.from:part.to]
	r.mLine(lines[0], t)
	lines = lines[1:]
	for len(lines) > 0 && needs { // i= comes before c= (RFC 8866 section 9)
		if typ, _ := r.d.field(lines[0]); typ != 'i' {
			break
		}
		r.copy(lines[0])
		lines = lines[1:]
	}
	if needs {
		r.insert(connectionLine(t.Addr))
	}
	for _, l := range lines {
		typ, value := r.d.field(l)
		name, rest := attribute(value)
		switch {
		case typ == 'c' && !isZero(value):
			r.replace(l, connectionLine(t.Addr))
		case typ == 'a' && isICE(value), r.names(typ, value):
		case t.Protection != nil && (r.d.isProtection(l) || r.d.isCapability(l)):
		case typ == 'a' && name == "rtcp":
			r.replace(l, rtcpLine(rest, t, m.Port))
		default:
			r.copy(l)
		}
	}
}

// insert adds a line with the line end of the one before, or CRLF before it
// when that was the last of the body and had none.
func (r *rewriter) insert(content string) {
	eol := "\r\n"
	switch n := len(r.out); {
	case r.out[n-1] != '\n':
		r.out = append(append(r.out, eol...), content...)
		return
	case r.out[n-2] != '\r': // a v= line at least is there
		eol = "\n"
	}
	r.out = append(append(r.out, content...), eol...)
}

func (r *rewriter) mLine(l line, t Target) {
	_, value := r.d.field(l)
	m := parseMLine(value)
	port, rest := value[:m.portTo], value[m.portTo:]
	switch {
	case t.Refused, t.Protection != nil && t.Protection.Refused:
		port = value[:m.portAt] + "0"
	case m.port != 0 && t.anchored():
		port = value[:m.portAt] + strconv.Itoa(int(t.Port))
	}
	if t.Protection != nil && m.proto != "" {
		rest = strings.Replace(rest, m.proto, t.Protection.Profile, 1)
	}
	r.replace(l, "m="+port+rest)
}

func rtcpLine(value string, t Target, was uint16) string {
	fields := strings.Fields(value)
	port := t.RTCPPort
	if port == 0 {
		port = t.Port + 1
		if len(fields) > 0 && fields[0] == strconv.Itoa(int(was)) {
			port = t.Port
		}
	}
	out := "a=rtcp:" + strconv.Itoa(int(port))
	switch {
	case len(fields) < 4:
		return out
	case isZero(strings.Join(fields[1:], " ")):
		return out + " " + strings.Join(fields[1:], " ")
	}
	return out + " " + strings.TrimPrefix(connectionLine(t.Addr), "c=")
}

func isZero(connection string) bool {
	return parseConnection(connection).addr.IsUnspecified()
}

func isICE(attr string) bool {
	name, _ := attribute(attr)
	return slices.Contains(iceAttributes, name)
}

func connectionLine(addr netip.Addr) string {
	if addr = addr.Unmap(); addr.Is4() {
		return "c=IN IP4 " + addr.String()
	}
	return "c=IN IP6 " + addr.WithZone("").String()
}
