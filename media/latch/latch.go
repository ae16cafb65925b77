// Package latch decides which source of packets a negotiated stream has. The
// relay and the replay of captures both ask it, so both take the same packets.
package latch

import (
	"encoding/binary"
	"net/netip"
)

// formerPacketsMax is how many packets the source of before a renegotiation may
// send without becoming the source again: 2 s of 20 ms packets, longer than a
// sender needs to act on an answer. They are stragglers and would keep out a new
// source whose address is not the one in its SDP.
const formerPacketsMax = 100

// Verdict says what became of a packet.
type Verdict uint8

// Verdicts. What is not Accepted must be dropped.
const (
	Accepted       Verdict = iota
	RejectedSource         // from an address that is not the stream's
	RejectedForm           // not RTP, or of a payload type that does not make a source
)

// String returns the verdict in words.
func (v Verdict) String() string {
	switch v {
	case Accepted:
		return "accepted"
	case RejectedSource:
		return "rejected by source"
	default:
		return "rejected by form"
	}
}

// Counts is how many packets got which verdict, RTCP included.
type Counts struct {
	Accepted, RejectedSource, RejectedForm uint64

	Changes uint64 // how often the source changed after the first
}

// Latch holds the source of one stream: the address in the SDP when that sends,
// else the first address that sends valid RTP of a negotiated payload type.
// Once there is one, it changes in three ways only: the SDP's address sends; a
// renegotiation gives another address; the same SSRC goes on from another port
// of the same address.
//
// The zero value waits for its first source. A Latch is for one goroutine at a
// time and never allocates.
type Latch struct {
	// Any takes datagrams of whatever form, for streams that are not plain RTP
	// (T.38, DTLS). Nothing but the SDP's address then replaces a source.
	Any bool

	sdp    netip.AddrPort // invalid: unknown
	types  [2]uint64      // negotiated payload types, a bit each
	source netip.AddrPort // invalid: none yet
	ssrc   uint32         // of the source's latest packet

	former     netip.AddrPort // source before a renegotiation
	formerLeft int            // packets that it may still send as such

	counts Counts
}

// Negotiate says what the sender's SDP says: the address it sends from and the
// payload types that it may send. Another address than before frees the latch;
// the same one keeps it. An address that is invalid, unspecified (hold in the
// manner of RFC 2543) or has port 0 says nothing about the source and keeps what is.
func (l *Latch) Negotiate(source netip.AddrPort, payloadTypes []uint8) {
	l.types = [2]uint64{}
	for _, pt := range payloadTypes {
		l.types[pt>>6&1] |= 1 << (pt & 63)
	}
	source = Unmap(source)
	if !source.IsValid() || source.Addr().IsUnspecified() || source.Port() == 0 || source == l.sdp {
		return
	}
	renegotiated := l.sdp.IsValid()
	l.sdp = source
	if renegotiated && l.source.IsValid() && l.source != source {
		l.former, l.formerLeft = l.source, formerPacketsMax
		l.source = netip.AddrPort{}
	}
}

// Accept gives the verdict on a packet that came to the RTP port and may change
// the source. wire is not kept. RTCP that shares the port is for AcceptRTCP; see IsRTCP.
func (l *Latch) Accept(from netip.AddrPort, wire []byte) Verdict {
	return l.count(l.accept(Unmap(from), wire))
}

func (l *Latch) accept(from netip.AddrPort, wire []byte) Verdict {
	known := l.source.IsValid()
	if !from.IsValid() || known && from.Addr() != l.source.Addr() && from != l.sdp {
		return RejectedSource
	}
	if !l.Any && !wellFormed(wire) {
		return RejectedForm
	}
	var ssrc uint32
	if !l.Any {
		ssrc = binary.BigEndian.Uint32(wire[8:])
	}
	switch {
	case from == l.source || from == l.sdp:
	case known && (l.Any || ssrc != l.ssrc):
		return RejectedSource
	case !known && from == l.former && l.formerLeft > 0:
		l.formerLeft--
		return Accepted
	case !l.Any && !l.negotiated(wire):
		return RejectedForm
	}
	l.latch(from)
	l.ssrc = ssrc
	return Accepted
}

func (l *Latch) latch(from netip.AddrPort) {
	if from == l.source {
		return
	}
	if l.source.IsValid() || l.former.IsValid() {
		l.counts.Changes++
	}
	l.source = from
	l.former = netip.AddrPort{}
}

// AcceptRTCP gives the verdict on a packet that came to the RTCP port, or that
// is RTCP by its form: it must come from the address of the source, from
// whichever port, or from that of the SDP while nothing is latched.
func (l *Latch) AcceptRTCP(from netip.AddrPort) Verdict {
	addr := from.Addr().Unmap()
	switch {
	case !addr.IsValid():
	case l.source.IsValid():
		if addr == l.source.Addr() {
			return l.count(Accepted)
		}
	case l.sdp.IsValid() && addr == l.sdp.Addr(), l.former.IsValid() && addr == l.former.Addr():
		return l.count(Accepted)
	}
	return l.count(RejectedSource)
}

func (l *Latch) count(v Verdict) Verdict {
	switch v {
	case Accepted:
		l.counts.Accepted++
	case RejectedSource:
		l.counts.RejectedSource++
	default:
		l.counts.RejectedForm++
	}
	return v
}

// Source returns the stream's source, and false when nothing was accepted since
// the latch was made or freed.
func (l *Latch) Source() (netip.AddrPort, bool) { return l.source, l.source.IsValid() }

// Counts returns the counts so far.
func (l *Latch) Counts() Counts { return l.counts }

// Unmap turns an IPv4 address mapped into IPv6 into IPv4, so that one host has
// one spelling.
func Unmap(a netip.AddrPort) netip.AddrPort {
	if !a.Addr().Is4In6() {
		return a
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// IsRTCP tells RTCP from RTP where both come to one port, by the packet type
// (RFC 5761 section 4).
func IsRTCP(wire []byte) bool {
	return len(wire) >= 8 && wire[0]>>6 == 2 && wire[1] >= 192 && wire[1] <= 223
}

// SSRC returns the synchronisation source of a packet that was accepted as RTP.
func SSRC(wire []byte) uint32 { return binary.BigEndian.Uint32(wire[8:]) }

const rtpHeaderBytes = 12

// wellFormed tells whether wire can be RTP: version 2, and all that its header
// announces is there (RFC 3550 section 5.1).
func wellFormed(wire []byte) bool {
	_, ok := payload(wire)
	return ok
}

// payload returns what follows the RTP header, padding included.
func payload(wire []byte) ([]byte, bool) {
	if len(wire) < rtpHeaderBytes || wire[0]>>6 != 2 {
		return nil, false
	}
	at := rtpHeaderBytes + 4*int(wire[0]&0x0f)
	if wire[0]&0x10 != 0 {
		if len(wire) < at+4 {
			return nil, false
		}
		at += 4 + 4*int(binary.BigEndian.Uint16(wire[at+2:]))
	}
	if len(wire) < at {
		return nil, false
	}
	return wire[at:], true
}

// negotiated tells whether a well-formed packet can make its sender the source:
// its payload type was agreed and its padding is possible. Neither is asked of the
// source itself: the padding of SRTP is encrypted, and a packet of a type that
// was not agreed (yet) is the recorder's to judge, not a reason to disturb a call.
func (l *Latch) negotiated(wire []byte) bool {
	pt := wire[1] & 0x7f
	if l.types[pt>>6]&(1<<(pt&63)) == 0 {
		return false
	}
	if wire[0]&0x20 == 0 {
		return true
	}
	body, _ := payload(wire)
	if len(body) == 0 {
		return false
	}
	padding := int(body[len(body)-1])
	return padding > 0 && padding <= len(body)
}
