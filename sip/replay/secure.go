package replay

import (
	"errors"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
)

// Where the descriptions of a call hold the keys of its media (SDES, RFC 4568), its
// packets are decrypted, as the live daemon does. Those of DTLS stay undecodable.

// keysOffered notes the keys in an offer; nil asks the other side for one.
func (c *call) keysOffered(from media.Side, body []byte) {
	if body == nil {
		for _, w := range c.keys {
			w.Ask(from)
		}
		if c.keys == nil {
			w := &srtp.Watch{}
			w.Ask(from)
			c.keys = append(c.keys, w)
		}
		return
	}
	c.eachProtection(body, func(w *srtp.Watch, m srtp.Media) { w.Offer(from, m) })
}

// keysAnswered notes the keys in an answer.
func (c *call) keysAnswered(from media.Side, body []byte, early bool) {
	if body != nil {
		c.eachProtection(body, func(w *srtp.Watch, m srtp.Media) { w.Answer(from, m, early) })
	}
}

func (c *call) eachProtection(body []byte, take func(*srtp.Watch, srtp.Media)) {
	d, err := sdp.Parse(body)
	if err != nil {
		return // counted by who uses the body
	}
	for i, m := range d.Media() {
		if i == linesMax {
			return
		}
		if i == len(c.keys) {
			w := &srtp.Watch{}
			c.keys = append(c.keys, w)
		}
		session, own := d.Protection(i)
		s, _ := srtp.ReadMedia(m.Proto, session, own) // what cannot be used stays undecodable
		s.Refused = m.Rejected
		take(c.keys[i], s)
	}
}

// reject drops a side's open offer of an INVITE, or of an UPDATE or PRACK, maybe within
// an INVITE that goes on.
func (c *call) reject(from media.Side, method string) {
	if method == sip.Invite {
		c.sdp.RejectFrom(from)
	} else {
		c.sdp.RejectWithin(from)
	}
	for _, w := range c.keys {
		w.Reject(from)
	}
}

// sends returns what the sender of a stream protects it with.
func (c *call) sends(id media.StreamID) srtp.Crypto {
	if i := int(id / 2); i < len(c.keys) {
		return c.keys[i].Sends(media.Side(id % 2))
	}
	return srtp.Crypto{}
}

// rekey lets the flows of a call have the keys that are agreed on now.
func (t *tracker) rekey(c *call) {
	for id, f := range c.flows {
		line := c.sends(id)
		switch {
		case line.Zero():
			f.forgetKeys()
		case f.in == nil || !line.SameKeys(f.line):
			f.rekey(line)
		}
	}
}

// rekey takes new keys into use; where that fails, every packet counts as not decrypted.
func (f *flow) rekey(line srtp.Crypto) {
	f.line = line
	keys, err := srtp.NewKeys(line)
	switch {
	case err != nil && f.in != nil:
		f.in.Wipe()
	case err != nil:
		f.in = &srtp.Unprotector{}
	case f.in == nil:
		f.in, _ = srtp.NewUnprotector(keys, 0) // of keys that nobody else uses
	default:
		_ = f.in.Rekey(keys) // the same
	}
}

func (f *flow) forgetKeys() {
	if f.in != nil {
		f.in.Wipe()
		f.in, f.line = nil, srtp.Crypto{}
	}
}

// wipe zeroes the keys of a call that is over.
func (c *call) wipe() {
	for _, f := range c.flows {
		f.forgetKeys()
	}
	for _, w := range c.keys {
		w.Wipe()
	}
	c.keys = nil
}

// unprotect returns what a packet of a flow holds. What cannot be decrypted is counted.
func (t *tracker) unprotect(f *flow, wire []byte, rtcp bool) (plain []byte, ok bool) {
	if f.in == nil {
		return wire, true
	}
	if cap(t.plain) < len(wire) {
		t.plain = make([]byte, len(wire))
	}
	var err error
	if rtcp {
		plain, err = f.in.RTCP(t.plain[:0], wire, t.now)
	} else {
		plain, err = f.in.RTP(t.plain[:0], wire, t.now)
	}
	if err == nil {
		return plain, true
	}
	t.stats.Undecrypted++
	if r, ok := f.tap.(refuser); ok && !rtcp && !errors.Is(err, srtp.ErrReplayed) {
		r.Refused(t.now, 1)
	}
	return nil, false
}

// refuser is a tap that accounts for packets that came and could not be decrypted;
// see relay.Refuser.
type refuser interface {
	Refused(arrival time.Time, n uint32)
}
