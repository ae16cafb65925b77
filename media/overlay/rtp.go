package overlay

import "encoding/binary"

// header is what is needed of an RTP header (RFC 3550 section 5.1), and where
// the payload lies. What lies before and after it is kept verbatim.
type header struct {
	payloadType uint8
	sequence    uint16
	timestamp   uint32
	ssrc        uint32
	start, end  int
}

func parse(wire []byte) (h header, ok bool) {
	if len(wire) < 12 || len(wire) > packetBytesMax || wire[0]>>6 != 2 {
		return h, false
	}
	h = header{
		payloadType: wire[1] & 0x7f,
		sequence:    binary.BigEndian.Uint16(wire[2:]),
		timestamp:   binary.BigEndian.Uint32(wire[4:]),
		ssrc:        binary.BigEndian.Uint32(wire[8:]),
		start:       12 + 4*int(wire[0]&0x0f),
		end:         len(wire),
	}
	if wire[0]&0x10 != 0 { // a header extension
		if h.start+4 > len(wire) {
			return h, false
		}
		h.start += 4 + 4*int(binary.BigEndian.Uint16(wire[h.start+2:]))
	}
	if wire[0]&0x20 != 0 { // padding, whose last octet is its length
		padding := int(wire[len(wire)-1])
		if padding == 0 {
			return h, false
		}
		h.end -= padding
	}
	return h, h.start < h.end
}
