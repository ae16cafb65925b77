package pcap

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Link types (LINKTYPE_ and DLT_ values of tcpdump.org/linktypes.html).
const (
	linkNull     = 0
	linkEthernet = 1
	linkPPP      = 9
	linkRawBSD   = 12
	linkRawOpen  = 14
	linkRaw      = 101
	linkLoop     = 108
	linkCooked   = 113
	linkIPv4     = 228
	linkIPv6     = 229
	linkCooked2  = 276
)

// EtherTypes.
const (
	etherIPv4     = 0x0800
	etherIPv6     = 0x86dd
	etherVLAN     = 0x8100
	etherQinQ     = 0x88a8
	etherQinQOld  = 0x9100
	etherPPPoE    = 0x8864
	etherBridging = 0x6558 // Ethernet within GRE
	etherMPLS     = 0x8847
)

// IP protocol numbers.
const (
	protoHopByHop  = 0
	protoIPv4      = 4
	protoIPv6      = 41
	protoRouting   = 43
	protoFragment  = 44
	protoGRE       = 47
	protoAH        = 51
	protoDestOpts  = 60
	protoMobility  = 135
	protoHIP       = 139
	protoShim6     = 140
	ipv4HeaderMin  = 20
	ipv6HeaderSize = 40
)

// verdict says what became of a frame.
type verdict uint8

const (
	decoded verdict = iota
	waiting         // a fragment that completes nothing yet
	nonIP
	otherIP
	undecodable
)

// datagram is the innermost IP packet of a frame: a transport header and what
// follows it.
type datagram struct {
	proto    uint8
	src, dst netip.Addr
	body     []byte
	cut      bool // body is shorter than its IP header says
}

// frame decodes a record and queues what it gives.
func (r *Reader) frame(rec record) {
	if rec.cut {
		r.stats.Cut++
	}
	var d datagram
	v := r.link(&d, rec.link, rec.data, rec.at)
	if v == decoded {
		v = r.transport(&d, rec.at)
	}
	switch v {
	case nonIP:
		r.stats.NonIP++
	case otherIP:
		r.stats.OtherIP++
	case undecodable:
		r.stats.Undecodable++
	case decoded, waiting: // counted with what they give
	}
}

func (r *Reader) link(d *datagram, link uint32, b []byte, at time.Time) verdict {
	switch link {
	case linkEthernet:
		return r.ethernet(d, b, at, 0)
	case linkRawBSD, linkRawOpen, linkRaw, linkIPv4, linkIPv6:
		return r.ip(d, b, at, 0)
	case linkNull, linkLoop: // four bytes of address family, in some machine's order
		if len(b) < 4 {
			return undecodable
		}
		return r.ip(d, b[4:], at, 0)
	case linkCooked:
		if len(b) < 16 {
			return undecodable
		}
		return r.ether(d, binary.BigEndian.Uint16(b[14:]), b[16:], at, 0)
	case linkCooked2:
		if len(b) < 20 {
			return undecodable
		}
		return r.ether(d, binary.BigEndian.Uint16(b), b[20:], at, 0)
	case linkPPP:
		return r.ppp(d, b, at, 0)
	}
	return undecodable
}

func (r *Reader) ethernet(d *datagram, b []byte, at time.Time, depth int) verdict {
	if len(b) < 14 {
		return undecodable
	}
	return r.ether(d, binary.BigEndian.Uint16(b[12:]), b[14:], at, depth)
}

// ether decodes what follows an EtherType. depth counts the headers so far.
func (r *Reader) ether(d *datagram, typ uint16, b []byte, at time.Time, depth int) verdict {
	for ; depth < tunnelDepthMax; depth++ {
		switch typ {
		case etherIPv4, etherIPv6:
			return r.ip(d, b, at, depth)
		case etherVLAN, etherQinQ, etherQinQOld:
			if len(b) < 4 {
				return undecodable
			}
			typ, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		case etherMPLS:
			if len(b) < 4 {
				return undecodable
			}
			if b[2]&1 != 0 { // bottom of the stack (RFC 3032 section 2.1)
				return r.ip(d, b[4:], at, depth)
			}
			b = b[4:]
		case etherPPPoE:
			if len(b) < 6 {
				return undecodable
			}
			return r.ppp(d, b[6:], at, depth)
		default:
			return nonIP
		}
	}
	return undecodable
}

func (r *Reader) ppp(d *datagram, b []byte, at time.Time, depth int) verdict {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 { // RFC 1662 section 3.1: address and control
		b = b[2:]
	}
	if len(b) < 2 {
		return undecodable
	}
	if b[0] == 0x21 || b[0] == 0x57 { // protocol field compression (RFC 1661 section 6.5)
		return r.ip(d, b[1:], at, depth)
	}
	switch binary.BigEndian.Uint16(b) {
	case 0x0021, 0x0057:
		return r.ip(d, b[2:], at, depth)
	}
	return nonIP
}

func (r *Reader) ip(d *datagram, b []byte, at time.Time, depth int) verdict {
	if depth >= tunnelDepthMax || len(b) == 0 {
		return undecodable
	}
	switch b[0] >> 4 {
	case 4:
		return r.ipv4(d, b, at, depth)
	case 6:
		return r.ipv6(d, b, at, depth)
	}
	return undecodable
}

func (r *Reader) ipv4(d *datagram, b []byte, at time.Time, depth int) verdict {
	if len(b) < ipv4HeaderMin {
		return undecodable
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 { // segmentation was left to the network card
		total = len(b)
	}
	if header < ipv4HeaderMin || total < header || header > len(b) {
		return undecodable
	}
	d.src, d.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	d.proto = b[9]
	d.cut = total > len(b)
	d.body = b[header:min(total, len(b))]
	if frag := binary.BigEndian.Uint16(b[6:]); frag&0x3fff != 0 {
		f := fragment{
			key:   fragmentKey{src: d.src, dst: d.dst, id: uint32(binary.BigEndian.Uint16(b[4:])), proto: d.proto},
			start: int(frag&0x1fff) * 8,
			more:  frag&0x2000 != 0,
			proto: d.proto,
		}
		if v := r.reassemble(d, f, at); v != decoded {
			return v
		}
	}
	return r.upper(d, at, depth)
}

func (r *Reader) ipv6(d *datagram, b []byte, at time.Time, depth int) verdict {
	if len(b) < ipv6HeaderSize {
		return undecodable
	}
	total := ipv6HeaderSize + int(binary.BigEndian.Uint16(b[4:]))
	if total == ipv6HeaderSize {
		total = len(b)
	}
	d.src, d.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	d.proto = b[6]
	d.cut = total > len(b)
	d.body = b[ipv6HeaderSize:min(total, len(b))]
	return r.upper(d, at, depth)
}

// upper walks through extension headers and tunnels to the transport.
func (r *Reader) upper(d *datagram, at time.Time, depth int) verdict {
	for range 4 * tunnelDepthMax {
		b := d.body
		switch d.proto {
		case uint8(UDP), uint8(TCP):
			return decoded
		case protoIPv4, protoIPv6:
			return r.ip(d, b, at, depth+1)
		case protoGRE:
			return r.gre(d, b, at, depth+1)
		case protoFragment:
			if len(b) < 8 {
				return undecodable
			}
			f := fragment{
				key:   fragmentKey{src: d.src, dst: d.dst, id: binary.BigEndian.Uint32(b[4:])},
				start: int(binary.BigEndian.Uint16(b[2:]) &^ 7),
				more:  b[3]&1 != 0,
				proto: b[0],
			}
			d.proto, d.body = b[0], b[8:]
			if f.start == 0 && !f.more { // an atomic fragment is whole (RFC 6946)
				continue
			}
			if v := r.reassemble(d, f, at); v != decoded {
				return v
			}
		case protoHopByHop, protoRouting, protoDestOpts, protoMobility, protoHIP, protoShim6, protoAH:
			if !d.extension() {
				return undecodable
			}
		default:
			return otherIP
		}
	}
	return undecodable
}

// extension steps over one extension header (RFC 8200 section 4, RFC 4302
// section 2 for AH, which counts in other units).
func (d *datagram) extension() bool {
	b := d.body
	if len(b) < 8 {
		return false
	}
	size := (int(b[1]) + 1) * 8
	if d.proto == protoAH {
		size = (int(b[1]) + 2) * 4
	}
	if size > len(b) {
		return false
	}
	d.proto, d.body = b[0], b[size:]
	return true
}

// gre decodes RFC 2784 with RFC 2890, and the PPP in RFC 2637's version 1.
func (r *Reader) gre(d *datagram, b []byte, at time.Time, depth int) verdict {
	if len(b) < 4 || depth >= tunnelDepthMax {
		return undecodable
	}
	flags, typ := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	size := 4
	for _, present := range [...]uint16{0x8000, 0x2000, 0x1000, 0x0080} { // checksum, key, sequence, acknowledgement
		if flags&present != 0 {
			size += 4
		}
	}
	if size > len(b) {
		return undecodable
	}
	switch {
	case flags&7 == 1:
		return r.ppp(d, b[size:], at, depth)
	case flags&7 != 0:
		return otherIP
	case typ == etherBridging:
		return r.ethernet(d, b[size:], at, depth)
	}
	return r.ether(d, typ, b[size:], at, depth)
}

// transport takes the UDP or TCP header off and queues what follows.
func (r *Reader) transport(d *datagram, at time.Time) verdict {
	if d.proto == uint8(TCP) {
		return r.segment(d, at)
	}
	b := d.body
	if len(b) < 8 {
		return undecodable
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length == 0 { // a jumbogram, or segmentation left to the card
		length = len(b)
	}
	if length < 8 || length > len(b) && !d.cut {
		return undecodable
	}
	r.stats.Datagrams++
	r.pending = append(r.pending, Packet{
		At:      at,
		Proto:   UDP,
		Src:     netip.AddrPortFrom(d.src, binary.BigEndian.Uint16(b)),
		Dst:     netip.AddrPortFrom(d.dst, binary.BigEndian.Uint16(b[2:])),
		Payload: b[8:min(length, len(b))],
		Cut:     length > len(b),
	})
	return decoded
}

// segment takes a TCP header off and hands the segment to its stream.
func (r *Reader) segment(d *datagram, at time.Time) verdict {
	b := d.body
	if len(b) < 20 {
		return undecodable
	}
	header := int(b[12]>>4) * 4
	if header < 20 || header > len(b) {
		return undecodable
	}
	r.stats.Segments++
	s := segment{
		at:   at,
		src:  netip.AddrPortFrom(d.src, binary.BigEndian.Uint16(b)),
		dst:  netip.AddrPortFrom(d.dst, binary.BigEndian.Uint16(b[2:])),
		seq:  binary.BigEndian.Uint32(b[4:]),
		ack:  binary.BigEndian.Uint32(b[8:]),
		fin:  b[13]&0x01 != 0 && !d.cut,
		syn:  b[13]&0x02 != 0,
		rst:  b[13]&0x04 != 0,
		acks: b[13]&0x10 != 0,
		data: b[header:],
	}
	r.pending = r.streams.push(r.pending, s)
	return decoded
}
