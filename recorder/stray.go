package recorder

import (
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/source"
)

const (
	// strayMS is how much later than it arrived a packet may lie before it is
	// watched: the bound within which the timeline is exact.
	strayMS = 20
	// straysMax bounds the packets watched on a side. They are of at most the time
	// between arrival and sealing.
	straysMax = 512
)

// stray is a packet that lies later than it arrived: its path became quicker
// than when its stream was placed, and the timeline follows only slowly.
type stray struct {
	arrivalMS int64
	end       int64 // sample behind it, as placed
}

// watch notes a packet that is placed later than it arrived. Should its arrival
// turn out to lie in a window, it must not be heard behind that window.
func (s *side) watch(c *core, k mix.Key, p source.Packet, samples int) {
	pos, ok := s.track.PositionOf(k, p.TS)
	if !ok || !c.started {
		return
	}
	arrivalMS := c.realMSOf(p.Arrival)
	if pos/c.perMS-arrivalMS <= strayMS {
		return
	}
	if len(s.strays) >= straysMax {
		s.strays = s.strays[:copy(s.strays, s.strays[1:])]
	}
	s.strays = append(s.strays, stray{arrivalMS, pos + int64(samples)})
}

// mute silences the samples that lie before the end of a packet that arrived
// inside a window, and returns which they are. More may be lost by it than
// arrived there; never less.
func (s *side) mute(from int64, samples []int16) span {
	n := max(0, min(s.muteUntil-from, int64(len(samples))))
	clear(samples[:n])
	return span{from, from + n}
}

// muted accounts for what was silenced and looks for further packets, now that
// more is sealed.
func (c *core) muted(i int, silenced span) {
	s := c.sides[i]
	if silenced.from < silenced.to {
		for _, x := range c.keptSpans(silenced) {
			c.account.gaps[i].cover(x, GapLate, "arrived inside a window")
			c.account.dirty = true
		}
	}
	rest := s.strays[:0]
	for _, x := range s.strays {
		switch {
		case x.arrivalMS >= c.sealedMS:
			rest = append(rest, x)
		case x.arrivalMS >= 0 && !c.keptBetween(x.arrivalMS, min(x.arrivalMS+chunkMS, c.sealedMS)-1):
			s.muteUntil = max(s.muteUntil, x.end)
		}
	}
	s.strays = rest
}
