package relay

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
)

// An INVITE that forks reaches several far ends on one side. Each of them that answers
// early makes a handshake of its own, and no other one when it takes the call in the
// end: so until that is decided every association keeps its end of DTLS and its keys,
// and the one that Protect names last is in force.

// forksMax bounds the associations of a side that wait for the decision.
const forksMax = 8

// shaker is an end of DTLS with one far end.
type shaker struct {
	association uint32         // owned by control
	endpoint    *dtls.Endpoint // constant
	rtcp        atomic.Pointer[dtls.Endpoint]

	want     atomic.Pointer[wanted]         // stored by control
	peer     atomic.Pointer[netip.AddrPort] // where its DTLS comes from, stored by the packet path
	rtcpPeer atomic.Pointer[netip.AddrPort]
}

// wanted is where the far end's SDP wants its media.
type wanted struct {
	rtp    netip.AddrPort
	former *netip.AddrPort // the side's source when that was said: of what was there before
}

// at says whether something that came from an address is of the far end.
func (sh *shaker) at(from netip.AddrPort) bool {
	w, p := sh.want.Load(), sh.peer.Load()
	return w != nil && w.rtp == from || p != nil && *p == from
}

// shakerOf returns the side's end of DTLS for an association, made when it is first
// needed. s.mu is held.
func (s *Stream) shakerOf(side media.Side, association uint32) (*shaker, error) {
	sec := &s.sec.sides[side]
	now := sec.shaker.Load()
	if now != nil && (!s.sec.forking.Load() || now.association == association) {
		now.association = association
		return now, nil
	}
	var others []*shaker
	if list := sec.others.Load(); list != nil {
		others = slices.Clone(*list)
	}
	var next *shaker
	if i := slices.IndexFunc(others, func(sh *shaker) bool { return sh.association == association }); i >= 0 {
		next = others[i]
		others = slices.Delete(others, i, i+1)
	} else {
		var err error
		if next, err = s.newShaker(side, association); err != nil {
			return nil, err
		}
	}
	if now != nil {
		others = append(others, now)
	}
	for len(others) >= forksMax {
		s.closeShaker(others[0])
		others = others[1:]
	}
	sec.others.Store(&others)
	sec.shaker.Store(next)
	return next, nil
}

func (s *Stream) newShaker(side media.Side, association uint32) (*shaker, error) {
	if s.relay.cfg.Certificate == nil {
		return nil, errNoCertificate
	}
	sh := &shaker{association: association}
	var err error
	sh.endpoint, err = dtls.New(dtls.Config{
		Certificate: s.relay.cfg.Certificate, Suites: s.suites[side],
		Send:        func(b []byte) error { return s.sendDTLS(sh, side, b) },
		Established: func(k dtls.Keys) { s.established(side, kindRTP, k) },
		Failed: func(err error) {
			if s.sec.sides[side].shaker.Load() != sh {
				s.relay.cfg.Log.Debug("DTLS handshake of a fork failed", "side", side, "local", s.ends[side].local, "error", err)
				return
			}
			s.relay.cfg.Log.Warn("DTLS handshake failed: the side has no media", "side", side, "local", s.ends[side].local, "error", err)
			if s.failed != nil {
				s.failed(side, err)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("begin DTLS: %w", err)
	}
	return sh, nil
}

// wants tells the end of DTLS that is in force where its far end is. was is where the
// side's media went before. s.mu is held.
func (s *Stream) wants(side media.Side, was netip.AddrPort) {
	sh, to := s.sec.sides[side].shaker.Load(), s.route.Load().remote[side].RTP
	if sh == nil {
		return
	}
	w := sh.want.Load()
	if w != nil && w.rtp != to { // it moves
		sh.peer.Store(nil)
		sh.rtcpPeer.Store(nil)
	}
	if w != nil && w.rtp == to && was == to {
		return
	}
	next := &wanted{rtp: to}
	if was != to {
		next.former = s.stats[side].source.Load()
	}
	sh.want.Store(next)
}

// ofFork returns the end of DTLS of another fork than that in force that a datagram is of; nil:
// it is none of them.
func (sec *secured) ofFork(is func(*shaker) bool) *shaker {
	list := sec.others.Load()
	if list == nil || len(*list) == 0 || is(sec.shaker.Load()) {
		return nil
	}
	if i := slices.IndexFunc(*list, is); i >= 0 {
		return (*list)[i]
	}
	return nil
}

// Decided says that no other fork of a call can take it any more: what was kept for
// them is closed and wiped.
func (s *Stream) Decided() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.sec.forking.Swap(false) {
		return
	}
	for i := range s.sec.sides {
		sec := &s.sec.sides[i]
		if list := sec.others.Swap(nil); list != nil {
			for _, sh := range *list {
				s.closeShaker(sh)
			}
		}
		s.sec.agreed.keep(media.Side(i), s.sec.ends[i].Association)
		s.push(&change{side: media.Side(i), decided: true})
	}
}

// closeShaker ends handshakes that nobody wants; that fails never.
func (*Stream) closeShaker(sh *shaker) {
	_ = sh.endpoint.Close()
	if e := sh.rtcp.Load(); e != nil {
		_ = e.Close()
	}
}

// parked are the keys of an association that is not in force. They belong to the
// packet path.
type parked struct {
	association uint32
	in          *srtp.Unprotector
	out         *srtp.Protector
	apart       apart
}

func (p *parked) wipe() {
	if p.in != nil {
		p.in.Wipe()
	}
	if p.out != nil {
		p.out.Wipe()
	}
	p.apart.wipe()
}

// park puts the keys in force aside.
func (sec *secured) park() {
	p := parked{association: sec.association, in: sec.in.Swap(nil), out: sec.out.Swap(nil), apart: sec.apart}
	sec.apart = apart{}
	if p.in == nil && p.out == nil && p.apart == (apart{}) {
		return
	}
	if len(sec.parked) >= forksMax {
		sec.parked[0].wipe()
		sec.parked = sec.parked[1:]
	}
	sec.parked = append(sec.parked, p)
}

// unpark puts those of an association in force again, if there are any.
func (sec *secured) unpark(association uint32) {
	i := slices.IndexFunc(sec.parked, func(p parked) bool { return p.association == association })
	if i < 0 {
		return
	}
	p := sec.parked[i]
	sec.parked = slices.Delete(sec.parked, i, i+1)
	if in := sec.in.Swap(p.in); in != nil {
		in.Wipe()
	}
	if out := sec.out.Swap(p.out); out != nil {
		out.Wipe()
	}
	sec.apart.wipe()
	sec.apart = p.apart
}

// parkKeys keeps the keys of a handshake with a fork that is not in force.
func (sec *secured) parkKeys(c *change) {
	i := slices.IndexFunc(sec.parked, func(p parked) bool { return p.association == c.association })
	if i < 0 {
		if len(sec.parked) >= forksMax {
			wipe(c.receive, c.send)
			return
		}
		sec.parked = append(sec.parked, parked{association: c.association})
		i = len(sec.parked) - 1
	}
	p := &sec.parked[i]
	if c.rtcp {
		p.apart.take(c)
		return
	}
	p.in, _ = srtp.NewUnprotector(c.receive, 0) // what cannot be used opens nothing
	p.out, _ = srtp.NewProtector(c.send)
}

// forget wipes what was put aside.
func (sec *secured) forget() {
	for i := range sec.parked {
		sec.parked[i].wipe()
	}
	sec.parked = nil
}
