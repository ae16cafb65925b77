package relay

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/ice"
	"github.com/trunktap/trunktap/media/latch"
	"github.com/trunktap/trunktap/media/srtp"
)

// kind tells the two sockets of a side apart.
type kind uint8

const (
	kindRTP  kind = 0 // the even port; with rtcp-mux, RTCP too
	kindRTCP kind = 1 // the odd port
)

// Remote is what was negotiated for one side's end of a stream.
type Remote struct {
	// RTP is the address of that side's SDP: where its media is sent to until it
	// is known to send from elsewhere, and where its own media should come from.
	// Unspecified (0.0.0.0, hold by RFC 2543) or port 0: nothing is sent to it. The
	// zero AddrPort: unknown, its media goes to where it sends from.
	RTP netip.AddrPort

	// RTCP is its RTCP address (RFC 3605); zero means the port after RTP.
	RTCP netip.AddrPort

	// Mux is set when the side agreed to RTP and RTCP on one port (RFC 5761).
	Mux bool

	// PayloadTypes are those that this side may send. They decide who can become
	// the source; the source itself is not held to them.
	PayloadTypes []uint8
}

// route is everything that control decides about a stream's packets. Never
// changed once published.
type route struct {
	remote  [2]Remote
	known   [2]bool
	crossed [2]bool // the remote is a port of ours, see crossing
}

type tapSlot struct{ tap media.Tap }

// Stream relays one m-line between the two sides. Its methods are safe for
// concurrent use.
type Stream struct {
	// constant once the engine has it
	relay       *Relay
	rtp         bool
	receiveOnly bool
	place       any // what the engine keeps about it

	suites [2][]srtp.Suite
	failed func(media.Side, error) // may be nil
	keyed  func()                  // may be nil

	// handed from control to the packet path
	route    atomic.Pointer[route]
	taps     [2]atomic.Pointer[tapSlot]
	overlays [2]atomic.Pointer[overlaySlot]
	ice      [2]atomic.Pointer[ice.Lite]
	stats    [2]counters

	// owned by control
	mu     sync.Mutex // serialises control
	closed bool
	cross  crossing

	// ends, but for its constants, and seen belong to the goroutine that handles
	// the stream's packets
	ends [2]end
	seen *route

	off     offloading
	sec     securing
	reports reporting
}

// end is one side of a stream.
type end struct {
	// constant
	local netip.AddrPort // of RTP
	socks [2]socket      // by kind

	// owned by the packet path
	latch    latch.Latch
	rtcpFrom netip.AddrPort // where its RTCP comes from; invalid: none came
	settled  settled

	nominated [2]netip.AddrPort // by ICE, by kind
}

// opened returns the sockets of the end; none when it has no ports.
func (e *end) opened() []socket {
	if !e.local.IsValid() {
		return nil
	}
	return e.socks[:]
}

// unroutable counts packets that go nowhere, unless that was wanted.
func (s *Stream) unroutable(c *counters, n uint64) {
	if !s.receiveOnly {
		c.unroutable.Add(n)
	}
}

// counters of what came from one side.
type counters struct {
	packets, bytes, forwarded                     atomic.Uint64
	rejectedSource, rejectedForm, rejectedUnknown atomic.Uint64
	unroutable, sendErrors, overrun, tapPanics    atomic.Uint64
	checks                                        atomic.Uint64
	overlaid, overlayPanics                       atomic.Uint64
	kernel, untapped                              atomic.Uint64
	lastRTP, lastRTCP                             atomic.Int64 // ns after the relay's base, at least 1; 0: none yet
	source                                        atomic.Pointer[netip.AddrPort]
}

// SideStats is what came from one side so far. A packet is in exactly one of
// Packets, RejectedSource, RejectedForm, Unnegotiated and Undecrypted (but see
// there), or is of a handshake; an accepted one is in exactly one of Forwarded,
// Unroutable, SendErrors and Unprotected.
type SideStats struct {
	Packets uint64 // accepted, RTP and RTCP
	Bytes   uint64 // of their payloads of UDP

	RejectedSource uint64 // from an address that is not the stream's source
	RejectedForm   uint64 // neither RTP nor RTCP, or unable to make a source
	Unnegotiated   uint64 // before SetRemote

	// Undecrypted counts packets that could not be decrypted: without keys,
	// forged, or repeated. Of a protected side they were dropped; of one whose
	// protection is passed on, the tap did not get them.
	Undecrypted uint64
	Keyless     uint64 // of Undecrypted, those that came while there were no keys
	Replayed    uint64 // of Undecrypted, those that came before, or are older than the replay window

	// Overrun counts datagrams of any kind that were lost before the relay saw
	// them because it did not keep up. The kernel tells with the packet that follows.
	Overrun uint64

	Forwarded  uint64
	Checks     uint64 // connectivity checks of ICE that were answered
	Unroutable uint64 // the other side has no address to send to (not negotiated, or on hold)
	SendErrors uint64 // refused by the kernel, a full send buffer included

	// Unprotected counts accepted packets that were not sent because they could
	// not be protected for the other side: it has no keys yet, or they came twice.
	Unprotected uint64

	TapPanics     uint64 // each took its tap out
	Overlaid      uint64 // packets that an overlay changed
	OverlayPanics uint64 // each took its overlay out

	Kernel   uint64 // of Forwarded, those that the kernel engine forwarded
	Untapped uint64 // of Kernel, those that no tap got because they came faster than they were fetched

	Reports uint64 // receiver reports that were sent to it, BYE included

	LastRTP  time.Time // arrival of the latest accepted packet that is not RTCP; zero: none
	LastRTCP time.Time
	Source   netip.AddrPort // latched source; invalid: none since it was last renegotiated
}

// Stats of both sides, indexed by media.Side.
type Stats [2]SideStats

func newStream(r *Relay, opt Options) *Stream {
	s := &Stream{relay: r, rtp: opt.RTP, receiveOnly: opt.ReceiveOnly, suites: opt.Suites, failed: opt.Failed, keyed: opt.Keyed}
	s.sec.forking.Store(opt.Forks)
	for i := range s.ends {
		s.ends[i].latch.Any = !opt.RTP
	}
	s.route.Store(&route{})
	s.seen = s.route.Load()
	return s
}

// Local returns the address that a side sends its RTP to: what its SDP is told,
// unless the bound address is not the advertised one. RTCP is the next port.
func (s *Stream) Local(side media.Side) netip.AddrPort { return s.ends[side].local }

// SetRemote says what was negotiated or renegotiated with a side. It acts from
// the next packet on.
func (s *Stream) SetRemote(side media.Side, m Remote) {
	m.RTP, m.RTCP = latch.Unmap(m.RTP), latch.Unmap(m.RTCP)
	m.PayloadTypes = append([]uint8(nil), m.PayloadTypes...)
	for _, t := range s.setRemote(side, m) {
		t.recross()
	}
}

func (s *Stream) setRemote(side media.Side, m Remote) (others []*Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	var named netip.AddrPort
	if s.relay.owns(m.RTP) {
		named = m.RTP
	}
	s.cross.asked[side] = m
	others = s.relay.name(s, side, named)
	was := s.route.Load().remote[side].RTP
	s.reroute(side)
	s.wants(side, was)
	if err := s.shakeRTCP(side); err != nil {
		s.relay.cfg.Log.Warn("the side has no RTCP", "side", side, "error", err)
	}
	if s.relay.owns(s.cross.asked[side.Other()].RTP) {
		s.reroute(side.Other())
	}
	return others
}

// SetTap lets a tap take copies of what is accepted from a side, nil none. When
// it returns, the tap before is used no more. It must not be called by a Tap.
func (s *Stream) SetTap(side media.Side, t media.Tap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	var slot *tapSlot
	if t != nil {
		slot = &tapSlot{t}
	}
	s.drainFlow(side)
	if s.taps[side].Swap(slot) != nil {
		s.relay.engine.settle(s)
	}
	s.tapChanged(side)
}

// Close closes the sockets and puts the ports into quarantine. When it returns,
// no tap and no overlay is used any more.
func (s *Stream) Close() error {
	others, err := s.close()
	for _, t := range others {
		t.recross()
	}
	return err
}

func (s *Stream) close() (others []*Stream, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil
	}
	s.closed = true
	s.endOffload()
	s.sayBye()
	s.closeEndpoints()
	err = s.relay.engine.detach(s)
	s.forgetKeys()
	others = append(s.relay.name(s, media.External, netip.AddrPort{}), s.relay.name(s, media.Internal, netip.AddrPort{})...)
	s.relay.retire(s)
	return others, err
}

// Stats returns the counts so far. They do not belong to one instant.
func (s *Stream) Stats() Stats {
	var out Stats
	s.off.mu.Lock() // a flow that ends is counted in its place or here
	defer s.off.mu.Unlock()
	for i := range out {
		c := &s.stats[i]
		out[i] = SideStats{
			Packets: c.packets.Load(), Bytes: c.bytes.Load(),
			RejectedSource: c.rejectedSource.Load(), RejectedForm: c.rejectedForm.Load(),
			Unnegotiated: c.rejectedUnknown.Load(), Overrun: c.overrun.Load(),
			Forwarded: c.forwarded.Load(), Unroutable: c.unroutable.Load(), Checks: c.checks.Load(), SendErrors: c.sendErrors.Load(),
			TapPanics: c.tapPanics.Load(), Overlaid: c.overlaid.Load(), OverlayPanics: c.overlayPanics.Load(),
			Kernel: c.kernel.Load(), Untapped: c.untapped.Load(),
			Undecrypted: s.sec.sides[i].refused.in.Load(), Unprotected: s.sec.sides[i].refused.out.Load(),
			Keyless: s.sec.sides[i].refused.keyless.Load(), Replayed: s.sec.sides[i].refused.replayed.Load(),
			Reports: s.reportsTo(media.Side(i)),
			LastRTP: s.relay.at(c.lastRTP.Load()), LastRTCP: s.relay.at(c.lastRTCP.Load()),
		}
		if p := c.source.Load(); p != nil {
			out[i].Source = *p
		}
		if m := s.off.moved[i].Load(); m != nil {
			out[i].addFlow(m.flow.Counts())
		}
	}
	return out
}

// at turns what a counter keeps into a time.
func (r *Relay) at(since int64) time.Time {
	if since == 0 {
		return time.Time{}
	}
	return r.base.Add(time.Duration(since))
}
