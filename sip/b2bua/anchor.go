package b2bua

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/guard"
	"github.com/trunktap/trunktap/sip/sdp"
)

// anchor holds the media of one session at the relay: an offer opens streams, an
// answer says where they lead, and the recorder hears of it. Owned by the call.
type anchor struct {
	relay *relay.Relay
	trunk *sip.Trunk
	tap   *guard.Guard
	log   *slog.Logger
	later func(func()) // does something as the owner; from any goroutine

	neg      *sdp.Negotiation
	lines    []line         // by index of the m= line
	root, in *branch        // what is said in no dialog yet, and in the current one
	branches []*branch      // all
	applied  *sdp.Agreement // by which media flows
	early    bool           // and that may be another dialog's still
	streams  []media.Stream // that go on
	overlays overlays
	opened   bool      // something was agreed or offered before
	decided  bool      // one dialog has the call: no other one of a fork comes back
	changed  time.Time // of the latest agreement
}

// line is the relay's part of one m= line.
type line struct {
	stream *relay.Stream // nil: not anchored
	rtp    bool
	next   *relay.Stream // for an offer that wants another protocol in this place
	ice    checks
	sec    *protection // nil: SRTP is not ended here, or it never was audio
}

// errLines refuses a description.
var errLines = fmt.Errorf("session description with more than %d media", streamsMax)

func newAnchor(r *relay.Relay, trunk *sip.Trunk, tap *guard.Guard, log *slog.Logger) *anchor {
	a := &anchor{
		relay: r, trunk: trunk, tap: tap, log: log,
		neg: sdp.NewNegotiation(),
	}
	a.root = &branch{talk: a.neg.Dialog}
	a.in, a.branches = a.root, []*branch{a.root}
	return a
}

// askOffer notes a request that leaves the offer to the other side.
func (a *anchor) askOffer(from media.Side) { _ = a.neg.Offer(from, nil) } // nothing to parse

// offer takes a side's offer and returns what the other side is to see of it.
func (a *anchor) offer(from media.Side, body []byte) ([]byte, error) {
	d, err := sdp.Parse(body)
	if err != nil {
		return nil, fmt.Errorf("offer of the %s side: %w", from, err)
	}
	if len(d.Media()) > streamsMax {
		return nil, errLines
	}
	sec, err := a.protectOffer(from, d)
	if err != nil {
		return nil, err
	}
	if err := a.open(d); err != nil {
		a.rejectProtection(from)
		return nil, err
	}
	a.moved(from, d)
	a.hearICE(from, d)
	a.neg.OfferParsed(from, d)
	if !a.opened {
		a.opened = true
		a.expectEarly(from, d)
	}
	return a.rewrite(from, d, sec), nil
}

// open makes sure that every m= line that the relay can carry has a stream.
func (a *anchor) open(d *sdp.Description) error {
	for _, m := range d.Media() {
		for len(a.lines) <= m.Index {
			a.lines = append(a.lines, line{})
		}
		l := &a.lines[m.Index]
		if m.Rejected || !datagrams(m) || l.stream != nil && l.rtp == isRTP(m) || l.next != nil {
			continue
		}
		s, err := a.relay.Open([2]netip.Addr{a.bind(media.External), a.bind(media.Internal)}, a.options(m))
		if err != nil {
			return fmt.Errorf("anchor media %d: %w", m.Index, err)
		}
		if l.stream == nil {
			l.stream, l.rtp = s, isRTP(m)
		} else {
			l.next = s
		}
	}
	return nil
}

func (a *anchor) options(m sdp.Media) relay.Options {
	opt := relay.Options{RTP: isRTP(m), Forks: !a.decided}
	if a.secures() {
		for side := range opt.Suites {
			opt.Suites[side] = a.trunk.SRTP.Sides[side].Suites
		}
		opt.Failed, opt.Keyed = a.failed, a.keyed
	}
	return opt
}

func (a *anchor) bind(side media.Side) netip.Addr {
	if s := &a.trunk.Sides[side]; s.MediaBind.IsValid() {
		return s.MediaBind
	}
	return a.trunk.Sides[side].MediaAddr
}

// datagrams says whether an m= line is carried over UDP; connections of MSRP or
// BFCP over TCP are left to the parties.
func datagrams(m sdp.Media) bool { return !strings.HasPrefix(strings.ToUpper(m.Proto), "TCP") }

func isRTP(m sdp.Media) bool { return strings.Contains(strings.ToUpper(m.Proto), "RTP/") }

// at returns the stream that carries an m= line as a description has it.
func (a *anchor) at(m sdp.Media) *relay.Stream {
	if m.Index >= len(a.lines) || m.Rejected || !datagrams(m) {
		return nil
	}
	l := &a.lines[m.Index]
	if l.next != nil && l.rtp != isRTP(m) {
		return l.next
	}
	return l.stream
}

// rewrite returns what the other side sees of a side's description; sec is the
// protection by m= lines, or nil.
func (a *anchor) rewrite(from media.Side, d *sdp.Description, sec []*sdp.Protection) []byte {
	to := from.Other()
	list := d.Media()
	targets := make([]sdp.Target, len(list))
	for i, m := range list {
		if s := a.at(m); s != nil {
			targets[i] = sdp.Target{Addr: a.trunk.Sides[to].MediaAddr, Port: s.Local(to).Port()}
			targets[i].ICE = a.offerICE(to, m, targets[i])
		} else if a.trunk.Hide { // it would name who is on this side
			targets[i] = sdp.Target{Addr: a.trunk.Sides[to].MediaAddr, Refused: true}
		}
		if sec != nil {
			targets[i].Protection = sec[i]
		}
	}
	if a.trunk.Hide {
		return d.RewriteFrom(a.trunk.Sides[to].MediaAddr, targets)
	}
	return d.Rewrite(targets)
}

// expectEarly lets media of the answerer through before its description has
// come: it may send as soon as it has the offer (RFC 3264 section 5.1). Where SRTP is
// ended here nobody knows whether it is protected, and by which keys.
func (a *anchor) expectEarly(from media.Side, d *sdp.Description) {
	for _, m := range d.Media() {
		if s := a.at(m); s != nil && a.lines[m.Index].sec == nil {
			s.SetRemote(from, remoteOf(m, false, m.Formats))
			s.SetRemote(from.Other(), relay.Remote{PayloadTypes: types(m.Formats)})
		}
	}
}

func remoteOf(m sdp.Media, mux bool, maySend []media.Format) relay.Remote {
	r := relay.Remote{Mux: mux, PayloadTypes: types(maySend)}
	if m.Addr.IsValid() {
		r.RTP = netip.AddrPortFrom(m.Addr, m.Port)
		r.RTCP = m.RTCP
	}
	return r
}

func types(formats []media.Format) []uint8 {
	out := make([]uint8, len(formats))
	for i, f := range formats {
		out[i] = f.PayloadType
	}
	return out
}

// answer takes a side's answer and returns what the other side is to see of it.
// early: the call, or the re-INVITE, has no final response yet. What the
// recorder cannot make sense of never becomes an error of the call.
func (a *anchor) answer(from media.Side, body []byte, at time.Time, early bool) ([]byte, error) {
	d, err := sdp.Parse(body)
	if err != nil {
		return nil, fmt.Errorf("answer of the %s side: %w", from, err)
	}
	sec, err := a.protectAnswer(from, d)
	if err != nil {
		return nil, err
	}
	a.moved(from, d)
	a.hearICE(from, d)
	if !early {
		a.settled()
	}
	out := a.rewrite(from, d, sec)
	res, err := a.neg.AnswerParsed(from, d, at, early)
	if err != nil {
		if errors.Is(err, sdp.ErrNoOffer) {
			a.log.Debug("answer without offer passed on", "side", from)
			return out, nil
		}
		return nil, err
	}
	a.agree(res, at)
	return out, nil
}

// agree puts in force what was agreed, which res tells of.
func (a *anchor) agree(res sdp.Result, at time.Time) {
	early := !a.neg.Confirmed()
	if p := a.neg.Agreed(); p != nil && (p != a.applied || early != a.early) {
		a.early = early
		a.apply(p)
	}
	a.tell(res, at)
}

// reaffirmed takes the answer of a side to a refresh of ours, which offered it what it
// has already: a side that has moved meanwhile says so there. The other side is not
// asked, so what that would have to agree to is left as it is.
func (a *anchor) reaffirmed(from media.Side, body []byte, at time.Time) {
	d, err := sdp.Parse(body)
	p := a.neg.Agreed()
	if err != nil || p == nil {
		a.log.Debug("answer to a session refresh passed over", "side", from, "error", err)
		return
	}
	was, other := p.Answer, p.Offer
	if p.Offerer == from {
		was, other = other, was
	}
	if bytes.Equal(d.Bytes(), was.Bytes()) {
		return
	}
	list := d.Media()
	for i, m := range was.Media() {
		if i >= len(list) || list[i].Rejected != m.Rejected || list[i].Proto != m.Proto || a.lines[i].sec != nil && !slices.Equal(own(d, i), own(was, i)) {
			a.log.Warn("answer to a session refresh would change the session: it is passed over", "side", from, "line", i)
			return
		}
	}
	a.moved(from, d)
	a.hearICE(from, d)
	a.neg.OfferParsed(from.Other(), other)
	res, err := a.neg.AnswerParsed(from, d, at, false)
	if err != nil {
		a.log.Debug("answer to a session refresh passed over", "side", from, "error", err)
		return
	}
	a.agree(res, at)
}

// own is what an m= line says of its protection.
func own(d *sdp.Description, i int) []string {
	session, line := d.Protection(i)
	return append(slices.Clip(session), line...)
}

// confirm takes a 2xx to an INVITE without a description. An offer that no early answer
// has answered is not agreed to.
func (a *anchor) confirm(from media.Side, at time.Time) {
	res := a.neg.Confirm(at)
	if a.neg.Offered(from.Other()) != nil {
		a.reject(from.Other())
	}
	a.settled()
	a.agree(res, at)
}

// reject drops the open offer that a side made in an INVITE.
func (a *anchor) reject(from media.Side) {
	a.neg.RejectFrom(from)
	a.withdrawn(from)
}

// rejectWithin drops one of an UPDATE or a PRACK, maybe within an INVITE that goes on.
func (a *anchor) rejectWithin(from media.Side) {
	a.neg.RejectWithin(from)
	a.withdrawn(from)
}

func (a *anchor) withdrawn(from media.Side) {
	a.rejectProtection(from)
	if a.neg.Offered(media.External) != nil || a.neg.Offered(media.Internal) != nil {
		return // and may want the streams
	}
	for i := range a.lines {
		l := &a.lines[i]
		if l.next != nil {
			a.closeStream(l.next)
			l.next = nil
		}
	}
}

// apply lets the media flow as agreed.
func (a *anchor) apply(p *sdp.Agreement) {
	a.applied = p
	offered, list := p.Offer.Media(), p.Answer.Media()
	answerer := p.Offerer.Other()
	for i := range min(len(offered), len(a.lines)) {
		l := &a.lines[i]
		if i >= len(list) || offered[i].Rejected || list[i].Rejected {
			if !a.early { // another dialog may want it
				a.closeLine(i)
			}
			continue
		}
		o, w := offered[i], list[i]
		if l.next != nil && l.rtp != isRTP(w) {
			a.closeStream(l.stream)
			l.stream, l.rtp, l.next = l.next, isRTP(w), nil
		}
		if l.stream == nil {
			continue
		}
		a.protectStream(i)
		mux := o.RTCPMux && w.RTCPMux
		l.stream.SetRemote(p.Offerer, remoteOf(o, mux, w.Formats))
		l.stream.SetRemote(answerer, remoteOf(w, mux, o.Formats))
	}
}

func (a *anchor) closeLine(i int) {
	l := &a.lines[i]
	a.closeStream(l.stream)
	a.closeStream(l.next)
	*l = line{sec: l.sec}
}

func (a *anchor) closeStream(s *relay.Stream) {
	if s == nil {
		return
	}
	if err := s.Close(); err != nil {
		a.log.Warn("close media ports", "error", err)
	}
}

// tell passes on what an exchange changed.
func (a *anchor) tell(res sdp.Result, at time.Time) {
	a.changed = at
	for _, id := range res.Ended {
		if s := a.streamOf(id); s != nil {
			s.SetTap(media.Side(id%2), nil)
			s.SetOverlay(media.Side(id%2), nil)
		}
		a.streams = slices.DeleteFunc(a.streams, func(st media.Stream) bool { return st.ID == id })
		a.tap.StreamEnded(id, at)
	}
	for _, sig := range res.Signals {
		a.tap.Signal(sig)
	}
	if res.OthersChanged {
		a.tap.OtherMedia(at, res.Others)
	}
	for _, st := range res.Streams {
		s := a.streamOf(st.ID)
		if s == nil {
			continue
		}
		st, _ = a.revealed(st)
		st.Local = s.Local(st.Side)
		a.streams = slices.DeleteFunc(a.streams, func(old media.Stream) bool { return old.ID == st.ID })
		a.streams = append(a.streams, st)
		s.SetTap(st.Side, a.tap.StreamStarted(st))
		a.overlay(st)
	}
}

// streamOf finds the relay's stream by the id that sdp gives: twice the index of
// the m= line and the side.
func (a *anchor) streamOf(id media.StreamID) *relay.Stream {
	if i := int(id / 2); i < len(a.lines) {
		return a.lines[i].stream
	}
	return nil
}

// silentSince returns since when nobody has sent anything, and whether that
// counts: on hold, or where nothing is anchored, it does not.
func (a *anchor) silentSince() (since time.Time, counts bool) {
	if a.neg.Holding(media.External) || a.neg.Holding(media.Internal) {
		return time.Time{}, false
	}
	since = a.changed
	for i := range a.lines {
		if a.lines[i].stream == nil {
			continue
		}
		counts = true
		for _, s := range a.lines[i].stream.Stats() {
			if s.LastRTP.After(since) {
				since = s.LastRTP
			}
		}
	}
	return since, counts && a.sending()
}

// sending says whether anybody agreed to send, or the media is none that is recorded.
func (a *anchor) sending() bool {
	for _, s := range a.streams {
		if s.Sending {
			return true
		}
	}
	return len(a.streams) == 0
}

// close ends all streams. No tap is used after it.
func (a *anchor) close() {
	for i := range a.lines {
		a.closeLine(i)
	}
	a.leave()
	for _, b := range a.branches {
		b.wipe()
	}
	a.neg = sdp.NewNegotiation()
	a.root = &branch{talk: a.neg.Dialog}
	a.in, a.branches, a.applied, a.streams = a.root, nil, nil, nil
}
