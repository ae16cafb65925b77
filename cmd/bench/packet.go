package main

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"
)

// Layout of a generated frame: Ethernet, IPv4 without options, UDP, RTP
// (RFC 3550 section 5.1) and 20 ms of G.711.
const (
	ethernetBytes = 14
	ipBytes       = 20
	udpBytes      = 8
	rtpBytes      = 12
	payloadBytes  = 160
	udpOffset     = ethernetBytes + ipBytes
	rtpOffset     = udpOffset + udpBytes
	payloadOffset = rtpOffset + rtpBytes
	frameBytes    = payloadOffset + payloadBytes
)

// packetsPerSecond is what a call of two directions brings.
const packetsPerSecond = 2 * 50

// ssrcBase marks our SSRCs; the number of the stream is added to it.
const ssrcBase = 0x74740000

// stampBytes is how much of the payload holds the time of sending: two bits a
// byte, in the quietest codes of mu-law, so that silence stays silence to an
// encoder (below -62 dBFS).
const stampBytes = 28

const stampMask = 1<<(2*stampBytes) - 1

// epoch is what stamps count from.
var epoch = time.Now()

func putStamp(payload []byte, ns int64) {
	v := uint64(ns)
	for i := range payload[:stampBytes] {
		payload[i] = 0xFC | byte(v>>(2*i))&3
	}
}

func stampOf(payload []byte) int64 {
	var v uint64
	for i, b := range payload[:stampBytes] {
		v |= uint64(b&3) << (2 * i)
	}
	return int64(v & stampMask)
}

// link is where a frame goes: from whom to whom.
type link struct {
	srcMAC, dstMAC [6]byte
	src, dst       netip.AddrPort // IPv4
}

// prepareFrame writes what is the same in all packets of a stream.
func prepareFrame(b []byte, l link, ssrc uint32) {
	copy(b, l.dstMAC[:])
	copy(b[6:], l.srcMAC[:])
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip := b[ethernetBytes:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], frameBytes-ethernetBytes)
	ip[6], ip[8], ip[9] = 0x40, 64, 17 // do not fragment; time to live; UDP
	src, dst := l.src.Addr().As4(), l.dst.Addr().As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(ip[:ipBytes])))
	udp := b[udpOffset:]
	binary.BigEndian.PutUint16(udp, l.src.Port())
	binary.BigEndian.PutUint16(udp[2:], l.dst.Port())
	binary.BigEndian.PutUint16(udp[4:], frameBytes-udpOffset)
	rtp := b[rtpOffset:]
	rtp[0] = 0x80 // version 2, payload type 0: PCMU
	binary.BigEndian.PutUint32(rtp[8:], ssrc)
}

// fillFrame writes what differs, and the checksum over it: the frames must be
// such as a network card delivers, complete.
func fillFrame(b []byte, seq uint16, timestamp uint32, voice *[payloadBytes]byte, stamp int64) {
	binary.BigEndian.PutUint16(b[rtpOffset+2:], seq)
	binary.BigEndian.PutUint32(b[rtpOffset+4:], timestamp)
	copy(b[payloadOffset+stampBytes:], voice[stampBytes:])
	putStamp(b[payloadOffset:], stamp)
	binary.BigEndian.PutUint16(b[udpOffset+6:], 0)
	binary.BigEndian.PutUint16(b[udpOffset+6:], udpChecksum(b[ethernetBytes:ethernetBytes+ipBytes], b[udpOffset:frameBytes]))
}

// udpChecksum is that of RFC 768, over the pseudo header and the datagram whose
// checksum field holds zero. Zero is sent as all ones.
func udpChecksum(ip, udp []byte) uint16 {
	if c := ^fold(sum(ip[12:20]) + 17 + uint64(len(udp)) + sum(udp)); c != 0 {
		return c
	}
	return 0xFFFF
}

// sum adds b as big-endian words of 16 bits in ones' complement (RFC 1071),
// folded to less than 34 bits: several of them may be added.
func sum(b []byte) uint64 {
	var s, carry uint64
	for len(b) >= 8 {
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	var rest [8]byte
	copy(rest[:], b)
	s, carry = bits.Add64(s, binary.BigEndian.Uint64(rest[:]), carry)
	s, carry = bits.Add64(s, 0, carry)
	s += carry
	return s>>32 + s&0xFFFFFFFF
}

func fold(s uint64) uint16 {
	for s > 0xFFFF {
		s = s>>16 + s&0xFFFF
	}
	return uint16(s)
}

// received is what the receiver needs of a frame.
type received struct {
	stream int // number of the stream
	seq    uint16
	stamp  int64
	src    netip.AddrPort
	port   uint16 // destination
}

// parseFrame takes one of our packets apart; false when it is none.
func parseFrame(b []byte) (received, bool) {
	if len(b) != frameBytes || b[12] != 8 || b[13] != 0 || b[ethernetBytes] != 0x45 || b[ethernetBytes+9] != 17 {
		return received{}, false
	}
	ssrc := binary.BigEndian.Uint32(b[rtpOffset+8:])
	if b[rtpOffset] != 0x80 || ssrc < ssrcBase || ssrc-ssrcBase >= 1<<16 {
		return received{}, false
	}
	src := netip.AddrFrom4([4]byte(b[ethernetBytes+12 : ethernetBytes+16]))
	return received{
		stream: int(ssrc - ssrcBase),
		seq:    binary.BigEndian.Uint16(b[rtpOffset+2:]),
		stamp:  stampOf(b[payloadOffset:]),
		src:    netip.AddrPortFrom(src, binary.BigEndian.Uint16(b[udpOffset:])),
		port:   binary.BigEndian.Uint16(b[udpOffset+2:]),
	}, true
}

// checksumRight tells whether the frame's UDP checksum is right.
func checksumRight(b []byte) bool {
	want := binary.BigEndian.Uint16(b[udpOffset+6:])
	if want == 0 {
		return true // RFC 768: none was computed
	}
	s := sum(b[ethernetBytes+12:ethernetBytes+20]) + 17 + uint64(len(b)-udpOffset)
	return fold(s+sum(b[udpOffset:])) == 0xFFFF
}

// order follows the sequence numbers of one stream.
type order struct {
	begun     bool
	highest   uint16
	seen      uint64 // bit i: highest-i came
	duplicate uint64
	reordered uint64
}

// take counts one packet and tells whether it is new.
func (o *order) take(seq uint16) bool {
	if !o.begun {
		o.begun, o.highest, o.seen = true, seq, 1
		return true
	}
	ahead := int16(seq - o.highest)
	if ahead > 0 {
		o.highest = seq
		o.seen = o.seen<<uint(ahead) | 1 // a shift by 64 or more clears it
		return true
	}
	back := -int(ahead)
	if back < 64 && o.seen>>uint(back)&1 == 1 {
		o.duplicate++
		return false
	}
	if back < 64 {
		o.seen |= 1 << uint(back)
	}
	o.reordered++
	return true
}
