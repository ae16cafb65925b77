package siptest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Answer is what Incoming.Run does with a call. The zero value rings and
// answers at once.
type Answer struct {
	Ring     time.Duration // from 180 or 183 to the answer
	Silent   bool          // no 180
	Early    bool          // 183 with a session description, and media, instead of 180
	Reliable bool          // the provisional response asks for PRACK (RFC 3262)
	Reject   int           // this code instead of 200; 0: answer
	Reason   string        // of Reject
	Play     Source        // what is spoken; nil: silence
	Offer    Offer
	Headers  []Header // of the final response
}

// Incoming is an INVITE that is not answered yet. It belongs to the goroutine
// of the script that was given it.
type Incoming struct {
	agent *Agent
	s     *server
	call  *Call
	rseq  uint32
	offer bool // we make the offer: the INVITE had none
}

// invited begins a call for a new INVITE and runs its script.
func (a *Agent) invited(s *server, script func(*Incoming)) {
	m := s.request
	c, err := a.newCall(m.Get("Call-ID"), Offer{})
	if err != nil {
		a.respond(s, 500, "No Media Port", "", nil)
		return
	}
	c.via = s.from
	c.local, c.remote = m.Get("To")+";tag="+c.localTag, m.Get("From")
	c.target, c.routes = URI(m.Get("Contact")), routesOf(m)
	c.invite, c.incoming = m, s
	close(c.rang)
	if !a.track(c) {
		c.media.close()
		return
	}
	a.mu.Lock()
	s.call = c
	a.mu.Unlock()
	a.respond(s, 100, "Trying", c.localTag, nil)
	in := &Incoming{agent: a, s: s, call: c, offer: len(m.Body) == 0}
	a.spawn(func() { script(in) })
}

// Request is the INVITE.
func (in *Incoming) Request() *Message { return in.s.request }

// Call is the call that the INVITE makes; it is answered after Accept alone.
func (in *Incoming) Call() *Call { return in.call }

// Run does what the Answer says.
func (in *Incoming) Run(a Answer) {
	c := in.call
	c.mu.Lock()
	c.offer = in.agent.fill(a.Offer)
	c.mu.Unlock()
	if a.Play != nil {
		c.media.Play(a.Play)
	}
	switch {
	case a.Early:
		if err := in.Progress(183, "Session Progress", true, a.Reliable); err != nil {
			return
		}
	case !a.Silent:
		if err := in.Progress(180, "Ringing", false, a.Reliable); err != nil {
			return
		}
	}
	if !c.sleep(a.Ring) {
		return
	}
	if a.Reject != 0 {
		in.Reject(a.Reject, a.Reason, a.Headers...)
		return
	}
	in.Accept(a.Headers...)
}

// Progress sends a provisional response, with a session description when sdp
// is set. A reliable one is repeated until its PRACK came, and waits for it.
func (in *Incoming) Progress(code int, reason string, sdp, reliable bool, headers ...Header) error {
	c := in.call
	var answer Offer
	if sdp {
		var err error
		if answer, err = in.answer(); err != nil {
			return err
		}
	}
	if !reliable {
		in.provisional(code, reason, headers, answer, sdp)
		return nil
	}
	in.rseq++
	ch := make(chan *Message, 1)
	c.mu.Lock()
	c.prack[in.rseq] = ch
	c.mu.Unlock()
	headers = append(headers, Header{"Require", "100rel"}, Header{"RSeq", strconv.FormatUint(uint64(in.rseq), 10)})
	in.provisional(code, reason, headers, answer, sdp)
	prack := c.repeatUntil(in.s, ch)
	if prack == nil {
		return fmt.Errorf("%d: no PRACK", code)
	}
	if sdp && in.offer && len(prack.Body) > 0 {
		c.answeredBy(prack.Body)
	}
	return nil
}

// answer takes the offer of the INVITE, or makes ours.
func (in *Incoming) answer() (Offer, error) {
	c := in.call
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.offer {
		return c.offer, nil
	}
	return c.answerOffer(in.s.request.Body, c.offer)
}

func (in *Incoming) provisional(code int, reason string, headers []Header, o Offer, sdp bool) {
	in.call.respondSDP(in.s, code, reason, headers, o, sdp)
}

// Reject refuses the call.
func (in *Incoming) Reject(code int, reason string, headers ...Header) {
	c := in.call
	if !c.takeFinal() {
		return
	}
	n, _ := in.s.request.CSeq()
	acked := c.expectAck(n)
	in.agent.respond(in.s, code, reason, c.localTag, func(r *Message) { r.Headers = append(r.Headers, headers...) })
	c.repeatUntil(in.s, acked)
	c.end(&RejectedError{&Message{Code: code, Reason: reason}})
}

// Accept answers the call with 200 and hands it to Agent.Accept when the ACK
// has come. Without an ACK the call ends.
func (in *Incoming) Accept(headers ...Header) {
	c := in.call
	if !c.takeFinal() {
		return
	}
	answer, err := in.answer()
	if err != nil {
		in.agent.respond(in.s, 488, "Not Acceptable Here", c.localTag, nil)
		c.end(err)
		return
	}
	n, _ := in.s.request.CSeq()
	acked := c.expectAck(n)
	c.respondSDP(in.s, 200, "OK", headers, answer, true)
	ack := c.repeatUntil(in.s, acked)
	if ack == nil {
		c.end(errNoACK)
		return
	}
	if in.offer && len(ack.Body) > 0 {
		c.answeredBy(ack.Body)
	}
	close(c.answered)
	select {
	case in.agent.incoming <- c:
	default: // nobody accepts; the call goes on, Incoming.Call has it
	}
}

// takeFinal says whether the INVITE may be answered finally by the caller: once.
func (c *Call) takeFinal() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	mine := c.incoming != nil
	c.incoming = nil
	return mine
}

// cancelledByPeer ends an INVITE that is not answered with 487.
func (c *Call) cancelledByPeer() {
	c.mu.Lock()
	s := c.incoming
	c.incoming = nil
	c.mu.Unlock()
	if s == nil {
		return
	}
	n, _ := s.request.CSeq()
	acked := c.expectAck(n)
	c.agent.respond(s, 487, "Request Terminated", c.localTag, nil)
	c.agent.spawn(func() {
		c.repeatUntil(s, acked)
		c.end(ErrCancelled)
	})
}

// repeatUntil sends the last response to s again until done yields (RFC 3261
// section 13.3.1.4: at T1, doubling up to T2, over any transport). nil: the
// call ended, or 64 times T1 have passed.
func (c *Call) repeatUntil(s *server, done <-chan *Message) *Message {
	a := c.agent
	interval := a.cfg.T1
	again := time.NewTimer(interval)
	defer again.Stop()
	limit := time.NewTimer(64 * a.cfg.T1)
	defer limit.Stop()
	for {
		select {
		case m := <-done:
			return m
		case <-again.C:
			a.mu.Lock()
			last := s.last
			a.mu.Unlock()
			a.answerAgain(s, last)
			interval = min(2*interval, t2)
			again.Reset(interval)
		case <-limit.C:
			return nil
		case <-c.done:
			return nil
		}
	}
}

// servePRACK answers a PRACK and ends the repetition of what it acknowledges.
func (c *Call) servePRACK(s *server) {
	first, _, _ := strings.Cut(s.request.Get("RAck"), " ")
	n, err := strconv.ParseUint(first, 10, 32)
	c.mu.Lock()
	ch := c.prack[uint32(n)]
	delete(c.prack, uint32(n))
	c.mu.Unlock()
	if err != nil || ch == nil {
		c.agent.respond(s, 481, "No Such Provisional Response", c.localTag, nil)
		return
	}
	c.agent.respond(s, 200, "OK", c.localTag, nil)
	ch <- s.request // has room for the one PRACK that finds it
}
