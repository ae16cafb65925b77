package siprec

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
	"github.com/trunktap/trunktap/sip/sdp"
)

// snapshotEvery is the least time between two requests for a snapshot.
const snapshotEvery = 30 * time.Second

// take takes a message of the dialog.
func (l *leg) take(m *sip.Message) {
	now := m.Arrival
	if !m.IsRequest() {
		l.takeResponse(m, now)
		return
	}
	for _, s := range l.servers {
		if s.Matches(m) {
			if again := s.Receive(m, now); again != nil {
				l.send(again, sip.ReplyFlow(m))
			}
			return
		}
	}
	switch m.Method {
	case sip.Ack:
		l.takeAck(m, now)
		return
	case sip.Cancel:
		l.takeCancel(m, now)
		return
	}
	if len(l.servers) >= serversMax {
		l.srv.counters.Overflowed.Add(1)
		return
	}
	s := dialog.NewServer(m)
	l.servers = append(l.servers, s)
	seq, _ := m.CSeq()
	switch {
	case l.invite == nil:
		l.setup(s, now)
	case m.ToTag() == "" && m.Method == sip.Invite && l.merged(s):
		l.respond(s, 482, "Loop Detected")
	case m.ToTag() == "" && m.Method == sip.Invite:
		l.servers = l.servers[:len(l.servers)-1]
		l.anew(m, now)
	case l.ended, m.ToTag() != l.tag:
		l.respond(s, 481, "Call/Transaction Does Not Exist")
	case seq <= l.end.Seq:
		l.respond(s, 500, "Server Internal Error")
	default:
		l.end.Seq = seq
		l.end.Flow = m.Flow
		l.inDialog(s, now)
	}
}

// merged says whether an INVITE of a new transaction is one that is being answered
// already (RFC 3261 section 8.2.2.2).
func (l *leg) merged(s *dialog.Server) bool {
	if !l.confirmed && !l.ended {
		return true
	}
	seq, _ := s.Req.CSeq()
	return slices.ContainsFunc(l.servers, func(o *dialog.Server) bool {
		was, method := o.Req.CSeq()
		return o != s && method == sip.Invite && was == seq && o.Req.ToTag() == ""
	})
}

// anew takes an INVITE by which the client begins this dialog once more: it knows nothing of
// this one any more, which ends without a BYE. That would be one of the other.
func (l *leg) anew(m *sip.Message, now time.Time) {
	if !l.ended {
		l.log.Info("the client has begun the dialog anew", "since", l.started)
		l.invite.Acked() // nobody will
	}
	l.finish(now, media.CauseTimeout)
	l.srv.readmit(l, m)
}

// respond answers a request of the client.
func (l *leg) respond(s *dialog.Server, status int, reason string, extra ...sip.Header) {
	l.answerWith(s, status, reason, nil, extra...)
}

func (l *leg) answerWith(s *dialog.Server, status int, reason string, body []byte, extra ...sip.Header) {
	res := sip.ResponseTo(s.Req, status, reason)
	if s.Req.ToTag() == "" && status > 100 {
		res.Set("To", s.Req.Get("To")+";tag="+l.tag)
	}
	if status < 300 && status > 100 && s.Req.Method == sip.Invite {
		for _, v := range s.Req.Fields("Record-Route") {
			res.Add("Record-Route", v)
		}
	}
	res.Headers = append(res.Headers, extra...)
	if body != nil {
		res.Set("Content-Type", "application/sdp")
		res.Body = body
	}
	s.Respond(res.Frozen(), time.Now()) // the request may have waited
	l.deliver(res, sip.ReplyFlow(s.Req))
}

// understood are the extensions that may be required of us. 100rel is never used,
// for nothing of ours is provisional but 100.
var understood = map[string]bool{"siprec": true, "timer": true, "100rel": true, "record-aware": true, "replaces": true, "from-change": true, "histinfo": true}

// setup takes the INVITE that begins the dialog.
func (l *leg) setup(s *dialog.Server, now time.Time) {
	m := s.Req
	l.invite = s
	l.end = dialog.FromRequest(m)
	l.from, l.to = m.Get("To")+";tag="+l.tag, strings.Clone(m.Get("From"))
	l.allows = m.Get("Allow")
	l.respond(s, 100, "Trying")
	if bad := unsupported(m); len(bad) > 0 {
		l.refuse420(s, now, bad)
		return
	}
	c := split(m.Get("Content-Type"), m.Body)
	if err := l.prepare(c); err != nil {
		l.refuseInvite(s, now, err)
		return
	}
	rec := l.srv.recordingFor(l, m, c)
	if rec == nil {
		l.srv.counters.Drained.Add(1)
		l.refuseInvite(s, now, errDraining)
		return
	}
	if err := rec.begin(l, m, c); err != nil {
		l.srv.leaveRecording(rec)
		l.refuseInvite(s, now, err)
		return
	}
	l.rec = rec
	now = time.Now()
	if len(l.box) > 0 && l.cancelledMeanwhile(now) {
		return
	}
	l.accept(s, now)
}

func unsupported(m *sip.Message) (bad []string) {
	for _, tag := range m.List("Require") {
		if tag = strings.TrimSpace(tag); tag != "" && !understood[strings.ToLower(tag)] {
			bad = append(bad, tag)
		}
	}
	return bad
}

func (l *leg) refuse420(s *dialog.Server, now time.Time, bad []string) {
	l.srv.counters.DialogsRefused.Add(1)
	l.srv.refused(s.Req, l.source.Name, sip.RefusedExtension, 420)
	l.finish(now, media.CauseFailed)
	l.respond(s, 420, "Bad Extension", sip.Header{Name: "Unsupported", Value: strings.Join(bad, ", ")})
}

// cancelledMeanwhile looks for a CANCEL that came while the recorder was asked.
func (l *leg) cancelledMeanwhile(now time.Time) bool {
	for n := len(l.box); n > 0; n-- {
		m := <-l.box
		l.take(m)
	}
	return l.ended
}

// prepare makes what the 2xx will say: an answer, or an offer of ours.
func (l *leg) prepare(c content) error {
	l.sdpVersion++
	if c.sdp == nil {
		return l.offer()
	}
	d, err := sdp.Parse(c.sdp)
	if err != nil {
		return err
	}
	return l.offered(d)
}

// accept answers the first INVITE.
func (l *leg) accept(s *dialog.Server, now time.Time) {
	c := split(s.Req.Get("Content-Type"), s.Req.Body)
	l.offering = c.sdp == nil
	l.confirmed = true
	l.srv.counters.DialogsAnswered.Add(1)
	l.rec.answer(now) // first: media may come with the 200
	l.answerWith(s, 200, "OK", l.described(), l.inviteHeaders(s.Req, now)...)
	l.heard, l.silent, l.reportAt = now, now.Add(silenceEvery), now.Add(reportEvery)
	l.noteUnknown()
	l.askSnapshot(now)
}

// inviteHeaders are those of a 2xx to INVITE or UPDATE.
func (l *leg) inviteHeaders(req *sip.Message, now time.Time) []sip.Header {
	out := l.srv.capabilities(req.Flow, l.source)
	return append(out, l.timer.negotiate(req, now)...)
}

// described is our description, read under the recording's lock once there is one.
func (l *leg) described() []byte {
	if l.rec == nil {
		return l.description()
	}
	l.rec.mu.Lock()
	defer l.rec.mu.Unlock()
	return l.description()
}

// noteUnknown tells the operator of streams whose side nobody could tell.
func (l *leg) noteUnknown() {
	l.rec.mu.Lock()
	defer l.rec.mu.Unlock()
	for _, n := range l.lines {
		if n.told && n.place.by == ByUnknown {
			l.srv.counters.SidesUnknown.Add(1)
			l.log.Warn("the side of a stream cannot be told: give the source internal_domains or sides", "label", n.label, "side", n.place.side)
			return
		}
	}
	if side, ok := l.oneSided(); ok {
		l.srv.counters.OneSided.Add(1)
		l.log.Warn("rules put all parties on one side: the other channel stays empty", "side", side)
	}
}

// oneSided says whether rules put streams of several parties on one side, and none on the other.
func (l *leg) oneSided() (side media.Side, ok bool) {
	var first *line
	for _, r := range l.rec.legs {
		for _, n := range r.lines {
			if !n.told {
				continue
			}
			q, one := n.place.alone()
			if !one || n.place.by != ByRule {
				return 0, false
			}
			if first == nil {
				first = n
				continue
			}
			if n.place.side != first.place.side {
				return 0, false
			}
			side, ok = n.place.side, ok || !isSame(q, first.place.parties[0])
		}
	}
	return side, ok
}

// refuseInvite answers an INVITE that cannot be taken; the first one ends the dialog.
func (l *leg) refuseInvite(s *dialog.Server, now time.Time, err error) {
	status, reason, extra, cause := 488, "Not Acceptable Here", []sip.Header(nil), sip.RefusedMedia
	var refusal *srtp.Refusal
	switch {
	case errors.Is(err, errObserver):
		status, cause = 503, sip.RefusedRecording
		extra = []sip.Header{{Name: "Reason", Value: `SIP;cause=503;text="recording not possible"`}}
	case errors.Is(err, errDraining):
		status, cause = 503, sip.RefusedDraining
		extra = []sip.Header{sip.RetryAfter()}
	case errors.Is(err, relay.ErrNoPorts), errors.Is(err, relay.ErrClosed):
		status, cause = 503, sip.RefusedPorts
		extra = []sip.Header{sip.RetryAfter()}
	case errors.As(err, &refusal), errors.Is(err, srtp.ErrNotAcceptable):
		extra = []sip.Header{{Name: "Warning", Value: `302 trunktap "the protection of media does not fit the policy"`}}
	case errors.Is(err, errNoAudio):
		extra = []sip.Header{{Name: "Warning", Value: `304 trunktap "no audio over RTP"`}}
	}
	if status == 503 {
		reason = "Service Unavailable"
	}
	l.log.Warn("a recording session was refused", "status", status, "error", err)
	l.srv.counters.DialogsRefused.Add(1)
	l.srv.refused(s.Req, l.source.Name, cause, status)
	if s == l.invite { // first: whoever hears of it finds it gone
		l.finish(now, media.CauseFailed)
	}
	l.respond(s, status, reason, extra...)
}

// inDialog takes a request within the dialog.
func (l *leg) inDialog(s *dialog.Server, now time.Time) {
	m := s.Req
	switch m.Method {
	case sip.Invite, sip.Update:
		l.change(s, now)
	case sip.Bye:
		l.bye = m
		l.finish(now, media.CauseBye)
		l.respond(s, 200, "OK")
	case "INFO", "MESSAGE":
		l.takeMetadata(split(m.Get("Content-Type"), m.Body), now)
		l.respond(s, 200, "OK")
		l.askSnapshot(now)
	case sip.Options:
		l.respond(s, 200, "OK", l.srv.capabilities(m.Flow, l.source)...)
	default:
		l.respond(s, 405, "Method Not Allowed", sip.Header{Name: "Allow", Value: allowed})
	}
}

// takeMetadata takes what has no description beside it. Other things than metadata
// may be keys that were pressed: they are not looked at.
func (l *leg) takeMetadata(c content, now time.Time) {
	c.others = nil
	if len(c.metadata) > 0 {
		l.rec.change(l, c, now)
	}
}

// change takes a re-INVITE or an UPDATE: an offer, metadata, both or neither.
func (l *leg) change(s *dialog.Server, now time.Time) {
	m := s.Req
	if bad := unsupported(m); len(bad) > 0 {
		l.respond(s, 420, "Bad Extension", sip.Header{Name: "Unsupported", Value: strings.Join(bad, ", ")})
		return
	}
	invite := m.Method == sip.Invite
	if invite && l.invite.Final() == 0 {
		l.respond(s, dialog.StatusOverlap, "Server Internal Error", sip.RetryAfter())
		return
	}
	c := split(m.Get("Content-Type"), m.Body)
	var err error
	if c.sdp != nil || invite {
		l.rec.mu.Lock()
		err = l.prepare(c)
		l.rec.mu.Unlock()
	}
	if err != nil {
		l.refuseInvite(s, now, err)
		return
	}
	l.end.Refresh(m)
	if invite {
		l.invite, l.offering = s, c.sdp == nil
	}
	l.rec.change(l, c, now)
	headers := l.inviteHeaders(m, now)
	if c.sdp != nil || invite {
		l.answerWith(s, 200, "OK", l.described(), headers...)
	} else {
		l.respond(s, 200, "OK", headers...)
	}
	l.heard = now
	l.askSnapshot(now)
}

// takeAck takes the ACK of a 2xx, with the answer when the offer was ours.
func (l *leg) takeAck(m *sip.Message, now time.Time) {
	seq, _ := m.CSeq()
	if l.invite == nil || l.ended {
		return
	}
	if have, _ := l.invite.Req.CSeq(); have != seq || l.invite.Final() >= 300 {
		return
	}
	l.invite.Acked()
	if !l.offering {
		return
	}
	l.offering = false
	c := split(m.Get("Content-Type"), m.Body)
	d, err := sdp.Parse(c.sdp)
	if err == nil {
		l.rec.mu.Lock()
		err = l.accepted(d)
		l.rec.mu.Unlock()
	}
	if err != nil {
		l.log.Warn("the answer to our offer cannot be taken", "error", err)
		l.hangUp(now, media.CauseFailed, "488", "no usable answer")
		return
	}
	l.rec.change(l, c, now)
	l.heard = now
}

// takeCancel takes a CANCEL (RFC 3261 section 9.2).
func (l *leg) takeCancel(m *sip.Message, now time.Time) {
	s := dialog.NewServer(m)
	l.servers = append(l.servers, s)
	if l.invite == nil || !l.invite.Cancels(m) {
		l.respond(s, 481, "Call/Transaction Does Not Exist")
		return
	}
	l.respond(s, 200, "OK")
	if l.invite.Final() == 0 {
		l.respond(l.invite, 487, "Request Terminated")
		l.finish(now, media.CauseFailed)
	}
}

// takeResponse takes what the client says to requests of ours.
func (l *leg) takeResponse(m *sip.Message, now time.Time) {
	for _, c := range l.clients {
		if !c.Matches(m) {
			continue
		}
		pass, ack := c.Receive(m, now)
		if ack != nil {
			l.send(ack, c.Flow)
		}
		if !pass || m.Status < 200 {
			return
		}
		if _, method := m.CSeq(); method == sip.Invite && m.Status < 300 {
			l.acknowledge(m)
		}
		if l.timer.refreshing(c) {
			l.refreshed(m, now)
		}
		return
	}
	l.srv.counters.Unknown.Add(1)
}

// askSnapshot requests a snapshot when the metadata refers to what nobody has told
// of (RFC 7866 section 9.2), by UPDATE, or INFO where the client takes none.
func (l *leg) askSnapshot(now time.Time) {
	if l.ended || !l.confirmed || !l.rec.missing() || !l.asked.IsZero() && now.Sub(l.asked) < snapshotEvery {
		return
	}
	l.asked = now
	method := sip.Update
	if l.allows != "" && !strings.Contains(strings.ToUpper(l.allows), sip.Update) {
		method = "INFO"
	}
	m := l.request(method)
	m.Add("Content-Type", TypeMetadataRequest)
	m.Add("Content-Disposition", Disposition)
	m.Body = AppendSnapshotRequest(nil, SnapshotRequest{Reason: "a partial update refers to unknown objects", Lang: "en"})
	if l.begin(m, now) != nil {
		l.srv.counters.Snapshots.Add(1)
	}
}
