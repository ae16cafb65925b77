package b2bua

import (
	"fmt"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// takeCancel takes a CANCEL (RFC 3261 section 9.2).
func (c *call) takeCancel(m *sip.Message, now time.Time) {
	var target *exchange
	for _, ex := range c.exchanges {
		if ex.server != nil && ex.server.Cancels(m) {
			target = ex
		}
	}
	own := c.newExchange(dialog.Caller, m)
	if target == nil {
		c.refuse(own, now, 481, "Call/Transaction Does Not Exist")
		return
	}
	c.refuse(own, now, 200, "OK")
	c.cancelled(target, m, now)
}

// cancelled gives a request up. cancel is what the requester said, nil when it is
// we who give up.
func (c *call) cancelled(ex *exchange, cancel *sip.Message, now time.Time) {
	if ex.cancelled || ex.answered() {
		return
	}
	ex.cancelled, ex.cancel = true, cancel
	ex.wait.stop()
	c.letGo(ex, now)
	if len(ex.clients) == 0 { // still with the observer or DNS
		c.terminated(ex, now)
		return
	}
	for _, cl := range ex.clients {
		if cl.Provisional() {
			c.sendCancel(ex, cl, now)
		}
	}
	// The far end's own 487 says more than ours; but nobody waits for it long. A
	// re-INVITE must not be answered before the far end has decided.
	if ex == c.setup {
		c.after(cancelWait, now, func(now time.Time) { c.terminated(ex, now) })
	}
	c.after(sip.TransactionTimeout, now, func(now time.Time) { // RFC 3261 section 9.1
		for _, cl := range ex.clients {
			if cl.Final() == 0 {
				cl.Fail(now)
			}
		}
		if !ex.answered() { // else what it offered is agreed to or gone, and another offer may be open
			c.inviteOver(ex)
		}
		c.terminated(ex, now)
	})
}

// terminated answers a cancelled request ourselves, if nobody else has.
func (c *call) terminated(ex *exchange, now time.Time) {
	c.refuse(ex, now, 487, "Request Terminated")
	if ex == c.setup && c.answered == nil {
		c.finish(now, media.CauseFailed)
	}
}

// sendCancel cancels one attempt, once.
func (c *call) sendCancel(ex *exchange, cl *dialog.Client, now time.Time) {
	if cl.Final() != 0 || c.cancelSent[cl] {
		return
	}
	if c.cancelSent == nil {
		c.cancelSent = map[*dialog.Client]bool{}
	}
	c.cancelSent[cl] = true
	m := dialog.CancelOf(cl.Req, ex.cancel)
	if c.edits {
		c.edit(m, c.at(ex.from.Other()))
	}
	c.ownRequest(&exchange{method: m.Method}, m, cl.Flow, now)
}

// ownRequest sends a request that no leg asked for.
func (c *call) ownRequest(own *exchange, m *sip.Message, flow sip.Flow, now time.Time) {
	if _, err := c.request(own, m, flow, now); err == nil {
		c.exchanges = append(c.exchanges, own)
	}
}

// takeBye takes a BYE and says whether it is done with. The session ends with
// the request as it passes.
func (c *call) takeBye(ex *exchange, now time.Time) bool {
	if ex.dlg != c.answered {
		return false // of an early dialog: the parties' affair
	}
	if c.byeSent[ex.from] { // the other party has hung up as well, or we have
		c.refuse(ex, now, 200, "OK")
		return true
	}
	c.byeSent[ex.from.Other()] = true
	c.closeHandshake()
	c.finish(now, media.CauseBye)
	c.after(byeWait, now, func(now time.Time) { c.refuse(ex, now, 200, "OK") })
	return false
}

// hangsUp says whether a request is the BYE that ends the call: it has its way however
// many requests wait for their answers.
func (c *call) hangsUp(ex *exchange) bool {
	return ex.method == sip.Bye && c.answered != nil && ex.dlg == c.answered && !c.ended
}

// hangUp ends an answered call from our side: a BYE to both parties.
func (c *call) hangUp(now time.Time, cause media.Cause, code, why string) {
	if c.ended || c.answered == nil {
		return
	}
	c.finish(now, cause)
	reason := `SIP;cause=` + code + `;text="` + why + `"`
	c.closeHandshake()
	for _, to := range []dialog.Party{dialog.Caller, dialog.Callee} {
		c.byeSent[to] = true
		c.sendBye(c.answered, to, reason, now)
	}
}

// closeHandshake sends the ACK that the caller has not sent, or that was lost,
// and repeats the 200 no more: a BYE follows, which must not come before the ACK
// (RFC 3261 section 15).
func (c *call) closeHandshake() {
	ex := c.setup
	ex.server.Acked()
	if ex.ack != nil {
		return
	}
	out, flow, err := c.inDialog(c.answered, dialog.Callee, c.ackOf(ex.server.Req, c.answeredWith()), nil)
	if err != nil {
		return
	}
	ex.ackDue = true
	c.acknowledge(ex, out, flow)
}

// answeredWith is what an ACK of ours needs of the 2xx that answered the call.
func (c *call) answeredWith() *sip.Message {
	return &sip.Message{Status: 200, Headers: []sip.Header{{Name: "To", Value: c.answered.to}}}
}

// ackOf begins an ACK for a 2xx on behalf of the requester.
func (c *call) ackOf(invite, res *sip.Message) *sip.Message {
	seq, _ := invite.CSeq()
	m := &sip.Message{Method: sip.Ack}
	m.Add("Via", "")
	m.Add("From", invite.Get("From"))
	m.Add("To", res.Get("To"))
	m.Add("Call-ID", invite.CallID())
	m.Add("CSeq", fmt.Sprintf("%d %s", seq, sip.Ack))
	m.Add("Max-Forwards", "71")
	return m
}

// sendBye hangs up one party in the name of the other.
func (c *call) sendBye(d *dialogState, to dialog.Party, reason string, now time.Time) {
	invite := c.setup.server.Req
	from, toHeader := invite.Get("From"), d.to
	if to == dialog.Caller {
		from, toHeader = toHeader, from
	}
	d.Ends[to.Other()].Seq++
	m := &sip.Message{Method: sip.Bye}
	m.Add("Via", "")
	m.Add("From", from)
	m.Add("To", toHeader)
	m.Add("Call-ID", invite.CallID())
	m.Add("CSeq", fmt.Sprintf("%d %s", d.Ends[to.Other()].Seq, sip.Bye))
	m.Add("Max-Forwards", "71")
	if reason != "" {
		m.Add("Reason", reason)
	}
	out, flow, err := c.inDialog(d, to, m, nil)
	if err != nil {
		return
	}
	c.ownRequest(&exchange{method: m.Method, from: to.Other(), dlg: d}, out, flow, now)
}

// dismiss accepts and at once ends a dialog that nobody wants: another fork's
// 2xx, or one that crossed a CANCEL (RFC 3261 sections 13.2.2.4 and 9.1).
func (c *call) dismiss(ex *exchange, res *sip.Message, now time.Time) {
	tag := res.ToTag()
	if ack, ok := c.dismissed[tag]; ok {
		c.send(ack.msg, ack.flow)
		return
	}
	if len(c.dismissed) >= dialogsMax {
		return
	}
	d := &dialogState{to: res.Get("To")}
	d.Tag = tag
	d.Ends[dialog.Caller] = dialog.FromRequest(ex.server.Req)
	d.Ends[dialog.Callee] = dialog.FromResponse(res)
	d.begin(c.ahead)
	ack, flow, err := c.inDialog(d, dialog.Callee, c.ackOf(ex.server.Req, res), nil)
	if err != nil {
		return
	}
	if c.dismissed == nil {
		c.dismissed = map[string]sent{}
	}
	c.dismissed[strings.Clone(tag)] = sent{ack.Frozen(), flow}
	c.send(ack, flow)
	c.sendBye(d, dialog.Callee, "", now)
}

// sent is a message with the way it took.
type sent struct {
	msg  *sip.Message
	flow sip.Flow
}

// shutdown ends the call because the daemon stops.
func (c *call) shutdown() {
	now := time.Now()
	c.closing = true
	switch {
	case c.ended || c.setup == nil:
	case c.answered != nil:
		c.hangUp(now, media.CauseShutdown, "503", "going down")
	case c.method == sip.Invite:
		c.fail(c.setup, now, 503, "Service Unavailable", sip.RetryAfter())
		c.setup.cancelled = true // whoever rings is cancelled, whoever begins to as well
		for _, cl := range c.setup.clients {
			if cl.Provisional() {
				c.sendCancel(c.setup, cl, now)
			}
		}
	default:
		c.finish(now, media.CauseShutdown)
	}
}
