package sip

import (
	"encoding/binary"
	"net/netip"
)

// Phones that keep a flow over UDP open do it by STUN (RFC 5626 section 4.4.2), and take
// it for dead without an answer.
const (
	stunHeaderBytes     = 20
	stunMagic           = 0x2112A442
	stunBindingRequest  = 0x0001
	stunBindingResponse = 0x0101
	stunXORMapped       = 0x0020
)

// answerSTUN returns the answer to a keep-alive of STUN: where it came from (RFC 8489
// section 14.2); nil when data is none.
func answerSTUN(data []byte, from netip.AddrPort) []byte {
	if len(data) < stunHeaderBytes || binary.BigEndian.Uint16(data) != stunBindingRequest ||
		binary.BigEndian.Uint32(data[4:]) != stunMagic || int(binary.BigEndian.Uint16(data[2:])) != len(data)-stunHeaderBytes {
		return nil
	}
	addr, family := from.Addr().Unmap().AsSlice(), byte(1)
	if len(addr) == 16 {
		family = 2
	}
	out := binary.BigEndian.AppendUint16(nil, stunBindingResponse)
	out = binary.BigEndian.AppendUint16(out, uint16(8+len(addr)))
	out = append(out, data[4:stunHeaderBytes]...)
	out = binary.BigEndian.AppendUint16(out, stunXORMapped)
	out = binary.BigEndian.AppendUint16(out, uint16(4+len(addr)))
	out = append(out, 0, family)
	out = binary.BigEndian.AppendUint16(out, from.Port()^(stunMagic>>16))
	for i, b := range addr {
		out = append(out, b^data[4+i]) // with the magic, and the transaction behind it
	}
	return out
}
