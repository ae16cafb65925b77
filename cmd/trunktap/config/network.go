package config

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

const listenPattern = `^(udp|tcp|tls|ws|wss)://(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]+$`

func sipListener(target *Listener) *node {
	want := "udp://, tcp://, tls://, ws:// or wss://, an IP address (IPv6 in brackets) and a port, such as udp://0.0.0.0:5060"
	return leaf(target, want, map[string]any{"type": "string", "pattern": listenPattern}, func(s scalar) (Listener, *wrong) {
		scheme, rest, ok := strings.Cut(s.text, "://")
		if s.kind != stringScalar || !ok {
			return Listener{}, wrongf("%v is no listening address", s)
		}
		switch scheme {
		case "udp", "tcp", "tls", "ws", "wss":
		default:
			return Listener{}, wrongf("transport %q is not known", scheme)
		}
		a, w := parseAddrPort(rest)
		return Listener{scheme, a}, w
	})
}

// parseAddrPort parses address:port with a port that is not 0.
func parseAddrPort(text string) (netip.AddrPort, *wrong) {
	a, err := netip.ParseAddrPort(text)
	switch {
	case err != nil && strings.Count(text, ":") > 1 && !strings.HasPrefix(text, "["):
		return a, wrongf("%q is no address and port, an IPv6 address stands in brackets", text)
	case err != nil:
		return a, wrongf("%q is no IP address and port", text)
	case a.Port() == 0:
		return a, wrongf("port 0 in %q", text)
	case a.Addr().Zone() != "" || a.Addr().IsMulticast():
		return a, wrongf("%q cannot be listened on", text)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

func httpListener(target *netip.AddrPort, loopbackOnly bool) *node {
	want := "an IP address and a port such as 127.0.0.1:8080, or none"
	if loopbackOnly {
		want = "a loopback address and a port such as 127.0.0.1:6060, or none"
	}
	return leaf(target, want, map[string]any{"type": "string", "minLength": 1}, func(s scalar) (netip.AddrPort, *wrong) {
		if s.kind != stringScalar {
			return netip.AddrPort{}, wrongf("%v is no IP address and port", s)
		}
		if s.text == "none" {
			return netip.AddrPort{}, nil
		}
		a, w := parseAddrPort(s.text)
		if w == nil && loopbackOnly && !a.Addr().IsLoopback() {
			w = wrongf("%s is reachable from outside", a)
		}
		return a, w
	})
}

// interfaceName is a name that the kernel takes (dev_valid_name).
func interfaceName(target *string) *node {
	const most = 15
	schema := map[string]any{"type": "string", "pattern": `^[^/\\s:]{1,15}$`}
	return leaf(target, "the name of a network interface such as eth0", schema, func(s scalar) (string, *wrong) {
		if s.kind != stringScalar || s.text == "" || len(s.text) > most || s.text == "." || s.text == ".." || strings.ContainsAny(s.text, "/: \t\r\n\v\f\x00") {
			return "", wrongf("%v is no name of an interface", s)
		}
		return s.text, nil
	})
}

func peer(target *netip.Prefix) *node {
	want := "an IP address or a network in CIDR form, such as 198.51.100.0/24"
	return leaf(target, want, map[string]any{"type": "string", "minLength": 2}, func(s scalar) (netip.Prefix, *wrong) {
		if a, err := netip.ParseAddr(s.text); err == nil && a.Zone() == "" && s.kind == stringScalar {
			return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
		}
		p, err := netip.ParsePrefix(s.text)
		switch {
		case err != nil || s.kind != stringScalar:
			return p, wrongf("%v is no address and no network", s)
		case p.Addr().Is4In6():
			return p, wrongf("%v is an IPv4 network in IPv6 form, write it as IPv4", s)
		case p != p.Masked():
			return p, wrongf("%s has bits set behind /%d, did you mean %s or %s/%d?", p, p.Bits(), p.Masked(), p.Addr(), p.Addr().BitLen())
		}
		return p, nil
	})
}

var portsShape = regexp.MustCompile(`^([0-9]{1,5})-([0-9]{1,5})$`)

func ports(target *PortRange) *node {
	want := "a range of at least 4 ports that begins even and ends odd, from 1024 to 65535, such as 20000-29999"
	return leaf(target, want, map[string]any{"type": "string", "pattern": portsShape.String()}, func(s scalar) (PortRange, *wrong) {
		m := portsShape.FindStringSubmatch(s.text)
		if m == nil || s.kind != stringScalar {
			return PortRange{}, wrongf("%v is no range of ports", s)
		}
		first, err1 := strconv.ParseUint(m[1], 10, 16)
		last, err2 := strconv.ParseUint(m[2], 10, 16)
		switch {
		case err1 != nil || err2 != nil:
			return PortRange{}, wrongf("%v goes beyond port 65535", s)
		case first < 1024:
			return PortRange{}, wrongf("%v begins among the privileged ports", s)
		case first%2 != 0:
			return PortRange{}, wrongf("%v begins at an odd port, RTP takes the even one of a pair", s)
		case last%2 == 0:
			return PortRange{}, wrongf("%v ends at an even port, its RTCP would lie outside", s)
		case last < first+portsPerCall-1:
			return PortRange{}, wrongf("%v has no room for one call", s)
		}
		return PortRange{uint16(first), uint16(last)}, nil
	})
}

const (
	nextHopWant    = "sip:host[:port][;transport=udp|tcp|tls|ws|wss], an IPv6 address in brackets, such as sip:sbc.example.net:5060;transport=udp"
	nextHopPattern = `^sip:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(;transport=(udp|tcp|tls|ws|wss|UDP|TCP|TLS|WS|WSS))?$`
)

var (
	nextHopShape = regexp.MustCompile(nextHopPattern)
	hostShape    = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.?$`)
	digitsOnly   = regexp.MustCompile(`^[0-9.]+$`)
)

func nextHop(target *NextHop) *node {
	return leaf(target, nextHopWant, map[string]any{"type": "string", "pattern": nextHopPattern}, func(s scalar) (NextHop, *wrong) {
		if s.kind != stringScalar {
			return NextHop{}, wrongf("%v is no SIP URI", s)
		}
		m := nextHopShape.FindStringSubmatch(s.text)
		if m == nil {
			return NextHop{}, nextHopFault(s)
		}
		h := NextHop{Host: strings.Trim(m[1], "[]")}
		if m[2] != "" {
			p, err := strconv.ParseUint(m[2][1:], 10, 16)
			if err != nil || p == 0 {
				return NextHop{}, wrongf("port %s in %v is no port", m[2][1:], s)
			}
			h.Port = uint16(p)
		}
		if m[4] != "" {
			h.Transport = strings.ToLower(m[4])
		}
		a, err := netip.ParseAddr(h.Host)
		switch {
		case err == nil && (a.IsUnspecified() || a.IsMulticast()):
			return NextHop{}, wrongf("%s cannot be sent to", a)
		case err == nil:
			h.Host = a.Unmap().String()
			h = h.plain()
		case m[1][0] == '[' || digitsOnly.MatchString(h.Host) || !hostShape.MatchString(h.Host) || len(h.Host) > 253:
			return NextHop{}, wrongf("%q in %v is no host name and no address", m[1], s)
		case h.Port != 0 && h.Transport == "":
			h.Transport = "udp" // RFC 3263 section 4.1
		}
		return h, nil
	})
}

// nextHopFault says why a text is no next hop.
func nextHopFault(s scalar) *wrong {
	t := strings.ToLower(s.text)
	switch {
	case strings.HasPrefix(t, "sips:"):
		return wrongf("%v is no next hop, write sip: and ;transport=tls", s)
	case !strings.HasPrefix(t, "sip:"):
		return wrongf("%v is no SIP URI", s)
	case strings.Contains(t, "@"):
		return wrongf("%v names a user, calls keep the user they came with", s)
	case strings.Count(t, ":") > 2 && !strings.Contains(t, "["):
		return wrongf("%v holds an IPv6 address without brackets", s)
	}
	return wrongf("%v is no next hop", s)
}

// defaultPort is the port of a transport (RFC 3261 section 19.1.2, RFC 7118 section 5.4).
func defaultPort(transport string) uint16 {
	switch transport {
	case "tls":
		return 5061
	case "ws":
		return 80
	case "wss":
		return 443
	}
	return 5060
}

// peerName is a name that a certificate has: of a host, or an address.
func peerName(target *string) *node {
	schema := map[string]any{"type": "string", "minLength": 1}
	return leaf(target, "a host name or an IP address, such as sbc.example.net", schema, func(s scalar) (string, *wrong) {
		_, err := netip.ParseAddr(s.text)
		if s.kind != stringScalar || err != nil && (!hostShape.MatchString(s.text) || digitsOnly.MatchString(s.text)) {
			return "", wrongf("%v is no host name and no address", s)
		}
		return s.text, nil
	})
}

// hostPattern is the name of a host, or *. and a domain.
func hostPattern(target *string) *node {
	schema := map[string]any{"type": "string", "minLength": 1}
	return leaf(target, `a host name, or "*." and a domain`, schema, func(s scalar) (string, *wrong) {
		name := strings.TrimPrefix(s.text, "*.")
		if s.kind != stringScalar || !hostShape.MatchString(name) || digitsOnly.MatchString(name) {
			return "", wrongf("%v is no host name", s)
		}
		return strings.ToLower(strings.TrimSuffix(s.text, ".")), nil
	})
}

// dnsServer is the address of a server, with a port when that is not 53.
func dnsServer(target *netip.AddrPort) *node {
	return leaf(target, "an IP address, with a port when that is not 53, such as 192.0.2.53", map[string]any{"type": "string", "minLength": 2},
		func(s scalar) (netip.AddrPort, *wrong) {
			if a, err := netip.ParseAddr(s.text); err == nil && s.kind == stringScalar && a.Zone() == "" {
				return netip.AddrPortFrom(a.Unmap(), 53), nil
			}
			if s.kind != stringScalar {
				return netip.AddrPort{}, wrongf("%v is no IP address", s)
			}
			return parseAddrPort(s.text)
		})
}

// IP returns the address of a next hop that is given as one.
func (h NextHop) IP() (netip.Addr, bool) {
	a, err := netip.ParseAddr(h.Host)
	return a, err == nil
}

// plain is h for those who do not ask DNS for more than addresses.
func (h NextHop) plain() NextHop {
	if h.Transport == "" {
		h.Transport = "udp"
	}
	if h.Port == 0 {
		h.Port = defaultPort(h.Transport)
	}
	return h
}

// String returns the next hop as a SIP URI.
func (h NextHop) String() string {
	host := h.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if h.Port != 0 {
		host += ":" + strconv.Itoa(int(h.Port))
	}
	if h.Transport == "" {
		return "sip:" + host
	}
	return "sip:" + host + ";transport=" + h.Transport
}
