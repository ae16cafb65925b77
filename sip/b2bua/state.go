package b2bua

import (
	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/callstate"
)

// tell passes on what a request that passes says of the state of the call.
func (c *call) tell(req *sip.Message, from media.Side) {
	if c.state == nil || c.tap.tap == nil {
		return
	}
	if d, ok := callstate.DigitOf(req); ok {
		c.tap.digit(from, req.Arrival, d)
	}
	signals, refused := c.state.Request(req, from, req.Arrival)
	if refused > 0 {
		c.b.counters.SignalsRefused.Add(uint64(refused))
		c.log.Debug("call-state signals refused", "method", req.Method, "side", from, "signals", refused)
	}
	for _, s := range signals {
		c.tap.signal(s)
	}
}

// tellResponse is tell for a response.
func (c *call) tellResponse(res *sip.Message, from media.Side) {
	if c.state == nil || c.tap.tap == nil {
		return
	}
	for _, s := range c.state.Response(res, from, res.Arrival) {
		c.tap.signal(s)
	}
}
