package pcap

import (
	"encoding/binary"
	"io"
	"math"
	"math/bits"
	"time"
)

// Block types of draft-ietf-opsawg-pcapng section 4 that matter here; all
// others are passed over.
const (
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
)

// Bytes of the fixed parts of those blocks.
const (
	blockFrameBytes     = 12 // type, length, length again
	interfaceFixedBytes = 8
	packetFixedBytes    = 20 // enhanced and obsolete
	simpleFixedBytes    = 4
	sectionFixedBytes   = 16
	interfaceBytesMax   = 64 << 10 // an interface description with its options
)

// iface is what an Interface Description Block says.
type iface struct {
	link   uint32
	snap   uint32 // 0: unlimited
	perSec uint64 // ticks a second
	offset int64  // seconds to add
}

// ngReader reads the pcapng format.
type ngReader struct {
	in     *input
	order  binary.ByteOrder // of the current section
	ifaces []iface          // of the current section
	hdr    [packetFixedBytes]byte
	tail   [4]byte
	last   time.Time // of the last packet that had a time
}

func (n *ngReader) next() (record, error) {
	for {
		if n.in.atEnd() {
			return record{}, io.EOF
		}
		rec, ok, err := n.block()
		if err != nil || ok {
			return rec, err
		}
	}
}

// block reads one block; ok when it held a packet.
func (n *ngReader) block() (rec record, ok bool, err error) {
	if err = n.in.read(n.hdr[:8]); err != nil {
		return rec, false, err
	}
	if binary.LittleEndian.Uint32(n.hdr[:]) == magicSection { // reads the same in either order
		return rec, false, n.section()
	}
	typ, length := n.order.Uint32(n.hdr[0:]), n.order.Uint32(n.hdr[4:])
	if err = n.checkLength(length, blockFrameBytes); err != nil {
		return rec, false, err
	}
	body := length - blockFrameBytes
	switch typ {
	case blockInterface:
		err = n.describe(body)
	case blockEnhanced, blockPacket:
		rec, err = n.timed(typ, body)
		ok = true
	case blockSimple:
		rec, err = n.simple(body)
		ok = true
	default:
		err = n.in.skip(int64(body))
	}
	if err == nil {
		err = n.trailer(length)
	}
	return rec, ok, err
}

func (n *ngReader) checkLength(length, least uint32) error {
	if length < least || length%4 != 0 {
		return n.in.broken("a block claims a length of %d bytes", length)
	}
	return nil
}

// trailer reads the length that stands again at a block's end.
func (n *ngReader) trailer(length uint32) error {
	if err := n.in.read(n.tail[:]); err != nil {
		return err
	}
	if again := n.order.Uint32(n.tail[:]); again != length {
		return n.in.broken("a block's two lengths differ: %d and %d", length, again)
	}
	return nil
}

// section begins a new section: its byte order, and no interfaces yet.
func (n *ngReader) section() error {
	raw := n.hdr
	var b [sectionFixedBytes]byte
	if err := n.in.read(b[:]); err != nil {
		return err
	}
	switch {
	case binary.LittleEndian.Uint32(b[:]) == 0x1a2b3c4d:
		n.order = binary.LittleEndian
	case binary.BigEndian.Uint32(b[:]) == 0x1a2b3c4d:
		n.order = binary.BigEndian
	default:
		return n.in.broken("a section with an unknown byte order mark % x", b[:4])
	}
	length := n.order.Uint32(raw[4:])
	if err := n.checkLength(length, blockFrameBytes+sectionFixedBytes); err != nil {
		return err
	}
	if major := n.order.Uint16(b[4:]); major != 1 {
		return n.in.broken("pcapng version %d, only 1 is known", major)
	}
	n.ifaces = n.ifaces[:0]
	if err := n.in.skip(int64(length - blockFrameBytes - sectionFixedBytes)); err != nil {
		return err
	}
	return n.trailer(length)
}

// describe reads an Interface Description Block.
func (n *ngReader) describe(body uint32) error {
	if body < interfaceFixedBytes || body > interfaceBytesMax {
		return n.in.broken("an interface description of %d bytes", body)
	}
	if len(n.ifaces) == interfacesMax {
		return n.in.broken("more than %d interfaces", interfacesMax)
	}
	b, err := n.in.packet(body)
	if err != nil {
		return err
	}
	i := iface{link: uint32(n.order.Uint16(b)), snap: n.order.Uint32(b[4:]), perSec: 1e6}
	for o := b[interfaceFixedBytes:]; len(o) >= 4; {
		code, size := n.order.Uint16(o), int(n.order.Uint16(o[2:]))
		padded := 4 + (size+3)&^3
		if code == 0 || padded > len(o) {
			break
		}
		if err := n.option(&i, code, o[4:4+size]); err != nil {
			return err
		}
		o = o[padded:]
	}
	n.ifaces = append(n.ifaces, i)
	return nil
}

// option applies if_tsresol (9) and if_tsoffset (14).
func (n *ngReader) option(i *iface, code uint16, value []byte) error {
	switch {
	case code == 9 && len(value) >= 1:
		exp := value[0] & 0x7f
		switch {
		case value[0]&0x80 != 0 && exp < 64:
			i.perSec = 1 << exp
		case value[0]&0x80 == 0 && exp < 20:
			i.perSec = 1
			for range exp {
				i.perSec *= 10
			}
		default:
			return n.in.broken("a time resolution of %#x", value[0])
		}
	case code == 14 && len(value) >= 8:
		i.offset = int64(n.order.Uint64(value))
	}
	return nil
}

// timed reads an Enhanced Packet Block or its obsolete forerunner.
func (n *ngReader) timed(typ, body uint32) (record, error) {
	if body < packetFixedBytes {
		return record{}, n.in.broken("a packet block of %d bytes", body)
	}
	if err := n.in.read(n.hdr[:packetFixedBytes]); err != nil {
		return record{}, err
	}
	id := n.order.Uint32(n.hdr[0:])
	if typ == blockPacket {
		id = uint32(n.order.Uint16(n.hdr[0:]))
	}
	if id >= uint32(len(n.ifaces)) {
		return record{}, n.in.broken("a packet of interface %d, of which there is no description", id)
	}
	i := n.ifaces[id]
	ticks := uint64(n.order.Uint32(n.hdr[4:]))<<32 | uint64(n.order.Uint32(n.hdr[8:]))
	captured, original := n.order.Uint32(n.hdr[12:]), n.order.Uint32(n.hdr[16:])
	data, err := n.payload(captured, body-packetFixedBytes)
	if err != nil {
		return record{}, err
	}
	at, err := n.time(i, ticks)
	if err != nil {
		return record{}, err
	}
	n.last = at
	return record{at: at, link: i.link, data: data, cut: original > captured}, nil
}

// simple reads a Simple Packet Block. It carries no time: it gets that of the
// packet before it.
func (n *ngReader) simple(body uint32) (record, error) {
	if body < simpleFixedBytes || len(n.ifaces) == 0 {
		return record{}, n.in.broken("a simple packet block of %d bytes with %d interfaces", body, len(n.ifaces))
	}
	if n.last.IsZero() {
		return record{}, n.in.broken("a simple packet block carries no time, and no packet before it has one; " +
			"capture with enhanced packet blocks")
	}
	if err := n.in.read(n.hdr[:simpleFixedBytes]); err != nil {
		return record{}, err
	}
	original := n.order.Uint32(n.hdr[0:])
	captured := min(original, body-simpleFixedBytes)
	if snap := n.ifaces[0].snap; snap != 0 {
		captured = min(captured, snap)
	}
	data, err := n.payload(captured, body-simpleFixedBytes)
	return record{at: n.last, link: n.ifaces[0].link, data: data, cut: original > captured}, err
}

// payload reads the captured bytes and passes over padding and options.
func (n *ngReader) payload(captured, room uint32) ([]byte, error) {
	if captured > room {
		return nil, n.in.broken("a packet claims %d bytes in a block that has room for %d", captured, room)
	}
	data, err := n.in.packet(captured)
	if err != nil {
		return nil, err
	}
	return data, n.in.skip(int64(room - captured))
}

// The years in which a time can be written as RFC 3339.
const (
	unixSecMin = 0
	unixSecMax = 253402300799 // the end of 9999
)

func (n *ngReader) time(i iface, ticks uint64) (time.Time, error) {
	sec, rest := ticks/i.perSec, ticks%i.perSec
	hi, lo := bits.Mul64(rest, 1e9)
	ns, _ := bits.Div64(hi, lo, i.perSec) // rest < perSec, so it fits
	if sec > math.MaxInt64/2 || i.offset > unixSecMax || i.offset < -unixSecMax {
		return time.Time{}, n.in.broken("a time stamp of %d s after %d", sec, i.offset)
	}
	s := int64(sec) + i.offset
	if s < unixSecMin || s > unixSecMax {
		return time.Time{}, n.in.broken("a time stamp outside the years 1970 to 9999")
	}
	return time.Unix(s, int64(ns)).UTC(), nil
}
