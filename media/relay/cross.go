package relay

import (
	"net/netip"

	"github.com/trunktap/trunktap/media"
)

// A description may name a port of ours: an element that passes descriptions on
// joins two of our streams by their addresses, such as a PBX between two phones
// that both reach it through us. Such media goes from one of our sockets to
// another, when that can never make a packet go round:
//
//   - each of the two streams names the other's port, on one side each;
//   - the other side of neither names a port of ours.
//
// Then what enters a stream by its crossed side leaves the relay by the other.
// Anything else that names us is no destination.

// crossing is what a stream's descriptions say of ports of ours.
type crossing struct {
	asked [2]Remote         // as negotiated; guarded by Stream.mu
	names [2]netip.AddrPort // ports of ours; zero: none. Guarded by Relay.mu
}

// name notes that a side's description names a port of ours, or none, and
// returns the streams whose way hangs on it.
func (r *Relay) name(s *Stream, side media.Side, port netip.AddrPort) (others []*Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := s.cross.names[side]
	if !was.IsValid() && !port.IsValid() && r.naming == 0 {
		return nil
	}
	s.cross.names[side] = port
	if was.IsValid() {
		r.naming--
	}
	if port.IsValid() {
		r.naming++
	}
	for t := range r.streams {
		if t != s && (t.namesAny(s) || t.has(was) || t.has(port)) {
			others = append(others, t)
		}
	}
	return others
}

// namesAny tells whether a description of s names a port of t. Relay.mu is held.
func (s *Stream) namesAny(t *Stream) bool {
	return t.has(s.cross.names[media.External]) || t.has(s.cross.names[media.Internal])
}

// has tells whether a port is one of the stream's.
func (s *Stream) has(port netip.AddrPort) bool {
	return port.IsValid() && (s.ends[media.External].local == port || s.ends[media.Internal].local == port)
}

// crosses tells whether a side of a stream may send to the port of ours that its
// description names.
func (r *Relay) crosses(s *Stream, side media.Side) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	port := s.cross.names[side]
	if !port.IsValid() || s.cross.names[side.Other()].IsValid() {
		return false
	}
	for t := range r.streams {
		for _, at := range []media.Side{media.External, media.Internal} {
			if t != s && t.ends[at].local == port {
				return t.cross.names[at] == s.ends[side].local && !t.cross.names[at.Other()].IsValid()
			}
		}
	}
	return false
}

// reroute makes the way to a side anew. Stream.mu is held.
func (s *Stream) reroute(side media.Side) {
	m := s.cross.asked[side]
	next := *s.route.Load()
	next.crossed[side] = s.relay.crosses(s, side)
	if !next.crossed[side] && (s.relay.owns(m.RTP) || s.relay.owns(m.RTCP)) {
		m.RTP, m.RTCP = netip.AddrPortFrom(m.RTP.Addr(), 0), netip.AddrPort{}
	}
	next.remote[side], next.known[side] = m, true
	s.route.Store(&next)
	s.withdraw(media.External, media.Internal)
}

// recross looks again at what hangs on other streams.
func (s *Stream) recross() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for _, side := range []media.Side{media.External, media.Internal} {
		if s.route.Load().known[side] && s.relay.owns(s.cross.asked[side].RTP) {
			s.reroute(side)
		}
	}
}
