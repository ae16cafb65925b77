// Package source tells what a synchronisation source sends: RTP headers over
// pion/rtp, extended sequence numbers and timestamps, and the reports of RTCP.
package source

import (
	"errors"

	"github.com/pion/rtp"
)

// Errors of Parse. They carry no text of the packet.
var (
	ErrShort     = errors.New("rtp: shorter than its header says")
	ErrVersion   = errors.New("rtp: version is not 2")
	ErrPadding   = errors.New("rtp: padding count does not fit the packet")
	ErrExtension = errors.New("rtp: header extension does not fit the packet")
)

// Packet is one accepted RTP packet.
type Packet struct {
	Arrival int64 // ns since the session's base
	SSRC    uint32
	PT      uint8
	Marker  bool
	Epoch   int    // timestamp base within the source, see State
	Seq     int64  // extended; continuous over restarts, see State
	TS      int64  // extended, media clock
	Payload []byte // aliases the wire
}

// IsRTCP tells RTCP from RTP on a shared port by the second byte (RFC 5761
// section 4: packet types 192 to 223). What is too short to tell is no RTCP.
func IsRTCP(wire []byte) bool {
	return len(wire) >= 4 && wire[0]>>6 == 2 && wire[1] >= 192 && wire[1] <= 223
}

const (
	headerBytes = 12
	// extensionBytesMax keeps pion's parser from growing its extension list
	// without bound: each element of RFC 8285 takes at least two bytes.
	extensionBytesMax = 1024
)

// Parse reads the header of one RTP packet into h and returns its payload,
// which aliases wire and may be empty. Lengths, padding and the header
// extension must fit (RFC 3550 section 5.1). It does not allocate once h has
// grown to its source's use.
func Parse(wire []byte, h *rtp.Header) (payload []byte, err error) {
	if len(wire) < headerBytes {
		return nil, ErrShort
	}
	if wire[0]>>6 != 2 {
		return nil, ErrVersion
	}
	if err := checkExtension(wire); err != nil {
		return nil, err
	}
	n, err := h.Unmarshal(wire)
	if err != nil {
		return nil, ErrExtension // everything else was checked before
	}
	end := len(wire)
	if h.Padding {
		pad := int(wire[end-1])
		if pad == 0 || end-pad < n {
			return nil, ErrPadding
		}
		end -= pad
		h.PaddingSize = byte(pad)
	} else {
		h.PaddingSize = 0
	}
	return wire[n:end:end], nil
}

// checkExtension checks the lengths of the CSRC list and of the extension
// before pion's parser sees them, whose errors allocate.
func checkExtension(wire []byte) error {
	n := headerBytes + 4*int(wire[0]&0x0f)
	if len(wire) < n {
		return ErrShort
	}
	if wire[0]&0x10 == 0 {
		return nil
	}
	if len(wire) < n+4 {
		return ErrExtension
	}
	body := 4 * (int(wire[n+2])<<8 | int(wire[n+3]))
	if body > extensionBytesMax || len(wire) < n+4+body {
		return ErrExtension
	}
	return nil
}
