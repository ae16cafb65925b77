package b2bua

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// redirectsMax bounds the targets of one call, over all its redirections.
const redirectsMax = 8

// redirection is a target that a redirection has named.
type redirection struct {
	uri string
	hop sip.NextHop
	q   float64
}

// redirected follows a redirection of the first request (RFC 3261 section 8.1.3.4),
// when the trunk follows them and one of the targets may be reached; else it passes.
func (c *call) redirected(ex *exchange, res *sip.Message, now time.Time) bool {
	if !c.trunk.Follow || ex != c.setup || res.Status < 300 || res.Status > 302 || ex.cancelled || ex.answered() || len(c.dialogs) > 0 {
		return false
	}
	var targets []redirection
	for _, v := range res.List("Contact") {
		if t, ok := c.target(v); ok && len(c.followed) < redirectsMax {
			c.followed = append(c.followed, t.uri)
			targets = append(targets, t)
		}
	}
	if len(targets) == 0 && len(c.redirects) == 0 {
		return false
	}
	slices.SortStableFunc(targets, func(a, b redirection) int {
		switch {
		case a.q > b.q:
			return -1
		case a.q < b.q:
			return 1
		}
		return 0
	})
	c.b.counters.Redirected.Add(1)
	c.log.Info("redirection followed", "status", res.Status, "targets", len(targets))
	c.redirects = append(targets, c.redirects...)
	c.hops, c.flows = nil, nil // it was theirs to decide
	c.nextHop(now)
	return true
}

// target reads a Contact of a redirection; false when it must not be followed.
func (c *call) target(contact string) (redirection, bool) {
	a, err := sip.ParseAddress(contact)
	if err != nil {
		return redirection{}, false
	}
	u, err := sip.ParseURI(a.URI)
	if err != nil || !c.mayReach(u.Host) {
		return redirection{}, false
	}
	r := redirection{q: 1, hop: sip.NextHop{Host: u.Host, Port: u.Port, Transport: "udp"}}
	if t, ok := u.Params.Get("transport"); ok {
		r.hop.Transport = strings.ToLower(t)
	} else if strings.EqualFold(u.Scheme, "sips") {
		r.hop.Transport = "tls"
	}
	if v, ok := a.Param("q"); ok {
		if q, err := strconv.ParseFloat(v, 64); err == nil && q >= 0 && q <= 1 {
			r.q = q
		}
	}
	u.Query, u.Params = "", u.Params.Without("method")
	r.uri = u.String()
	return r, !slices.Contains(c.followed, r.uri)
}

// mayReach says whether calls to the callee's side may go to a host: one of its
// peers or next hops, or one that is named for redirections.
func (c *call) mayReach(host string) bool {
	side := c.at(dialog.Callee)
	if ip, err := netip.ParseAddr(host); err == nil {
		return c.table.Allows(sip.Peer{Trunk: c.trunk, Side: side}, ip)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	s := &c.trunk.Sides[side]
	if slices.ContainsFunc(s.NextHops, func(h sip.NextHop) bool { return strings.EqualFold(h.Host, host) }) {
		return true
	}
	return slices.ContainsFunc(s.RedirectHosts, func(name string) bool {
		name = strings.ToLower(name)
		domain, wild := strings.CutPrefix(name, "*")
		return name == host || wild && strings.HasSuffix(host, domain)
	})
}

// nextRedirection takes the next target; false when there is none.
func (c *call) nextRedirection() bool {
	if len(c.redirects) == 0 {
		return false
	}
	next := c.redirects[0]
	c.redirects, c.hop, c.targetURI = c.redirects[1:], next.hop, next.uri
	return true
}
