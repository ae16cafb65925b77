package media

import (
	"encoding/binary"
	"time"
)

// A Ring tells of refused packets by records that no packet is: they begin with a
// byte that stands for version 0 of RTP, and are shorter than its header.
const (
	refusedMark  = 0x01
	refusedBytes = 5
)

// Refused notes in its place among the packets that n of the stream came, the latest
// at arrival, and could not be decrypted. It is for the producer alone.
func (r *Ring) Refused(arrival time.Time, n uint32) {
	var b [refusedBytes]byte
	b[0] = refusedMark
	binary.BigEndian.PutUint32(b[1:], n)
	r.Put(arrival, b[:])
}

// RefusedIn reads what Refused has put in the place of a packet.
func RefusedIn(wire []byte) (n uint32, ok bool) {
	if len(wire) != refusedBytes || wire[0] != refusedMark {
		return 0, false
	}
	return binary.BigEndian.Uint32(wire[1:]), true
}
