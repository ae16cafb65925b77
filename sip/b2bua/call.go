package b2bua

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/callstate"
	"github.com/trunktap/trunktap/sip/dialog"
	"github.com/trunktap/trunktap/sip/guard"
)

// call is two legs and what belongs to them; or, begun by another method than
// INVITE, a transaction and the subscription that may come of it.
type call struct {
	// fixed
	b       *B2BUA
	id      uint64
	key     callKey // in B2BUA.calls
	method  string  // of the first request, with its CSeq number, branch and sent-by
	seq     uint32
	branch  string
	sentBy  string
	passage uint64 // what the first request had of its own, should it come back
	tag     string // ours, in final responses that no callee made
	trunk   *sip.Trunk
	side    media.Side // the caller's
	table   *tableUse
	log     *slog.Logger
	box     mailbox
	edits   bool   // there are rules for header fields
	alias   *alias // nil: both legs have one identity

	// guarded by B2BUA.mu
	tags      []string // of callees
	over      bool
	reach     [2]string // Contacts, by party
	instances [2]string // and their +sip.instance
	streams   [2]bool   // and whether they are reached over connections
	awaits    string    // Contact of a phone that it waits for; empty: none

	// of the owner
	setup       *exchange // the first request
	exchanges   []*exchange
	dialogs     []*dialogState
	alarms      []*alarm
	branches    uint64 // numbers our branches
	pending     int    // answers of other goroutines that will come
	observed    bool   // the observer has answered, or is waited for no longer
	media       *anchor
	tap         *guard.Guard
	timers      *timers           // nil: session timers pass
	ahead       uint32            // requests of ours before the caller's first on the other leg
	state       *callstate.Dialog // nil: nobody observes
	hops        []sip.NextHop     // not yet tried
	phone       *binding          // whom the first request is for, when that registered through us
	phoneWait   *alarm            // until when that is waited for; nil: it never was
	flows       []sip.Flow        // addresses of the next hop not yet tried
	hop         sip.NextHop       // being tried
	takeover    string            // Contact of who has the call that this one is to replace
	takeoverHop sip.NextHop       // and the next hop of that
	timedOut    bool              // the last next hop did not answer
	creds       *credentials      // nil: no challenge was answered
	redirects   []redirection     // of redirections, not yet tried
	followed    []string          // every URI that a redirection has named
	targetURI   string            // of the redirection that is being tried
	refused503  bool              // one has answered, with 503
	heard       bool              // the one that is being tried has said something
	answered    *dialogState      // the fork that took the call
	chronicle   chronicle
	ended       bool
	faults      int          // survived
	setupBody   []byte       // of the first request, for the far end
	usage       *alarm       // end of a subscription
	transfer    *alarm       // end of a transfer that the call asked for
	arrived     *sip.Message // being taken, as it came; of a hidden call
	closing     bool         // the daemon stops
	gone        bool         // nothing is left of it
	later       func() bool  // what the owner is to do when it is the owner no more, and whether it is again; nil: nothing
	timer       *time.Timer
	alarm       time.Time // when it goes off; zero: not

	cancelSent map[*dialog.Client]bool
	dismissed  map[string]sent // ACKs of forks that nobody wanted, by tag
	byeSent    [2]bool         // to that party
}

// dialogState is a dialog with what we need to speak in it ourselves.
type dialogState struct {
	dialog.Dialog
	numbers
	to    string  // the callee's name and tag as its To has it
	media *branch // nil: nothing was said about media in it
}

func newCall(b *B2BUA, req *sip.Message, peer sip.Peer, table *tableUse) *call {
	via, _ := req.TopVia() // Parse has seen to it
	c := &call{
		b: b, id: rand.Uint64() | 1, key: callKey{req.CallID(), req.FromTag()},
		method: req.Method, branch: via.Branch(), sentBy: via.Host,
		tag: strconv.FormatUint(rand.Uint64(), 16), trunk: peer.Trunk, side: peer.Side, table: table,
	}
	c.seq, _ = req.CSeq()
	c.passage = passage(req, peer.Trunk.Name, peer.Side)
	c.log = slog.New(&callLog{Handler: b.cfg.Log.Handler(), trunk: peer.Trunk.Name, callID: req.CallID()})
	if peer.Trunk.Hide {
		c.alias = b.newAlias(req)
	}
	c.edits = edits(peer.Trunk)
	c.timers = newTimers(peer.Trunk, req)
	c.tap = &guard.Guard{What: "call", Log: c.log, Fault: &b.counters.Unrecorded}
	c.media = newAnchor(b.cfg.Relay, peer.Trunk, c.tap, c.log)
	c.media.later = func(f func()) { c.put(event{do: f}) }
	return c
}

// peers says whether src may take part in the call.
func (c *call) peers(src netip.AddrPort) bool {
	for _, side := range []media.Side{media.External, media.Internal} {
		if c.table.Allows(sip.Peer{Trunk: c.trunk, Side: side}, src.Addr()) {
			return true
		}
	}
	return false
}

// put gives the call an event, and an owner when it has none.
func (c *call) put(e event) bool {
	ok, orphan := c.box.put(e)
	if orphan {
		c.b.owners.employ(c)
	}
	return ok
}

// own is the owner of the call until nothing is left to do for now. Then it does
// what takes long and needs no owner.
func (c *call) own() {
	var later func() bool
	for again := true; again; {
		again = c.turn()
		if c.later != nil {
			later, c.later = c.later, nil
		}
		again = again || !c.gone && !c.box.release()
		if !again && later != nil {
			again, later = later(), nil
		}
	}
}

// turn takes what has come and does what is due. It returns true when more has
// come meanwhile.
func (c *call) turn() (again bool) {
	for _, e := range c.box.take(false) {
		if e.msg != nil {
			now := time.Now()
			c.b.load.observe(now.Sub(e.msg.Arrival), now)
		}
		c.survive(func() { c.take(e) })
	}
	now := time.Now()
	c.survive(func() { c.due(now) })
	c.survive(c.journal)
	c.survive(c.reply)
	switch {
	case c.faults > faultsMax: // it would go on for ever
		c.leave(now, media.CauseFailed)
		return false
	case c.b.stopped.Load():
		c.finish(now, media.CauseShutdown)
		for events := c.box.take(true); len(events) > 0; events = c.box.take(true) {
			for _, e := range events {
				if e.do != nil {
					c.survive(e.do) // an observer that answers now must hear that it is over
				}
			}
		}
		c.leave(now, media.CauseShutdown)
		return false
	case c.finished(), c.spent(now):
		events := c.box.take(true)
		if len(events) == 0 {
			c.b.tails.keep(c.exchanges, now) // before it is forgotten: a repetition finds one or the other
			c.leave(now, media.CauseFailed)
			return false
		}
		for _, e := range events {
			c.survive(func() { c.take(e) })
		}
		return true
	}
	c.wakeAt(c.deadline(now))
	return false
}

// wakeAt lets the call have an owner at a time; zero: when something comes.
func (c *call) wakeAt(at time.Time) {
	switch {
	case at.Equal(c.alarm):
		return
	case at.IsZero():
		c.timer.Stop()
	case c.timer == nil:
		c.timer = time.AfterFunc(time.Until(at), c.ring)
	default:
		c.timer.Reset(time.Until(at))
	}
	c.alarm = at
}

// ring is what the timer does.
func (c *call) ring() {
	if _, orphan := c.box.put(event{rang: true}); orphan {
		c.own()
	}
}

// leave ends the call: it gets no owner any more.
func (c *call) leave(now time.Time, cause media.Cause) {
	c.finish(now, cause)
	c.box.shutDown()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.gone = true
	c.unjournal()
	c.reply()
	c.b.forget(c)
	c.b.wg.Done()
}

// survive keeps a fault of ours in one call from ending all others: the event
// is lost, the call goes on.
func (c *call) survive(f func()) {
	defer func() {
		if r := recover(); r != nil {
			c.b.counters.Panics.Add(1)
			c.faults++
			c.log.Error("fault in a call", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
	}()
	f()
}

// finished says whether the owner may leave.
func (c *call) finished() bool {
	if c.closing && c.said() {
		return true
	}
	if len(c.exchanges) > 0 || c.pending > 0 {
		return false
	}
	if c.method == sip.Invite {
		return (c.ended || c.answered == nil) && (c.transfer == nil || c.transfer.at.IsZero())
	}
	return c.usage == nil || c.usage.at.IsZero()
}

// said says whether every request of our own has its answer: no more is waited
// for when the daemon stops.
func (c *call) said() bool {
	for _, ex := range c.exchanges {
		if cl := ex.client(); ex.server == nil && cl.Final() == 0 && !cl.Done(time.Now()) {
			return false
		}
	}
	return true
}

// finish ends the session once: the relay's ports go into quarantine, the
// recorder hears the time and the cause.
func (c *call) finish(at time.Time, cause media.Cause) {
	if c.ended {
		return
	}
	c.ended, c.chronicle.over, c.chronicle.observed = true, time.Now(), c.tap.Tap != nil
	c.media.close()
	c.tap.Ended(at, cause)
	c.state, c.setupBody = nil, nil
	c.b.over(c)
}

func (c *call) take(e event) {
	switch {
	case e.do != nil:
		e.do()
	case e.rang:
		c.alarm = time.Time{}
	case e.msg == nil:
	case e.msg.IsRequest():
		c.takeRequest(e.msg)
	default:
		c.takeResponse(e.msg)
	}
}

// at returns the side of a party.
func (c *call) at(p dialog.Party) media.Side {
	if p == dialog.Caller {
		return c.side
	}
	return c.side.Other()
}

func (c *call) takeRequest(m *sip.Message) {
	now := m.Arrival
	if c.alias != nil {
		if c.arrived = m; m.CallID() == c.alias.callID {
			m = c.inward(m, dialog.Callee)
		}
	}
	if c.setup == nil {
		c.begin(m)
		return
	}
	for _, ex := range c.exchanges {
		if ex.server != nil && ex.server.Matches(m) {
			if ex.bare {
				c.fill(ex, m, now)
			} else if again := ex.server.Receive(m, now); again != nil {
				c.send(again, c.replyFlow(ex))
			}
			return
		}
	}
	switch m.Method {
	case sip.Cancel:
		c.takeCancel(m, now)
	case sip.Ack:
		c.takeAck(m, now)
	default:
		c.takeInDialog(m, now)
	}
}

func (c *call) takeResponse(res *sip.Message) {
	for _, ex := range c.exchanges {
		for _, cl := range ex.clients {
			if !cl.Matches(res) {
				continue
			}
			pass, ack := cl.Receive(res, res.Arrival)
			if ack != nil {
				c.send(ack, cl.Flow)
			}
			if pass && c.alias != nil && ex.server != nil && ex.from == dialog.Caller {
				res = c.inward(res, dialog.Caller)
			}
			if pass {
				c.responded(ex, cl, res, res.Arrival)
			}
			return
		}
	}
	c.b.counters.Unknown.Add(1)
}

// responded takes what a client transaction has to say.
func (c *call) responded(ex *exchange, cl *dialog.Client, res *sip.Message, now time.Time) {
	switch {
	case ex.server == nil && c.authorizeOwn(ex, cl, res, now):
	case ex.refresh:
		c.refreshed(ex, res, now)
	case ex.stale[cl]:
		c.staleResponse(ex, cl, res, now)
	case ex == c.setup:
		c.setupResponse(ex, cl, res, now)
	case ex.server == nil: // our own CANCEL or BYE
	default:
		c.inDialogResponse(ex, cl, res, now)
	}
}

// clientFailed takes the end of a client transaction without a final response.
func (c *call) clientFailed(ex *exchange, cl *dialog.Client, timedOut bool, now time.Time) {
	cl.Fail(now)
	switch {
	case ex.refresh:
		c.refreshOver(ex)
		if timedOut && !c.ended {
			c.expired(now, ex.from.Other(), "no answer to a session refresh")
		}
	case ex.stale[cl], ex.server == nil, ex.client() != cl:
	case ex == c.setup:
		c.timedOut = timedOut
		c.noteHop(hopOutcome{failed: true}, now)
		c.nextHop(now)
	case timedOut && ex.method != sip.Invite && ex.method != sip.Bye:
		c.inviteOver(ex)
		ex.dropped = true // nobody waits for a 408 any more (RFC 4320 section 4.1)
	case timedOut && ex.method == sip.Bye:
		c.refuse(ex, now, 200, "OK")
	case timedOut:
		c.inviteOver(ex)
		c.refuse(ex, now, 408, "Request Timeout")
	default:
		c.inviteOver(ex)
		c.refuse(ex, now, 503, "Service Unavailable")
	}
}

// unacknowledged is told that no ACK came for a final response.
func (c *call) unacknowledged(ex *exchange, now time.Time) {
	if ex != c.setup || ex.server.Final() >= 300 || c.ended {
		return // of a re-INVITE the far end knows as well, and it is its session to end
	}
	c.log.Info("the answer was never acknowledged, call ended")
	c.hangUp(now, media.CauseTimeout, "408", "ACK missing")
}

// via makes a Via for a new transaction on a flow, and our address on it.
func (c *call) via(side media.Side, flow sip.Flow) (sip.Via, netip.AddrPort, sip.Flow, error) {
	ours, flow, err := c.b.agent.Local(flow, c.trunk.Sides[side].Address)
	if err != nil {
		return sip.Via{}, ours, flow, err
	}
	c.branches++
	return sip.Via{
		Transport: strings.ToUpper(flow.Network), Host: ours.Addr().WithZone("").String(), Port: int(ours.Port()),
		Params: sip.Params(";rport;branch=" + branchOf(c.id, c.branches)),
	}, ours, flow, nil
}

// busy says whether the call has as many requests going as it may.
func (c *call) busy() bool {
	n := 0
	for _, ex := range c.exchanges {
		if !ex.answered() {
			n++
		}
	}
	return n >= exchangesMax
}

// statusOf is what a description that cannot be anchored is answered with.
func statusOf(err error) (int, string) {
	if errors.Is(err, relay.ErrNoPorts) || errors.Is(err, relay.ErrClosed) {
		return 503, "Service Unavailable"
	}
	return 488, "Not Acceptable Here"
}
