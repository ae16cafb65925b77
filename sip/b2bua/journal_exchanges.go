package b2bua

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
	"github.com/trunktap/trunktap/sip/journal"
)

// What is under way in an answered call when the process dies goes on in the next one:
// requests as the same transactions, with the same branches, so that whoever had them
// already answers again and does nothing twice.

// savedExchange is a request of a call that waits for its answer, or an INVITE whose
// 2xx or ACK may have to be repeated.
type savedExchange struct {
	From        dialog.Party
	Method      string
	Seq         uint32
	Request     string       `json:",omitempty"` // as it came; empty: it is ours
	Via         journal.Flow `json:",omitzero"`
	Sent        string       `json:",omitempty"` // as it went on, while it has no final response
	Flow        journal.Flow `json:",omitzero"`
	Provisional bool         `json:",omitempty"` // it was heard
	Cancelled   bool         `json:",omitempty"`
	Refresh     bool         `json:",omitempty"` // of a session timer
	LateOpen    bool         `json:",omitempty"` // the answer is due in the ACK
	Bare        bool         `json:",omitempty"` // the body was left out

	Done savedSetup `json:",omitzero"` // of an INVITE with a 2xx
}

// saveExchanges returns what is under way.
func (c *call) saveExchanges() (list []savedExchange) {
	now := time.Now()
	for _, ex := range c.exchanges {
		cl := ex.client()
		if ex == c.setup || ex.dlg == nil || ex.dlg != c.answered || cl == nil || ex.method == sip.Cancel || ex.done(now) {
			continue
		}
		if s, ok := ex.save(cl, now); ok {
			list = append(list, s)
		}
	}
	return list
}

func (ex *exchange) save(cl *dialog.Client, now time.Time) (s savedExchange, ok bool) {
	s = savedExchange{
		From: ex.from, Method: ex.method, Seq: ex.seq, Cancelled: ex.cancelled, Refresh: ex.refresh, LateOpen: ex.late.open,
	}
	final := cl.Final()
	if ex.server != nil {
		final = ex.server.Final()
		req := ex.server.Req
		if ex.raw != nil {
			req = ex.raw
		}
		if final != 0 || !offers(ex.method) {
			req = bare(req)
		}
		s.Request, s.Via = string(req.Append(nil)), journal.FlowOf(req.Flow)
	}
	switch {
	case final == 0 && cl.Req != nil && !cl.Done(now):
		sent := cl.Req
		if s.Bare = ex.bare || !offers(ex.method) && len(sent.Body) > 0; s.Bare {
			sent = bare(sent)
		}
		s.Sent, s.Flow, s.Provisional = string(sent.Append(nil)), journal.FlowOf(cl.Flow), cl.Provisional()
		return s, true
	case ex.method == sip.Invite && final >= 200 && final < 300:
		s.Done = ex.saveAnswered()
		return s, true
	}
	return s, false // whoever lost the answer asks for it, and that is passed on
}

// bare is a message without its body. Of bodies nothing is kept but descriptions: digits
// of a card may be in others.
func bare(m *sip.Message) *sip.Message {
	if len(m.Body) == 0 {
		return m
	}
	m = m.Clone()
	m.Body = nil
	return m
}

// saveAnswered keeps what repetitions of a 2xx to an INVITE and of its ACK need.
func (ex *exchange) saveAnswered() (s savedSetup) {
	s.Branch, s.Flow, s.Acked = ex.client().Branch(), journal.FlowOf(ex.client().Flow), ex.ackDue
	if ex.server != nil {
		if last := ex.server.Last(); last != nil && !ex.ackDue {
			s.Answer = string(last.Append(nil))
		}
	}
	if ex.ack != nil {
		s.Ack, s.AckFlow = string(ex.ack.Append(nil)), journal.FlowOf(ex.ackFlow)
	}
	return s
}

// restoreExchanges goes on with what was under way. One that cannot be is refused, so
// that its sender tries again.
func (c *call) restoreExchanges(list []savedExchange, now time.Time) {
	for i := range min(len(list), exchangesMax) {
		if err := c.restoreExchange(&list[i], now); err != nil {
			c.log.Warn("a request that was under way does not go on after the restart", "method", list[i].Method, "error", err)
		}
	}
}

func (c *call) restoreExchange(s *savedExchange, now time.Time) error {
	if s.From > dialog.Callee {
		return errJournal
	}
	ex := &exchange{from: s.From, method: s.Method, seq: s.Seq, dlg: c.answered, refresh: s.Refresh, late: lateness{open: s.LateOpen}}
	if s.Request != "" {
		if err := c.restoreServer(ex, s); err != nil {
			return err
		}
	}
	if s.Done.Branch != "" {
		c.restoreAnswered(ex, s.Done, now)
		return nil
	}
	sent, _, err := sip.Parse([]byte(s.Sent), false)
	if err != nil || !sent.IsRequest() || sent.Method != s.Method {
		return fmt.Errorf("%w: its %s: %w", errJournal, s.Method, err)
	}
	flow := c.flowOf(s.Flow, c.at(s.From.Other()))
	cl := dialog.NewClient(sent, flow, now)
	switch {
	case s.Bare:
		cl = dialog.Awaiting(sent, flow, now)
		ex.bare = true
	case s.Provisional:
		cl = dialog.Proceeding(sent, flow, now)
	}
	ex.clients = []*dialog.Client{cl}
	c.exchanges = append(c.exchanges, ex)
	if s.Bare {
		return nil
	}
	if s.Method == sip.Invite {
		ex.dlg.Invite(ex.from)
		ex.reinvite = ex.server != nil
	}
	wrong := c.restoreOffer(ex, sent)
	c.whenOpen(func(now time.Time) { c.goOn(ex, cl, s.Cancelled, wrong, now) })
	return wrong
}

// restoreServer restores the transaction of a request that came.
func (c *call) restoreServer(ex *exchange, s *savedExchange) error {
	req, _, err := sip.Parse([]byte(s.Request), false)
	if err != nil || !req.IsRequest() || req.Method != s.Method {
		return fmt.Errorf("%w: its %s: %w", errJournal, s.Method, err)
	}
	req.Flow, req.Arrival = c.flowOf(s.Via, c.at(s.From)), time.Now()
	if c.alias != nil {
		if ex.raw = req; req.CallID() == c.alias.callID {
			req = c.inward(req, dialog.Callee)
		}
	}
	ex.server = dialog.NewServer(req)
	return nil
}

var errOffer = errors.New("what it offers cannot be anchored as it was")

// restoreOffer takes the offer of a request again. It has to come out as it went on.
func (c *call) restoreOffer(ex *exchange, sent *sip.Message) error {
	if ex.server == nil || c.ended {
		return nil
	}
	body, err := c.requestBody(ex, ex.server.Req, time.Now())
	if err == nil && !bytes.Equal(body, sent.Body) {
		err = errOffer
	}
	return err
}

// fill sends a request again of which only the head was kept, now that its sender has
// repeated it.
func (c *call) fill(ex *exchange, m *sip.Message, now time.Time) {
	branch := ex.client().Branch()
	out, flow, err := c.inDialog(ex.dlg, ex.from.Other(), m, m.Body)
	if err != nil {
		return // it comes again
	}
	via, err := out.TopVia()
	if err != nil {
		return
	}
	via.Params = via.Params.Without("branch") + sip.Params(";branch="+branch)
	out.SetVia(via)
	ex.bare, ex.clients = false, nil
	if _, err := c.requestPlain(ex, out, flow, now); err != nil {
		c.refuse(ex, now, 503, "Service Unavailable")
	}
}

// goOn sends a request again whose answer may never come otherwise. wrong says why its
// answer would be of no use.
func (c *call) goOn(ex *exchange, cl *dialog.Client, cancelled bool, wrong error, now time.Time) {
	p := ex.from.Other()
	_, _, next := ex.dlg.Ends[p].Route()
	flow := c.flowTo(p, &ex.dlg.Ends[p], next)
	switch {
	case cl.Final() != 0: // it was quick
	case !cl.Flow.Reliable() && cl.Provisional():
	case !cl.Flow.Reliable() || flow.Network != cl.Flow.Network:
		c.send(cl.Req, cl.Flow)
	default: // the connection is gone, and with it what was sent on it
		c.sendOver(ex, cl, flow, now)
	}
	if cl.Provisional() && ex.method == sip.Invite {
		c.ringing(ex, cl, now)
	}
	if wrong != nil {
		c.inviteOver(ex)
		c.refuse(ex, now, 500, "Server Internal Error", sip.RetryAfter())
		cancelled = true
	}
	if cancelled && ex.method == sip.Invite {
		ex.cancelled = true
		if cl.Provisional() {
			c.sendCancel(ex, cl, now)
		}
	}
}

// whenOpen does something when messages can be sent.
func (c *call) whenOpen(do func(now time.Time)) {
	c.pending++
	run := func() {
		c.put(event{do: func() {
			c.pending--
			do(time.Now())
		}})
	}
	c.b.mu.Lock()
	started := c.b.started
	if !started {
		c.b.opening = append(c.b.opening, run)
	}
	c.b.mu.Unlock()
	if started {
		run()
	}
}
