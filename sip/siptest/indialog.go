package siptest

import (
	"context"
	"errors"
	"fmt"
)

// Do sends any request in the dialog and returns its final response; one other
// than 2xx is a *RejectedError error too. body nil means none.
func (c *Call) Do(ctx context.Context, method, contentType string, body []byte, headers ...Header) (*Message, error) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", method, ErrEnded)
	}
	m := c.newRequest(method)
	to := c.nextHop()
	c.mu.Unlock()
	m.Headers = append(m.Headers, headers...)
	if body != nil {
		m.Add("Content-Type", contentType)
		m.Body = body
	}
	r, err := c.agent.transact(ctx, m, to, nil)
	if err != nil {
		return nil, err
	}
	return r, rejection(r)
}

// Info sends INFO (RFC 6086).
func (c *Call) Info(ctx context.Context, contentType string, body []byte, headers ...Header) error {
	_, err := c.Do(ctx, "INFO", contentType, body, headers...)
	return err
}

// Message sends MESSAGE (RFC 3428) in the dialog.
func (c *Call) Message(ctx context.Context, contentType string, body []byte, headers ...Header) error {
	_, err := c.Do(ctx, "MESSAGE", contentType, body, headers...)
	return err
}

// Options sends OPTIONS in the dialog.
func (c *Call) Options(ctx context.Context) error {
	_, err := c.Do(ctx, "OPTIONS", "", nil)
	return err
}

// Refer asks the other side to call target (RFC 3515).
func (c *Call) Refer(ctx context.Context, target string, headers ...Header) error {
	_, err := c.Do(ctx, "REFER", "", nil, append([]Header{{"Refer-To", "<" + target + ">"}}, headers...)...)
	return err
}

// Notify sends NOTIFY for the subscription that a REFER made.
func (c *Call) Notify(ctx context.Context, status string) error {
	_, err := c.Do(ctx, "NOTIFY", "message/sipfrag;version=2.0", []byte(status+"\r\n"),
		Header{"Event", "refer"}, Header{"Subscription-State", "terminated;reason=noresource"})
	return err
}

// Bye stops sending and ends the call. It has ended even when the other side
// did not agree.
func (c *Call) Bye(ctx context.Context, headers ...Header) error {
	c.media.Halt()
	_, err := c.Do(ctx, "BYE", "", nil, headers...)
	c.end(nil)
	return err
}

// Hold puts the other side on hold by a re-INVITE.
func (c *Call) Hold(ctx context.Context, kind HoldKind) error {
	o := Offer{Direction: Direction(kind)}
	if kind == HoldZero {
		o = Offer{Zero: true}
	}
	return c.Reinvite(ctx, o)
}

// Resume ends what Hold began.
func (c *Call) Resume(ctx context.Context) error { return c.Reinvite(ctx, Offer{}) }

// Reinvite renegotiates the media by a re-INVITE (RFC 3261 section 14.1).
func (c *Call) Reinvite(ctx context.Context, o Offer, headers ...Header) error {
	return c.renegotiate(ctx, "INVITE", o, headers)
}

// Update renegotiates the media by UPDATE (RFC 3311), also before the answer.
func (c *Call) Update(ctx context.Context, o Offer, headers ...Header) error {
	return c.renegotiate(ctx, "UPDATE", o, headers)
}

func (c *Call) renegotiate(ctx context.Context, method string, o Offer, headers []Header) error {
	o = c.agent.fill(o)
	c.mu.Lock()
	if c.ended || c.reinviting {
		defer c.mu.Unlock()
		if c.ended {
			return fmt.Errorf("%s: %w", method, ErrEnded)
		}
		return fmt.Errorf("%s: another one is under way", method)
	}
	c.reinviting = true
	if o.SRTP == nil {
		o.SRTP = c.offer.SRTP
	}
	m := c.newRequest(method)
	m.Headers = append(m.Headers, headers...)
	c.describe(m, o)
	to := c.nextHop()
	c.mu.Unlock()
	final, err := c.agent.transact(ctx, m, to, nil)
	c.mu.Lock()
	c.reinviting = false
	if err == nil {
		err = rejection(final)
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	if contact := final.Get("Contact"); contact != "" {
		c.target = URI(contact) // both refresh the target (RFC 3261 section 12.2.1.2, RFC 3311 section 5.1)
	}
	c.offer = o
	c.offer.NoSDP, c.offer.SRTP = false, o.SRTP.kept()
	if method == "UPDATE" {
		defer c.mu.Unlock()
		if len(final.Body) == 0 {
			return nil
		}
		return c.negotiate(final.Body, o)
	}
	c.mu.Unlock()
	return c.acknowledge(m, final, o)
}

// OnRequest sets what answers the requests of the dialog. f returns nil for the
// usual answer, else a response with a code, a reason, header fields and a body
// of its own; the rest is filled in.
func (c *Call) OnRequest(f func(*Message) *Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hook = f
}

// AnswerWhen lets the requests of the dialog that come from now on wait for their
// answers until ready is closed.
func (c *Call) AnswerWhen(ready <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready = ready
}

// keep adds to Requests. c.mu is held.
func (c *Call) keep(m *Message) {
	if len(c.requests) < tracesMax {
		c.requests = append(c.requests, m)
	}
	if c.arrived != nil {
		close(c.arrived)
		c.arrived = nil
	}
}

// AwaitRequests returns when Requests has at least n messages.
func (c *Call) AwaitRequests(ctx context.Context, n int) error {
	for {
		c.mu.Lock()
		have := len(c.requests)
		if c.arrived == nil {
			c.arrived = make(chan struct{})
		}
		arrived := c.arrived
		c.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-arrived:
		case <-c.done:
			return fmt.Errorf("%d requests of %d came: %w", have, n, ErrEnded)
		case <-ctx.Done():
			return fmt.Errorf("%d requests of %d came: %w", have, n, context.Cause(ctx))
		}
	}
}

// serve answers a request of the dialog.
func (c *Call) serve(s *server) {
	m := s.request
	c.mu.Lock()
	c.keep(m)
	hook, ready := c.hook, c.ready
	c.mu.Unlock()
	if ready == nil {
		c.answer(s, hook)
		return
	}
	c.agent.spawn(func() {
		select {
		case <-ready:
			c.answer(s, hook)
		case <-c.agent.ctx.Done():
		}
	})
}

func (c *Call) answer(s *server, hook func(*Message) *Message) {
	m := s.request
	if hook != nil {
		if r := hook(m); r != nil {
			c.agent.respond(s, r.Code, r.Reason, c.localTag, func(out *Message) {
				out.Headers = append(out.Headers, r.Headers...)
				out.Body = r.Body
			})
			return
		}
	}
	switch m.Method {
	case "INVITE", "UPDATE":
		c.serveOffer(s)
	case "PRACK":
		c.servePRACK(s)
	case "BYE":
		c.agent.respond(s, 200, "OK", c.localTag, nil)
		c.cancelledByPeer() // a BYE may come before the answer (RFC 3261 section 15)
		c.end(nil)
	case "REFER":
		c.agent.respond(s, 202, "Accepted", c.localTag, nil)
	default:
		c.agent.respond(s, 200, "OK", c.localTag, nil)
	}
}

// serveOffer answers a re-INVITE or an UPDATE.
func (c *Call) serveOffer(s *server) {
	m := s.request
	c.mu.Lock()
	if c.reinviting {
		c.mu.Unlock()
		c.agent.respond(s, 491, "Request Pending", c.localTag, nil) // RFC 3261 section 14.2
		return
	}
	if contact := m.Get("Contact"); contact != "" {
		c.target = URI(contact)
	}
	offers := len(m.Body) == 0 && m.Method == "INVITE" // ours then, and the ACK answers
	answer, err := c.offer, error(nil)
	if len(m.Body) > 0 {
		answer, err = c.answerOffer(m.Body, c.offer)
	}
	c.mu.Unlock()
	if err != nil {
		c.agent.respond(s, 488, "Not Acceptable Here", c.localTag, nil)
		return
	}
	c.respondSDP(s, 200, "OK", nil, answer, offers || len(m.Body) > 0)
	if m.Method == "INVITE" {
		n, _ := m.CSeq()
		acked := c.expectAck(n)
		c.agent.spawn(func() {
			if ack := c.repeatUntil(s, acked); ack != nil && offers {
				c.answeredBy(ack.Body)
			}
		})
	}
}

// respondSDP answers with Contact and, when with is set, our description.
func (c *Call) respondSDP(s *server, code int, reason string, headers []Header, o Offer, with bool) {
	c.mu.Lock()
	body := &Message{}
	if with {
		o.NoSDP = false
		c.describe(body, o)
	}
	c.mu.Unlock()
	c.agent.respond(s, code, reason, c.localTag, func(r *Message) {
		r.Add("Contact", "<"+c.agent.URI()+">")
		r.Headers = append(append(r.Headers, headers...), body.Headers...)
		r.Body = body.Body
	})
}

// answeredBy takes the answer to an offer of ours that an ACK or a PRACK carries.
func (c *Call) answeredBy(body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.negotiate(body, c.offer); err != nil {
		c.agent.cfg.Log.Debug("answer", "agent", c.agent.cfg.Name, "err", err)
	}
}

// expectAck makes the channel that takes the ACK of the INVITE of that number.
func (c *Call) expectAck(cseq uint32) <-chan *Message {
	ch := make(chan *Message, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acks[cseq] = ch
	return ch
}

// acknowledged takes an ACK of the wire.
func (a *Agent) acknowledged(m *Message) {
	c := a.find(m.Get("Call-ID"), Param(m.Get("To"), "tag"))
	if c == nil {
		return
	}
	n, _ := m.CSeq()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep(m)
	if ch := c.acks[n]; ch != nil {
		delete(c.acks, n)
		ch <- m // has room for the one ACK that finds it
	}
}

var errNoACK = errors.New("no ACK in 64 times T1 (RFC 3261 section 13.3.1.4)")
