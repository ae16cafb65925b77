package src

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// leg is the signalling of a fork: one recording session after the other, until
// the call ends. It belongs to the fork's owner.
type leg struct {
	f     *Fork
	next  int       // index of the server to be tried
	tries int       // servers tried in vain since one took the recording
	retry time.Time // zero: not waiting
	pause time.Duration

	// of the recording session
	server    Server
	listed    string           // the URI of the server of the list
	gained    []*sip.Challenge // answered
	answers   int              // to challenges, since a request was taken
	redirects int              // followed, of the server of the list
	callID    string
	tag       string
	to        string    // with the server's tag, once that is known
	theirs    string    // that tag
	since     time.Time // when the server took it
	seq       uint32
	version   uint64
	end       dialog.End
	flow      sip.Flow
	up        bool
	ending    bool
	over      bool
	setup     *dialog.Client
	giveUp    time.Time // on the setup
	changing  *dialog.Client
	change    time.Time // when to tell; zero: nothing to tell
	told      told
	pausing   bool // the last that the server agreed to
	ping      time.Time
	pinging   *dialog.Client
	bye       *dialog.Client
	drain     time.Time // until when what waits is still sent, once the call has ended
	leave     time.Time // when waiting for the answer to BYE ends
	clients   []*dialog.Client
	servers   []*dialog.Server
	ack       *sip.Message // of the latest 2xx
	ackOf     uint32
	metaSince time.Time
	stale     []stale      // other answers to its INVITEs
	met       []netip.Addr // addresses that were let in for it

	timer sessionTimer
	asked uint32 // CSeq of a request of the server that we answered with an offer; 0: none

	chronicle chronicle
}

// stale is an answer that was ended at once.
type stale struct {
	callID, theirs string
	ack            *sip.Message
	flow           sip.Flow
}

// told is what the server knows.
type told struct {
	parties []string
	paused  bool
}

// own is the owner of the fork.
func (f *Fork) own() {
	defer close(f.done)
	l := &leg{f: f, pause: retryFirst}
	if f.resumed != nil {
		l.goOn(f.resumed, time.Now())
	} else {
		l.begin(time.Now())
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !l.over {
		now := time.Now()
		l.due(now)
		l.journal(now)
		if l.over {
			break
		}
		timer.Reset(max(0, l.deadline(now).Sub(now)))
		select {
		case e := <-f.inbox:
			l.take(e, time.Now())
		case <-timer.C:
		case <-f.c.ctx.Done():
			l.over = true
		}
	}
	l.journal(time.Now())
	l.settle()
	f.connect("", nil, [2]remote{}, false)
	f.c.forget(f, l.callID)
	for _, a := range l.met {
		f.c.leave(a)
	}
}

// settle says that no more audio is sent.
func (l *leg) settle() {
	why := UnsentNoServer
	if l.up {
		why = UnsentEnded
	}
	l.f.settle(why)
}

// begin calls the next server.
func (l *leg) begin(now time.Time) {
	f := l.f
	l.retry, l.up, l.ending = time.Time{}, false, false
	for l.tries < len(f.servers) {
		l.server = f.servers[l.next%len(f.servers)]
		l.next++
		l.tries++
		l.redirects, l.listed = 0, l.server.URI
		if l.invite(now) {
			return
		}
	}
	f.c.counters.Unserved.Add(1)
	f.c.cfg.Log.Warn("no recorder takes the copy of a call", "trunk", f.session.Trunk, "session", f.session.ID, "again_in", l.pause)
	l.tries, l.setup = 0, nil
	l.retry = now.Add(l.pause)
	l.pause = min(2*l.pause, retryMost)
}

// failed gives a server up for the next one.
func (l *leg) failed(why error, now time.Time) {
	f := l.f
	f.c.cfg.Log.Warn("a recorder is given up", "server", l.server.URI, "session", f.session.ID, "error", why)
	f.c.counters.Failovers.Add(1)
	f.connect("", nil, [2]remote{}, false)
	l.setup, l.changing, l.pinging, l.giveUp, l.change, l.ping = nil, nil, nil, time.Time{}, time.Time{}, time.Time{}
	l.timer, l.asked = sessionTimer{}, 0
	if l.up && now.Sub(l.since) >= steadyAfter {
		l.tries, l.pause = 0, retryFirst
	}
	l.up = false
	if l.ending {
		l.over = true
		return
	}
	l.begin(now)
}

// invite begins a recording session; false when the server cannot be reached at all.
func (l *leg) invite(now time.Time) bool {
	f := l.f
	ctx, cancel := context.WithTimeout(f.c.ctx, resolveWait)
	defer cancel()
	flows, err := f.c.agent.Resolve(ctx, l.server.Hop)
	if err != nil {
		f.c.cfg.Log.Warn("a recorder is not found", "server", l.server.URI, "error", err)
		return false
	}
	old := l.callID
	l.callID, l.tag = strconv.FormatUint(rand.Uint64(), 36)+"@"+f.c.cfg.Address.String(), strconv.FormatUint(rand.Uint64(), 36)
	f.c.rename(f, old, l.callID)
	l.seq, l.version, l.to = 0, 0, "<"+l.server.URI+">"
	l.ack, l.theirs, l.stale = nil, "", nil
	l.gained, l.answers = nil, 0
	l.end = dialog.End{Target: l.server.URI, Flow: flows[0]}
	l.meet(flows[0].Remote.Addr())
	req, flow, err := l.offer(sip.Invite, now)
	if err != nil {
		return false
	}
	if l.setup = l.send(req, flow, now); l.setup == nil {
		return false
	}
	l.giveUp = now.Add(inviteWait)
	return true
}

func (l *leg) take(e event, now time.Time) {
	switch {
	case e.fail != nil:
		e.fail.Fail(now)
		l.lost(e.fail, errors.New("cannot be reached"), now)
	case e.msg == nil: // news, looked at by due
	case e.msg.IsRequest():
		l.takeRequest(e.msg, now)
	default:
		l.takeResponse(e.msg, now)
	}
}

// lost handles a request that got no answer.
func (l *leg) lost(cl *dialog.Client, why error, now time.Time) {
	switch cl {
	case l.setup, l.changing, l.pinging:
		l.failed(why, now)
	case l.bye:
		l.over = true
	}
}

func (l *leg) takeResponse(res *sip.Message, now time.Time) {
	i := slices.IndexFunc(l.clients, func(cl *dialog.Client) bool { return cl.Matches(res) })
	if i < 0 {
		return
	}
	cl := l.clients[i]
	first := !cl.Provisional()
	pass, ack := cl.Receive(res, now)
	if ack != nil {
		_ = l.f.c.agent.Send(ack, cl.Flow, nil) // asked for again by the repetition of the response
	}
	if !pass {
		return
	}
	switch {
	case res.Status < 200:
		l.rings(cl, first, now)
	case cl == l.bye && l.challenged(res):
		l.hangUp(now)
	case cl == l.bye:
		l.over = true
	case cl == l.setup || cl == l.changing:
		l.answered(cl, res, now)
	case cl == l.pinging:
		l.pinging = nil
		if res.Status == 408 || res.Status == 481 {
			l.failed(fmt.Errorf("it answers %d", res.Status), now)
		}
	case res.Status >= 200 && res.Status < 300 && res.CallID() == l.callID && res.ToTag() == l.theirs && isInvite(res):
		l.acknowledge(res) // repeated
	case res.Status >= 200 && res.Status < 300 && isInvite(res):
		l.dismiss(res, cl.Flow, now)
	}
}

func isInvite(res *sip.Message) bool {
	_, method := res.CSeq()
	return method == sip.Invite
}

// rings takes a provisional response; first: of the transaction.
func (l *leg) rings(cl *dialog.Client, first bool, now time.Time) {
	switch {
	case cl != l.setup || !first:
	case l.ending:
		l.cancel(cl, now) // could not be until now (RFC 3261 section 9.1)
	default:
		l.giveUp = now.Add(answerWait)
	}
}

// answered takes the final response to an INVITE.
func (l *leg) answered(cl *dialog.Client, res *sip.Message, now time.Time) {
	initial := cl == l.setup
	if !l.ending && l.challenged(res) {
		l.again(initial, now)
		return
	}
	if res.Status >= 300 {
		if initial && !l.ending && l.redirected(res, now) {
			return
		}
		if !initial && res.Status != 408 && res.Status != 481 {
			l.changing, l.giveUp = nil, time.Time{} // the session goes on as it was
			switch res.Status {
			case 422:
				l.tooShort(res, now)
			case 491, 500:
				l.change = now.Add(time.Second)
			default:
				l.stays(res.Status, now)
			}
			return
		}
		l.failed(fmt.Errorf("it answers %d", res.Status), now)
		return
	}
	if initial {
		l.establish(res)
		l.up, l.since, l.setup, l.giveUp = true, now, nil, time.Time{}
	} else {
		l.end.Refresh(res)
		l.changing, l.giveUp = nil, time.Time{}
	}
	l.answers = 0
	l.timer.take(res.Get("Session-Expires"), "uac", now)
	l.acknowledge(res)
	w, to, err := l.f.agree(res)
	switch {
	case l.ending: // the CANCEL and it have crossed
		l.hangUp(now)
		return
	case err != nil:
		l.hangUp(now)
		l.bye = nil
		l.failed(err, now)
		return
	case initial:
		l.f.c.counters.Established.Add(1)
		l.ping = now.Add(pingEvery)
	}
	l.connect(w, to)
}

// acknowledge sends the ACK of a 2xx.
func (l *leg) acknowledge(res *sip.Message) {
	seq, _ := res.CSeq()
	if l.ack == nil || l.ackOf != seq {
		m, flow, err := l.request(sip.Ack)
		if err != nil {
			return
		}
		m.Set("CSeq", fmt.Sprintf("%d ACK", seq))
		l.ack, l.ackOf, l.flow = m, seq, flow
	}
	_ = l.f.c.agent.Send(l.ack, l.flow, nil) // asked for again by the repetition of the 2xx
}

// hangUp sends a BYE.
func (l *leg) hangUp(now time.Time) {
	m, flow, err := l.request(sip.Bye)
	if err != nil {
		l.over = l.ending
		return
	}
	l.bye = l.send(m, flow, now)
}

// due does what has become due.
func (l *leg) due(now time.Time) {
	l.news(now)
	for _, cl := range l.clients {
		again, timedOut := cl.Due(now)
		if again != nil {
			_ = l.f.c.agent.Send(again, cl.Flow, nil) // repeated by its timer
		}
		if timedOut {
			l.lost(cl, errors.New("it does not answer"), now)
		}
	}
	for _, s := range l.servers {
		if again, _ := s.Due(now); again != nil {
			_ = l.f.c.agent.Send(again, sip.ReplyFlow(s.Req), nil) // repeated by its timer
		}
	}
	l.clients = slices.DeleteFunc(l.clients, func(cl *dialog.Client) bool { return cl.Done(now) })
	l.servers = slices.DeleteFunc(l.servers, func(s *dialog.Server) bool { return s.Done(now) })
	l.f.transactions.Store(int32(len(l.servers)))
	passed := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	switch {
	case l.over:
	case passed(l.leave):
		l.over = true
	case l.ending:
	case passed(l.giveUp):
		cl := l.setup
		l.giveUp = time.Time{}
		if cl == nil { // of a process before: it may be there all the same
			l.hangUp(now)
			l.bye = nil
		} else if cl.Provisional() && cl.Req != nil {
			l.cancel(cl, now)
		}
		l.failed(errors.New("it does not answer"), now)
	case passed(l.retry):
		l.begin(now)
	case l.up && l.f.unheard():
		l.deaf(now)
	case passed(l.timer.at) && l.up && l.changing == nil:
		l.refreshDue(now)
	case passed(l.change) && l.up && l.changing == nil:
		l.tell(now)
	case passed(l.ping) && l.up:
		l.ping = now.Add(pingEvery)
		if m, flow, err := l.request(sip.Options); err == nil && l.pinging == nil {
			l.pinging = l.send(m, flow, now)
		}
	}
}

// cancel gives up an INVITE that rings.
func (l *leg) cancel(cl *dialog.Client, now time.Time) {
	l.send(dialog.CancelOf(cl.Req, nil), cl.Flow, now)
}

// news looks at what has changed in the call.
func (l *leg) news(now time.Time) {
	parties, paused, ended := l.f.state()
	switch {
	case ended && !l.ending && l.drain.IsZero():
		l.drain = now.Add(drainWait)
	case ended && !l.ending:
		if now.Before(l.drain) && l.up && l.f.waiting() {
			if l.told.paused && !paused && l.change.IsZero() { // it waits for that
				l.change = now
			}
			return
		}
		l.finish(now)
	case l.up && l.change.IsZero() && (paused != l.told.paused || !slices.Equal(parties, l.told.parties)):
		l.change = now.Add(changeWait)
	}
}

// tell sends what has changed.
func (l *leg) tell(now time.Time) {
	m, flow, err := l.offer(sip.Invite, now)
	if err != nil {
		return
	}
	l.changing = l.send(m, flow, now)
}

// finish ends the recording session with the call.
func (l *leg) finish(now time.Time) {
	l.ending = true
	l.settle()
	l.retry, l.change = time.Time{}, time.Time{}
	if l.setup != nil {
		if l.setup.Provisional() && l.setup.Req != nil {
			l.cancel(l.setup, now)
		}
		l.giveUp = time.Time{}
		l.leave = now.Add(byeWait) // for a 2xx that crosses it
		return
	}
	if !l.up {
		l.over = true
		return
	}
	l.f.connect("", nil, [2]remote{}, false)
	l.leave = now.Add(byeWait)
	l.hangUp(now)
	if l.bye == nil {
		l.over = true
	}
}

// deadline is when due has something to do.
func (l *leg) deadline(now time.Time) time.Time {
	next := now.Add(time.Minute)
	at := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	for _, t := range []time.Time{l.leave, l.giveUp, l.retry} {
		at(t)
	}
	if l.up && l.changing == nil && !l.ending {
		at(l.timer.at)
		at(l.change)
	}
	if l.up && !l.ending {
		at(l.ping)
		if l.f.c.cfg.Journal != nil {
			at(now.Add(saveEvery))
		}
	}
	if !l.drain.IsZero() && !l.ending {
		at(now.Add(packetMS * time.Millisecond))
	}
	for _, cl := range l.clients {
		at(cl.Deadline())
	}
	for _, s := range l.servers {
		at(s.Deadline())
	}
	return next
}
