package b2bua

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
	"github.com/trunktap/trunktap/sip/guard"
)

// begin takes the first request: INVITE, or whatever stands outside of a dialog.
func (c *call) begin(req *sip.Message) {
	now := req.Arrival
	ex := c.newExchange(dialog.Caller, req)
	c.setup = ex
	if _, ok := maxForwards(req); !ok {
		c.refusedSetup(sip.RefusedHops, 483)
		c.fail(ex, now, 483, "Too Many Hops")
		return
	}
	if c.method == sip.Invite {
		c.refuse(ex, now, 100, "Trying")
	}
	if c.timed(ex, req, now) {
		c.finish(now, media.CauseFailed)
		return
	}
	body, err := c.requestBody(ex, req, now)
	if err != nil {
		c.log.Warn("call refused: its media cannot be anchored", "error", err)
		c.b.counters.CallsRefused.Add(1)
		status, reason := statusOf(err)
		c.refusedSetup(mediaCause(err), status)
		c.fail(ex, now, status, reason, warning(err)...)
		return
	}
	c.setupBody = body
	if !c.forPhone(req) {
		c.hops = c.firstHops(req)
	}
	c.observe(req, now)
}

// fail answers the first request ourselves and ends what it began.
func (c *call) fail(ex *exchange, now time.Time, status int, reason string, extra ...sip.Header) {
	c.refuse(ex, now, status, reason, extra...)
	c.finish(now, media.CauseFailed)
}

// session describes the call for the observer.
func (c *call) session(req *sip.Message) media.Session {
	s := media.Session{
		ID:    media.SessionID(req.CallID(), req.FromTag(), req.Arrival),
		Trunk: c.trunk.Name, SIPCallID: req.CallID(), FromTag: req.FromTag(),
		Direction: media.Inbound, Start: req.Arrival, Links: c.state.Links(),
	}
	if c.alias != nil {
		s.OtherSIPCallID = c.alias.callID
		s.Links = append(s.Links, "call-id:"+c.alias.callID, "dialog:"+c.alias.callID+";"+c.alias.tag)
	}
	if c.side == media.Internal {
		s.Direction = media.Outbound
	}
	var names [2]string
	s.From, names[0] = addressOf(req.Get("From"))
	s.To, names[1] = addressOf(req.Get("To"))
	s.Parties = make([]media.Participant, 2)
	s.Parties[c.side] = media.Participant{Side: c.side, URI: s.From, Name: names[0]}
	s.Parties[c.side.Other()] = media.Participant{Side: c.side.Other(), URI: s.To, Name: names[1]}
	detach(&s)
	for _, name := range c.b.cfg.Headers {
		if v := req.Fields(name); len(v) > 0 {
			if s.Headers == nil {
				s.Headers = map[string][]string{}
			}
			s.Headers[strings.ToLower(name)] = v
		}
	}
	return s
}

// detach lets a session keep nothing of the message that it was read from: some of it
// is remembered long after the call, and would hold the whole text.
func detach(s *media.Session) {
	for _, p := range []*string{&s.SIPCallID, &s.FromTag, &s.From, &s.To} {
		*p = strings.Clone(*p)
	}
	for i := range s.Parties {
		p := &s.Parties[i]
		p.URI, p.Name = strings.Clone(p.URI), strings.Clone(p.Name)
	}
	for i, l := range s.Links {
		s.Links[i] = strings.Clone(l)
	}
}

var errObserverPanic = errors.New("observer panicked")

// observe asks the observer before the far end rings, while the call may have
// another owner: an observer that hangs must hold up nobody.
func (c *call) observe(req *sip.Message, now time.Time) {
	if c.method != sip.Invite || c.b.cfg.Observer == nil {
		c.observed = true
		c.nextHop(now)
		return
	}
	c.pending++
	wait := c.after(observerWait, now, func(now time.Time) {
		c.observed = true
		c.pending--
		c.b.counters.Unrecorded.Add(1)
		c.log.Error("recorder did not answer in time, call goes on unrecorded", "after", observerWait)
		c.nextHop(now)
	})
	c.state = c.b.callState.Load().Dialog(c.trunk.Name, req, c.side)
	session := c.session(req)
	c.chronicle.session = session
	c.later = func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), observerWait)
		defer cancel()
		tap, err := ask(ctx, c.b.cfg.Observer, session)
		ok, orphan := c.box.put(event{do: func() { c.observerAnswered(tap, err, wait) }})
		if !ok {
			c.unwanted(tap)
		}
		return orphan
	}
}

func ask(ctx context.Context, o media.Observer, s media.Session) (tap media.SessionTap, err error) {
	defer func() {
		if r := recover(); r != nil {
			tap, err = nil, fmt.Errorf("%w: %v", errObserverPanic, r)
		}
	}()
	return o.SessionStarted(ctx, s)
}

// unwanted ends a tap that nobody will use.
func (c *call) unwanted(tap media.SessionTap) {
	g := &guard.Guard{Tap: tap, What: "call", Log: c.log, Fault: &c.b.counters.Unrecorded}
	g.Ended(time.Now(), media.CauseFailed)
}

func (c *call) observerAnswered(tap media.SessionTap, err error, wait *alarm) {
	if c.observed {
		c.unwanted(tap)
		return
	}
	c.observed = true
	c.pending--
	wait.stop()
	now := time.Now()
	if c.ended {
		c.unwanted(tap)
		return
	}
	switch {
	case errors.Is(err, errObserverPanic):
		c.b.counters.Unrecorded.Add(1)
		c.log.Error("recorder panicked, call goes on unrecorded", "error", err)
	case err != nil:
		c.b.counters.CallsRefused.Add(1)
		c.log.Error("call refused: it must be recorded and cannot be", "error", err)
		c.refusedSetup(sip.RefusedRecording, 503)
		c.fail(c.setup, now, 503, "Service Unavailable",
			sip.Header{Name: "Reason", Value: `SIP;cause=503;text="recording not possible"`})
		return
	}
	c.tap.Tap = tap
	c.tell(c.setup.server.Req, c.side)
	c.nextHop(now)
}

// nextHop tries the next address of the next hop, or the next hop after it.
func (c *call) nextHop(now time.Time) {
	for !c.setup.answered() && !c.setup.cancelled {
		if len(c.flows) > 0 {
			flow := c.flows[0]
			c.flows = c.flows[1:]
			if err := c.attempt(flow, now); err == nil {
				return
			}
			c.timedOut = false
			continue
		}
		if !c.nextRedirection() {
			if len(c.hops) == 0 {
				c.noHop(now)
				return
			}
			c.hop, c.hops = c.hops[0], c.hops[1:]
		}
		if _, err := netip.ParseAddr(c.hop.Host); err != nil {
			c.resolve(c.hop)
			return
		}
		c.flows, _ = c.b.agent.Resolve(context.Background(), c.hop) // an address needs no DNS
	}
}

// resolve asks DNS without holding up the owner.
func (c *call) resolve(hop sip.NextHop) {
	c.pending++
	go func() { // ends with resolveWait
		ctx, cancel := context.WithTimeout(context.Background(), resolveWait)
		defer cancel()
		flows, err := c.b.agent.Resolve(ctx, hop)
		c.put(event{do: func() {
			c.pending--
			if err != nil {
				c.log.Warn("next hop not found", "error", err)
				c.noteHop(hopOutcome{failed: true}, time.Now())
				c.timedOut = false
			}
			var addrs []netip.Addr
			for _, f := range flows {
				addrs = append(addrs, f.Remote.Addr())
			}
			c.table.Learn(sip.Peer{Trunk: c.trunk, Side: c.at(dialog.Callee)}, addrs)
			c.flows = flows
			c.nextHop(time.Now())
		}})
	}()
}

// attempt sends the first request to one address.
func (c *call) attempt(flow sip.Flow, now time.Time) error {
	flow.TLS = c.trunk.Sides[c.at(dialog.Callee)].TLS
	ex := c.setup
	via, ours, flow, err := c.via(c.at(dialog.Callee), flow)
	if err != nil {
		c.log.Warn("next hop cannot be reached", "next_hop", c.hop.String(), "error", err)
		return err
	}
	req := ex.server.Req
	m := outgoing(req, c.requestURI(req.URI), c.serviceRoutes(req), via, c.setupBody)
	if targets(req.Method) {
		ownContact(m, ours, flow.Network, true)
	}
	c.register(m, req, ours, flow.Network)
	addCSeq(m, c.ahead)
	c.carry(m, req, c.side, ours, flow)
	if c.alias != nil {
		c.outward(m, dialog.Caller)
	}
	c.present(m, dialog.Callee)
	if _, err = c.request(ex, m, flow, now); err != nil {
		return err
	}
	ex.wait.stop()
	c.heard = false
	c.noteHop(hopOutcome{begun: true}, now)
	if len(c.flows)+len(c.hops)+len(c.redirects) > 0 {
		ex.wait = c.after(nextHopWait, now, func(now time.Time) {
			ex.giveUp(ex.client())
			c.timedOut = true
			c.noteHop(hopOutcome{failed: true}, now)
			c.nextHop(now)
		})
	}
	return nil
}

func (ex *exchange) giveUp(cl *dialog.Client) {
	if ex.stale == nil {
		ex.stale = map[*dialog.Client]bool{}
	}
	ex.stale[cl] = true
}

// noHop is reached when no next hop took the request.
func (c *call) noHop(now time.Time) {
	if c.awaitPhone(now) {
		return
	}
	c.log.Warn("no next hop answers", "timeout", c.timedOut)
	c.timedOut = c.timedOut && !c.refused503
	switch {
	case c.timedOut && c.method != sip.Invite:
		c.setup.dropped = true // RFC 4320 section 4.1
		c.finish(now, media.CauseFailed)
	case c.timedOut:
		c.fail(c.setup, now, 408, "Request Timeout")
	default:
		status, reason := c.unreachable()
		c.fail(c.setup, now, status, reason, sip.RetryAfter())
	}
}

// ringing notes that somebody is there, and cancels what was waiting for that.
func (c *call) ringing(ex *exchange, cl *dialog.Client, now time.Time) {
	ex.wait.stop()
	if ex.cancelled {
		c.sendCancel(ex, cl, now)
		return
	}
	if ex.method != sip.Invite {
		return
	}
	ex.wait = c.after(ringMax, now, func(now time.Time) {
		c.cancelled(ex, nil, now)
		c.inviteOver(ex)
		c.refuse(ex, now, 408, "Request Timeout")
		if ex == c.setup {
			c.finish(now, media.CauseFailed)
		}
	})
}

// setupResponse takes a response to the first request.
func (c *call) setupResponse(ex *exchange, cl *dialog.Client, res *sip.Message, now time.Time) {
	if !c.heard && res.Status != 503 {
		c.heard = true
		c.noteHop(hopOutcome{}, now)
	}
	switch {
	case res.Status >= 300 && c.divert(ex, cl, res, now):
	case res.Status < 200:
		c.ringing(ex, cl, now)
		if res.Status > 100 && c.method == sip.Invite && !ex.cancelled && !ex.answered() {
			c.fork(res)
			c.passResponse(ex, res, now)
		}
	case res.Status < 300 && c.method == sip.Invite:
		c.accepted(ex, res, now)
	case c.longer(ex, cl, res, now):
	case c.tooLate(ex, res, now):
		c.finish(now, media.CauseFailed)
	default:
		ex.wait.stop()
		if ex.answered() {
			return
		}
		if res.Status < 300 && createsDialog(c.method) {
			c.fork(res)
			c.subscribed(res, now)
		}
		if res.Status < 300 && c.method == sip.Register {
			c.b.cameBack(c)
		}
		c.passResponse(ex, res, now)
		if c.usage == nil {
			c.finish(now, media.CauseFailed)
		}
	}
}

// accepted takes a 2xx to the first INVITE.
func (c *call) accepted(ex *exchange, res *sip.Message, now time.Time) {
	switch {
	case c.answered != nil && c.answered.Tag == res.ToTag():
		if ex.ack != nil {
			c.send(ex.ack, c.ackFlow(ex, res))
		}
		return
	case c.answered != nil:
		c.dismiss(ex, res, now) // another fork, too late
		return
	case ex.cancelled || ex.answered(): // CANCEL and 200 crossed, RFC 3261 section 9.1
		c.dismiss(ex, res, now)
		c.fail(ex, now, 487, "Request Terminated")
		return
	}
	d := c.fork(res)
	if err := c.vet(ex, res); err != nil {
		c.refuseSetup(ex, res, err, now)
		return
	}
	ex.wait.stop()
	if d == nil {
		c.dismiss(ex, res, now)
		return
	}
	c.within(d)
	c.media.chosen()
	end := dialog.FromResponse(res) // counts anew, RFC 3261 section 13.2.2.4
	end.Seq = d.Ends[dialog.Callee].Seq
	d.Ends[dialog.Callee] = end
	d.Confirmed, d.to = true, strings.Clone(res.Get("To"))
	c.b.reachable(c, d)
	for _, fork := range c.dialogs {
		fork.InviteDone(dialog.Caller)
	}
	c.answered, ex.dlg = d, d
	c.setupBody = nil // no other attempt will want it
	c.b.counters.CallsAnswered.Add(1)
	c.chronicle.at = now
	c.tap.Answered(now)
	c.media.answered(now, c.b.cfg.Overlay)
	c.tellResponse(res, c.at(dialog.Callee))
	c.timersAgreed(ex, res, now)
	c.passResponse(ex, res, now)
	c.media.decide()
	c.after(callMax, now, func(now time.Time) { c.hangUp(now, media.CauseTimeout, "408", "call too long") })
	c.watchSilence(now)
}

// fork returns the dialog of a response that makes one; nil when there are too many.
func (c *call) fork(res *sip.Message) *dialogState {
	tag := res.ToTag()
	if d := c.dialogOf(tag); d != nil {
		d.Ends[dialog.Callee].Refresh(res)
		return d
	}
	if tag == "" && res.Status < 200 {
		return nil // makes no dialog, RFC 3261 section 12.1
	}
	end := dialog.FromResponse(res)
	return c.newDialog(tag, res.Get("To"), end)
}

func (c *call) newDialog(tag, to string, callee dialog.End) *dialogState {
	if len(c.dialogs) >= dialogsMax {
		return nil
	}
	tag = strings.Clone(tag) // as what follows it outlives the message
	d := &dialogState{to: strings.Clone(to)}
	d.Tag = tag
	d.Ends[dialog.Caller] = dialog.FromRequest(c.setup.server.Req)
	d.Ends[dialog.Callee] = callee
	d.begin(c.ahead)
	if c.method == sip.Invite && c.answered == nil {
		d.Invite(dialog.Caller)
	}
	c.dialogs = append(c.dialogs, d)
	c.b.learn(c, tag, d)
	return d
}

func (c *call) dialogOf(tag string) *dialogState {
	for _, d := range c.dialogs {
		if d.Tag == tag {
			return d
		}
	}
	return nil
}

// staleResponse takes what an attempt still says that was given up for another.
func (c *call) staleResponse(ex *exchange, cl *dialog.Client, res *sip.Message, now time.Time) {
	switch {
	case ex.method != sip.Invite:
	case res.Status < 200:
		c.sendCancel(ex, cl, now)
	case res.Status < 300:
		c.dismiss(ex, res, now)
	}
}

// watchSilence ends a call of which nobody sends anything any more.
func (c *call) watchSilence(now time.Time) {
	if c.b.cfg.MediaTimeout < 0 || c.ended {
		return
	}
	c.after(silenceEvery, now, func(now time.Time) {
		since, counts := c.media.silentSince()
		if counts && now.Sub(since) >= c.b.cfg.MediaTimeout && !c.ended {
			c.b.counters.MediaSilent.Add(1)
			c.log.Info("no media from any side, call ended", "since", since)
			c.hangUp(now, media.CauseMediaSilence, "408", "no media")
			return
		}
		c.watchSilence(now)
	})
}
