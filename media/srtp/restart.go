package srtp

import (
	"encoding/binary"
	"math/rand/v2"
)

// restartPackets is how many packets in a row, each one behind the other and all of
// indexes that are used up, say that a sender has set its sequence numbers back. Of
// repeated packets there are others in between.
const restartPackets = 8

// restarts finds senders that set the sequence numbers of an SSRC back, as plain RTP
// lets them and SRTP does not (RFC 3711 section 9.1): under the same keys they go on
// as another SSRC.
type restarts struct {
	alias map[uint32]uint32 // what goes out in the place of an SSRC; nil: none
	anew  bool              // every SSRC goes on as another one: see ResumeProtector

	ssrc uint32 // of the packets refused last
	seq  uint16
	n    int
}

// outgoing returns the SSRC that goes out for one that came; false: there are too many.
func (r *restarts) outgoing(ssrc uint32, used map[uint32]*source) (uint32, bool) {
	if a, ok := r.alias[ssrc]; ok {
		return a, true
	}
	if r.anew {
		return r.begin(ssrc, used)
	}
	return ssrc, true
}

// accepted notes that a packet went out.
func (r *restarts) accepted() { r.n = 0 }

// refused notes a packet whose index is used up. It returns true when its SSRC begins
// anew as another one, which no source in use has.
func (r *restarts) refused(ssrc uint32, seq uint16, used map[uint32]*source) bool {
	if r.n > 0 && ssrc == r.ssrc && seq == r.seq+1 {
		r.n++
	} else {
		r.n = 1
	}
	r.ssrc, r.seq = ssrc, seq
	if r.n < restartPackets || len(used) >= SourcesMax {
		return false
	}
	r.rename(ssrc, used)
	r.n = 0
	return true
}

// rename lets an SSRC go on as another one.
func (r *restarts) rename(ssrc uint32, used map[uint32]*source) uint32 {
	if r.alias == nil {
		r.alias = make(map[uint32]uint32)
	}
	next := rand.Uint32()
	for used[next] != nil {
		next = rand.Uint32()
	}
	r.alias[ssrc] = next
	return next
}

// rename puts one SSRC in the place of another where a compound RTCP packet names its
// senders (RFC 3550 section 6.4), each of whose packets begins with that.
func rename(compound []byte, from, to uint32) {
	for b := compound; len(b) >= rtcpHeaderBytes; {
		if binary.BigEndian.Uint32(b[4:]) == from {
			binary.BigEndian.PutUint32(b[4:], to)
		}
		b = b[min(len(b), 4*(int(binary.BigEndian.Uint16(b[2:]))+1)):]
	}
}
