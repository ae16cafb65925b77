package b2bua

import (
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// exchange is one request on its way from a leg to the other, with its
// responses: a server transaction and the client transactions that serve it.
type exchange struct {
	from   dialog.Party
	method string
	seq    uint32
	dlg    *dialogState // nil while no dialog is there

	server  *dialog.Server // nil: the request is our own
	raw     *sip.Message   // the request as it came; of a hidden call
	clients []*dialog.Client
	stale   map[*dialog.Client]bool // attempts that were given up
	dropped bool                    // the server transaction will get no answer

	refresh  bool // it is ours, of a session timer
	reinvite bool // counts as the requester's INVITE in the dialog
	offered  bool // the request carries an offer
	late     lateness

	sent      *sip.Message // what was sent last, of a call whose challenges we may answer
	answers   int          // times that it was sent again with credentials
	answersTo [2]int       // of them, to challenges of servers and of proxies

	wait      *alarm       // for the next event of this exchange
	cancelled bool         // the requester gave up
	cancel    *sip.Message // with this
	ack       *sip.Message // last ACK of a 2xx, to be sent again
	ackFlow   sip.Flow
	ackDue    bool // the requester's ACK of a 2xx has come
	bare      bool // of the request only the head is known, until it is repeated
	held      bool // its party has no connection: the request waits for one
	retried   bool // it was tried on another way to the party
	holding   *alarm
}

// lateness is how far an INVITE is that leaves the offer to the other side.
type lateness struct {
	asked bool
	open  bool // the offer has come, the answer not yet
}

// alarm is something to do at a time.
type alarm struct {
	at time.Time // zero: not set
	do func(now time.Time)
}

// after does something later. The alarm can be stopped by zeroing it.
func (c *call) after(d time.Duration, now time.Time, do func(time.Time)) *alarm {
	a := &alarm{at: now.Add(d), do: do}
	c.alarms = append(c.alarms, a)
	return a
}

func (a *alarm) stop() {
	if a != nil {
		a.at = time.Time{}
	}
}

// done says whether nothing of the exchange can happen any more.
func (ex *exchange) done(now time.Time) bool {
	if ex.server != nil && !ex.dropped && !ex.server.Done(now) {
		return false
	}
	for _, cl := range ex.clients {
		if !cl.Done(now) {
			return false
		}
	}
	return ex.server != nil || len(ex.clients) > 0
}

// client returns the attempt that counts, nil before the first.
func (ex *exchange) client() *dialog.Client {
	if len(ex.clients) == 0 {
		return nil
	}
	return ex.clients[len(ex.clients)-1]
}

// answered says whether the requester has its final response.
func (ex *exchange) answered() bool {
	return ex.server == nil || ex.dropped || ex.server.Final() != 0
}

// due does what the transactions' timers want.
func (c *call) due(now time.Time) {
	for _, a := range c.alarms {
		if !a.at.IsZero() && !now.Before(a.at) {
			a.stop()
			a.do(now)
		}
	}
	for _, ex := range c.exchanges { // those that are added meanwhile have time
		if ex.server != nil {
			again, noAck := ex.server.Due(now)
			if again != nil {
				c.send(again, c.replyFlow(ex))
			}
			if noAck {
				c.unacknowledged(ex, now)
			}
		}
		for _, cl := range ex.clients {
			again, timedOut := cl.Due(now)
			if again != nil {
				c.send(again, cl.Flow)
			}
			if timedOut {
				c.clientFailed(ex, cl, true, now)
			}
		}
	}
	c.sweep(now)
}

// sweep forgets what is over.
func (c *call) sweep(now time.Time) {
	keep := c.exchanges[:0]
	for _, ex := range c.exchanges {
		if !ex.done(now) {
			keep = append(keep, ex)
		}
	}
	clear(c.exchanges[len(keep):])
	c.exchanges = keep
	alarms := c.alarms[:0]
	for _, a := range c.alarms {
		if !a.at.IsZero() {
			alarms = append(alarms, a)
		}
	}
	clear(c.alarms[len(alarms):])
	c.alarms = alarms
}

// deadline returns when due has something to do; zero: never.
func (c *call) deadline(now time.Time) (next time.Time) {
	for _, a := range c.alarms {
		next = dialog.Earliest(next, a.at)
	}
	for _, ex := range c.exchanges {
		if ex.server != nil && !ex.dropped && !ex.server.Done(now) {
			next = dialog.Earliest(next, ex.server.Deadline())
		}
		for _, cl := range ex.clients {
			if !cl.Done(now) {
				next = dialog.Earliest(next, cl.Deadline())
			}
		}
	}
	return next
}

// newExchange notes a request that came.
func (c *call) newExchange(from dialog.Party, req *sip.Message) *exchange {
	ex := &exchange{from: from, method: req.Method, server: dialog.NewServer(req), raw: c.arrived}
	ex.seq, _ = req.CSeq()
	c.exchanges = append(c.exchanges, ex)
	return ex
}

// respond sends a response to the requester.
func (c *call) respond(ex *exchange, res *sip.Message, now time.Time) {
	if ex.server == nil || ex.server.Final() != 0 || ex.dropped {
		return
	}
	if ex.raw != nil {
		res = inAnswerTo(ex.raw, res)
	}
	if res.Status >= 200 && (res.Status >= 300 || ex.method != sip.Invite) {
		res = res.Frozen() // a 2xx to INVITE is let go with its ACK
	}
	ex.server.Respond(res, now)
	if c.ends(ex, res) || c.begins(ex, res) {
		c.chronicle.replies = append(c.chronicle.replies, reply{res.Frozen(), c.replyFlow(ex)})
		return
	}
	c.send(res, c.replyFlow(ex))
}

// refuse answers a request ourselves.
func (c *call) refuse(ex *exchange, now time.Time, status int, reason string, extra ...sip.Header) {
	if ex.server == nil {
		return
	}
	res := sip.ResponseTo(ex.server.Req, status, reason)
	if status > 100 && ex.server.Req.ToTag() == "" {
		res.Set("To", withTag(ex.server.Req.Get("To"), c.tag))
	}
	res.Headers = append(res.Headers, extra...)
	c.respond(ex, res, now)
}

// acknowledge sends an ACK of a 2xx, and again when that is repeated.
func (c *call) acknowledge(ex *exchange, ack *sip.Message, flow sip.Flow) {
	ex.ack, ex.ackFlow = ack.Frozen(), flow
	c.send(ex.ack, flow)
}

// request sends a request in a client transaction of ex.
func (c *call) request(ex *exchange, req *sip.Message, flow sip.Flow, now time.Time) (*dialog.Client, error) {
	if c.authenticates() {
		ex.sent = req
	}
	if c.b.tooLarge(req, flow) {
		if cl, err := c.requestTCP(ex, req, flow, now); err == nil {
			return cl, nil
		}
	}
	return c.requestPlain(ex, req, flow, now)
}

// requestPlain is request over the flow that is given, whatever the size.
func (c *call) requestPlain(ex *exchange, req *sip.Message, flow sip.Flow, now time.Time) (*dialog.Client, error) {
	cl := dialog.NewClient(req, flow, now)
	err := c.trySend(req, flow, func() { c.flowFailed(ex, cl, flow) })
	if err != nil {
		return nil, err
	}
	ex.clients = append(ex.clients, cl)
	return cl, nil
}

// send hands a message to the transport. What is lost is repeated by timers.
func (c *call) send(m *sip.Message, flow sip.Flow) { _ = c.trySend(m, flow, nil) } // logged there

// trySend is send for those who can do something else. fail, which may be nil,
// is done by the owner when a connection turns out to be impossible.
func (c *call) trySend(m *sip.Message, flow sip.Flow, fail func()) error {
	var later func(error)
	if fail != nil {
		later = func(error) { c.put(event{do: fail}) }
	}
	err := c.b.agent.Send(m, flow, later)
	if err != nil {
		c.log.Debug("cannot send", "to", flow.Remote, "network", flow.Network, "error", err)
	}
	return err
}
