package suppress

// Bounds of the memory of sequence numbers. A repeat that is older than that
// is taken for a new signal; applied again at its own time it changes little,
// and a start in doubt acts.
const (
	seenSourcesMax   = 64
	seenPerSourceMax = 1024
)

// seen remembers the latest sequence numbers of each source.
type seen struct{ sources map[string]*seenSource }

type seenSource struct {
	has  map[uint64]struct{}
	ring []uint64 // in order of arrival once full, from next on
	next int
}

// repeat notes a sequence number and tells whether it was there before.
// Signals without one are never repeats, nor are those of sources beyond the
// limit.
func (s *seen) repeat(source string, seq uint64) bool {
	if seq == 0 {
		return false
	}
	src := s.sources[source]
	if src == nil {
		if len(s.sources) >= seenSourcesMax {
			return false
		}
		if s.sources == nil {
			s.sources = make(map[string]*seenSource)
		}
		src = &seenSource{has: make(map[uint64]struct{})}
		s.sources[source] = src
	}
	if _, ok := src.has[seq]; ok {
		return true
	}
	src.note(seq)
	return false
}

func (s *seenSource) note(seq uint64) {
	s.has[seq] = struct{}{}
	if len(s.ring) < seenPerSourceMax {
		s.ring = append(s.ring, seq)
		return
	}
	delete(s.has, s.ring[s.next])
	s.ring[s.next] = seq
	s.next = (s.next + 1) % seenPerSourceMax
}
