package b2bua

import (
	"cmp"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/suppress"
)

// warningBytesMax bounds what a refusal says: part of it is the peer's own words.
const warningBytesMax = 200

// protection is the SRTP of one m= line of audio on both sides.
type protection struct {
	line      *srtp.Line
	offerer   media.Side // of the latest offer
	open      bool       // that offer has no final answer
	untouched bool       // it was of no RTP, or of a refused line

	addr  [2]netip.AddrPort // of each side's latest description
	shown srtp.Media        // what the offerer was answered
}

// secures says whether SRTP is ended here. Else descriptions pass as they are, and
// so does the media that they agree on.
func (a *anchor) secures() bool {
	c := a.trunk.SRTP
	return c != nil && (c.Sides[0].Policy != srtp.Off || c.Sides[1].Policy != srtp.Off)
}

// protectOffer returns what the other side is offered, by m= lines. A line that the
// policy refuses beside another one of audio that it takes is refused alone: such
// offers leave the choice between them. The error may be a *srtp.Refusal; what was
// agreed stays then.
func (a *anchor) protectOffer(from media.Side, d *sdp.Description) ([]*sdp.Protection, error) {
	if !a.secures() {
		return nil, nil
	}
	out := make([]*sdp.Protection, len(d.Media()))
	var refused []sdp.Media
	var why error
	taken := false
	for i, m := range d.Media() {
		for len(a.lines) <= i {
			a.lines = append(a.lines, line{})
		}
		l := &a.lines[i]
		if l.sec == nil {
			if m.Kind != "audio" || !isRTP(m) {
				continue
			}
			l.sec = &protection{line: srtp.NewLine(a.trunk.SRTP)}
		}
		offered, err := l.sec.line.Offer(from, a.readProtection(l.sec, from, d, m))
		if errors.Is(err, srtp.ErrNotAcceptable) {
			refused, why = append(refused, m), cmp.Or(why, err)
			continue
		}
		if err != nil {
			a.rejectProtection(from)
			return nil, err
		}
		taken = taken || !m.Rejected && isRTP(m)
		l.sec.offered(from, m.Rejected || !isRTP(m))
		offered.Profile = plainProfile(offered.Profile, m.Proto)
		out[i] = l.sec.write(offered)
	}
	if why != nil && !taken {
		a.rejectProtection(from)
		return nil, why
	}
	for _, m := range refused {
		p := a.lines[m.Index].sec
		if _, err := p.line.Offer(from, srtp.Media{Profile: m.Proto, Refused: true}); err != nil {
			a.rejectProtection(from)
			return nil, err
		}
		p.offered(from, true)
		out[m.Index] = &sdp.Protection{Profile: m.Proto, Refused: true}
	}
	return out, nil
}

func (p *protection) offered(from media.Side, untouched bool) {
	p.open, p.offerer, p.untouched = true, from, untouched
}

// plainProfile leaves the feedback out where a plain profile takes the place of a
// secure one: many endpoints without SRTP refuse RTP/AVPF, and parties of the two
// profiles understand each other (RFC 4585 section 5).
func plainProfile(offered, was string) string {
	if offered == "RTP/AVPF" && !strings.EqualFold(was, offered) {
		return "RTP/AVP"
	}
	return offered
}

// protectAnswer is protectOffer for an answer.
func (a *anchor) protectAnswer(from media.Side, d *sdp.Description) ([]*sdp.Protection, error) {
	if !a.secures() {
		return nil, nil
	}
	out := make([]*sdp.Protection, len(d.Media()))
	for i, m := range d.Media() {
		if i >= len(a.lines) || a.lines[i].sec == nil {
			continue
		}
		p := a.lines[i].sec
		if p.offerer == from || !p.open && p.shown.Profile != "" { // it repeats what was agreed before an offer of its own side, or of one that was refused
			out[i] = p.write(p.shown)
			continue
		}
		answered, err := p.line.Answer(a.readProtection(p, from, d, m))
		if err != nil {
			return nil, err
		}
		p.shown = answered
		out[i] = p.write(answered)
	}
	return out, nil
}

func (a *anchor) readProtection(p *protection, from media.Side, d *sdp.Description, m sdp.Media) srtp.Media {
	session, own := d.Protection(m.Index)
	s, faults := srtp.ReadMedia(m.Proto, session, own)
	for _, err := range faults {
		a.log.Debug("a line about SRTP is left out", "side", from, "error", err)
	}
	s.Refused = m.Rejected
	was, is := p.addr[from], netip.AddrPortFrom(m.Addr, m.Port)
	s.Moved = was.IsValid() && is.IsValid() && was != is && !m.Zero
	return s
}

func (p *protection) write(m srtp.Media) *sdp.Protection {
	if p.untouched {
		return nil
	}
	if m.Refused {
		return &sdp.Protection{Profile: m.Profile}
	}
	return &sdp.Protection{Profile: m.Profile, Attributes: m.Attributes()}
}

// moved notes where a side's media is now.
func (a *anchor) moved(from media.Side, d *sdp.Description) {
	for i, m := range d.Media() {
		if i < len(a.lines) && a.lines[i].sec != nil && m.Addr.IsValid() && !m.Zero && !m.Rejected {
			a.lines[i].sec.addr[from] = netip.AddrPortFrom(m.Addr, m.Port)
		}
	}
}

// rejectProtection goes back to what was agreed before a side's open offer.
func (a *anchor) rejectProtection(from media.Side) {
	for i := range a.lines {
		if p := a.lines[i].sec; p != nil && p.open && p.offerer == from {
			p.line.Reject()
			p.open = false
			a.protectStream(i)
		}
	}
}

// settled notes that the open offers have their final answer.
func (a *anchor) settled() {
	for i := range a.lines {
		if p := a.lines[i].sec; p != nil {
			p.open = false
		}
	}
}

// protectStream lets the relay know what is agreed.
func (a *anchor) protectStream(i int) {
	l := &a.lines[i]
	if l.sec == nil || l.stream == nil || !l.rtp {
		return
	}
	if err := l.stream.Protect(l.sec.line.Ends()); err != nil {
		a.log.Error("media cannot be protected and is dropped", "error", err)
	}
}

// failed lets the recording tell why nothing is heard of a side whose DTLS handshake
// failed. The call goes on, and so does the other side's media.
func (a *anchor) failed(side media.Side, err error) {
	at, text := time.Now(), printable(err.Error())
	a.later(func() {
		a.tap.Signal(suppress.Signal{
			V: 1, Event: suppress.AttrsSet, At: at, Source: "srtp", Attrs: map[string]string{"srtp." + side.String(): text},
		})
	})
}

// revealed corrects what a description says: where SRTP is ended here, the tap gets
// plain packets. passed says that an overlay would not get them.
func (a *anchor) revealed(st media.Stream) (out media.Stream, passed bool) {
	i := int(st.ID / 2)
	if i >= len(a.lines) || a.lines[i].sec == nil {
		return st, false
	}
	st.Secure = false
	return st, a.lines[i].sec.line.Ends()[st.Side].Mode == srtp.Passed
}

// vet tells whether a response's description would be refused, so that nothing of
// it is agreed to or passed.
func (c *call) vet(ex *exchange, res *sip.Message) error {
	if !c.media.secures() || c.ended || res.Status >= 300 {
		return nil
	}
	side := c.at(ex.from.Other())
	body, _, ok := description(res)
	if !ok || ex.method != sip.Invite && !ex.offered || c.lost(ex.dlg) {
		return nil
	}
	c.withinResponse(ex, res)
	d, err := sdp.Parse(body)
	if err != nil {
		return err
	}
	if ex.method == sip.Invite && c.lateness(ex).asked {
		_, err = c.media.protectOffer(side, d)
	} else {
		_, err = c.media.protectAnswer(side, d)
	}
	return err
}

// refuseSetup ends what a refused 2xx to the first INVITE would have begun.
func (c *call) refuseSetup(ex *exchange, res *sip.Message, err error, now time.Time) {
	c.log.Warn("call refused: its media is not protected as it must be", "error", err)
	c.b.counters.CallsRefused.Add(1)
	c.refusedSetup(sip.RefusedMedia, 488)
	ex.wait.stop()
	c.dismiss(ex, res, now)
	c.fail(ex, now, 488, "Not Acceptable Here", warning(err)...)
}

// refuseChange ends the call: the far end has agreed to what cannot be.
func (c *call) refuseChange(ex *exchange, res *sip.Message, err error, now time.Time) {
	c.log.Warn("call ended: its media would not be protected as it must be", "error", err)
	c.inviteOver(ex)
	c.refuse(ex, now, 488, "Not Acceptable Here", warning(err)...)
	if ex.method == sip.Invite {
		c.acknowledgeAgain(ex, res)
	}
	c.hangUp(now, media.CauseFailed, "488", "SRTP")
}

// warning is what a 488 says about a refusal (RFC 3261 section 20.43).
func warning(err error) []sip.Header {
	var r *srtp.Refusal
	if !errors.As(err, &r) {
		return nil
	}
	return []sip.Header{{Name: "Warning", Value: `302 trunktap "` + printable(r.Error()) + `"`}}
}

// printable is a text that may hold a peer's words, for a quoted string.
func printable(text string) string {
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return -1
		}
		return c
	}, text)
	return text[:min(len(text), warningBytesMax)]
}
