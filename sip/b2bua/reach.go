package b2bua

import (
	"net/netip"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// Over TCP, TLS and WebSocket a party is reached over a connection, and that may be
// gone: the daemon was killed, or the party's network failed. Then a request goes over
// a new one to where its Contact leads, else to where the old one led. A party that
// cannot be connected to has to come by itself; what is for it waits until it does.

// heldMax is how long a request waits for its party to connect: less than timer F (RFC
// 3261 section 17.1.2.2), so that whoever asked still hears what became of it.
const heldMax = 30 * time.Second

// cameFrom takes the connection on which a party has sent a request: that is where it
// is reached from now on (RFC 5626 section 5.3 has the latest flow, too).
func (c *call) cameFrom(d *dialogState, p dialog.Party, flow sip.Flow, now time.Time) {
	end := &d.Ends[p]
	if !flow.Reliable() || flow.Network != end.Flow.Network || !c.table.Allows(sip.Peer{Trunk: c.trunk, Side: c.at(p)}, flow.Remote.Addr()) {
		return
	}
	end.Flow = flow
	for _, ex := range c.exchanges {
		cl := ex.client()
		if ex.dlg != d || ex.from.Other() != p || !ex.pends(cl, now) || !ex.held && c.b.agent.Connected(cl.Flow) {
			continue
		}
		c.sendOver(ex, cl, flow, now)
	}
}

// pends says whether a request of the dialog can still be sent again.
func (ex *exchange) pends(cl *dialog.Client, now time.Time) bool {
	return cl != nil && !ex.bare && ex.client() == cl && ex.dlg != nil && ex.method != sip.Cancel && cl.Req != nil && cl.Final() == 0 && !cl.Done(now) && cl.Flow.Reliable()
}

// sendOver sends a request again over another connection. Its branch stays: whoever has
// had it takes it for the same.
func (c *call) sendOver(ex *exchange, cl *dialog.Client, flow sip.Flow, now time.Time) {
	cl.Flow, ex.held = flow, false
	if c.trySend(cl.Req, flow, func() { c.flowFailed(ex, cl, flow) }) != nil {
		c.hold(ex, cl, now)
	}
}

// flowFailed takes that a request did not get out. It may have been sent on another
// connection meanwhile.
func (c *call) flowFailed(ex *exchange, cl *dialog.Client, flow sip.Flow) {
	now := time.Now()
	switch {
	case cl.Flow != flow:
	case ex.cancelled && ex.pends(cl, now):
		c.giveBack(ex, cl, now)
	case c.ended && c.closing, ex == c.setup, !ex.pends(cl, now):
		c.clientFailed(ex, cl, false, now)
	default:
		end := &ex.dlg.Ends[ex.from.Other()]
		if again := end.Flow; !ex.retried && again.Network == flow.Network && again.Remote != flow.Remote {
			ex.retried = true
			c.sendOver(ex, cl, again, now)
			return
		}
		c.hold(ex, cl, now)
	}
}

// hold lets a request wait for its party.
func (c *call) hold(ex *exchange, cl *dialog.Client, now time.Time) {
	ex.held = true
	if ex.holding != nil {
		return
	}
	c.b.counters.Held.Add(1)
	c.log.Debug("a request waits for its party to connect", "method", ex.method, "side", c.at(ex.from.Other()))
	ex.holding = c.after(heldMax, now, func(now time.Time) {
		if ex.held && ex.pends(cl, now) {
			c.heldTooLong(ex, cl, now)
		}
	})
}

// heldTooLong gives a request up whose party has not come. The session stays as it was,
// unless it was to end: 408 would end it (RFC 3261 section 12.2.1.2).
func (c *call) heldTooLong(ex *exchange, cl *dialog.Client, now time.Time) {
	ex.held = false
	cl.Fail(now)
	switch {
	case ex.refresh:
		c.refreshOver(ex)
		if !c.ended {
			c.watch(ex.from.Other(), refreshAgain, now)
		}
	case ex.server == nil:
	case ex.method == sip.Bye:
		c.refuse(ex, now, 200, "OK")
	default:
		c.inviteOver(ex)
		c.refuse(ex, now, 480, "Temporarily Unavailable")
	}
}

// letGo ends the wait of a request that its sender gives up: nobody has had it.
func (c *call) letGo(ex *exchange, now time.Time) {
	if ex.held {
		c.giveBack(ex, ex.client(), now)
	}
}

func (c *call) giveBack(ex *exchange, cl *dialog.Client, now time.Time) {
	ex.held = false
	cl.Fail(now)
	c.inviteOver(ex)
	c.terminated(ex, now)
}

// replyFlow is where the responses to a request go, with what a connection that has to
// be opened for them needs.
func (c *call) replyFlow(ex *exchange) sip.Flow {
	f := sip.ReplyFlow(ex.server.Req)
	if f.Return.IsValid() && f.TLS == nil {
		f.TLS = c.trunk.Sides[c.at(ex.from)].TLS
	}
	return f
}

// ackFlow is where the ACK of a 2xx goes that has come again.
func (c *call) ackFlow(ex *exchange, res *sip.Message) sip.Flow {
	if ex.ackFlow.Network == res.Flow.Network && !c.b.agent.Connected(ex.ackFlow) {
		ex.ackFlow = res.Flow
	}
	return ex.ackFlow
}

// cameBack lets the calls of a phone know that it has registered over a new connection.
func (b *B2BUA) cameBack(reg *call) {
	req := reg.setup.server.Req
	if !req.Flow.Reliable() {
		return
	}
	var list []sip.Address
	for _, v := range req.List("Contact") {
		if a, err := sip.ParseAddress(v); err == nil {
			list = append(list, a)
		}
	}
	flow, side := req.Flow, reg.side
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.byID {
		if c.awaits != "" && c.side != side && c.trunk.Name == reg.trunk.Name && registers(list, c.awaits, "", flow.Remote.Addr()) {
			c.awaits = ""
			c.put(event{do: func() { c.phoneHere(flow) }})
		}
		if c == reg || c.method != sip.Invite || c.trunk.Name != reg.trunk.Name {
			continue
		}
		for p := range c.reach {
			if c.streams[p] && c.at(dialog.Party(p)) == side && registers(list, c.reach[p], c.instances[p], flow.Remote.Addr()) {
				c.put(event{do: func() { c.phoneBack(dialog.Party(p), flow) }})
			}
		}
	}
}

// phoneBack moves a party to the connection of its REGISTER, when its own is gone.
func (c *call) phoneBack(p dialog.Party, flow sip.Flow) {
	for _, d := range c.dialogs {
		if !c.b.agent.Connected(d.Ends[p].Flow) {
			c.cameFrom(d, p, flow, time.Now())
		}
	}
}

// registers says whether one of the Contacts of a REGISTER, which came from src, is of
// the user agent that has a target: by its instance where both name one, else by its
// user and host. A private address may be that of several, one behind each NAT.
func registers(list []sip.Address, target, instance string, src netip.Addr) bool {
	var want sip.URI
	for _, a := range list {
		if id, ok := a.Param("+sip.instance"); ok && instance != "" {
			if id == instance {
				return true
			}
			continue
		}
		user, _, _ := strings.Cut(a.URI, "@")
		if !strings.HasPrefix(target, user) { // as nearly all are
			continue
		}
		u, err := sip.ParseURI(a.URI)
		if err == nil && want.Host == "" {
			want, err = sip.ParseURI(target)
		}
		if err != nil || u.User != want.User || !strings.EqualFold(u.Host, want.Host) {
			continue
		}
		if ip, err := netip.ParseAddr(u.Host); err != nil || ip.Unmap() == src || u.Port == want.Port && !ip.IsPrivate() {
			return true
		}
	}
	return false
}

// phoneFlows are the ways to a phone: the connection of its REGISTER, and when that is
// gone where its Contact leads, should that be where it is. There is none to one that
// only can come by itself and had no time to.
func (c *call) phoneFlows(b binding, now time.Time) []sip.Flow {
	if c.b.agent.Connected(b.flow) {
		return []sip.Flow{b.flow}
	}
	alone := []sip.Flow{b.flow}
	if c.mayAwait(b, now) {
		alone = nil
	}
	u, err := sip.ParseURI(b.uri)
	if err != nil || b.flow.Network == "ws" || b.flow.Network == "wss" {
		return alone
	}
	ip, err := netip.ParseAddr(u.Host)
	if err != nil || ip.Unmap() != b.flow.Remote.Addr() {
		return alone
	}
	port := u.Port
	if port == 0 {
		port = int(sip.DefaultPort(b.flow.Network))
	}
	direct := b.flow
	direct.Remote = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	direct.TLS = c.trunk.Sides[media.Internal].TLS
	return []sip.Flow{direct}
}

// phoneWaitMax is how long a call waits for its phone.
const phoneWaitMax = 10 * time.Second

// justStarted says whether phones had no time yet to find out that their connections
// are gone.
func (b *B2BUA) justStarted(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return now.Sub(b.startedAt) < b.cfg.PhonesAway
}

// awaitPhone lets a call wait for its phone to register again, once; false when that is
// not worth it.
func (c *call) awaitPhone(now time.Time) bool {
	if c.phone == nil || c.phoneWait != nil || !c.mayAwait(*c.phone, now) {
		return false
	}
	c.b.counters.Held.Add(1)
	c.await(c.phone.uri)
	c.phoneWait = c.after(phoneWaitMax, now, func(now time.Time) {
		c.await("")
		c.nextHop(now)
	})
	return true
}

// mayAwait says whether a call may wait for a phone. Who knows of flows is told at once
// that one is gone, and tries another (RFC 5626 section 5.3).
func (c *call) mayAwait(b binding, now time.Time) bool {
	return c.method == sip.Invite && b.flow.Reliable() && !b.outbound && c.b.justStarted(now)
}

func (c *call) await(contact string) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.awaits = contact
}

// phoneHere calls a phone that has come.
func (c *call) phoneHere(flow sip.Flow) {
	if c.phoneWait == nil || c.phoneWait.at.IsZero() || !c.table.Allows(sip.Peer{Trunk: c.trunk, Side: media.Internal}, flow.Remote.Addr()) {
		return
	}
	c.phoneWait.stop()
	c.flows = []sip.Flow{flow}
	c.nextHop(time.Now())
}
