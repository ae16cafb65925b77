package codec

import (
	"encoding/binary"
	"errors"
)

// ErrRED says that a payload is no RED payload.
var ErrRED = errors.New("malformed RED payload")

// redBlocksMax bounds the blocks of a packet.
const redBlocksMax = 32

// Block is one block of a RED payload (RFC 2198 section 3).
type Block struct {
	PayloadType uint8
	Offset      uint32 // ticks of the RTP clock by which it is older than the packet; 0: the primary one
	Payload     []byte // lies in the RED payload; may be empty
}

// SplitRED appends the blocks of a RED payload to dst, in their order: the redundant
// ones, then the primary one. On an error dst is returned as it was.
func SplitRED(dst []Block, payload []byte) ([]Block, error) {
	at := 0
	for blocks := 0; ; blocks++ {
		if at >= len(payload) || blocks == redBlocksMax {
			return dst, ErrRED
		}
		if payload[at]&0x80 == 0 {
			at++
			break
		}
		at += 4
	}
	data, from := payload[at:], len(dst)
	for header := payload; ; header = header[4:] {
		pt := header[0] & 0x7f
		if header[0]&0x80 == 0 {
			return append(dst, Block{PayloadType: pt, Payload: data}), nil
		}
		word := binary.BigEndian.Uint32(header)
		length := int(word & 0x3ff)
		if length > len(data) {
			return dst[:from], ErrRED
		}
		dst = append(dst, Block{pt, word >> 10 & 0x3fff, data[:length:length]})
		data = data[length:]
	}
}
