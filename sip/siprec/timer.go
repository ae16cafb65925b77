package siprec

import (
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// sessionTimer is the state of RFC 4028 of one dialog.
type sessionTimer struct {
	interval time.Duration // 0: none agreed
	ours     bool          // we refresh
	at       time.Time     // when to refresh, or when it has expired
	until    time.Time     // when a session that we refresh has expired
	client   *dialog.Client
}

func (t *sessionTimer) deadline() time.Time {
	if t.interval == 0 || t.client != nil {
		return time.Time{}
	}
	return t.at
}

func (t *sessionTimer) refreshing(c *dialog.Client) bool { return t.client == c }

// negotiate takes what an INVITE or an UPDATE says and returns what its 2xx says.
// The client refreshes where it leaves the choice to us.
func (t *sessionTimer) negotiate(req *sip.Message, now time.Time) []sip.Header {
	v := req.Get("Session-Expires")
	text, params, _ := strings.Cut(v, ";")
	seconds, err := strconv.ParseUint(strings.TrimSpace(text), 10, 31)
	if v == "" || err != nil || time.Duration(seconds)*time.Second < refreshLeast {
		*t = sessionTimer{}
		return nil
	}
	refresher, _ := sip.Params(";" + params).Get("refresher")
	supported := req.HasToken("Supported", "timer") || req.HasToken("Require", "timer")
	t.interval, t.client = time.Duration(seconds)*time.Second, nil
	t.ours = strings.EqualFold(refresher, "uas") || !supported
	t.restart(now)
	out := []sip.Header{{Name: "Session-Expires", Value: strconv.FormatUint(seconds, 10) + ";refresher=uac"}}
	if t.ours {
		out[0].Value = strconv.FormatUint(seconds, 10) + ";refresher=uas"
	}
	if supported {
		out = append(out, sip.Header{Name: "Require", Value: "timer"})
	}
	return out
}

// restart counts from a refresh on (RFC 4028 section 10).
func (t *sessionTimer) restart(now time.Time) {
	t.until = now.Add(t.interval)
	if t.ours {
		t.at = now.Add(t.interval / 2)
		return
	}
	t.at = now.Add(t.interval - min(32*time.Second, t.interval/3))
}

// refreshDue refreshes the session, or ends it when nobody has.
func (l *leg) refreshDue(now time.Time) {
	t := &l.timer
	if at := t.deadline(); at.IsZero() || now.Before(at) || !l.confirmed {
		return
	}
	if !t.ours {
		l.srv.counters.Expired.Add(1)
		l.log.Info("session was not refreshed, recording dialog ended")
		l.hangUp(now, media.CauseTimeout, "408", "session expired")
		return
	}
	method := sip.Update
	if !strings.Contains(strings.ToUpper(l.allows), sip.Update) {
		method = sip.Invite
	}
	m := l.request(method)
	m.Add("Supported", "siprec, timer")
	m.Add("Session-Expires", strconv.Itoa(int(t.interval/time.Second))+";refresher=uac")
	if method == sip.Invite {
		m.Add("Content-Type", "application/sdp")
		m.Body = l.described()
	}
	if t.client = l.begin(m, now); t.client == nil {
		l.unrefreshed(now)
	}
}

// unrefreshed handles a refresh that got no answer. Where the client's connection is gone
// (the daemon was killed, say) that tells nothing of the client, which may have no port to
// be called at: it has until the session expires to connect again. RFC 4028 section 10
// else.
func (l *leg) unrefreshed(now time.Time) {
	t := &l.timer
	t.client = nil
	if f := l.flow(); f.Reliable() && !l.srv.agent.Connected(f) && now.Before(t.until) {
		t.at = now.Add(min(refreshAgain, t.until.Sub(now)))
		return
	}
	l.srv.counters.Expired.Add(1)
	l.hangUp(now, media.CauseTimeout, "408", "session not refreshed")
}

// refreshAgain is when a refresh is repeated that nobody got.
const refreshAgain = 10 * time.Second

// refreshed takes the final response to our refresh.
func (l *leg) refreshed(res *sip.Message, now time.Time) {
	l.timer.client = nil
	switch {
	case res.Status < 300:
		l.timer.restart(now)
	case res.Status == 408 || res.Status == 481:
		l.hangUp(now, media.CauseTimeout, "408", "session not refreshed")
	default: // 491, 500 and the like: soon again
		l.timer.at = now.Add(sip.TransactionTimeout / 4)
	}
}

// acknowledge sends the ACK of a 2xx to our re-INVITE, which has a branch of its own.
func (l *leg) acknowledge(res *sip.Message) {
	seq, _ := res.CSeq()
	m := l.request(sip.Ack)
	l.localSeq--
	m.Set("CSeq", strconv.FormatUint(uint64(seq), 10)+" "+sip.Ack)
	if flow, _, err := l.via(m); err == nil {
		l.send(m, flow)
	}
}
