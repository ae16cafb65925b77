package src

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
)

// sessionTimer is that of RFC 4028. It is the server that asks for one: we find a dead
// server by OPTIONS.
type sessionTimer struct {
	interval time.Duration // 0: none
	ours     bool          // we refresh
	at       time.Time     // when to refresh, or when nobody has
}

// intervalLeast is the shortest session interval that is taken at its word.
const intervalLeast = 20 * time.Second

// take takes a Session-Expires; role is ours in the transaction that it is of, "uac" or
// "uas". Who is named as nobody is the client of the transaction.
func (t *sessionTimer) take(value, role string, now time.Time) {
	text, params, _ := strings.Cut(value, ";")
	seconds, err := strconv.ParseUint(strings.TrimSpace(text), 10, 31)
	*t = sessionTimer{interval: time.Duration(seconds) * time.Second}
	if err != nil || t.interval < intervalLeast {
		*t = sessionTimer{}
		return
	}
	refresher, ok := sip.Params(";" + params).Get("refresher")
	t.ours = strings.EqualFold(refresher, role) || !ok && role == "uac"
	if t.ours {
		t.at = now.Add(t.interval / 2)
		return
	}
	t.at = now.Add(t.interval - min(32*time.Second, t.interval/3))
}

// says returns the Session-Expires of a request or an answer of ours, in the role that we
// have in its transaction.
func (t *sessionTimer) says(role string) string {
	if t.interval == 0 {
		return ""
	}
	refresher := role
	if !t.ours {
		refresher = map[string]string{"uac": "uas", "uas": "uac"}[role]
	}
	return fmt.Sprintf("%d;refresher=%s", int(t.interval/time.Second), refresher)
}

// refreshDue refreshes the session, or gives a server up that has not.
func (l *leg) refreshDue(now time.Time) {
	t := &l.timer
	if t.ours {
		t.at = now.Add(t.interval / 2)
		l.tell(now)
		return
	}
	l.hangUp(now)
	l.bye = nil
	l.failed(errors.New("it has not refreshed the session"), now)
}

// tooShort takes the interval that a 422 demands (RFC 4028 section 7.4).
func (l *leg) tooShort(res *sip.Message, now time.Time) {
	text, _, _ := strings.Cut(res.Get("Min-SE"), ";")
	if n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 31); err == nil && l.timer.interval > 0 && time.Duration(n)*time.Second > l.timer.interval {
		l.timer.interval = time.Duration(n) * time.Second
		l.change = now.Add(changeWait)
	}
}

// errLines says that a description has not the lines of the session.
var errLines = errors.New("its streams are not ours")

// changed takes a re-INVITE or UPDATE of the server: that refreshes the session, and says
// where it wants to hear us. The streams stay ours. An error is the reason to refuse it.
func (l *leg) changed(req *sip.Message, now time.Time) (edit func(*sip.Message), err error) {
	f := l.f
	_, paused, _ := f.state()
	codecs, directions := f.offered(), directionsOf(paused)
	body, _, offers := sdp.SplitBody(req.Get("Content-Type"), req.Body)
	if offers {
		d, err := sdp.Parse(body)
		if err != nil {
			return nil, err
		}
		w, to, err := f.agree(req)
		if err != nil {
			return nil, err
		}
		l.told.paused = paused
		l.connect(w, to)
		codecs = []wire{*w}
		for i, m := range d.Media() {
			switch {
			case m.Rejected:
				directions[i] = ""
			case !to[i].rtp.IsValid():
				directions[i] = sdp.Inactive
			}
		}
	} else if req.Method == sip.Invite { // the ACK answers
		l.asked, _ = req.CSeq()
		l.told.paused = paused
	}
	l.end.Refresh(req)
	if v := req.Get("Session-Expires"); v != "" {
		l.timer.take(v, "uas", now)
	}
	l.version++
	version := l.version
	return func(res *sip.Message) {
		if ours, flow, err := f.c.agent.Local(req.Flow, f.c.cfg.Address); err == nil {
			res.Add("Contact", contact(ours, flow.Network))
		}
		if v := l.timer.says("uas"); v != "" {
			res.Add("Session-Expires", v)
			res.Add("Require", "timer")
		}
		if offers || req.Method == sip.Invite {
			res.Add("Content-Type", "application/sdp")
			res.Body = f.describe(version, directions, codecs)
		}
	}, nil
}

// takeACK takes the ACK of a server, which may answer an offer of ours.
func (l *leg) takeACK(req *sip.Message) {
	seq, _ := req.CSeq()
	for _, s := range l.servers {
		if of, _ := s.Req.CSeq(); of == seq {
			s.Acked()
		}
	}
	if seq != l.asked || len(req.Body) == 0 || !l.up {
		return
	}
	l.asked = 0
	if w, to, err := l.f.agree(req); err == nil {
		l.connect(w, to)
	}
}

// connect lets audio flow to where the server says, unless it was told of a pause.
func (l *leg) connect(w *wire, to [2]remote) {
	l.pausing = l.told.paused
	if !l.f.connect(l.listed, w, to, l.pausing) {
		return
	}
	for i := range to {
		if !to[i].rtp.IsValid() {
			l.f.c.cfg.Log.Warn("a recorder does not take a stream", "server", l.server.URI, "session", l.f.session.ID, "side", media.Side(i))
		}
	}
}

// stays takes a refusal to change the session: it is as it was. One that is paused so
// for ever is none.
func (l *leg) stays(status int, now time.Time) {
	if l.pausing && !l.told.paused {
		l.hangUp(now)
		l.bye = nil
		l.failed(fmt.Errorf("it answers %d to the end of a pause", status), now)
	}
}
