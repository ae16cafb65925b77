package sdp

import (
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// holds brings the holders up to date after a confirmed exchange and reports
// who began and who ended.
func (n *Negotiation) holds(a *Agreement, at time.Time) []suppress.Signal {
	pairs := a.audio()
	if len(pairs) == 0 {
		return nil
	}
	var now [2]bool
	now[a.Offerer] = all(pairs, func(offer, _ *Media) bool { return offer.holds() })
	answerer := a.Offerer.Other()
	was := n.holding[answerer]
	now[answerer] = all(pairs, func(offer, answer *Media) bool {
		return answer.holds() && (was || !mirrors(offer, answer))
	})
	var signals []suppress.Signal
	for _, side := range [2]media.Side{media.External, media.Internal} {
		if now[side] == n.holding[side] {
			continue
		}
		event := suppress.HoldEnd
		if now[side] {
			event = suppress.HoldStart
		}
		signals = append(signals, suppress.Signal{V: 1, Event: event, At: at, Source: "sdp", Party: side.String()})
	}
	n.holding = now
	return signals
}

func all(pairs [][2]*Media, f func(offer, answer *Media) bool) bool {
	for _, p := range pairs {
		if !f(p[0], p[1]) {
			return false
		}
	}
	return true
}

// holds tells whether a description by itself says hold: the other side is not
// to be heard (RFC 3264 section 8.4), or its media goes nowhere (RFC 2543).
func (m *Media) holds() bool {
	return m.Direction == SendOnly || m.Direction == Inactive || m.Zero
}

// mirrors tells whether an answer sends and takes nothing only because the
// offer does neither.
func mirrors(offer, answer *Media) bool {
	idle := offer.Direction == Inactive || offer.Zero && offer.Direction != SendOnly
	return idle && (answer.Direction == Inactive || answer.Zero)
}
