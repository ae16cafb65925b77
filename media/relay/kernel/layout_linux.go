package kernel

import (
	"encoding/binary"
	"net/netip"
	"unsafe"
)

// What the program and the owner share; see bpf/relay.c.

const (
	flagRecord = 1
	flagLocal  = 2

	recordHeaderBytes = 24
	flowBytes         = 256
	cpuBytes          = 128
)

// abi names the layouts below. Pinned objects of another one are not touched but removed.
const abi = "1"

// keyState is struct key, in network order: address, port and two zero bytes.
type keyState [20]byte

func keyOf(a netip.AddrPort) (k keyState) {
	addr := a.Addr().As16()
	copy(k[:], addr[:])
	binary.BigEndian.PutUint16(k[16:], a.Port())
	return k
}

func (k keyState) addrPort() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(k[:16])).Unmap(), binary.BigEndian.Uint16(k[16:]))
}

// flowState is struct flow.
type flowState struct {
	flags, ring                 uint32
	local, source               keyState
	outSource, outDest          keyState
	ssrc, ifindex, mtu, tos     uint32
	nextHopFamily               uint32
	nextHop                     [16]byte
	sequence                    uint32
	handled, told               uint64
	cookie                      [6]uint64
	passed                      uint64
	taken, unfit                uint32
	packets, bytes, lost, lastN uint64
	_                           [2]uint64
}

// The program sees the same bytes.
var (
	_ [flowBytes]byte         = [unsafe.Sizeof(flowState{})]byte{}
	_ [cpuBytes]byte          = [unsafe.Sizeof(cpuState{})]byte{}
	_ [recordHeaderBytes]byte = [unsafe.Sizeof(recordState{})]byte{}
)

// cpuState is struct cpu.
type cpuState struct {
	enter, leave uint64
	_            [14]uint64
}

// recordState is struct record, which the packet follows.
type recordState struct {
	at                           uint64
	place, sequence, lost, bytes uint32
}
