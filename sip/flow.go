package sip

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Flow is the way between us and a peer.
type Flow struct {
	Network string         // udp, tcp, tls, ws or wss
	Local   netip.AddrPort // the listener; zero: chosen by the route
	Remote  netip.AddrPort
	Return  netip.AddrPort // where a connection is opened when that with Remote is gone; zero: to Remote
	Name    string         // of the peer, for its certificate; empty: its address
	TLS     *ClientTLS     // of a connection that is opened for it; nil: Config.TLS
	Hasty   bool           // a connection that is not there soon is given up: there is another way
}

// Reliable says whether the transport repeats what is lost.
func (f Flow) Reliable() bool { return f.Network != "udp" }

const routesMax = 4096

// route returns our address on the way to a peer, as the system would choose it.
func (a *Agent) route(to netip.Addr) netip.Addr {
	a.mu.Lock()
	from, known := a.routes[to]
	a.mu.Unlock()
	if known {
		return from
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err == nil {
		from = addrPortOf(c.LocalAddr()).Addr()
		_ = c.Close() // nothing was sent on it
	}
	a.mu.Lock()
	if len(a.routes) < routesMax {
		a.routes[to] = from
	}
	a.mu.Unlock()
	return from
}

// Local returns our address for a flow as the peer should see it in Via and
// Contact, and the flow with its listener filled in. advertise, when valid,
// stands for the listener's address.
func (a *Agent) Local(f Flow, advertise netip.Addr) (netip.AddrPort, Flow, error) {
	locals := a.locals[f.Network]
	if !f.Local.IsValid() && advertise.IsValid() {
		for _, l := range locals {
			if l.Addr() == advertise {
				f.Local = l
			}
		}
	}
	i := a.pick(locals, f)
	if i < 0 {
		return netip.AddrPort{}, f, fmt.Errorf("%s to %s: %w", f.Network, f.Remote, ErrNoTransport)
	}
	f.Local = locals[i]
	addr := f.Local.Addr()
	switch {
	case advertise.IsValid():
		addr = advertise
	case addr.IsUnspecified():
		addr = a.route(f.Remote.Addr())
	}
	return netip.AddrPortFrom(addr, f.Local.Port()), f, nil
}

// Resolve returns where requests to a next hop go, the first to be tried first (RFC
// 3263 section 4). It blocks on DNS unless the host is an address.
func (a *Agent) Resolve(ctx context.Context, h NextHop) ([]Flow, error) {
	network := cmp.Or(h.Transport, "udp")
	addrs := []netip.Addr{}
	ip, err := netip.ParseAddr(h.Host)
	switch {
	case err == nil:
		addrs = append(addrs, ip)
	case a.cfg.DNS != nil && strings.Contains(strings.TrimSuffix(h.Host, "."), "."):
		return a.locate(ctx, h)
	default: // names without dots are the system's own
		if addrs, err = a.cfg.Net.LookupNetIP(ctx, h.Host); err != nil {
			return nil, fmt.Errorf("resolve next hop %s: %w", h.Host, err)
		}
	}
	var flows []Flow
	for _, ip := range addrs {
		flows = append(flows, Flow{Network: network, Remote: netip.AddrPortFrom(ip.Unmap(), h.port()), Name: h.Host})
	}
	if len(flows) == 0 {
		return nil, fmt.Errorf("resolve next hop %s: no address", h.Host)
	}
	return flows, nil
}

// locate asks DNS where a name leads.
func (a *Agent) locate(ctx context.Context, h NextHop) ([]Flow, error) {
	can := func(network string) bool { return len(a.locals[network]) > 0 }
	targets, err := a.cfg.DNS.Targets(ctx, h.Host, h.Transport, uint16(h.Port), can, DefaultPort)
	if err != nil {
		return nil, fmt.Errorf("resolve next hop %s: %w", h.Host, err)
	}
	var flows []Flow
	for _, t := range targets {
		flows = append(flows, Flow{Network: t.Network, Remote: netip.AddrPortFrom(t.Addr.Addr().Unmap(), t.Addr.Port()), Name: h.Host})
	}
	if len(flows) == 0 {
		return nil, fmt.Errorf("resolve next hop %s: no address", h.Host)
	}
	return flows, nil
}

// ReplyFlow returns where the responses to a request go (RFC 3261 section
// 18.2.2, RFC 3581 section 4).
func ReplyFlow(req *Message) Flow {
	f := req.Flow
	via, err := req.TopVia()
	if err != nil {
		return f
	}
	if f.Reliable() { // the same connection; when it is gone, one to where the peer listens
		if port := cmp.Or(via.Port, int(DefaultPort(f.Network))); !framed(f.Network) && f.Remote.IsValid() {
			f.Return = netip.AddrPortFrom(f.Remote.Addr(), uint16(port))
		}
		return f
	}
	if _, ok := via.Params.Get("rport"); ok {
		return f
	}
	port := via.Port
	if port == 0 {
		port = 5060
	}
	f.Remote = netip.AddrPortFrom(f.Remote.Addr(), uint16(port))
	return f
}

// MarkSource notes in the top Via of a request where it came from (RFC 3261
// section 18.2.1, RFC 3581 section 4), for the responses that copy it.
func MarkSource(req *Message) {
	for i, h := range req.Headers {
		if !sameName(h.Name, "Via") {
			continue
		}
		via, err := req.TopVia()
		if err != nil {
			return
		}
		list := SplitList(h.Value)
		rport, ask := via.Params.Get("rport")
		ask = ask && rport == ""
		source := req.Flow.Remote.Addr()
		sentBy, err := netip.ParseAddr(via.Host)
		if ask || err != nil || sentBy.Unmap() != source {
			via.Params = via.Params.Without("received") + Params(";received="+source.String())
		}
		if ask {
			via.Params = via.Params.Without("rport") + Params(";rport="+strconv.Itoa(int(req.Flow.Remote.Port())))
		}
		value := via.String()
		if len(list) > 1 {
			value = strings.Join(append([]string{value}, list[1:]...), ", ")
		}
		req.Headers[i].Value = value
		req.read.via, req.read.viaOf = via, value
		return
	}
}
