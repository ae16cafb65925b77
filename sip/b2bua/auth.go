package b2bua

import (
	"fmt"
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// answersMax bounds how often one request is sent again with credentials.
const answersMax = 3

// credentials are the challenges of one call that were answered, by party and by
// Proxy: good for the next request.
type credentials struct {
	challenges [2][2]*sip.Challenge
}

// authOf returns the credentials for a party's side; nil: none.
func (c *call) authOf(to dialog.Party) *sip.Credentials { return c.trunk.Sides[c.at(to)].Auth }

// authenticates says whether any challenge of this call may be answered by us.
func (c *call) authenticates() bool {
	return c.trunk.Sides[0].Auth != nil || c.trunk.Sides[1].Auth != nil
}

// present gives a request to a party the answers to its earlier challenges, before it
// asks again; an ACK those of its INVITE (RFC 3261 section 22.1).
func (c *call) present(m *sip.Message, to dialog.Party) {
	by := c.authOf(to)
	if c.creds == nil || by == nil {
		return
	}
	if m.Method == sip.Ack {
		c.presentAck(m, to)
		return
	}
	for _, ch := range c.creds.challenges[to] {
		if ch != nil {
			_ = ch.Authorize(m, *by) // without it the request is challenged
		}
	}
}

func (c *call) presentAck(ack *sip.Message, to dialog.Party) {
	seq, _ := ack.CSeq()
	for _, ex := range c.exchanges {
		if ex.method != sip.Invite || ex.from != to.Other() || ex.sent == nil {
			continue
		}
		if n, _ := ex.sent.CSeq(); n != seq {
			continue
		}
		for _, name := range []string{"Authorization", "Proxy-Authorization"} {
			if v := ex.sent.Fields(name); len(v) > 0 {
				ack.Set(name, v...)
			}
		}
	}
}

// renumber returns the CSeq number of a request that is sent again: a new one (RFC
// 3261 section 22.2), by which all that its sender says is ahead from then on.
func (c *call) renumber(ex *exchange) uint32 {
	if ex == c.setup || ex.dlg == nil {
		c.ahead++
		for _, d := range c.dialogs {
			d.begin(c.ahead)
		}
		return ex.seq + c.ahead
	}
	d, by := ex.dlg, ex.from
	d.insert(by)
	off := d.Ends[by].Seq - ex.seq + d.ahead[by] // others may have been sent since
	switch ex.method {
	case sip.Invite:
		d.invite[by] = off
	case sip.Refer:
		d.refer[by] = off
	}
	return ex.seq + off
}

// authorize answers a challenge with the credentials of its side; false: it is the
// requester's to answer.
func (c *call) authorize(ex *exchange, cl *dialog.Client, res *sip.Message, now time.Time) bool {
	if res.Status != 401 && res.Status != 407 || ex.sent == nil || ex.server == nil || ex.cancelled || ex.answered() {
		return false
	}
	to := ex.from.Other()
	by := c.authOf(to)
	if by == nil {
		return false
	}
	ch := sip.ChallengeOf(res, by.Realm)
	if ch == nil {
		return false
	}
	if proxy := index(ch.Proxy); ex.answers >= answersMax || ex.answersTo[proxy] > 0 && !ch.Stale() {
		c.b.counters.Rejected.Add(1)
		c.log.Error("credentials refused", "side", c.at(to), "status", res.Status)
		return false
	}
	if c.creds == nil {
		c.creds = &credentials{}
	}
	if err := c.answer(ex, cl, ch, *by, to, now); err != nil {
		c.log.Warn("challenge not answered", "side", c.at(to), "error", err)
		return false
	}
	c.b.counters.Authorized.Add(1)
	ex.wait.stop()
	return true
}

// authorizeOwn answers the challenge of a BYE or a session refresh that no party asked
// for; once, for nobody waits for it.
func (c *call) authorizeOwn(ex *exchange, cl *dialog.Client, res *sip.Message, now time.Time) bool {
	if res.Status != 401 && res.Status != 407 || ex.sent == nil || ex.answers > 0 || c.answered == nil ||
		ex.method != sip.Bye && !ex.refresh {
		return false
	}
	from := dialog.Callee
	if tag := ex.sent.FromTag(); tag == c.key.tag || c.alias != nil && tag == c.alias.tag {
		from = dialog.Caller
	}
	by := c.authOf(from.Other())
	if by == nil {
		return false
	}
	ch := sip.ChallengeOf(res, by.Realm)
	if ch == nil {
		return false
	}
	if c.creds == nil {
		c.creds = &credentials{}
	}
	ex.from, ex.dlg = from, c.answered
	if err := c.answer(ex, cl, ch, *by, from.Other(), now); err != nil {
		return false
	}
	c.b.counters.Authorized.Add(1)
	return true
}

func index(proxy bool) int {
	if proxy {
		return 1
	}
	return 0
}

// answer sends the request of ex again.
func (c *call) answer(ex *exchange, cl *dialog.Client, ch *sip.Challenge, by sip.Credentials, to dialog.Party, now time.Time) error {
	m := ex.sent.Clone()
	via, err := m.TopVia()
	if err != nil {
		return err
	}
	c.branches++
	via.Params = via.Params.Without("branch") + sip.Params(";branch="+branchOf(c.id, c.branches))
	m.SetVia(via)
	m.Set("CSeq", fmt.Sprintf("%d %s", c.renumber(ex), m.Method))
	if err := ch.Authorize(m, by); err != nil {
		return err
	}
	c.creds.challenges[to][index(ch.Proxy)] = ch
	if other := c.creds.challenges[to][index(!ch.Proxy)]; other != nil {
		if err := other.Authorize(m, by); err != nil { // its count goes up with each request
			return err
		}
	}
	ex.answers++
	ex.answersTo[index(ch.Proxy)]++
	_, err = c.request(ex, m, cl.Flow, now)
	return err
}

// admits says whether a request that begins something may, by the credentials that
// its side wants; it is answered with a challenge when not.
func (b *B2BUA) admits(m *sip.Message, peer sip.Peer) bool {
	gate := peer.Trunk.Sides[peer.Side].Gate
	if gate == nil {
		return true
	}
	verdict := gate.Check(m, m.Arrival)
	if verdict == sip.Known {
		m.DropCredentials("Proxy-Authorization", gate.Realm()) // they were for us
		return true
	}
	b.counters.Refused.Unauthentic.Add(1)
	var headers []sip.Header
	for _, v := range gate.Challenges(m, verdict == sip.TooOld, m.Arrival) {
		headers = append(headers, sip.Header{Name: "Proxy-Authenticate", Value: v})
	}
	b.reply(m, 407, "Proxy Authentication Required", headers...)
	return false
}
