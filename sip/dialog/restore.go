package dialog

import (
	"time"

	"github.com/trunktap/trunktap/sip"
)

// Last returns the response that is sent again, nil when none is.
func (s *Server) Last() *sip.Message { return s.last }

// Branch is what the top Via of the request has, for Answered.
func (c *Client) Branch() string { return c.branch }

// Answered returns the transaction of an INVITE whose 2xx came to a process before:
// what repeats it is for its user. flow is where it was sent.
func Answered(branch string, flow sip.Flow, now time.Time) *Client {
	c := &Client{Flow: flow, method: sip.Invite, branch: branch, invite: true}
	c.finish(200, now.Add(sip.TransactionTimeout))
	return c
}

// Proceeding returns the transaction of a request that a process before has sent, and
// that somebody has taken: it is not sent again, and may be cancelled.
func Proceeding(req *sip.Message, flow sip.Flow, now time.Time) *Client {
	c := NewClient(req, flow, now)
	c.receiveProvisional(now)
	return c
}

// Awaiting returns the transaction of a request that a process before has sent and that
// cannot be sent again: its answer may come.
func Awaiting(req *sip.Message, flow sip.Flow, now time.Time) *Client {
	c := NewClient(req, flow, now)
	c.interval, c.resend = 0, time.Time{}
	return c
}
