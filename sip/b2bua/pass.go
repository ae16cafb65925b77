package b2bua

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// takeInDialog takes a request inside of a dialog.
func (c *call) takeInDialog(m *sip.Message, now time.Time) {
	from, d := c.partyOf(m)
	ex := c.newExchange(from, m)
	ex.dlg = d
	switch {
	case d == nil, c.ended && offers(m.Method):
		c.refuse(ex, now, 481, "Call/Transaction Does Not Exist")
		return
	case c.lost(d) && (offers(m.Method) || m.Method == sip.Prack && len(m.Body) > 0): // its media would take the place of the call's
		c.refuse(ex, now, 481, "Call/Transaction Does Not Exist")
		return
	case c.busy() && !c.hangsUp(ex), c.tooMany(m, now):
		c.refuse(ex, now, 503, "Service Unavailable", sip.RetryAfter())
		return
	}
	if _, ok := maxForwards(m); !ok {
		c.refuse(ex, now, 483, "Too Many Hops")
		return
	}
	d.Ends[from].Seq = max(d.Ends[from].Seq, ex.seq)
	c.cameFrom(d, from, m.Flow, now)
	if c.timed(ex, m, now) {
		return
	}
	switch m.Method {
	case sip.Invite:
		switch d.Invite(from) {
		case dialog.StatusOverlap:
			c.refuse(ex, now, 500, "Server Internal Error", sip.RetryAfter())
			return
		case dialog.StatusGlare:
			c.refuse(ex, now, 491, "Request Pending")
			return
		}
		ex.reinvite = true
		c.refuse(ex, now, 100, "Trying")
	case sip.Bye:
		if c.takeBye(ex, now) {
			return
		}
	case sip.Notify:
		c.notified(m, now)
		c.progressed(m, now)
	}
	body, err := c.requestBody(ex, m, now)
	if err != nil {
		c.log.Warn("request refused: its media cannot be anchored", "method", m.Method, "error", err)
		c.inviteOver(ex)
		status, reason := statusOf(err)
		c.refuse(ex, now, status, reason, warning(err)...)
		return
	}
	if err := c.passRequest(ex, m, body, now); err != nil {
		c.inviteOver(ex)
		c.refuse(ex, now, 503, "Service Unavailable")
		return
	}
	if c.answered == nil || d == c.answered {
		c.tell(m, c.at(from))
	}
}

// offers says whether a method may carry an offer of its own.
func offers(method string) bool { return method == sip.Invite || method == sip.Update }

// partyOf tells who sent a request, by the tags, and in which dialog. The dialog
// is nil when it is unknown.
func (c *call) partyOf(m *sip.Message) (dialog.Party, *dialogState) {
	caller := c.setup.server.Req.FromTag()
	if m.FromTag() == caller {
		if d := c.dialogOf(m.ToTag()); d != nil {
			return dialog.Caller, d
		}
	}
	if m.ToTag() != caller {
		return dialog.Caller, nil
	}
	d := c.dialogOf(m.FromTag())
	if d == nil && c.answered == nil && !c.ended && createsDialog(c.method) {
		// Its response was lost, or a NOTIFY overtook it (RFC 6665 section 4.4.1).
		d = c.newDialog(m.FromTag(), m.Get("From"), dialog.FromRequest(m))
	}
	return dialog.Callee, d
}

// passRequest sends a request of one leg on the other.
func (c *call) passRequest(ex *exchange, m *sip.Message, body []byte, now time.Time) error {
	out, flow, err := c.inDialog(ex.dlg, ex.from.Other(), m, body)
	if err != nil {
		return err
	}
	_, err = c.request(ex, out, flow, now)
	return err
}

// inDialog makes of a request of one party that for the other.
func (c *call) inDialog(d *dialogState, to dialog.Party, m *sip.Message, body []byte) (*sip.Message, sip.Flow, error) {
	end := &d.Ends[to]
	if end.Target == "" {
		end.Target = contactURI(sip.URI{Scheme: "sip"}, end.Flow.Remote, end.Flow.Network)
	}
	uri, routes, next := end.Route()
	via, ours, flow, err := c.via(c.at(to), c.flowTo(to, end, next))
	if err != nil {
		c.log.Warn("leg cannot be reached", "side", c.at(to), "error", err)
		return nil, flow, err
	}
	out := outgoing(m, uri, routes, via, body)
	ownContact(out, ours, flow.Network, m.Method == sip.Invite) // of every method: some take it for a target anyway
	d.apply(to.Other(), out)
	c.carry(out, m, c.at(to.Other()), ours, flow)
	if c.alias != nil && to == dialog.Callee {
		c.outward(out, dialog.Caller)
	}
	c.present(out, to)
	return out, flow, nil
}

// flowTo chooses the way to a party: the address in its URI when that is one of
// the side's peers, else the way its last message came. So nothing is ever sent
// to where the trunk does not lead, and addresses behind a NAT do no harm.
func (c *call) flowTo(p dialog.Party, end *dialog.End, uri string) sip.Flow {
	u, err := sip.ParseURI(uri)
	if err != nil {
		return end.Flow
	}
	ip, err := netip.ParseAddr(u.Host)
	if err != nil || !c.table.Allows(sip.Peer{Trunk: c.trunk, Side: c.at(p)}, ip) {
		return end.Flow
	}
	ip = ip.Unmap()
	network := end.Flow.Network
	if t, ok := u.Params.Get("transport"); ok {
		switch t = strings.ToLower(t); {
		case t == "ws" && network == "wss":
		case t == "udp", t == "tcp", t == "tls", t == "ws":
			network = t
		}
	}
	if network == end.Flow.Network && network != "udp" && ip == end.Flow.Remote.Addr() && c.b.agent.Connected(end.Flow) {
		return end.Flow // the connection is there
	}
	port := u.Port
	switch {
	case port != 0:
	default:
		port = int(sip.DefaultPort(network))
	}
	f := sip.Flow{Network: network, Remote: netip.AddrPortFrom(ip, uint16(port)), TLS: c.trunk.Sides[c.at(p)].TLS}
	if ip == end.Flow.Remote.Addr() {
		f.Name = end.Flow.Name
	}
	if network == end.Flow.Network {
		f.Local = end.Flow.Local
	}
	return f
}

// passResponse sends a response of one leg on the other.
func (c *call) passResponse(ex *exchange, res *sip.Message, now time.Time) {
	req := ex.server.Req
	out := incoming(res, req, c.responseBody(ex, res, now))
	if c.ahead > 0 || ex.dlg != nil && ex.dlg.moved {
		out.Set("CSeq", req.Get("CSeq"))
	}
	if len(out.Body) == 0 && len(res.Body) > 0 {
		out.Set("Content-Type")
	}
	ours, _, err := c.b.agent.Local(req.Flow, c.trunk.Sides[c.at(ex.from)].Address)
	if err == nil && targets(ex.method) && res.Status > 100 && res.Status < 300 {
		ownContact(out, ours, req.Flow.Network, ex.method == sip.Invite && res.Status >= 200)
	}
	c.registered(out, ours, req.Flow.Network)
	c.carry(out, res, c.at(ex.from.Other()), ours, req.Flow)
	c.respond(ex, out, now)
}

// inDialogResponse takes a response to a request inside of a dialog.
func (c *call) inDialogResponse(ex *exchange, cl *dialog.Client, res *sip.Message, now time.Time) {
	if res.Status < 200 {
		c.ringing(ex, cl, now)
		if res.Status > 100 && ex.method == sip.Invite && !ex.answered() { // of others only 100 may be, RFC 4320 section 4.1
			c.passResponse(ex, res, now)
		}
		return
	}
	ex.wait.stop()
	if c.tooLate(ex, res, now) {
		return
	}
	ok := res.Status < 300
	if ex.method == sip.Invite && ok && ex.answered() {
		c.acknowledgeAgain(ex, res)
		return
	}
	if ex.answered() || c.authorize(ex, cl, res, now) {
		return
	}
	if err := c.vet(ex, res); err != nil {
		c.refuseChange(ex, res, err, now)
		return
	}
	if !ok {
		c.inviteOver(ex)
	} else {
		if targets(ex.method) {
			ex.dlg.Ends[ex.from].Refresh(ex.server.Req)
			ex.dlg.Ends[ex.from.Other()].Refresh(res)
		}
		c.timersAgreed(ex, res, now)
		switch ex.method {
		case sip.Subscribe:
			c.subscribed(res, now)
		case sip.Refer:
			c.referAccepted(ex.server.Req, res, now)
		}
		if c.answered == nil || ex.dlg == c.answered {
			c.tellResponse(res, c.at(ex.from.Other()))
		}
	}
	c.passResponse(ex, res, now)
	if ok && ex.reinvite {
		ex.dlg.InviteDone(ex.from)
	}
}

// tooLate says whether a response is a 408 to what is no INVITE, which never passes:
// whoever waits for the answer has found out by itself by then (RFC 4320 section 4.1). A
// party that does not answer a BYE has hung up, all the same.
func (c *call) tooLate(ex *exchange, res *sip.Message, now time.Time) bool {
	switch {
	case res.Status != 408 || ex.method == sip.Invite || ex.server == nil:
		return false
	case ex.method == sip.Bye:
		c.refuse(ex, now, 200, "OK")
	case !ex.answered():
		c.inviteOver(ex)
		ex.dropped = true
	}
	return true
}

// acknowledgeAgain answers the repetition of a 2xx; one that came after we had
// answered the request ourselves gets an ACK of ours, for its sender waits.
func (c *call) acknowledgeAgain(ex *exchange, res *sip.Message) {
	if ex.ack == nil && ex.server.Final() >= 300 {
		ack := c.ackOf(ex.server.Req, res)
		out, flow, err := c.inDialog(ex.dlg, ex.from.Other(), ack, nil)
		if err != nil {
			return
		}
		c.acknowledge(ex, out, flow)
		return
	}
	if ex.ack != nil {
		c.send(ex.ack, c.ackFlow(ex, res))
	}
}

// inviteOver notes that a request with an offer will not be agreed to.
func (c *call) inviteOver(ex *exchange) {
	if ex.reinvite {
		ex.dlg.InviteDone(ex.from)
		ex.reinvite = false
	}
	if ex == c.setup || !ex.offered && !ex.late.asked {
		return
	}
	ex.offered, ex.late = false, lateness{}
	if c.lost(ex.dlg) {
		return
	}
	c.within(ex.dlg)
	if ex.method == sip.Invite {
		c.media.reject(c.at(ex.from))
	} else {
		c.media.rejectWithin(c.at(ex.from))
	}
}

// takeAck passes the ACK of a 2xx; it has no transaction.
func (c *call) takeAck(m *sip.Message, now time.Time) {
	from, d := c.partyOf(m)
	seq, _ := m.CSeq()
	for _, ex := range c.exchanges {
		if ex.server == nil || d == nil || ex.dlg != d || ex.method != sip.Invite || ex.from != from || ex.seq != seq ||
			ex.server.Final() < 200 || ex.server.Final() >= 300 {
			continue
		}
		c.cameFrom(d, from, m.Flow, now)
		ex.server.Acked()
		if ex.ackDue {
			return // a repetition; the far end asks for it by repeating its 2xx
		}
		ex.ackDue = true
		body, err := c.requestBody(ex, m, now)
		if err != nil {
			c.log.Warn("answer in ACK cannot be read", "error", err)
			body = m.Body
			if c.media.secures() {
				c.refuseAck(ex, d, m, now)
				return
			}
		}
		out, flow, err := c.inDialog(d, from.Other(), m, body)
		if err != nil {
			return
		}
		c.acknowledge(ex, out, flow)
		return
	}
	c.b.counters.Unknown.Add(1)
}

// refuseAck ends a call whose answer came in an ACK and cannot be taken.
func (c *call) refuseAck(ex *exchange, d *dialogState, ack *sip.Message, now time.Time) {
	out, flow, err := c.inDialog(d, ex.from.Other(), ack, nil)
	if err == nil {
		out.Set("Content-Type")
		c.acknowledge(ex, out, flow)
	}
	c.hangUp(now, media.CauseFailed, "488", "SRTP")
}

// requestBody anchors the description in a request, if there is one, and
// returns the body for the far end.
func (c *call) requestBody(ex *exchange, m *sip.Message, now time.Time) ([]byte, error) {
	if c.ended {
		return m.Body, nil
	}
	side := c.at(ex.from)
	body, replace, ok := description(m)
	c.within(ex.dlg)
	late := c.lateness(ex)
	var out []byte
	var err error
	switch {
	case m.Method == sip.Invite && !ok:
		late.asked = true
		c.media.askOffer(side)
		return m.Body, nil
	case m.Method == sip.Ack && late.asked && !ok:
		*late = lateness{}
		c.media.reject(side)
		return m.Body, nil
	case !ok:
		return m.Body, nil
	case m.Method == sip.Ack && late.open:
		late.open = false
		out, err = c.media.answer(side, body, now, false)
	case m.Method == sip.Prack && late.open:
		*late = lateness{}
		out, err = c.media.answer(side, body, now, c.answered == nil)
	case offers(m.Method), m.Method == sip.Prack:
		ex.offered = true
		out, err = c.media.offer(side, body)
	default:
		return m.Body, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Method, err)
	}
	return replace(out), nil
}

// responseBody is requestBody for a response. What cannot be read passes as it
// is: the answer to a call is not ours to withhold.
func (c *call) responseBody(ex *exchange, res *sip.Message, now time.Time) []byte {
	if res.Status >= 300 || c.ended {
		return res.Body
	}
	side := c.at(ex.from.Other())
	early := res.Status < 200
	body, replace, ok := description(res)
	if c.lost(ex.dlg) {
		return nil
	}
	c.withinResponse(ex, res)
	late := c.lateness(ex)
	var out []byte
	var err error
	switch {
	case !ok && ex.method == sip.Invite && !early && !late.asked:
		c.media.confirm(side, now)
		return res.Body
	case !ok && ex.offered && ex.method != sip.Invite:
		ex.offered = false // it was not answered, so it is not agreed to
		c.media.rejectWithin(side.Other())
		return res.Body
	case !ok:
		return res.Body
	case ex.method == sip.Invite && late.asked:
		late.open = true
		out, err = c.media.offer(side, body)
	case ex.method == sip.Invite:
		out, err = c.media.answer(side, body, now, early)
	case ex.offered:
		out, err = c.media.answer(side, body, now, c.answered == nil)
	default:
		return res.Body
	}
	if err != nil && c.media.secures() {
		c.log.Warn("description held back", "status", res.Status, "error", err)
		return nil
	}
	if err != nil {
		c.log.Warn("description passes without being anchored", "status", res.Status, "error", err)
		return res.Body
	}
	return replace(out)
}

// subscribed keeps a subscription as long as the notifier said.
func (c *call) subscribed(res *sip.Message, now time.Time) {
	if c.method == sip.Invite {
		return
	}
	d := usageMax
	if n, err := strconv.ParseUint(strings.TrimSpace(res.Get("Expires")), 10, 31); err == nil {
		d = time.Duration(n) * time.Second
	}
	c.keep(min(d, callMax)+sip.TransactionTimeout, now)
}

// notified ends a subscription that its notifier has ended (RFC 6665 section 4.1.3).
func (c *call) notified(m *sip.Message, now time.Time) {
	state, _, _ := strings.Cut(m.Get("Subscription-State"), ";")
	if c.usage != nil && strings.EqualFold(strings.TrimSpace(state), "terminated") {
		c.keep(sip.TransactionTimeout, now)
	}
}

func (c *call) keep(d time.Duration, now time.Time) {
	c.usage.stop()
	c.usage = c.after(d, now, func(now time.Time) { c.finish(now, media.CauseFailed) })
}
