package recorder

import (
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/source"
)

const (
	// strayMS is how much later than it arrived a packet may lie before it is
	// watched: the bound within which the timeline is exact.
	strayMS = 20
	// straysMax bounds the packets watched on a side one by one. They are of the
	// time between arrival and sealing, which consent may make long.
	straysMax = 4096
)

// stray is a packet that lies later than it arrived: its path became quicker
// than when its stream was placed, and the timeline follows only slowly.
type stray struct {
	arrivalMS int64
	lastMS    int64 // arrival of the last one of several that are watched as one
	end       int64 // sample behind it, as placed
}

// strayList watches one channel of a recording.
type strayList struct {
	list      []stray
	muteUntil int64 // sample up to which nothing of this channel may be heard
}

// watch notes a packet that is placed later than it arrived. Should its arrival
// turn out to lie in a window, it must not be heard behind that window.
// It lasts for so many ticks of its clock.
func (s *side) watch(c *core, k mix.Key, p source.Packet, ticks int64) {
	pos, ok := s.track.PositionOf(k, p.TS)
	if !ok || !c.started {
		return
	}
	arrivalMS := c.realMSOf(p.Arrival)
	if pos/c.perMS-arrivalMS <= strayMS {
		return
	}
	end, _ := s.track.PositionOf(k, p.TS+ticks)
	for _, r := range c.recs {
		if r.begun {
			r.strays[r.channel(s.is)].add(stray{arrivalMS - r.offsetMS, arrivalMS - r.offsetMS, end - r.offsetMS*r.perMS})
		}
	}
}

func (l *strayList) add(x stray) {
	if len(l.list) >= straysMax { // two are watched as one: nothing is let pass for want of room
		a, b := l.list[0], l.list[1]
		l.list = l.list[:copy(l.list, l.list[1:])]
		l.list[0] = stray{min(a.arrivalMS, b.arrivalMS), max(a.lastMS, b.lastMS), max(a.end, b.end)}
	}
	l.list = append(l.list, x)
}

// mute silences the samples that lie before the end of a packet that arrived
// inside a window, and returns which they are. More may be lost by it than
// arrived there; never less.
func (l *strayList) mute(from int64, samples []int16) span {
	n := max(0, min(l.muteUntil-from, int64(len(samples))))
	clear(samples[:n])
	return span{from, from + n}
}

// muted accounts for what was silenced and looks for further packets, now that
// more is sealed.
func (r *recording) muted(channel int, silenced span) {
	if silenced.from < silenced.to {
		for _, x := range r.keptSpans(channel, silenced) {
			r.account.gaps[channel].cover(x, GapLate, "arrived inside a window")
			r.account.dirty = true
		}
	}
	l := &r.strays[channel]
	rest := l.list[:0]
	for _, x := range l.list {
		switch {
		case x.lastMS >= r.sealedMS:
			rest = append(rest, x)
		case x.lastMS >= 0 && !r.keptBetween(channel, max(x.arrivalMS, 0), min(x.lastMS+chunkMS, r.sealedMS)-1):
			l.muteUntil = max(l.muteUntil, x.end)
		}
	}
	l.list = rest
}
