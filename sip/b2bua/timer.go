package b2bua

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// Times of session timers.
const (
	sessionMin    = 90 * time.Second // RFC 4028 section 5
	refreshAgain  = 5 * time.Second  // after what does not say that the session is gone
	refreshBehind = 2 * time.Second  // while an INVITE of a party is under way
)

// timers keep up a session timer on each leg of a call (RFC 4028): towards each
// party we are the other one. Owned by the call; nil: what the parties say passes.
type timers struct {
	cfg  sip.SessionTimers
	legs [2]timerLeg // by party
}

// timerLeg is the timer towards one party.
type timerLeg struct {
	supports bool          // the party speaks RFC 4028
	update   bool          // it takes UPDATE
	asked    time.Duration // in its request that is under way; 0: nothing
	role     string        // of the refresher that it asked for: uac, uas or empty

	min      time.Duration // the least that it takes
	interval time.Duration // in force; 0: none yet
	theirs   bool          // the party refreshes
	due      *alarm
	expires  time.Time // without a refresh

	agreed  []byte // the description that it agreed to: what we refresh with
	pending []byte // offered to it
}

func newTimers(t *sip.Trunk, req *sip.Message) *timers {
	if t.Timers.Mode == sip.TimersPass || req.Method != sip.Invite {
		return nil
	}
	return &timers{cfg: t.Timers}
}

func (t *timers) keep() bool { return t.cfg.Mode == sip.TimersKeep }

// heard takes what a party says of itself.
func (l *timerLeg) heard(m *sip.Message) {
	if m.Has("Supported") || m.Has("Session-Expires") {
		l.supports = m.HasToken("Supported", "timer") || m.Has("Session-Expires")
	}
	if m.Has("Allow") {
		l.update = m.HasToken("Allow", sip.Update)
	}
}

// sessionExpires reads Session-Expires (RFC 4028 section 4).
func sessionExpires(m *sip.Message) (d time.Duration, refresher string, ok bool) {
	v, params, _ := strings.Cut(m.Get("Session-Expires"), ";")
	n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 31)
	if err != nil {
		return 0, "", false
	}
	refresher, _ = sip.Params(";" + params).Get("refresher")
	return time.Duration(n) * time.Second, strings.ToLower(refresher), true
}

func minSE(m *sip.Message) time.Duration {
	v, _, _ := strings.Cut(m.Get("Min-SE"), ";")
	n, _ := strconv.ParseUint(strings.TrimSpace(v), 10, 31)
	return time.Duration(n) * time.Second
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

// timed looks at the timer that a request asks for, and answers one that cannot be.
func (c *call) timed(ex *exchange, req *sip.Message, now time.Time) (refused bool) {
	t := c.timers
	if t == nil || !offers(req.Method) {
		return false
	}
	if !t.keep() {
		if req.HasToken("Require", "timer") {
			c.refuse(ex, now, 420, "Bad Extension", sip.Header{Name: "Unsupported", Value: "timer"})
			return true
		}
		return false
	}
	l := &t.legs[ex.from]
	l.heard(req)
	l.asked, l.role = 0, ""
	if d, role, ok := sessionExpires(req); ok {
		l.asked, l.role = d, role
	}
	l.min = max(l.min, minSE(req))
	if l.supports && l.asked > 0 && l.asked < t.cfg.MinSE {
		c.refuse(ex, now, 422, "Session Interval Too Small", sip.Header{Name: "Min-SE", Value: seconds(t.cfg.MinSE)})
		return true
	}
	return false
}

// write puts the timer of a party's leg into what it is sent, in the place of what
// the other party said of its own.
func (t *timers) write(out *sip.Message, to dialog.Party, early bool) {
	out.Set("Session-Expires")
	out.Set("Min-SE")
	without(out, "Supported", "timer")
	without(out, "Require", "timer")
	_, method := out.CSeq()
	if !t.keep() || !offers(method) {
		return
	}
	l := &t.legs[to]
	switch {
	case out.IsRequest() && method == sip.Update && early:
	case out.IsRequest():
		with(out, "Supported", "timer")
		want := max(t.cfg.Expires, l.min)
		role := ""
		if l.interval > 0 {
			want = l.interval
			if role = ";refresher=uac"; l.theirs {
				role = ";refresher=uas"
			}
		}
		out.Add("Session-Expires", seconds(want)+role)
		if least := max(l.min, t.cfg.MinSE); least > sessionMin {
			out.Add("Min-SE", seconds(least))
		}
	case out.Status >= 200 && out.Status < 300 && !early && l.supports:
		with(out, "Supported", "timer")
		role := "uas"
		if l.theirs {
			role = "uac"
			with(out, "Require", "timer")
		}
		out.Add("Session-Expires", seconds(l.interval)+";refresher="+role)
	}
}

// without takes a token out of a list, with the whole field when nothing is left.
func without(m *sip.Message, name, token string) {
	if !m.HasToken(name, token) {
		return
	}
	list := slices.DeleteFunc(m.List(name), func(e string) bool { return strings.EqualFold(e, token) })
	if len(list) == 0 {
		m.Set(name)
		return
	}
	m.Set(name, strings.Join(list, ", "))
}

// with adds a token to a list that does not have it.
func with(m *sip.Message, name, token string) {
	if m.HasToken(name, token) {
		return
	}
	m.Set(name, strings.Join(append(m.List(name), token), ", "))
}

// note remembers the descriptions that parties agree to.
func (t *timers) note(out *sip.Message, to dialog.Party) {
	if !t.keep() {
		return
	}
	l := &t.legs[to]
	if out.Status >= 300 {
		t.legs[to.Other()].pending = nil
		return
	}
	if out.Status >= 200 {
		if far := &t.legs[to.Other()]; far.pending != nil {
			far.agreed, far.pending = far.pending, nil
		}
	}
	body, _, ok := description(out)
	if !ok {
		return
	}
	if out.IsRequest() && out.Method != sip.Ack {
		l.pending = slices.Clone(body)
		return
	}
	l.agreed = slices.Clone(body)
}

// agreed takes the 2xx of a party to a request of the other: both legs have a timer
// from now on.
func (c *call) timersAgreed(ex *exchange, res *sip.Message, now time.Time) {
	t := c.timers
	if t == nil || !t.keep() || !offers(ex.method) || c.answered == nil {
		return
	}
	t.taken(ex.from.Other(), res)
	near := &t.legs[ex.from]
	near.interval = t.cfg.Expires
	if near.asked > 0 {
		near.interval = near.asked
	}
	near.interval = max(near.interval, near.min)
	near.theirs = near.supports && near.role != "uas"
	for _, p := range []dialog.Party{dialog.Caller, dialog.Callee} {
		c.arm(p, now)
	}
}

// taken takes what a party answered to the timer that we asked for.
func (t *timers) taken(p dialog.Party, res *sip.Message) {
	far := &t.legs[p]
	far.heard(res)
	d, role, ok := sessionExpires(res)
	if !ok {
		far.supports = false
		d = max(t.cfg.Expires, far.min)
	}
	far.interval, far.theirs = max(d, far.min, sessionMin), ok && role == "uas"
}

// arm starts the timer of a leg anew.
func (c *call) arm(p dialog.Party, now time.Time) {
	l := &c.timers.legs[p]
	l.expires = now.Add(l.interval - min(32*time.Second, l.interval/3)) // RFC 4028 section 10
	at := now.Add(l.interval / 2)
	if l.theirs {
		at = l.expires
	}
	c.watch(p, at.Sub(now), now)
}

// watch looks at the timer of a leg in a while.
func (c *call) watch(p dialog.Party, in time.Duration, now time.Time) {
	l := &c.timers.legs[p]
	l.due.stop()
	l.due = c.after(in, now, func(now time.Time) {
		switch {
		case c.ended:
		case !now.Before(l.expires):
			c.expired(now, p, "session timer expired")
		default:
			c.refresh(p, now)
		}
	})
}

// expired ends a call of which a party has not been heard.
func (c *call) expired(now time.Time, p dialog.Party, why string) {
	c.b.counters.SessionsExpired.Add(1)
	c.log.Info("call ended: a party is gone", "side", c.at(p), "why", why)
	c.hangUp(now, media.CauseTimeout, "408", why)
}

// refresh sends a party a refresh in the name of the other: UPDATE, or re-INVITE
// with the description that it knows.
func (c *call) refresh(p dialog.Party, now time.Time) {
	l, d, by := &c.timers.legs[p], c.answered, p.Other()
	ex := &exchange{method: sip.Update, from: by, dlg: d, refresh: true}
	var body []byte
	if !l.update {
		if l.agreed == nil || c.setup.server.Final() < 200 || !c.setup.ackDue || d.Invite(by) != 0 {
			c.watch(p, refreshBehind, now)
			return
		}
		ex.method, body = sip.Invite, l.agreed
	}
	d.insert(by)
	ex.seq = d.Ends[by].Seq
	m := c.ownIn(d, p, ex.method)
	m.Add("Contact", "<"+d.Ends[by].Target+">")
	if body != nil {
		m.Add("Content-Type", "application/sdp")
	}
	out, flow, err := c.inDialog(d, p, m, body)
	if err == nil {
		_, err = c.request(ex, out, flow, now)
	}
	if err != nil {
		c.refreshOver(ex)
		c.watch(p, refreshAgain, now)
		return
	}
	c.b.counters.SessionRefreshes.Add(1)
	c.exchanges = append(c.exchanges, ex)
	c.watch(p, sip.TransactionTimeout+refreshAgain, now)
}

// ownIn begins a request of ours to a party, in the name of the other.
func (c *call) ownIn(d *dialogState, to dialog.Party, method string) *sip.Message {
	invite := c.setup.server.Req
	from, toHeader := invite.Get("From"), d.to
	if to == dialog.Caller {
		from, toHeader = toHeader, from
	}
	m := &sip.Message{Method: method}
	m.Add("Via", "")
	m.Add("From", from)
	m.Add("To", toHeader)
	m.Add("Call-ID", invite.CallID())
	m.Add("CSeq", fmt.Sprintf("%d %s", d.Ends[to.Other()].Seq, method))
	m.Add("Max-Forwards", "71")
	return m
}

func (c *call) refreshOver(ex *exchange) {
	if ex.method == sip.Invite {
		ex.dlg.InviteDone(ex.from)
	}
}

// refreshed takes a response to a refresh of ours.
func (c *call) refreshed(ex *exchange, res *sip.Message, now time.Time) {
	p := ex.from.Other()
	switch {
	case res.Status < 200 || c.ended:
	case ex.ack != nil: // the same 2xx again
		c.send(ex.ack, c.ackFlow(ex, res))
		return
	}
	if res.Status < 200 {
		return
	}
	c.refreshOver(ex)
	if ex.method == sip.Invite && res.Status < 300 {
		if body, _, ok := description(res); ok && !c.ended {
			c.media.reaffirmed(c.at(p), body, now)
		}
		ack := c.ownIn(ex.dlg, p, sip.Ack)
		ack.Set("CSeq", fmt.Sprintf("%d %s", ex.seq, sip.Ack)) // the party may have sent others since
		out, flow, err := c.inDialog(ex.dlg, p, ack, nil)
		if err == nil {
			c.acknowledge(ex, out, flow)
		}
	}
	l := &c.timers.legs[p]
	switch {
	case c.ended:
	case res.Status < 300:
		ex.dlg.Ends[p].Refresh(res)
		c.timers.taken(p, res)
		c.arm(p, now)
	case res.Status == 408 || res.Status == 481:
		c.expired(now, p, "dialog unknown to the other party")
	case res.Status == 422:
		l.min = max(l.min, minSE(res))
		l.interval = max(l.interval, l.min)
		c.watch(p, 0, now)
	case ex.method == sip.Update && (res.Status == 405 || res.Status == 501):
		l.update = false
		c.watch(p, 0, now)
	case !l.supports:
		c.arm(p, now) // whatever it thinks of the request, it is there
	default:
		c.watch(p, refreshAgain, now)
	}
}

// longer sends the first request again to who wants a longer interval.
func (c *call) longer(ex *exchange, cl *dialog.Client, res *sip.Message, now time.Time) bool {
	t := c.timers
	if t == nil || !t.keep() || res.Status != 422 || ex.answered() || ex.cancelled {
		return false
	}
	l := &t.legs[ex.from.Other()]
	wants := minSE(res)
	if wants <= max(t.cfg.Expires, l.min) {
		return false // that was not it
	}
	l.min = wants
	c.ahead++
	return c.attempt(cl.Flow, now) == nil
}
