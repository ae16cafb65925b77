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
