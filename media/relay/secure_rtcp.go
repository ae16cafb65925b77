package relay

import (
	"fmt"
	"net/netip"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/latch"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
)

// Without rtcp-mux a side that does DTLS has an association of its own for RTCP, on
// the port of RTCP (RFC 5764 section 3).

// apart are the keys that a side has for RTCP alone. It belongs to the packet path.
type apart struct {
	in  *srtp.Unprotector
	out *srtp.Protector
}

// take takes over keys of a handshake on the port of RTCP. What cannot be used leaves
// the side without RTCP.
func (a *apart) take(c *change) {
	a.wipe()
	if c.resumed {
		a.in, _ = srtp.ResumeUnprotector(c.receive, 0)
		a.out, _ = srtp.ResumeProtector(c.send)
		return
	}
	a.in, _ = srtp.NewUnprotector(c.receive, 0)
	a.out, _ = srtp.NewProtector(c.send)
}

func (a *apart) wipe() {
	if a.in != nil {
		a.in.Wipe()
	}
	if a.out != nil {
		a.out.Wipe()
	}
	a.in, a.out = nil, nil
}

// shakeRTCP begins the handshake for RTCP where the side wants one. s.mu is held.
func (s *Stream) shakeRTCP(side media.Side) error {
	end, r := s.sec.ends[side], s.route.Load()
	if end.Mode != srtp.KeyedDTLS || s.sec.resumed[side] == end.Association || !r.known[side] || r.remote[side].Mux || !s.rtp {
		return nil
	}
	sh := s.sec.sides[side].shaker.Load()
	if sh == nil {
		return nil
	}
	e := sh.rtcp.Load()
	if e == nil {
		var err error
		if e, err = s.rtcpEndpoint(sh, side); err != nil {
			return err
		}
		sh.rtcp.Store(e)
	}
	e.Start(dtls.Association{Number: end.Association, Role: end.Role, Fingerprints: end.Fingerprints})
	return nil
}

func (s *Stream) rtcpEndpoint(sh *shaker, side media.Side) (*dtls.Endpoint, error) {
	e, err := dtls.New(dtls.Config{
		Certificate: s.relay.cfg.Certificate, Suites: s.suites[side],
		Send:        func(b []byte) error { return s.sendRTCPHandshake(sh, side, b) },
		Established: func(k dtls.Keys) { s.established(side, kindRTCP, k) },
		Failed: func(err error) { // many have no RTCP at all: the call is as good without
			s.relay.cfg.Log.Debug("DTLS handshake for RTCP failed: the side has none", "side", side, "local", s.ends[side].local, "error", err)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("begin DTLS for RTCP: %w", err)
	}
	return e, nil
}

// sendRTCPHandshake sends a datagram to where the side's handshake for RTCP comes from,
// else to where its SDP wants RTCP.
func (s *Stream) sendRTCPHandshake(sh *shaker, side media.Side, b []byte) error {
	var to netip.AddrPort
	if r := s.route.Load(); r.known[side] && s.sec.sides[side].shaker.Load() == sh {
		to = rtcpAddress(&r.remote[side])
	}
	if p := sh.rtcpPeer.Load(); p != nil {
		to = *p
	}
	if !sendable(to) {
		return errNoWay
	}
	return s.ends[side].socks[kindRTCP].send(b, to)
}

// deliverRTCP gives a datagram to the handshake for RTCP. It comes from a host that the
// side's SDP or its media names.
func (s *Stream) deliverRTCP(r *route, side media.Side, from netip.AddrPort, wire []byte) {
	sec := &s.sec.sides[side]
	sh := sec.shaker.Load()
	if sh == nil || sh.rtcp.Load() == nil || !r.known[side] {
		return
	}
	from = latch.Unmap(from)
	if o := sec.ofFork(func(x *shaker) bool { p := x.rtcpPeer.Load(); return p != nil && *p == from }); o != nil {
		o.rtcp.Load().Deliver(wire) // it has come from there before
		return
	}
	source, latched := s.ends[side].latch.Source()
	wanted := rtcpAddress(&r.remote[side])
	if from != wanted && from.Addr() != r.remote[side].RTP.Addr() && !(latched && from.Addr() == source.Addr()) {
		s.stats[side].rejectedSource.Add(1)
		return
	}
	if p := sh.rtcpPeer.Load(); p == nil || *p != from {
		peer := from
		sh.rtcpPeer.Store(&peer)
	}
	sh.rtcp.Load().Deliver(wire)
}

// opener is what decrypts a packet of a side; nil: there are no keys for it.
func (sec *secured) opener(rtcp bool, k kind) *srtp.Unprotector {
	if rtcp && k == kindRTCP && sec.mode == srtp.KeyedDTLS {
		return sec.apart.in
	}
	return sec.in.Load()
}

// sealer is what encrypts a packet for a side, which has rtcp-mux or not; nil: there are
// no keys for it.
func (sec *secured) sealer(rtcp, mux bool) *srtp.Protector {
	if rtcp && !mux && sec.mode == srtp.KeyedDTLS {
		return sec.apart.out
	}
	return sec.out.Load()
}
