package relay

import (
	"net/netip"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/ice"
	"github.com/trunktap/trunktap/media/latch"
)

// SetICE lets a side's connectivity checks be answered, nil not. The way that the
// peer nominates is where its media comes from and goes to.
func (s *Stream) SetICE(side media.Side, l *ice.Lite) { s.ice[side].Store(l) }

// check takes a STUN message of a side, on the packet path. What is no check that
// proves to know our password is counted and dropped. Answering allocates, some ten
// times a call and then once in some seconds.
func (s *Stream) check(r *route, l *ice.Lite, side media.Side, k kind, from netip.AddrPort, wire []byte) {
	from = latch.Unmap(from)
	response, nominated, ok := l.Answer(wire, from)
	if !ok {
		s.stats[side].rejectedForm.Add(1)
		return
	}
	s.stats[side].checks.Add(1)
	if err := s.ends[side].socks[k].send(response, from); err != nil {
		s.stats[side].sendErrors.Add(1)
		return
	}
	e := &s.ends[side]
	if nominated {
		e.nominated[k] = from
	}
	if r.known[side] && e.nominated[k] == from { // also when its description came later
		s.nominate(r, side, k, from)
	}
}

// nominate changes the remote address of a side to what its peer has chosen. When
// control changes it at the same moment, the next check does.
func (s *Stream) nominate(r *route, side media.Side, k kind, from netip.AddrPort) {
	next := *r
	at := &next.remote[side].RTP
	if k == kindRTCP {
		at = &next.remote[side].RTCP
	}
	if *at == from {
		return
	}
	*at = from
	if s.route.CompareAndSwap(r, &next) {
		s.withdraw(media.External, media.Internal)
	}
}
