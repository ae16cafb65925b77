package recorder

import "time"

// catchUp processes, in replay, what happened before t, so that events of one
// instant are taken together, in the order that a live session takes them.
func (s *session) catchUp(t time.Time) {
	if s.done || !t.After(s.lastTap) {
		return
	}
	from := s.lastTap
	s.lastTap = t
	peers := s.rec.peers(s)
	if len(peers) == 1 {
		s.process(t.Add(-1), false)
		return
	}
	// What one tells the others must reach them at its time, as on a running clock.
	for x := from.Add(settle); !from.IsZero() && x.Before(t); x = x.Add(settle) {
		together(peers, x)
	}
	together(peers, t.Add(-1))
}

// together processes the calls of a conversation up to a time, what they were
// told in order.
func together(peers []*session, cutoff time.Time) {
	for {
		var first *session
		var at time.Time
		for _, p := range peers {
			if next, ok := p.nextControl(); ok && !next.After(cutoff) && (first == nil || next.Before(at)) {
				first, at = p, next
			}
		}
		if first == nil {
			break
		}
		first.process(at, false)
	}
	for _, p := range peers {
		p.process(cutoff, false)
	}
}

// nextControl is when the next of what waits happened.
func (s *session) nextControl() (at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return at, false
	}
	for _, list := range [][]control{s.batch, s.controls} {
		for i := range list {
			if !ok || list[i].at.Before(at) {
				at, ok = list[i].at, true
			}
		}
	}
	return at, ok
}
