package siptest

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// server is a request received and what was answered to it.
type server struct {
	request *Message
	reply   func([]byte) error
	from    netip.AddrPort
	last    []byte // guarded by Agent.mu
	call    *Call  // of an INVITE; guarded by Agent.mu
}

// receive takes one message of the wire. It never blocks: the transport's
// reader calls it.
func (a *Agent) receive(raw []byte, m *Message, from netip.AddrPort, reply func([]byte) error) {
	a.trace(raw, false, from)
	a.cfg.Log.Debug("received", "agent", a.cfg.Name, "from", from, "line", m.StartLine())
	if !m.IsRequest() {
		a.response(m)
		return
	}
	if m.Method == "ACK" {
		a.acknowledged(m)
		return
	}
	key := serverKey(m, m.Method)
	a.mu.Lock()
	if known, ok := a.servers.get(key); ok {
		last := known.last
		a.mu.Unlock()
		if last != nil {
			a.answerAgain(known, last)
		}
		return
	}
	s := &server{request: m, reply: reply, from: from}
	a.servers.set(key, s)
	a.mu.Unlock()
	a.serve(s)
}

// serverKey matches a request to its transaction (RFC 3261 section 17.2.3).
func serverKey(m *Message, method string) string {
	via := m.Get("Via")
	return Param(via, "branch") + "\x00" + strings.Fields(via + " - -")[1] + "\x00" + method
}

func (a *Agent) serve(s *server) {
	m := s.request
	switch {
	case m.Method == "CANCEL":
		a.cancelled(s)
	case Param(m.Get("To"), "tag") != "":
		if c := a.find(m.Get("Call-ID"), Param(m.Get("To"), "tag")); c != nil {
			c.serve(s)
			return
		}
		a.respond(s, 481, "Call/Transaction Does Not Exist", "", nil)
	default:
		a.mu.Lock()
		if len(a.requests) < tracesMax {
			a.requests = append(a.requests, m)
		}
		script := a.script
		a.mu.Unlock()
		switch m.Method {
		case "INVITE":
			a.invited(s, script)
		case "OPTIONS", "MESSAGE", "REGISTER":
			a.respond(s, 200, "OK", "", nil)
		default:
			a.respond(s, 405, "Method Not Allowed", "", nil)
		}
	}
}

// cancelled ends the INVITE that the CANCEL names (RFC 3261 section 9.2).
func (a *Agent) cancelled(s *server) {
	a.mu.Lock()
	invite, ok := a.servers.get(serverKey(s.request, "INVITE"))
	var c *Call
	if ok {
		c = invite.call
	}
	a.mu.Unlock()
	if !ok {
		a.respond(s, 481, "Call/Transaction Does Not Exist", "", nil)
		return
	}
	tag := ""
	if c != nil {
		tag = c.localTag
	}
	a.respond(s, 200, "OK", tag, nil)
	if c != nil {
		c.cancelledByPeer()
	}
}

// response builds the answer to a request (RFC 3261 section 8.2.6).
func (a *Agent) answerTo(m *Message, code int, reason, toTag string) *Message {
	r := &Message{Code: code, Reason: reason}
	for _, name := range []string{"Via", "Record-Route", "From", "To", "Call-ID", "CSeq"} {
		for _, v := range m.Values(name) {
			if name == "To" && code > 100 && toTag != "" && Param(v, "tag") == "" {
				v += ";tag=" + toTag
			}
			r.Add(name, v)
		}
	}
	return r
}

// respond answers a request; edit may add to the response.
func (a *Agent) respond(s *server, code int, reason, toTag string, edit func(*Message)) {
	if toTag == "" {
		toTag = "lone" + token(4)
	}
	r := a.answerTo(s.request, code, reason, toTag)
	if edit != nil {
		edit(r)
	}
	raw := r.Bytes()
	a.mu.Lock()
	s.last = raw
	a.mu.Unlock()
	a.cfg.Log.Debug("answered", "agent", a.cfg.Name, "to", s.from, "line", r.StartLine())
	a.answerAgain(s, raw)
}

func (a *Agent) answerAgain(s *server, raw []byte) {
	a.trace(raw, true, s.from)
	if err := s.reply(raw); err != nil {
		a.cfg.Log.Debug("answer", "agent", a.cfg.Name, "to", s.from, "err", err)
	}
}

// response hands a response to its transaction. One to an INVITE that has
// ended gets its ACK again (RFC 3261 sections 13.2.2.4 and 17.1.1.2).
func (a *Agent) response(m *Message) {
	_, method := m.CSeq()
	a.mu.Lock()
	ch := a.clients[Param(m.Get("Via"), "branch")+method]
	ack, acked := a.acks.get(ackKey(m))
	a.mu.Unlock()
	if method == "INVITE" && m.Code >= 200 && acked {
		_ = a.resend(a.ctx, ack.raw, ack.to) // the peer asks again when it is lost
		return
	}
	if ch != nil {
		select {
		case ch <- m:
		default: // a flood of provisional responses; the transaction has enough of them
		}
	}
}

func ackKey(m *Message) string {
	n, _ := m.CSeq()
	return fmt.Sprint(m.Get("Call-ID"), " ", n, " ", Param(m.Get("To"), "tag"))
}

// keepAck remembers the ACK to a final response for its retransmissions.
func (a *Agent) keepAck(m *Message, raw []byte, to netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acks.set(ackKey(m), outgoing{raw, to})
}

// transact sends a request, again and again where the transport loses
// messages, and returns the final response. Final responses to INVITE other
// than 2xx are acknowledged. provisional may be nil; it is called in order.
func (a *Agent) transact(ctx context.Context, m *Message, to netip.AddrPort, provisional func(*Message)) (*Message, error) {
	ch := make(chan *Message, 32)
	key := Param(m.Get("Via"), "branch") + m.Method
	a.mu.Lock()
	a.clients[key] = ch
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.clients, key)
		a.mu.Unlock()
	}()
	raw, err := a.send(ctx, m, to)
	if err != nil {
		return nil, err
	}
	final, err := a.await(ctx, m, raw, to, ch, provisional)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Method, err)
	}
	if m.Method == "INVITE" && final.Code >= 300 {
		ack := ackTo(m, final)
		if rawAck, err := a.send(a.ctx, ack, to); err == nil {
			a.keepAck(final, rawAck, to)
		}
	}
	return final, nil
}

func (a *Agent) await(ctx context.Context, m *Message, raw []byte, to netip.AddrPort, ch <-chan *Message, provisional func(*Message)) (*Message, error) {
	interval := a.cfg.T1
	again := time.NewTimer(interval)
	defer again.Stop()
	if a.net.reliable() {
		again.Stop()
	}
	limit := time.NewTimer(64 * a.cfg.T1)
	defer limit.Stop()
	for {
		select {
		case r := <-ch:
			if r.Code >= 200 {
				return r, nil
			}
			if m.Method == "INVITE" { // timers A and B end with the first provisional response
				again.Stop()
				limit.Stop()
			} else {
				interval = t2
			}
			if provisional != nil {
				provisional(r)
			}
		case <-again.C:
			if err := a.resend(ctx, raw, to); err != nil {
				return nil, err
			}
			interval *= 2
			if m.Method != "INVITE" {
				interval = min(interval, t2)
			}
			again.Reset(interval)
		case <-limit.C:
			return nil, ErrTimeout
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-a.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// ackTo is the ACK to a final response other than 2xx: part of the INVITE's
// transaction (RFC 3261 section 17.1.1.3).
func ackTo(invite, final *Message) *Message {
	ack := &Message{Method: "ACK", RequestURI: invite.RequestURI}
	ack.Add("Via", invite.Get("Via"))
	ack.Add("Max-Forwards", "70")
	for _, r := range invite.Values("Route") {
		ack.Add("Route", r)
	}
	ack.Add("From", invite.Get("From"))
	ack.Add("To", final.Get("To"))
	ack.Add("Call-ID", invite.Get("Call-ID"))
	n, _ := invite.CSeq()
	ack.Add("CSeq", fmt.Sprintf("%d ACK", n))
	return ack
}
