package pcap

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// ipPayloadMax is what fits into one IPv4 packet beside its header; the Writer
// does not fragment.
const ipPayloadMax = 65535 - ipv4HeaderMin

// Writer writes a capture in the pcap format with nanosecond time stamps. It
// is not safe for concurrent use and does not buffer.
type Writer struct {
	w     *pcapgo.Writer
	ether bool
	buf   []byte
}

// NewWriter begins a capture of raw IP packets.
func NewWriter(w io.Writer) (*Writer, error) { return newWriter(w, false) }

// NewEthernetWriter begins a capture of Ethernet frames; their addresses are
// derived from the IP addresses.
func NewEthernetWriter(w io.Writer) (*Writer, error) { return newWriter(w, true) }

func newWriter(w io.Writer, ether bool) (*Writer, error) {
	p := &Writer{w: pcapgo.NewWriterNanos(w), ether: ether}
	link := layers.LinkTypeRaw
	if ether {
		link = layers.LinkTypeEthernet
	}
	if err := p.w.WriteFileHeader(packetBytesMax, link); err != nil {
		return nil, fmt.Errorf("begin capture: %w", err)
	}
	return p, nil
}

// WriteUDP writes one datagram with correct lengths and checksums. Both
// addresses are of one family.
func (p *Writer) WriteUDP(at time.Time, src, dst netip.AddrPort, payload []byte) error {
	b, err := p.begin(src, dst, uint8(UDP), 8+len(payload))
	if err != nil {
		return err
	}
	udp := len(b)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(b, 0, 0)
	b = append(b, payload...)
	sum := checksum(b[udp:], pseudoHeader(src, dst, uint8(UDP), 8+len(payload)))
	if sum == 0 { // zero means that there is none (RFC 768)
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[udp+6:], sum)
	return p.finish(at, b)
}

// Segment is the TCP header of WriteTCP.
type Segment struct {
	Seq, Ack      uint32 // Ack is not sent when zero
	SYN, FIN, RST bool
}

// WriteTCP writes one segment without options, its window always open.
func (p *Writer) WriteTCP(at time.Time, src, dst netip.AddrPort, s Segment, payload []byte) error {
	b, err := p.begin(src, dst, uint8(TCP), 20+len(payload))
	if err != nil {
		return err
	}
	tcp := len(b)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint32(b, s.Seq)
	b = binary.BigEndian.AppendUint32(b, s.Ack)
	var flags byte
	for i, set := range []bool{s.FIN, s.SYN, s.RST, len(payload) > 0, s.Ack != 0} {
		if set {
			flags |= 1 << i
		}
	}
	b = append(b, 5<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[tcp+16:], checksum(b[tcp:], pseudoHeader(src, dst, uint8(TCP), 20+len(payload))))
	return p.finish(at, b)
}

// begin starts a frame with its headers up to IP.
func (p *Writer) begin(src, dst netip.AddrPort, proto uint8, size int) ([]byte, error) {
	from, to := src.Addr().Unmap(), dst.Addr().Unmap()
	if !from.IsValid() || from.Is4() != to.Is4() {
		return nil, fmt.Errorf("write packet: %v and %v are not of one address family", src, dst)
	}
	if size > ipPayloadMax {
		return nil, fmt.Errorf("write packet: %d bytes do not fit, at most %d", size, ipPayloadMax)
	}
	b := p.buf[:0]
	if p.ether {
		b = appendMAC(b, to)
		b = appendMAC(b, from)
		b = binary.BigEndian.AppendUint16(b, etherTypeOf(to))
	}
	if from.Is4() {
		ip := len(b)
		b = append(b, 4<<4|5, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(ipv4HeaderMin+size))
		b = append(b, 0, 0, 0x40, 0, 64, proto, 0, 0) // don't fragment, 64 hops
		b = append(b, from.AsSlice()...)
		b = append(b, to.AsSlice()...)
		binary.BigEndian.PutUint16(b[ip+10:], checksum(b[ip:], 0))
		return b, nil
	}
	b = append(b, 6<<4, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = append(b, proto, 64)
	b = append(b, from.AsSlice()...)
	return append(b, to.AsSlice()...), nil
}

func (p *Writer) finish(at time.Time, frame []byte) error {
	p.buf = frame
	ci := gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(frame), Length: len(frame)}
	if err := p.w.WritePacket(ci, frame); err != nil {
		return fmt.Errorf("write packet: %w", err)
	}
	return nil
}

func etherTypeOf(a netip.Addr) uint16 {
	if a.Is4() {
		return etherIPv4
	}
	return etherIPv6
}

// appendMAC makes a locally administered address out of an IP address.
func appendMAC(b []byte, a netip.Addr) []byte {
	ip := a.AsSlice()
	return append(append(b, 0x02, 0x00), ip[len(ip)-4:]...)
}

// pseudoHeader sums what RFC 768 and RFC 8200 section 8.1 add to the checksum.
func pseudoHeader(src, dst netip.AddrPort, proto uint8, size int) uint32 {
	sum := uint32(proto) + uint32(size)
	for _, a := range []netip.Addr{src.Addr().Unmap(), dst.Addr().Unmap()} {
		sum = sumWords(a.AsSlice(), sum)
	}
	return sum
}

// checksum is RFC 1071's, over b and a sum so far.
func checksum(b []byte, sum uint32) uint16 {
	sum = sumWords(b, sum)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func sumWords(b []byte, sum uint32) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}
