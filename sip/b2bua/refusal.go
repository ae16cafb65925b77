package b2bua

import (
	"errors"
	"sync/atomic"

	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
)

// refused tells of a call that we refuse ourselves. b.mu is not held.
func (b *B2BUA) refused(m *sip.Message, trunk, cause string, status int) {
	if b.cfg.CallRefused != nil && m.Method == sip.Invite && m.ToTag() == "" {
		b.cfg.CallRefused(sip.NewRefusal(m, trunk, cause, status))
	}
}

// cause names a counter of what limits refuse.
func (r *Refused) cause(counter *atomic.Uint64) string {
	switch counter {
	case &r.Rate:
		return sip.RefusedRate
	case &r.Delay:
		return sip.RefusedDelay
	case &r.Memory:
		return sip.RefusedMemory
	case &r.Lingering:
		return sip.RefusedLingering
	}
	return sip.RefusedCalls
}

// mediaCause names why the media of a call cannot be anchored.
func mediaCause(err error) string {
	if errors.Is(err, relay.ErrNoPorts) || errors.Is(err, relay.ErrClosed) {
		return sip.RefusedPorts
	}
	return sip.RefusedMedia
}

// refusedSetup tells of the refusal of the call that is being set up.
func (c *call) refusedSetup(cause string, status int) {
	if c.setup != nil && c.setup.server != nil {
		c.b.refused(c.setup.server.Req, c.trunk.Name, cause, status)
	}
}
