package b2bua

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// verifyPeer says why a connection over TLS from a peer is none of its side's.
func (b *B2BUA) verifyPeer(src netip.AddrPort, state tls.ConnectionState) error {
	peer, ok := (*b.tables.Load())[0].Lookup(src)
	if !ok {
		return nil // a peer of calls that began under earlier trunks
	}
	name := peer.Trunk.Sides[peer.Side].PeerName
	if name == "" {
		return nil
	}
	if err := sip.VerifyName(state, name); err != nil {
		b.cfg.Log.Warn("connection refused", "trunk", peer.Trunk.Name, "side", peer.Side, "from", src, "error", err)
		return fmt.Errorf("%s side of trunk %s: %w", peer.Side, peer.Trunk.Name, err)
	}
	return nil
}

// Limits of what is remembered of peers that do not take TCP.
const (
	udpOnlyMax = 1024
	udpOnlyFor = 10 * time.Minute
)

// udpOnly are peers to which large requests go over UDP because they do not take TCP.
type udpOnly struct {
	mu    sync.Mutex
	until map[netip.AddrPort]time.Time // guarded by mu
}

func (u *udpOnly) add(to netip.AddrPort, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.until == nil || len(u.until) >= udpOnlyMax {
		u.until = map[netip.AddrPort]time.Time{} // they are found out again
	}
	u.until[to] = now.Add(udpOnlyFor)
}

func (u *udpOnly) has(to netip.AddrPort, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	until, ok := u.until[to]
	if ok && now.After(until) {
		delete(u.until, to)
		return false
	}
	return ok
}

// tooLarge says whether a request must not go over UDP.
func (b *B2BUA) tooLarge(req *sip.Message, flow sip.Flow) bool {
	return b.cfg.UDPBytesMax > 0 && flow.Network == "udp" && req.SizeAtLeast() > b.cfg.UDPBytesMax
}

// requestTCP sends over TCP what is too large for UDP. When no connection can be
// had it goes over UDP after all: many carriers take nothing else.
func (c *call) requestTCP(ex *exchange, req *sip.Message, flow sip.Flow, now time.Time) (*dialog.Client, error) {
	if c.b.udpOnly.has(flow.Remote, now) {
		c.b.counters.LargeOverUDP.Add(1)
		return nil, sip.ErrNoTransport
	}
	via, err := req.TopVia()
	if err != nil {
		return nil, err
	}
	advertised, _ := netip.ParseAddr(via.Host) // our own: an address
	ours, over, err := c.b.agent.Local(sip.Flow{Network: "tcp", Remote: flow.Remote, Name: flow.Name, Hasty: true}, advertised)
	if err != nil {
		return nil, err
	}
	c.branches++
	m := req.Clone()
	m.SetVia(sip.Via{
		Transport: "TCP", Host: via.Host, Port: int(ours.Port()),
		Params: sip.Params(";rport;branch=" + branchOf(c.id, c.branches)),
	})
	cl := dialog.NewClient(m, over, now)
	if err := c.trySend(m, over, func() { c.overUDP(ex, cl, req, flow, time.Now()) }); err != nil {
		return nil, err
	}
	c.b.counters.LargeOverTCP.Add(1)
	ex.clients = append(ex.clients, cl)
	return cl, nil
}

// overUDP is what follows when there was no connection for cl.
func (c *call) overUDP(ex *exchange, cl *dialog.Client, req *sip.Message, flow sip.Flow, now time.Time) {
	if cl.Provisional() || cl.Final() != 0 {
		c.clientFailed(ex, cl, false, now) // there was one, and it broke
		return
	}
	c.b.udpOnly.add(flow.Remote, now)
	c.b.counters.LargeOverUDP.Add(1)
	cl.Fail(now)
	if ex.stale[cl] || ex.client() != cl || ex.cancelled || ex.server != nil && ex.answered() {
		return // nobody wants it any more
	}
	if _, err := c.requestPlain(ex, req, flow, now); err != nil {
		c.clientFailed(ex, cl, false, now)
	}
}
