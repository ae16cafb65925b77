package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/ice"
	"github.com/trunktap/trunktap/media/latch"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
)

// securing is what a stream keeps about SRTP.
//
// Control derives keys and pushes them as changes; the packet path takes them over
// between two packets and alone uses what they are in. It touches no lock of
// control: an endpoint's goroutine pushes while control waits for it.
type securing struct {
	on      atomic.Bool            // some side is not Clear: the kernel gets no flow
	forking atomic.Bool            // Decided was not called
	changes atomic.Pointer[change] // the latest first

	agreed agreedKeys
	// owned by control
	ends    [2]srtp.End
	resumed [2]uint32 // associations whose keys another process agreed on

	sides [2]secured
}

// secured is what the packet path knows of one side.
type secured struct {
	mode        srtp.Mode
	association uint32
	in          atomic.Pointer[srtp.Unprotector] // stored by the packet path, loaded by Stats too
	out         atomic.Pointer[srtp.Protector]

	shaker  atomic.Pointer[shaker]    // stored by control; nil: no DTLS yet
	others  atomic.Pointer[[]*shaker] // likewise: of other forks
	refused refusals
	apart   apart
	parked  []parked
}

// refusals counts what could not be decrypted, and protected.
type refusals struct {
	in, out           atomic.Uint64
	keyless, replayed atomic.Uint64 // of in

	// of the packet path
	told time.Time // when the tap was told last
	n    uint32    // since
}

// tellEvery is how often a tap is told of packets that could not be decrypted: a
// flood of them must not take the room of others.
const tellEvery = 10 * time.Millisecond

// Refuser is implemented by a Tap that accounts for packets of its stream that came
// and could not be decrypted: n since it was told last, the latest at arrival. Like
// Put it is called by one goroutine at a time, never blocks and does not allocate.
type Refuser interface {
	Refused(arrival time.Time, n uint32)
}

// change is new keys for a side, or a new mode.
type change struct {
	side          media.Side
	rtcp          bool // keys are those of a handshake for RTCP alone
	established   bool // by a handshake: mode stays, association tells whether it still counts
	mode          srtp.Mode
	association   uint32
	receive, send *srtp.Keys // nil: those there are stay
	restart       bool
	resumed       bool // another process has used the keys
	forked        bool // the association before may come back
	decided       bool // none does any more; this alone
	before        *change
}

// Protect says how the media of both sides is protected from the next packet on,
// as srtp.Line.Ends returns it; to say the same again changes nothing. Tap and
// overlay get plain packets. Of a side whose media is protected nothing is
// accepted and to it nothing is sent until there are keys. Where protection is
// passed from party to party, packets are forwarded as they are, no overlay
// touches them, and the tap gets those that could be decrypted.
//
// DTLS handshakes begin here, on the socket of RTP, and without rtcp-mux on that of
// RTCP too; they need Config.Certificate.
// An error leaves the sides before it changed, and lets nothing through in clear.
func (s *Stream) Protect(ends [2]srtp.End) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if ends[0].Mode != srtp.Clear || ends[1].Mode != srtp.Clear {
		s.sec.on.Store(true)
		s.withdraw(media.External, media.Internal)
	}
	var errs []error
	for side := range ends {
		if err := s.protectSide(media.Side(side), ends[side]); err != nil {
			errs = append(errs, fmt.Errorf("protect the media of the %s side: %w", media.Side(side), err))
		}
	}
	if ends[0].Mode == srtp.Clear && ends[1].Mode == srtp.Clear {
		s.sec.on.Store(false)
	}
	return errors.Join(errs...)
}

func (s *Stream) protectSide(side media.Side, e srtp.End) error {
	former := s.sec.ends[side]
	if e.Mode == former.Mode && e.Association == former.Association && !e.Restarts(former) &&
		sameLine(e.Receive, former.Receive) && sameLine(e.Send, former.Send) {
		return nil
	}
	receive, send, err := e.Keys()
	s.sec.ends[side] = e
	s.push(&change{
		side: side, mode: e.Mode, association: e.Association, receive: receive, send: send, restart: e.Restarts(former),
		forked: s.sec.forking.Load(),
	})
	if err != nil {
		s.sec.ends[side].Receive, s.sec.ends[side].Send = srtp.Crypto{}, srtp.Crypto{}
		return err
	}
	if e.Mode != srtp.KeyedDTLS {
		return nil
	}
	sh, err := s.shakerOf(side, e.Association)
	if err != nil {
		return err
	}
	sh.endpoint.Start(dtls.Association{Number: e.Association, Role: e.Role, Fingerprints: e.Fingerprints})
	return s.shakeRTCP(side)
}

func sameLine(a, b srtp.Crypto) bool {
	return a.Zero() && b.Zero() || !a.Zero() && !b.Zero() && a.SameKeys(b)
}

// push hands a change to the packet path.
func (s *Stream) push(c *change) {
	for {
		c.before = s.sec.changes.Load()
		if s.sec.changes.CompareAndSwap(c.before, c) {
			return
		}
	}
}

var errNoCertificate = errors.New("DTLS needs a certificate")

var errNoWay = errors.New("the peer's address is not known")

// sendDTLS sends a datagram of a handshake: to where the side's media comes from,
// else its handshake, else where its SDP wants it. Where media came from before the
// far end was there it is not.
func (s *Stream) sendDTLS(sh *shaker, side media.Side, b []byte) error {
	var to netip.AddrPort
	var former *netip.AddrPort
	current := s.sec.sides[side].shaker.Load() == sh
	if r := s.route.Load(); current && r.known[side] {
		to = r.remote[side].RTP
	}
	if w := sh.want.Load(); w != nil {
		to, former = w.rtp, w.former
	}
	if p := sh.peer.Load(); p != nil {
		to = *p
	}
	if p := s.stats[side].source.Load(); current && p != nil && p != former && p.IsValid() {
		to = *p
	}
	if !sendable(to) {
		return errNoWay
	}
	return s.ends[side].socks[kindRTP].send(b, to)
}

// rekey takes over what control has pushed. It is called between packets.
func (s *Stream) rekey() {
	if s.sec.changes.Load() == nil {
		return
	}
	var inOrder *change
	for c := s.sec.changes.Swap(nil); c != nil; {
		c, c.before, inOrder = c.before, inOrder, c
	}
	for c := inOrder; c != nil; c = c.before {
		s.sec.sides[c.side].take(c)
	}
}

func (sec *secured) take(c *change) {
	if c.decided {
		sec.forget()
		return
	}
	if c.established {
		if current := sec.mode == srtp.KeyedDTLS && sec.association == c.association; !current && c.forked {
			sec.parkKeys(c)
			return
		} else if !current {
			wipe(c.receive, c.send)
			return
		}
		if c.rtcp {
			sec.apart.take(c)
			return
		}
	} else {
		if c.forked && sec.mode == srtp.KeyedDTLS && (c.mode != srtp.KeyedDTLS || c.association != sec.association) {
			sec.park()
		}
		sec.mode, sec.association = c.mode, c.association
		if c.forked && c.mode == srtp.KeyedDTLS {
			sec.unpark(c.association)
		}
	}
	if sec.mode == srtp.Clear {
		sec.wipe()
		return
	}
	if sec.mode == srtp.Passed {
		sec.wipeOut()
	}
	if c.resumed {
		sec.resume(c)
		return
	}
	sec.takeReceive(c.receive)
	sec.takeSend(c.send, c.restart)
}

// resume takes over keys that another process has used. A side has none before.
func (sec *secured) resume(c *change) {
	if c.receive != nil {
		if in, err := srtp.ResumeUnprotector(c.receive, 0); err == nil {
			sec.in.Store(in)
		}
	}
	if c.send != nil {
		if out, err := srtp.ResumeProtector(c.send); err == nil {
			sec.out.Store(out)
		}
	}
}

// takeReceive and takeSend end with ErrNoKeys for each packet where keys cannot be
// used, which NewKeys has made sure of before.
func (sec *secured) takeReceive(k *srtp.Keys) {
	if k == nil {
		return
	}
	if in := sec.in.Load(); in != nil {
		if in.Rekey(k) != nil {
			in.Wipe()
		}
		return
	}
	if in, err := srtp.NewUnprotector(k, 0); err == nil {
		sec.in.Store(in)
	}
}

func (sec *secured) takeSend(k *srtp.Keys, restart bool) {
	if k == nil {
		return
	}
	if out := sec.out.Load(); out != nil {
		if out.Rekey(k, restart) != nil {
			out.Wipe()
		}
		return
	}
	if out, err := srtp.NewProtector(k); err == nil {
		sec.out.Store(out)
	}
}

func wipe(keys ...*srtp.Keys) {
	for _, k := range keys {
		if k != nil {
			k.Wipe()
		}
	}
}

func (sec *secured) wipe() {
	if in := sec.in.Swap(nil); in != nil {
		in.Wipe()
	}
	sec.wipeOut()
	sec.apart.wipe()
}

func (sec *secured) wipeOut() {
	if out := sec.out.Swap(nil); out != nil {
		out.Wipe()
	}
}

// closeEndpoints ends the handshakes, before the sockets go.
func (s *Stream) closeEndpoints() {
	for i := range s.sec.sides {
		var all []*shaker
		if list := s.sec.sides[i].others.Load(); list != nil {
			all = *list
		}
		if sh := s.sec.sides[i].shaker.Load(); sh != nil {
			all = append(slices.Clone(all), sh)
		}
		for _, sh := range all {
			s.closeShaker(sh)
		}
	}
}

// forgetKeys zeroes all keys. The packet path is through with the stream.
func (s *Stream) forgetKeys() {
	s.rekey()
	for i := range s.sec.sides {
		s.sec.sides[i].wipe()
		s.sec.sides[i].forget()
	}
	s.sec.ends = [2]srtp.End{}
	s.sec.agreed.wipe()
}

// unprotect is the first thing that is done with a datagram of a side: it returns
// the plain packet, in the same place, or what came where nothing is to be
// decrypted. What is not ok is dropped and counted.
func (s *Stream) unprotect(r *route, side media.Side, k kind, from netip.AddrPort, wire []byte, arrival time.Time) (plain []byte, ok bool) {
	if l := s.ice[side].Load(); l != nil && ice.IsSTUN(wire) {
		s.check(r, l, side, k, from, wire)
		return nil, false
	}
	sec := &s.sec.sides[side]
	switch sec.mode {
	case srtp.Clear, srtp.Passed:
		return wire, true
	case srtp.KeyedSDES, srtp.KeyedDTLS:
	}
	if sec.mode == srtp.KeyedDTLS && dtls.IsDTLS(wire) {
		s.deliver(r, side, k, from, wire)
		return nil, false
	}
	return s.decrypt(r, side, k, wire, arrival)
}

func (s *Stream) isRTCP(r *route, side media.Side, k kind, wire []byte) bool {
	return k == kindRTCP || s.rtp && r.remote[side].Mux && latch.IsRTCP(wire)
}

// decrypt returns the plain packet. What is none is counted, and of what may be audio
// that nobody has heard yet the tap is told.
func (s *Stream) decrypt(r *route, side media.Side, k kind, wire []byte, arrival time.Time) (plain []byte, ok bool) {
	sec, err := &s.sec.sides[side], srtp.ErrNoKeys
	rtcp := s.isRTCP(r, side, k, wire)
	if in := sec.opener(rtcp, k); in != nil {
		if rtcp {
			plain, err = in.RTCP(wire, wire, arrival)
		} else {
			plain, err = in.RTP(wire, wire, arrival)
		}
	}
	if err == nil {
		return plain, true
	}
	sec.refused.in.Add(1)
	switch {
	case errors.Is(err, srtp.ErrReplayed):
		sec.refused.replayed.Add(1)
		return nil, false
	case errors.Is(err, srtp.ErrNoKeys):
		sec.refused.keyless.Add(1)
	}
	if !rtcp {
		s.tellRefused(side, arrival)
	}
	return nil, false
}

// tellRefused lets a side's tap know that something came that it does not get.
func (s *Stream) tellRefused(side media.Side, arrival time.Time) {
	c := &s.sec.sides[side].refused
	c.n++
	slot := s.taps[side].Load()
	if slot == nil || arrival.Sub(c.told) < tellEvery {
		return
	}
	if t, ok := slot.tap.(Refuser); ok {
		defer s.tapFailed(side, slot)
		t.Refused(arrival, c.n)
	}
	c.told, c.n = arrival, 0
}

// deliver gives a datagram to the handshake. One of a stranger could only make it
// fail, and is let through while the side's own source is not known.
func (s *Stream) deliver(r *route, side media.Side, k kind, from netip.AddrPort, wire []byte) {
	if k == kindRTCP {
		s.deliverRTCP(r, side, from, wire)
		return
	}
	sec, sh := &s.sec.sides[side], s.sec.sides[side].shaker.Load()
	if sh == nil || !r.known[side] {
		return
	}
	from = latch.Unmap(from)
	if o := sec.ofFork(func(x *shaker) bool { return x.at(from) }); o != nil {
		o.endpoint.Deliver(wire)
		return
	}
	if source, latched := s.ends[side].latch.Source(); latched && source != from && r.remote[side].RTP != from {
		s.stats[side].rejectedSource.Add(1)
		return
	}
	if p := sh.peer.Load(); p == nil || *p != from {
		peer := from
		sh.peer.Store(&peer)
	}
	sh.endpoint.Deliver(wire)
}

// protect returns what a side is sent of a plain packet: the packet itself, or it
// protected in dst, which has room for srtp.OverheadBytesMax more. What is not ok
// must not be sent; it is counted at the side it came from.
func (s *Stream) protect(to media.Side, rtcp bool, dst, plain []byte) (wire []byte, ok bool) {
	sec := &s.sec.sides[to]
	switch sec.mode {
	case srtp.Clear, srtp.Passed:
		return plain, true
	case srtp.KeyedSDES, srtp.KeyedDTLS:
	}
	if out := sec.sealer(rtcp, s.seen.remote[to].Mux); out != nil {
		var err error
		if rtcp {
			wire, err = out.RTCP(dst, plain)
		} else {
			wire, err = out.RTP(dst, plain)
		}
		if err == nil {
			return wire, true
		}
	}
	s.sec.sides[to.Other()].refused.out.Add(1)
	return nil, false
}

// reveal returns what the tap gets of an accepted packet that was forwarded: the
// packet, or its plain text in the same place where it was passed on protected.
func (s *Stream) reveal(r *route, side media.Side, k kind, wire []byte, arrival time.Time) (plain []byte, ok bool) {
	sec := &s.sec.sides[side]
	if sec.mode != srtp.Passed {
		return wire, true
	}
	return s.decrypt(r, side, k, wire, arrival)
}
