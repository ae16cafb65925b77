package recorder

import "github.com/trunktap/trunktap/media/mix"

const (
	// blendMS is how far behind a loss what was made up for it may still be heard:
	// the joint with the next packet (10 ms), and filters and memories of codecs.
	blendMS = 20
	// blendsMax bounds the joints of a side that are not sealed; more are taken for
	// one.
	blendsMax = 256
)

// blend is the beginning of a packet that comes after something made up and may
// sound like it, in samples of the side's track.
type blend struct {
	from, to int64
	of       int64 // where what was made up began: it is made of what was before
}

// blended notes that a packet at ts was joined with what was made up from a
// timestamp on.
func (s *side) blended(k mix.Key, ts, from int64) {
	of, _ := s.track.PositionOf(k, from)
	at, ok := s.track.PositionOf(k, ts)
	if !ok {
		return // before the origin: nothing of it is heard
	}
	slack := int64(s.track.Rate()) / 200 // its place may still be corrected
	b := blend{from: at - slack, to: at + int64(s.track.Rate())*blendMS/1000 + slack, of: of}
	if n := len(s.blends); n >= blendsMax {
		last := &s.blends[n-1]
		last.from, last.to, last.of = min(last.from, b.from), max(last.to, b.to), min(last.of, b.of)
		return
	}
	s.blends = append(s.blends, b)
}

// blendsFrom forgets the joints that end before a position and returns the rest.
func (s *side) blendsFrom(position int64) []blend {
	rest := s.blends[:0]
	for _, b := range s.blends {
		if b.to > position {
			rest = append(rest, b)
		}
	}
	s.blends = rest
	return rest
}

// unblend silences the beginnings of packets that are blended with something that
// was made up of what is not kept, and returns where that was.
func (r *recording) unblend(channel int, blends []blend, fromMS, toMS int64, pcm []int16) (silenced []span) {
	first, last, shift := fromMS*r.perMS, toMS*r.perMS, r.offsetMS*r.perMS
	for _, x := range blends {
		s := span{max(x.from-shift, first), min(x.to-shift, last)}
		if s.from < s.to && r.madeOfSuppressed(channel, x.of-shift, fromMS) {
			clear(pcm[s.from-first : s.to-first])
			silenced = append(silenced, s)
			r.tainted[channel] = max(r.tainted[channel], s.to)
		}
	}
	return silenced
}

// unblended accounts for what was silenced, once the gate has passed it.
func (r *recording) unblended(channel int, silenced []span) {
	for _, s := range silenced {
		for _, x := range r.keptSpans(channel, s) {
			r.account.gaps[channel].cover(x, GapLoss, "joined with what was made up of suppressed audio")
			r.account.dirty = true
		}
	}
}

// madeOfSuppressed tells whether what was made up at a position, in samples, may
// sound like something that is not kept: a window, the time before the recording,
// a packet that was silenced, or what was made up of those.
func (r *recording) madeOfSuppressed(channel int, at, fromMS int64) bool {
	back := at - concealBackMS*r.perMS
	return back < 0 || back < max(r.strays[channel].muteUntil, r.tainted[channel]) || r.suppressedBefore(channel, at/r.perMS, fromMS)
}

// concealBackMS is how far back what is made up in place of lost audio may
// sound like what was heard: the longest that is concealed, and what a codec
// looks at to do it.
const concealBackMS = 200

// suppressedBefore tells whether anything of a channel that concealment at a
// position, concealBackMS or more behind the beginning, may have been made of is not
// kept. Spans from fromMS on are in r.spans.
func (r *recording) suppressedBefore(channel int, atMS, fromMS int64) bool {
	for ms := atMS - concealBackMS; ms < fromMS; ms++ {
		if !r.gate.Heard(channel, ms) {
			return true
		}
	}
	for _, sp := range r.spans {
		if (sp.Suppressed || sp.Mic && channel == 1) && sp.FromMS <= atMS {
			return true
		}
	}
	return false
}
