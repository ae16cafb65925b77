package dialog

import (
	"fmt"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// Client is a client transaction (RFC 3261 section 17.1, RFC 6026).
type Client struct {
	Req  *sip.Message // nil after the final response: it will not be sent again
	Flow sip.Flow     // where it is sent

	method      string
	branch      string
	invite      bool
	provisional bool
	final       int
	ack         *sip.Message // of a final response that is no 2xx
	interval    time.Duration
	resend      time.Time // timers A and E; zero: none
	timeout     time.Time // timers B and F; zero: none
	end         time.Time // timers D, K and M; zero: not known yet
}

// NewClient begins the transaction of a request that is being sent.
func NewClient(req *sip.Message, flow sip.Flow, now time.Time) *Client {
	via, _ := req.TopVia() // we made it
	c := &Client{Req: req, Flow: flow, method: req.Method, branch: via.Branch(), invite: req.Method == sip.Invite}
	c.timeout = now.Add(sip.TransactionTimeout)
	if !flow.Reliable() {
		c.interval = sip.T1
		c.resend = now.Add(c.interval)
	}
	return c
}

// Matches says whether a response belongs to the transaction (RFC 3261 section 17.1.3).
func (c *Client) Matches(res *sip.Message) bool {
	via, err := res.TopVia()
	if err != nil || via.Branch() != c.branch {
		return false
	}
	_, method := res.CSeq()
	return method == c.method
}

// Receive takes a response that Matches. pass: it is news for the user of the
// transaction. ack is to be sent, if not nil.
func (c *Client) Receive(res *sip.Message, now time.Time) (pass bool, ack *sip.Message) {
	if c.ended(now) {
		return false, nil
	}
	switch {
	case res.Status < 200:
		return c.receiveProvisional(now), nil
	case !c.invite:
		if c.final != 0 {
			return false, nil
		}
		c.finish(res.Status, now.Add(c.linger(sip.T4))) // timer K
		return true, nil
	case res.Status < 300:
		if c.final >= 300 {
			return false, nil
		}
		if c.final == 0 {
			c.finish(res.Status, now.Add(sip.TransactionTimeout)) // timer M
		}
		return true, nil // repetitions and other forks included
	case c.final == 0:
		c.ack = ackOf(c.Req, res)
		c.finish(res.Status, now.Add(c.linger(sip.TransactionTimeout))) // timer D
		return true, c.ack
	case c.final >= 300:
		return false, c.ack
	}
	return false, nil
}

func (c *Client) receiveProvisional(now time.Time) bool {
	if c.final != 0 {
		return false
	}
	c.provisional = true
	if c.invite {
		c.resend, c.timeout = time.Time{}, time.Time{}
	} else if !c.resend.IsZero() {
		c.interval = sip.T2
	}
	return true
}

func (c *Client) finish(status int, end time.Time) {
	if c.final, c.end = status, end; status != 0 {
		c.Req = nil
	}
	c.resend, c.timeout = time.Time{}, time.Time{}
}

func (c *Client) linger(d time.Duration) time.Duration {
	if c.Flow.Reliable() {
		return 0
	}
	return d
}

// Fail ends a transaction whose request could not be sent.
func (c *Client) Fail(now time.Time) { c.finish(c.final, now) }

// Due does what has become due: the request to send again, and whether nobody
// has answered in time, which ends the transaction.
func (c *Client) Due(now time.Time) (again *sip.Message, timedOut bool) {
	if !c.timeout.IsZero() && !now.Before(c.timeout) {
		c.finish(0, now)
		return nil, true
	}
	if c.resend.IsZero() || now.Before(c.resend) {
		return nil, false
	}
	c.interval *= 2
	if !c.invite {
		c.interval = min(c.interval, sip.T2)
	}
	c.resend = now.Add(c.interval)
	return c.Req, false
}

// Deadline returns when Due or Done has news; zero: never.
func (c *Client) Deadline() time.Time {
	return Earliest(c.resend, Earliest(c.timeout, c.end))
}

// Done says whether the transaction may be forgotten.
func (c *Client) Done(now time.Time) bool { return c.ended(now) }

func (c *Client) ended(now time.Time) bool { return !c.end.IsZero() && !now.Before(c.end) }

// Provisional says whether a provisional response has come: only then may the
// request be cancelled (RFC 3261 section 9.1).
func (c *Client) Provisional() bool { return c.provisional }

// Final returns the status of the final response, 0 before it.
func (c *Client) Final() int { return c.final }

// ackOf makes the ACK of a final response that is no 2xx (RFC 3261 section 17.1.1.3).
func ackOf(invite, res *sip.Message) *sip.Message {
	ack := companion(invite, sip.Ack)
	ack.Set("To", res.Get("To"))
	return ack
}

// CancelOf makes the CANCEL of an INVITE that we sent (RFC 3261 section 9.1).
// What the canceller had to say besides (Reason and the like) is taken over
// from its own CANCEL, which may be nil.
func CancelOf(invite, cancel *sip.Message) *sip.Message {
	c := companion(invite, sip.Cancel)
	if cancel == nil {
		return c
	}
	c.Body = cancel.Body
	for _, h := range cancel.Headers {
		if !c.Has(h.Name) && !perHop(h.Name) {
			c.Headers = append(c.Headers, h)
		}
	}
	return c
}

// perHop names the fields that belong to one hop or to the message's framing.
func perHop(name string) bool {
	m := sip.Message{Headers: []sip.Header{{Name: name}}}
	for _, n := range []string{"Via", "Route", "Record-Route", "Contact", "Max-Forwards", "Content-Length", "Require", "Proxy-Require"} {
		if m.Has(n) {
			return true
		}
	}
	return false
}

// companion begins an ACK or CANCEL that shares the transaction of an INVITE.
func companion(invite *sip.Message, method string) *sip.Message {
	m := &sip.Message{Method: method, URI: invite.URI}
	seq, _ := invite.CSeq()
	for _, name := range []string{"Via", "Route", "Max-Forwards", "From", "To", "Call-ID"} {
		for _, v := range invite.Fields(name) {
			m.Add(name, v)
		}
	}
	m.Add("CSeq", fmt.Sprintf("%d %s", seq, method))
	return m
}
