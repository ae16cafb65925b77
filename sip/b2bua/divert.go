package b2bua

import (
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// divert takes a final response to the first request that is no 2xx, when there is
// something else to try before the caller hears of it.
func (c *call) divert(ex *exchange, cl *dialog.Client, res *sip.Message, now time.Time) bool {
	return c.authorize(ex, cl, res, now) || c.redirected(ex, res, now) || c.failover(ex, res, now)
}
