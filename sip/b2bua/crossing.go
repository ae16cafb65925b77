package b2bua

import (
	"net/netip"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// crossing is the way of one message from one side to the other.
type crossing struct {
	from    media.Side
	here    netip.AddrPort // our address on that side
	there   netip.AddrPort // and on the other one
	network string         // there
}

// crosses tells the way of a message that came, ours being our address where it goes.
func (c *call) crosses(m *sip.Message, from media.Side, ours netip.AddrPort, network string) crossing {
	here, _, err := c.b.agent.Local(m.Flow, c.trunk.Sides[from].Address)
	if err != nil {
		here = netip.AddrPort{} // the listener is gone: nothing is taken for ours
	}
	return crossing{from: from, here: here, there: ours, network: network}
}

// plain says whether messages of the call pass but for what outgoing and incoming
// change.
func (c *call) plain() bool {
	return c.alias == nil && c.timers == nil && !c.edits && c.b.masked.n.Load() == 0
}

// carry finishes out, which passes to the other side by a flow as what m was on the
// side from. ours is our address there.
func (c *call) carry(out, m *sip.Message, from media.Side, ours netip.AddrPort, flow sip.Flow) {
	if c.plain() && m.Method != sip.Refer {
		return
	}
	defer c.edit(out, from.Other())
	x := c.crosses(m, from, ours, flow.Network)
	if m.Method == sip.Refer {
		c.refer(out, x, flow.Remote)
	}
	if c.timers != nil {
		to := dialog.Caller
		if c.side == from {
			to = dialog.Callee
		}
		c.timers.write(out, to, c.answered == nil)
		c.timers.note(out, to)
	}
	if c.b.masked.n.Load() > 0 {
		c.b.rename(out, from)
	}
	if c.alias == nil {
		return
	}
	switch _, method := m.CSeq(); {
	case m.Status < 300 && method != sip.Register:
		if !targets(method) { // of no use there, but some say it
			ownContact(out, ours, flow.Network, false)
		}
		hideContact(out)
	case m.Status >= 300 && m.Status < 400:
		c.hideRedirection(out, x)
	}
	c.hideIdentities(out, x)
	c.hideBody(out, m, x)
	if m == c.setup.server.Req {
		c.introduce(x)
	}
}

// edits says whether a trunk has rules for header fields.
func edits(t *sip.Trunk) bool {
	for i := range t.Headers {
		if !t.Headers[i].Requests.Empty() || !t.Headers[i].Responses.Empty() {
			return true
		}
	}
	return false
}

// edit applies the rules for header fields to what goes to a side.
func (c *call) edit(out *sip.Message, to media.Side) {
	e := &c.trunk.Headers[to].Responses
	if out.IsRequest() {
		e = &c.trunk.Headers[to].Requests
	}
	if n := e.Apply(out); n > 0 {
		c.b.counters.HeadersEdited.Add(uint64(n))
	}
}
