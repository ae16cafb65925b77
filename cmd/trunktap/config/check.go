package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// check holds what no key can tell alone. Keys that were faulty themselves
// are zero and are passed over.
func (d *decoder) check(c *Config) {
	d.checkListeners(c)
	d.checkTransport(c)
	d.checkAuth(c)
	d.checkNames(c)
	for i := range c.Trunks {
		t := &c.Trunks[i]
		for j, s := range t.Sides() {
			path := fmt.Sprintf("trunks[%d].%s", i, [2]string{"external", "internal"}[j])
			d.defaultPeers(path, s)
			if !t.Passive {
				d.checkHops(path, s, c, j == 1 && t.Registrations != "pass")
			}
			d.checkSRTP(path, s)
		}
		d.checkPassing(fmt.Sprintf("trunks[%d]", i), &t.Passing)
		d.checkPassive(fmt.Sprintf("trunks[%d]", i), t, c)
	}
	d.checkOverlaps(c)
	d.checkPorts(c)
	d.checkPaths(c)
	d.checkStorage(c)
	d.checkRetention(c)
	d.checkCapture(c)
	d.checkSignals(c)
	d.checkSIPREC(c)
	d.checkKeys(c)
}

// position returns where the value of a path begins, or of the nearest path
// above it that stands in the file.
func (d *decoder) position(path string) position {
	for {
		if at, ok := d.at[path]; ok {
			return at
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			return position{1, 1}
		}
		path = path[:cut]
	}
}

func (d *decoder) faultAt(path, problem, allowed string) {
	d.fault(d.position(path), path, problem, allowed)
}

// checkSRTP looks for suites that stand there twice or that the method cannot use.
func (d *decoder) checkSRTP(path string, s *Side) {
	usable := len(s.SRTPSuites) == 0
	for i, suite := range s.SRTPSuites {
		usable = usable || !strings.HasPrefix(suite, "AES_256_CM")
		if slices.Contains(s.SRTPSuites[:i], suite) {
			d.faultAt(fmt.Sprintf("%s.srtp_suites[%d]", path, i), suite+" stands there twice", "once")
		}
	}
	if s.SRTPMethod == "dtls" && !usable {
		d.faultAt(path+".srtp_suites", "none of them can be used with srtp_method: dtls", "one with GCM or AES_CM_128 as well")
	}
}

func (d *decoder) checkListeners(c *Config) {
	seen := map[Listener]bool{}
	for i, l := range c.SIP.Listen {
		if l.Addr.IsValid() && seen[l] {
			d.faultAt(fmt.Sprintf("sip.listen[%d]", i), fmt.Sprintf("%s stands there twice", l), "once")
		}
		seen[l] = true
		if p := l.Addr.Port(); l.Transport == "udp" && p >= c.Media.Ports.First && p <= c.Media.Ports.Last {
			d.faultAt(fmt.Sprintf("sip.listen[%d]", i), fmt.Sprintf("port %d lies among media.ports", p), "a port outside them")
		}
	}
	web := []struct {
		path string
		addr netip.AddrPort
	}{{"api.listen", c.API.Listen}, {"pprof.listen", c.PProf.Listen}}
	for i, w := range web {
		for j, l := range c.SIP.Listen {
			if l.Transport != "udp" && clash(l.Addr, w.addr) {
				d.faultAt(w.path, fmt.Sprintf("%s is taken by sip.listen[%d]", w.addr, j), "a port of its own")
			}
		}
		for _, o := range web[:i] {
			if clash(o.addr, w.addr) {
				d.faultAt(w.path, fmt.Sprintf("%s is taken by %s", w.addr, o.path), "a port of its own")
			}
		}
	}
}

// clash tells whether two sockets of one protocol cannot be open together.
func clash(a, b netip.AddrPort) bool {
	if !a.IsValid() || !b.IsValid() || a.Port() != b.Port() {
		return false
	}
	return a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified()
}

func (d *decoder) checkNames(c *Config) {
	first := map[string]int{}
	for i := range c.Trunks {
		name := c.Trunks[i].Name
		if j, ok := first[name]; ok && name != "" {
			d.faultAt(fmt.Sprintf("trunks[%d].name", i), fmt.Sprintf("%q is the name of trunks[%d]", name, j), "a name of its own")
			continue
		}
		first[name] = i
	}
}

// defaultPeers takes the next hops for peers when there are none.
func (d *decoder) defaultPeers(path string, s *Side) {
	if _, given := d.at[path+".peers"]; given || len(s.Peers) > 0 {
		return
	}
	for i, h := range s.NextHops {
		a, ok := h.IP()
		if !ok {
			if h.Host != "" {
				d.faultAt(path+".peers", fmt.Sprintf("the key is missing, and next_hops[%d] is a name, whose addresses may change", i),
					"a list, each an IP address or a network in CIDR form")
			}
			s.Peers = nil
			return
		}
		if p := netip.PrefixFrom(a, a.BitLen()); !slices.Contains(s.Peers, p) {
			s.Peers = append(s.Peers, p)
		}
	}
}

// checkHops demands a socket of the right kind for each next hop: SIP over
// UDP is sent from the port that it is taken from (RFC 3581). phones: those that
// register need none.
func (d *decoder) checkHops(path string, s *Side, c *Config, phones bool) {
	if phones && !d.given(path+".next_hops") {
		if d.given(path) && len(s.Peers) == 0 && !d.given(path+".peers") {
			d.faultAt(path+".peers", "the key is missing, and there are no next_hops that stand for it", "a list, each an IP address or a network in CIDR form")
		}
		return
	}
	if d.given(path) && !d.given(path+".next_hops") {
		d.faultAt(path+".next_hops", "the key is missing", "a list, each "+nextHopWant)
	}
	seen := map[string]bool{}
	for i, h := range s.NextHops {
		if h.Host == "" {
			continue
		}
		at := fmt.Sprintf("%s.next_hops[%d]", path, i)
		if seen[h.String()] {
			d.faultAt(at, h.String()+" stands there twice", "once")
		}
		seen[h.String()] = true
		if len(c.SIP.Listen) > 0 && !slices.ContainsFunc(c.SIP.Listen, func(l Listener) bool { return l.reaches(h) }) {
			d.faultAt(at, "no entry of sip.listen can reach it", "a next hop of a transport and address family that sip.listen has")
		}
	}
}

// reaches tells whether the next hop has the listener's transport and family.
func (l Listener) reaches(h NextHop) bool {
	if !l.Addr.IsValid() {
		return true // faulty itself, said elsewhere
	}
	a, ok := h.IP()
	if h.Transport != "" && l.Transport != h.Transport {
		return false
	}
	dual := l.Addr.Addr().Is6() && l.Addr.Addr().IsUnspecified()
	return !ok || dual || a.Is4() == l.Addr.Addr().Is4()
}

// checkOverlaps demands that an address belongs to one side of one trunk:
// nothing else tells where a call comes from.
func (d *decoder) checkOverlaps(c *Config) {
	type entry struct {
		prefix netip.Prefix
		path   string
	}
	var all []entry
	for i := range c.Trunks {
		for j, s := range c.Trunks[i].Sides() {
			for k, p := range s.Peers {
				if p.IsValid() {
					all = append(all, entry{p, fmt.Sprintf("trunks[%d].%s.peers[%d]", i, [2]string{"external", "internal"}[j], k)})
				}
			}
		}
	}
	// Sorted by address and with wider networks first, what overlaps an entry
	// is a network that was opened before it and has not ended yet.
	slices.SortStableFunc(all, func(a, b entry) int {
		if n := a.prefix.Addr().Compare(b.prefix.Addr()); n != 0 {
			return n
		}
		return a.prefix.Bits() - b.prefix.Bits()
	})
	var open []entry
	for _, e := range all {
		for len(open) > 0 && !open[len(open)-1].prefix.Overlaps(e.prefix) {
			open = open[:len(open)-1]
		}
		if len(open) > 0 {
			o := open[len(open)-1]
			later, sooner := e, o
			if d.before(e.path, o.path) {
				later, sooner = o, e
			}
			d.faultAt(later.path, fmt.Sprintf("%s overlaps %s of %s", later.prefix, sooner.prefix, sooner.path), "networks that belong to one side of one trunk")
		}
		open = append(open, e)
	}
}

func (d *decoder) before(a, b string) bool {
	p, q := d.position(a), d.position(b)
	return p.line < q.line || p.line == q.line && p.column < q.column
}

func (d *decoder) checkPorts(c *Config) {
	if most := c.Media.Ports.Len() / portsPerCall; c.Media.Ports.Last > 0 && c.Limits.CallsMax > most {
		d.faultAt("limits.calls_max", fmt.Sprintf("%d calls take %d ports, media.ports has %d", c.Limits.CallsMax, c.Limits.CallsMax*portsPerCall, c.Media.Ports.Len()),
			fmt.Sprintf("at most %d, or more ports", most))
	}
}

// checkPaths keeps what is being written, and the secrets, out of the store,
// where they would be taken for recordings.
func (d *decoder) checkPaths(c *Config) {
	paths := []struct{ path, file string }{
		{"storage.spool", c.Storage.Spool},
		{"catalog.url", c.Catalog.Path},
		{"keys.file", c.Keys.File},
		{"api.token_file", c.API.TokenFile},
		{"audit.key_file", c.Audit.KeyFile},
		{"audit.dir", c.Audit.Dir},
	}
	for i, p := range paths {
		if p.file == "" || c.Storage.Dir == "" {
			continue
		}
		if within(c.Storage.Dir, p.file) {
			d.faultAt(p.path, fmt.Sprintf("%s lies in the storage %s", p.file, c.Storage.Dir), "a path outside it")
		}
		for _, o := range paths[:i] {
			if o.file == p.file {
				d.faultAt(p.path, fmt.Sprintf("%s is %s already", p.file, o.path), "a file of its own")
			}
		}
	}
	if c.Storage.Spool != "" && within(c.Storage.Spool, c.Storage.Dir) {
		d.faultAt("storage.url", fmt.Sprintf("%s lies in storage.spool", c.Storage.Dir), "a path outside it")
	}
}

// within tells whether file is dir or lies below it.
func within(dir, file string) bool {
	rel, err := filepath.Rel(dir, file)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
