package relay

import (
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/latch"
)

// The packet path, shared by all engines. One goroutine at a time runs it for a
// stream. Nothing in it allocates, waits or reads a clock.

// refresh returns the route in force, having told the latches of it.
func (s *Stream) refresh() *route {
	r := s.route.Load()
	if r == s.seen {
		return r
	}
	for i := range s.ends {
		if !r.known[i] {
			continue
		}
		e, m, was := &s.ends[i], &r.remote[i], &s.seen.remote[i]
		e.latch.Negotiate(m.RTP, m.PayloadTypes)
		if m.RTP != was.RTP || m.RTCP != was.RTCP {
			e.rtcpFrom = netip.AddrPort{}
		}
		s.publishSource(media.Side(i))
	}
	s.seen = r
	return r
}

// publishSource lets Stats see the latched source. It stores on change alone:
// storing allocates.
func (s *Stream) publishSource(side media.Side) {
	source, _ := s.ends[side].latch.Source()
	p := &s.stats[side].source
	if was := p.Load(); was == nil || *was != source {
		published := source
		p.Store(&published)
	}
}

// accept decides whether a packet that came from a side to its socket k is that
// side's media, and whether it is RTCP.
func (s *Stream) accept(r *route, side media.Side, k kind, from netip.AddrPort, wire []byte, arrival time.Time) (rtcp, ok bool) {
	e, c := &s.ends[side], &s.stats[side]
	if !r.known[side] {
		c.rejectedUnknown.Add(1)
		return false, false
	}
	from = latch.Unmap(from)
	rtcp = k == kindRTCP || s.rtp && r.remote[side].Mux && latch.IsRTCP(wire)
	verdict := latch.RejectedForm
	switch {
	case !rtcp:
		verdict = e.latch.Accept(from, wire)
		s.publishSource(side)
	case !s.rtp || latch.IsRTCP(wire):
		verdict = e.latch.AcceptRTCP(from)
	}
	switch verdict {
	case latch.RejectedSource:
		c.rejectedSource.Add(1)
		return rtcp, false
	case latch.RejectedForm:
		c.rejectedForm.Add(1)
		return rtcp, false
	case latch.Accepted:
	}
	last := &c.lastRTP
	if rtcp {
		last = &c.lastRTCP
	} else if s.relay.offload != nil && s.rtp {
		e.note(from, wire)
	}
	last.Store(max(1, int64(arrival.Sub(s.relay.base))))
	c.packets.Add(1)
	c.bytes.Add(uint64(len(wire)))
	if k == kindRTCP && e.rtcpFrom != from && (!e.rtcpFrom.IsValid() || e.rtcpFrom != rtcpAddress(&r.remote[side])) {
		e.rtcpFrom = from
	}
	return rtcp, true
}

// rtcpAddress is where a side's SDP wants its RTCP.
func rtcpAddress(m *Remote) netip.AddrPort {
	if m.RTCP.IsValid() || !m.RTP.IsValid() {
		return m.RTCP
	}
	return netip.AddrPortFrom(m.RTP.Addr(), m.RTP.Port()+1)
}

// destination tells where packets for a side go and out of which of that side's
// sockets: to where it sends from when that is known (symmetric RTP, RFC 4961),
// else to its SDP's address. ok is false when it wants or can get nothing.
func (s *Stream) destination(r *route, side media.Side, rtcp bool) (k kind, to netip.AddrPort, ok bool) {
	e, m := &s.ends[side], &r.remote[side]
	if !r.known[side] || m.RTP.IsValid() && !sendable(m.RTP) {
		return 0, to, false
	}
	to, latched := e.latch.Source()
	if !latched {
		to = m.RTP
	}
	if !rtcp || s.rtp && m.Mux {
		return kindRTP, to, sendable(to)
	}
	if e.rtcpFrom.IsValid() {
		return kindRTCP, e.rtcpFrom, true
	}
	if at := rtcpAddress(m); at.IsValid() {
		return kindRTCP, at, sendable(at)
	}
	return kindRTCP, netip.AddrPortFrom(to.Addr(), to.Port()+1), sendable(to)
}

func sendable(a netip.AddrPort) bool {
	return a.IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified()
}

// tapFailed is deferred around the Puts of a slot. After a panic it takes the
// tap out: the recording has failed, the call goes on.
func (s *Stream) tapFailed(side media.Side, slot *tapSlot) {
	v := recover()
	if v == nil {
		return
	}
	s.taps[side].CompareAndSwap(slot, nil)
	s.stats[side].tapPanics.Add(1)
	s.logPanic("a tap panicked and was taken out", side, v)
}

func (s *Stream) logPanic(text string, side media.Side, v any) {
	what := fmt.Sprintf("%T", v) // the value itself may hold speech
	if err, ok := v.(runtime.Error); ok {
		what = err.Error()
	}
	s.relay.cfg.Log.Error(text, "side", side, "local", s.ends[side].local, "panic", what, "stack", string(debug.Stack()))
}
