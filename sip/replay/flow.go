package replay

import (
	"net/netip"
	"slices"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/latch"
	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip/sdp"
)

// flow is one stream with its way through the capture.
type flow struct {
	call   *call
	stream media.Stream
	tap    media.Tap // nil: not recorded
	latch  latch.Latch
	gone   bool // renegotiated away

	dests   []netip.AddrPort  // where byDest has it, oldest first
	source  netip.AddrPort    // where bySource has it
	holes   holes             // live
	direct  bool              // packets came to the address in the SDP
	in      *srtp.Unprotector // nil: packets are not protected, or nobody knows how
	line    srtp.Crypto       // whose keys it has
	learned netip.AddrPort    // where they went instead: the receiver is behind a NAT, or its SDP is not known
}

// destination is what an address receives.
type destination struct {
	flow *flow
	rtcp bool // a port for RTCP alone
}

// apply reports what an exchange changed, in the order in which the daemon does,
// and opens the ways of its streams.
func (t *tracker) apply(c *call, r sdp.Result) {
	for _, id := range r.Ended {
		if f := c.flows[id]; f != nil {
			f.gone = true
		}
		if c.tap != nil {
			c.tap.StreamEnded(id, t.now)
		}
	}
	for _, s := range r.Signals {
		if c.tap != nil {
			c.tap.Signal(s)
		}
	}
	if t2, ok := c.tap.(media.MediaTap); ok && r.OthersChanged {
		t2.OtherMedia(t.now, r.Others)
	}
	for _, s := range r.Streams {
		if c.half != nil {
			if s.Side == c.half.known {
				s.Local = netip.AddrPort{}
			} else {
				s.Source = netip.AddrPort{}
			}
		}
		f := c.flows[s.ID]
		if f == nil {
			f = &flow{call: c}
			c.flows[s.ID] = f
		}
		t.start(f, s)
	}
}

// start brings a flow up to date with its stream.
func (t *tracker) start(f *flow, s media.Stream) {
	s.Secure = s.Secure && f.call.sends(s.ID).Zero()
	f.stream, f.gone = s, false
	var takes sdp.Media // what the receiver's description says
	if list := f.call.media[s.Side.Other()]; int(s.ID/2) < len(list) {
		takes = list[s.ID/2]
	}
	f.latch.Negotiate(s.Source, types(takes.Formats, s.Formats))
	if f.call.tap != nil {
		f.tap = f.call.tap.StreamStarted(s)
	}
	if s.Source.IsValid() && s.Source != f.source {
		t.unsource(f)
		f.source = s.Source
		t.bySource[f.source] = append(t.bySource[f.source], f)
	}
	if !s.Local.IsValid() || s.Local.Addr().IsUnspecified() || s.Local.Port() == 0 {
		return // what still comes to the address before goes on
	}
	if !slices.Contains(f.dests, s.Local) {
		f.direct = false
	}
	t.direct(f, s.Local, false)
	if takes.RTCP.IsValid() && takes.RTCP != s.Local {
		t.direct(f, takes.RTCP, true)
	}
}

// types returns the payload types that may make a source: those that the
// receiver takes; when its description is not known, those of the stream.
func types(takes, agreed []media.Format) []uint8 {
	if len(takes) == 0 {
		takes = agreed
	}
	out := make([]uint8, len(takes))
	for i, f := range takes {
		out[i] = f.PayloadType
	}
	return out
}

// direct leads what comes to an address to a flow. Addresses of before stay
// valid, as a relay's port does.
func (t *tracker) direct(f *flow, to netip.AddrPort, rtcp bool) {
	if slices.Contains(f.dests, to) || len(t.byDest[to]) >= flowsPerAddressMax {
		return
	}
	if len(f.dests) == destinationsMax {
		t.undirect(f, f.dests[0])
		f.dests = f.dests[1:]
	}
	f.dests = append(f.dests, to)
	t.byDest[to] = append(t.byDest[to], destination{f, rtcp})
}

func (t *tracker) undirect(f *flow, to netip.AddrPort) {
	rest := slices.DeleteFunc(t.byDest[to], func(d destination) bool { return d.flow == f })
	if len(rest) == 0 {
		delete(t.byDest, to)
		return
	}
	t.byDest[to] = rest
}

func (t *tracker) unsource(f *flow) {
	if !f.source.IsValid() {
		return
	}
	rest := slices.DeleteFunc(t.bySource[f.source], func(x *flow) bool { return x == f })
	if len(rest) == 0 {
		delete(t.bySource, f.source)
		return
	}
	t.bySource[f.source] = rest
}

// forget closes the ways of a call's streams.
func (t *tracker) forget(c *call) {
	for _, f := range c.flows {
		for _, to := range f.dests {
			t.undirect(f, to)
		}
		t.unsource(f)
	}
}

// media gives a datagram to the streams that its destination receives.
func (t *tracker) media(p pcap.Packet) {
	to := t.byDest[p.Dst]
	if len(to) == 0 {
		if to = t.follow(p); len(to) == 0 {
			if len(p.Payload) >= 8 && p.Payload[0]>>6 == 2 {
				t.stats.OrphanRTP++
			}
			return
		}
	}
	if p.Cut {
		t.stats.CutRTP++
		return
	}
	rtcp := latch.IsRTCP(p.Payload)
	for _, d := range to {
		if rtcp || !d.rtcp {
			t.deliver(d.flow, p, rtcp)
		}
	}
}

func (t *tracker) deliver(f *flow, p pcap.Packet, rtcp bool) {
	payload, ok := t.unprotect(f, p.Payload, rtcp)
	if !ok {
		return
	}
	verdict := latch.RejectedSource
	switch {
	case f.gone:
	case rtcp:
		verdict = f.latch.AcceptRTCP(p.Src)
	default:
		verdict = f.latch.Accept(p.Src, payload)
	}
	if verdict != latch.Accepted {
		t.stats.Rejected++
		return
	}
	if !rtcp && p.Dst == f.stream.Local {
		f.direct = true
	}
	t.touch(f.call)
	t.stats.RTP++
	if f.tap == nil {
		return
	}
	if t.cfg.Live != nil && !rtcp {
		f.holes.take(payload, uint64(t.stats.Lost), f.tap)
	}
	f.tap.Put(t.now, payload)
}

// follow finds the stream of a packet to an unknown address by where it comes
// from: a side that sends from the address in its SDP to another than that of
// the receiver's. The live relay receives such packets in any case: the sender
// would send them to it.
func (t *tracker) follow(p pcap.Packet) []destination {
	if len(p.Payload) < 12 || p.Payload[0]>>6 != 2 || latch.IsRTCP(p.Payload) {
		return nil
	}
	for _, f := range t.bySource[p.Src] {
		if f.direct || f.gone || f.learned.IsValid() {
			continue
		}
		f.learned = p.Dst
		t.direct(f, p.Dst, false)
		if p.Dst.Port() < 65535 {
			t.direct(f, netip.AddrPortFrom(p.Dst.Addr(), p.Dst.Port()+1), true)
		}
	}
	return t.byDest[p.Dst]
}
