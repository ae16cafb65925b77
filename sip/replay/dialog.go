package replay

import (
	"bytes"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/callstate"
	"github.com/trunktap/trunktap/sip/sdp"
)

// inCall takes a message of a call that is followed.
func (t *tracker) inCall(c *call, m *message) {
	sender, ok := c.sender(m)
	attempt, anew := t.newAttempt(c, m), t.beginsAnew(c, m)
	switch {
	case !ok && !attempt:
		t.stats.OtherDialogs++ // the losing branch of a fork, or a leg with other tags
	case attempt || anew:
		at, cause := c.last, media.CauseFailed
		if anew {
			at, cause = t.now, media.CauseTimeout
		}
		t.end(c, at, cause)
		t.bury(c)
		if c = t.first(m); c != nil {
			t.inCall(c, m)
		}
	case m.IsRequest():
		t.request(c, m, sender)
	default:
		t.response(c, m, sender)
	}
}

// newAttempt tells whether a call that was never answered is tried again,
// without its failure being in the capture.
func (t *tracker) newAttempt(c *call, m *message) bool {
	return !c.answered && m.Method == sip.Invite && m.toTag == "" && m.cseq > c.cseq && fit(c.leg, m.src, m.dst) == 4
}

func (t *tracker) request(c *call, m *message, sender media.Side) {
	if m.Method == sip.Bye && c.answered { // the first that passes, on whichever leg
		t.end(c, t.now, media.CauseBye)
		return
	}
	if tx := c.transaction(sender, m.cseq, m.Method); tx != nil {
		if tx.branch == m.branch {
			t.touch(c)
			return
		}
		c.others = learn(c.others, m.src, m.dst)
		t.stats.OtherDialogs++
		return
	}
	if !c.onLeg(m) {
		t.stats.OtherDialogs++
		return
	}
	t.touch(c)
	tx := c.begin(&transaction{sender: sender, cseq: m.cseq, method: m.Method, branch: m.branch})
	if c.followed != nil {
		t.followedRequest(c, tx, m)
		return
	}
	body := description(m)
	tag := m.toTag
	if sender != c.caller {
		tag = m.fromTag
	}
	t.within(c, tag, len(body))
	switch m.Method {
	case sip.Invite:
		tx.offered, tx.late = body != nil, body == nil
		t.offer(c, sender, body)
	case sip.Update:
		tx.offered = body != nil
		if tx.offered {
			t.offer(c, sender, body)
		}
	case sip.Prack:
		t.prack(c, tx, sender, body)
	case sip.Ack:
		t.ack(c, m, sender, body)
	}
	t.tell(c, m, sender)
}

// tell passes on what a request says of the state of the call.
func (t *tracker) tell(c *call, m *message, from media.Side) {
	if c.tap == nil {
		return
	}
	if digits, ok := c.tap.(media.DigitTap); ok {
		if d, ok := callstate.DigitOf(m.Message); ok {
			digits.Digit(from, t.now, d.Digit, d.Down)
		}
	}
	signals, refused := c.state.Request(m.Message, from, t.now)
	t.stats.SignalsRefused += int64(refused)
	for _, s := range signals {
		c.tap.Signal(s)
	}
}

// tellResponse is tell for a response.
func (t *tracker) tellResponse(c *call, m *message, from media.Side) {
	if c.tap == nil {
		return
	}
	for _, s := range c.state.Response(m.Message, from, t.now) {
		c.tap.Signal(s)
	}
}

// prack takes the answer to an offer in a reliable provisional response, or a
// further offer (RFC 3262 section 5).
func (t *tracker) prack(c *call, tx *transaction, sender media.Side, body []byte) {
	if body == nil {
		return
	}
	open := c.sdp.Offered(sender.Other())
	if invite := c.lastInvite(sender); invite != nil && invite.late && open != nil {
		if a := c.sdp.Agreed(); a == nil || a.Offer != open { // else it has its answer
			t.agree(c, sender, body, !c.answered)
			return
		}
	}
	tx.offered = true
	t.offer(c, sender, body)
}

// ack takes the answer to an offer in the 2xx (RFC 3261 section 13.2.1).
func (t *tracker) ack(c *call, m *message, sender media.Side, body []byte) {
	if body == nil {
		return
	}
	invite := c.transaction(sender, m.cseq, sip.Invite)
	switch {
	case invite == nil && c.half == nil: // the capture begins behind the 2xx
		t.oneSided(c, sender, body)
	case invite != nil && invite.unknown && c.half != nil && c.half.known != sender:
		t.offer(c, sender.Other(), c.half.body) // what was taken for an answer was an offer
	case invite == nil || !invite.late:
		t.stats.BadSDP++
		return
	}
	t.agree(c, sender, body, false)
}

// lastInvite returns the latest INVITE of a side.
func (c *call) lastInvite(sender media.Side) (last *transaction) {
	for _, tx := range c.seen {
		if tx.method == sip.Invite && tx.sender == sender {
			last = tx
		}
	}
	return last
}

func (t *tracker) response(c *call, m *message, sender media.Side) {
	tx := c.transaction(sender, m.cseq, m.method)
	if tx == nil {
		if m.method != sip.Invite && m.method != sip.Update || m.Status == 100 || !c.onLeg(m) {
			t.stats.OtherDialogs++
			return
		}
		tx = c.begin(&transaction{sender: sender, cseq: m.cseq, method: m.method, branch: m.branch, unknown: true})
	}
	if tx.branch != m.branch { // of another leg
		t.stats.OtherDialogs++
		return
	}
	t.touch(c)
	if tx.final != 0 || m.Status == 100 || tx.repeats(m) {
		return
	}
	if m.Status >= 200 {
		tx.final = m.Status
	}
	if c.followed != nil {
		t.followedResponse(c, tx, m)
		return
	}
	switch tx.method {
	case sip.Invite:
		t.invited(c, tx, m)
	case sip.Update, sip.Prack:
		t.updated(c, tx, m)
	}
}

// invited takes a response to an INVITE.
func (t *tracker) invited(c *call, tx *transaction, m *message) {
	initial := tx.cseq == c.cseq && tx.sender == c.caller && c.toTag == ""
	callee := tx.sender.Other()
	body := description(m)
	if tx.sender == c.caller {
		t.within(c, m.toTag, len(body))
	}
	if tx.unknown && body != nil && m.Status < 300 {
		t.missing(c, callee, body)
	}
	switch {
	case m.Status >= 300 && initial:
		t.end(c, t.now, media.CauseFailed)
	case m.Status >= 300:
		c.reject(tx.sender, tx.method)
	case m.Status >= 200:
		if initial {
			c.toTag = m.toTag
			t.answer(c)
		}
		t.tellResponse(c, m, callee)
		t.agree(c, callee, body, false)
	case body != nil:
		t.agree(c, callee, body, true)
	}
}

// within makes a dialog the one that is spoken in, by the callee's tag; more are the
// bytes that will be kept of it. From the answer on there is one alone.
func (t *tracker) within(c *call, tag string, more int) {
	if c.toTag != "" || tag == "" {
		return
	}
	d := c.early[tag]
	if d == nil {
		if len(c.early) >= forksMax {
			return
		}
		if c.early == nil {
			c.early = map[string]*sdp.Dialog{}
		}
		c.sdp.Switch(c.root)
		d = c.sdp.Fork()
		c.early[tag] = d
		t.hold(c, more)
	}
	c.sdp.Switch(d)
}

// updated takes a response to UPDATE or PRACK.
func (t *tracker) updated(c *call, tx *transaction, m *message) {
	body := description(m)
	t.tellResponse(c, m, tx.sender.Other())
	switch {
	case m.Status < 200:
	case tx.offered && (m.Status >= 300 || body == nil): // an answer that is none agrees to nothing
		c.reject(tx.sender, tx.method)
	case m.Status < 300 && body != nil && (tx.offered || tx.unknown):
		if tx.unknown {
			t.missing(c, tx.sender.Other(), body)
		}
		t.agree(c, tx.sender.Other(), body, !c.answered)
	}
}

// description returns the session description in a message, nil without one.
func description(m *message) []byte {
	if len(m.Body) == 0 {
		return nil
	}
	body, _, ok := sdp.SplitBody(m.Get("Content-Type"), m.Body)
	if !ok || len(body) == 0 {
		return nil
	}
	return body
}

// offer notes an offer; nil asks the other side for one.
func (t *tracker) offer(c *call, from media.Side, body []byte) {
	if body != nil {
		t.described(c, from, body)
	}
	c.keysOffered(from, body)
	if err := c.sdp.Offer(from, body); err != nil {
		t.stats.BadSDP++
	}
}

// agree notes an answer and reports what it changed.
func (t *tracker) agree(c *call, from media.Side, body []byte, early bool) {
	if body != nil {
		t.described(c, from, body)
	}
	result, err := c.sdp.Answer(from, body, t.now, early)
	if err != nil {
		t.stats.BadSDP++
		return
	}
	c.keysAnswered(from, body, early)
	t.apply(c, result)
	t.rekey(c)
}

// described notes a side's description.
func (t *tracker) described(c *call, side media.Side, body []byte) {
	d, err := sdp.Parse(body)
	if err != nil {
		return // counted by who uses the body
	}
	t.hold(c, len(body)-c.bytes[side])
	c.media[side], c.bytes[side] = d.Media(), len(body)
	if c.half != nil && c.half.known != side {
		c.half = nil
	}
}

// missing supplies the offer of an exchange of which only the answer is in the
// capture, when nothing is known of the other side.
func (t *tracker) missing(c *call, known media.Side, answer []byte) {
	if c.half != nil || c.media[known.Other()] != nil {
		return
	}
	t.oneSided(c, known, answer)
}

// oneSided begins a call of which one description is missing: the other side is
// taken to have offered the same. Its address is not known; media that
// leave the known address lead to it, and what comes there is taken from it.
func (t *tracker) oneSided(c *call, known media.Side, body []byte) {
	if err := c.sdp.Offer(known.Other(), undirected(body)); err != nil {
		t.stats.BadSDP++
		return
	}
	c.half = &half{known: known, body: body}
}

// undirected takes away the direction attributes, so that the description
// offers both directions.
func undirected(body []byte) []byte {
	var out []byte
	for line := range bytes.Lines(body) {
		switch string(bytes.TrimRight(line, "\r\n")) {
		case "a=sendonly", "a=recvonly", "a=inactive":
		default:
			out = append(out, line...)
		}
	}
	return out
}
