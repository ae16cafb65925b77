package replay

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siprec"
)

// Recording sessions (RFC 7866) are followed by the code of their server: package siprec
// decides who is on which side; here its streams get their packets. The client is the
// external side of such a call, the recording server the internal one.

// Recording says how recording sessions in a capture are taken.
type Recording struct {
	Sources   []siprec.Source // an unknown client is taken for the first one
	Decodable func(media.Format) bool
}

// followSessions begins to follow recording sessions.
func (t *tracker) followSessions() error {
	if t.cfg.Recording == nil {
		return nil
	}
	f, err := siprec.NewFollower(siprec.FollowerConfig{Sources: t.cfg.Recording.Sources, Observer: t.obs, Decodable: t.cfg.Recording.Decodable})
	if err != nil {
		return fmt.Errorf("replay recording sessions: %w", err)
	}
	t.follower = f
	return nil
}

// source returns the client that m begins a recording session of; nil: it does not.
func (t *tracker) source(m *message, caller netip.AddrPort) *siprec.Source {
	if t.follower == nil || !m.IsRequest() || m.Method != sip.Invite {
		return nil
	}
	s := t.follower.Source(caller.Addr())
	ofTrunk := slices.ContainsFunc(t.cfg.Trunks, func(k Trunk) bool {
		return within(k.External, caller.Addr().Unmap()) || within(k.Internal, caller.Addr().Unmap())
	})
	switch {
	case s != nil && !ofTrunk:
		return s
	case !siprec.IsRecordingSession(m.Message):
		return nil
	case s == nil:
		return t.follower.First()
	}
	return s
}

// openFollowed begins to follow the recording session of m.
func (t *tracker) openFollowed(m *message, source *siprec.Source, caller, callee netip.AddrPort) *call {
	t.makeRoom()
	c := &call{
		callID: m.CallID(), fromTag: m.fromTag, caller: media.External, cseq: m.cseq,
		last: t.now, leg: []pair{{caller, callee}}, sdp: sdp.NewNegotiation(), flows: map[media.StreamID]*flow{},
		dialog: &recordingDialog{},
	}
	if t.calls[c.callID] != nil {
		c.dialog.key = dialogKey(c.callID, c.fromTag)
	}
	c.keysOffered(media.External, siprec.Description(m.Message))
	followed, err := t.follower.Begin(source, m.Message, func(n int) siprec.Path { return t.path(c, n) })
	if err != nil {
		t.stats.BadSDP++
		t.forget(c)
		c.wipe()
		return nil
	}
	c.followed = followed
	t.begin(c)
	return c
}

// recordingDialog is what a dialog with a recording server has besides a call's. A
// client may name several dialogs by one Call-ID, as the server knows them by their
// From tags too.
type recordingDialog struct {
	key     string    // in tracker.calls; empty: the Call-ID
	settled time.Time // when its INVITE was answered
}

func dialogKey(callID, tag string) string { return callID + "\x00" + tag }

// key is where the tracker finds the call.
func (c *call) key() string {
	if c.dialog != nil && c.dialog.key != "" {
		return c.dialog.key
	}
	return c.callID
}

// find returns the call of a message, nil when it is none's so far.
func (t *tracker) find(m *message) *call {
	c := t.calls[m.CallID()]
	if t.follower == nil || c != nil && (c.dialog == nil || c.fromTag == m.fromTag || c.fromTag == m.toTag) {
		return c
	}
	for _, tag := range [2]string{m.fromTag, m.toTag} {
		if d := t.calls[dialogKey(m.CallID(), tag)]; d != nil {
			return d
		}
	}
	if m.toTag == "" && t.source(m, m.src) != nil {
		return nil
	}
	return c
}

// unmerged tells whether an INVITE of the Call-ID and From tag of a recording dialog is
// not that dialog's own on another way (RFC 3261 section 8.2.2.2): its transaction is
// over, or it was another one.
func (t *tracker) unmerged(c *call, m *message) bool {
	return c.dialog != nil && (m.cseq != c.cseq || t.now.Sub(c.dialog.settled) >= sip.TransactionTimeout)
}

// beginsAnew tells whether a client that has lost a recording dialog begins it once
// more: the server of package siprec ends the dialog of before then.
func (t *tracker) beginsAnew(c *call, m *message) bool {
	if c.followed == nil || !c.followed.Answered() || m.Method != sip.Invite || m.toTag != "" || m.fromTag != c.fromTag || !t.unmerged(c, m) {
		return false
	}
	own := fit(c.leg, m.src, m.dst)
	return own > 0 && own >= fit(c.others, m.src, m.dst) && (own >= 2 || t.follower.Source(m.src.Addr()) != nil) &&
		!slices.ContainsFunc(c.seen, func(tx *transaction) bool { return tx.branch == m.branch })
}

// followedRequest takes a request that is new to a recording dialog.
func (t *tracker) followedRequest(c *call, tx *transaction, m *message) {
	if tx.sender != media.External || tx.cseq == c.cseq && tx.method == sip.Invite {
		return // what the server asks for is answered in requests of the client
	}
	var err error
	if m.Method == sip.Ack {
		if body := siprec.Description(m.Message); body != nil {
			t.keysFollowed(c, media.External, body)
		}
		err = c.followed.Ack(m.Message)
	} else {
		if m.Method == sip.Invite || m.Method == sip.Update {
			c.keysOffered(media.External, siprec.Description(m.Message))
		}
		err = c.followed.Request(m.Message)
	}
	if err != nil {
		t.stats.BadSDP++
	}
}

// followedResponse takes the final response to one.
func (t *tracker) followedResponse(c *call, tx *transaction, m *message) {
	if tx.sender != media.External || tx.final == 0 || tx.method != sip.Invite && tx.method != sip.Update {
		return
	}
	if m.Status >= 300 && !c.followed.Answered() && tx.method == sip.Invite {
		t.end(c, t.now, media.CauseFailed)
		return
	}
	var err error
	if m.Status >= 300 {
		for _, w := range c.keys {
			w.Reject(media.External)
		}
	} else if body := siprec.Description(m.Message); body != nil {
		t.serverDescribed(c, body)
		t.keysFollowed(c, media.Internal, body)
	}
	if tx.method == sip.Invite && !c.followed.Answered() {
		c.toTag, c.dialog.settled = m.toTag, t.now
		err = c.followed.Answer(m.Message)
		t.answer(c)
	} else {
		err = c.followed.Final(m.Message)
	}
	if err != nil {
		t.stats.BadSDP++
	}
}

// keysFollowed takes the keys of an answer, or of the server's offer.
func (t *tracker) keysFollowed(c *call, from media.Side, body []byte) {
	c.keysAnswered(from, body, false)
	t.rekey(c)
}

// serverDescribed notes where the server wants the streams.
func (t *tracker) serverDescribed(c *call, body []byte) {
	d, err := sdp.Parse(body)
	if err != nil {
		t.stats.BadSDP++
		return
	}
	c.media[media.Internal] = d.Media()[:min(len(d.Media()), linesMax)]
	for _, f := range c.flows {
		t.followedTo(f)
	}
}

// followedTo leads what comes to the server's address to its flow.
func (t *tracker) followedTo(f *flow) {
	list := f.call.media[media.Internal]
	i := int(f.stream.ID / 2)
	if i >= len(list) || list[i].Rejected || !list[i].Addr.IsValid() {
		return
	}
	m := &list[i]
	f.stream.Local = netip.AddrPortFrom(m.Addr, m.Port)
	t.direct(f, f.stream.Local, false)
	if rtcp := m.RTCP; rtcp.IsValid() && rtcp != f.stream.Local {
		t.direct(f, rtcp, true)
	}
}

// path makes the way of line n of a recording dialog.
func (t *tracker) path(c *call, n int) siprec.Path {
	id := media.StreamID(2 * n)
	f := c.flows[id]
	if f == nil {
		f = &flow{call: c}
		c.flows[id] = f
	}
	f.stream.ID, f.gone = id, false
	t.followedTo(f)
	return &followedPath{t, f}
}

// followedPath is the way of one stream, as the code of the server uses it.
type followedPath struct {
	t *tracker
	f *flow
}

// Local implements siprec.Path.
func (p *followedPath) Local() netip.AddrPort { return p.f.stream.Local }

// Secure says whether the profile has SRTP of which no keys are known.
func (p *followedPath) Secure() bool {
	return p.f.call.protected(int(p.f.stream.ID/2)) && p.f.call.sends(p.f.stream.ID).Zero()
}

// Expect implements siprec.Path.
func (p *followedPath) Expect(from netip.AddrPort, types []uint8) {
	p.f.latch.Negotiate(from, types)
	if from.IsValid() && from != p.f.source {
		p.t.unsource(p.f)
		p.f.source = from
		p.t.bySource[from] = append(p.t.bySource[from], p.f)
	}
}

// SetTap implements siprec.Path.
func (p *followedPath) SetTap(tap media.Tap) { p.f.tap = tap }

// Close implements siprec.Path.
func (p *followedPath) Close() { p.f.gone, p.f.tap = true, nil }

// protected says whether a line of the server's description has SRTP.
func (c *call) protected(line int) bool {
	list := c.media[media.Internal]
	return line < len(list) && srtp.Encrypts(list[line].Proto)
}
