package b2bua

import (
	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/callstate"
)

// tell passes on what a request that passes says of the state of the call.
func (c *call) tell(req *sip.Message, from media.Side) {
	if c.state == nil || c.tap.Tap == nil {
		return
	}
	if d, ok := callstate.DigitOf(req); ok {
		c.tap.Digit(from, req.Arrival, d.Digit, d.Down)
	}
	signals, refused := c.state.Request(req, from, req.Arrival)
	if refused > 0 {
		c.b.counters.SignalsRefused.Add(uint64(refused))
		c.log.Debug("call-state signals refused", "method", req.Method, "side", from, "signals", refused)
	}
	for _, s := range signals {
		c.tap.Signal(s)
	}
}

// tellResponse is tell for a response.
func (c *call) tellResponse(res *sip.Message, from media.Side) {
	if c.state == nil || c.tap.Tap == nil {
		return
	}
	for _, s := range c.state.Response(res, from, res.Arrival) {
		c.tap.Signal(s)
	}
}
