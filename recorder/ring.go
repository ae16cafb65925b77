package recorder

import (
	"strings"

	"github.com/trunktap/trunktap/media"
)

// The room of a tap ring is a time, not a size: how long a worker may be away
// before packets are dropped. It looks into each ring every 160 ms at the latest.
const (
	ringSeconds  = 4
	ringBytesMin = 24 << 10
	ringBytesMax = 1 << 20
	// ringPacketBytes is what a packet needs beside its payload: RTP header with an
	// extension, and the ring's own.
	ringPacketBytes   = 40
	ringPacketsSecond = 50
)

// ringBytes is the room for a stream that may have any of these formats.
func ringBytes(formats []media.Format) int {
	most := 0
	red := false
	for _, f := range formats {
		most = max(most, payloadRate(f))
		red = red || strings.EqualFold(f.Name, "RED")
	}
	if red {
		most *= 2 // each packet carries the one before again
	}
	return min(max(ringSeconds*(most+ringPacketsSecond*ringPacketBytes), ringBytesMin), ringBytesMax)
}

// payloadRate is about what a format sends in a second, in bytes.
func payloadRate(f media.Format) int {
	switch strings.ToUpper(f.Name) {
	case "L16":
		return 2 * f.ClockRate * max(1, f.Channels)
	case "TELEPHONE-EVENT", "CN", "RED":
		return 0
	case "OPUS":
		return 16_000 // twice what speech takes at full band
	}
	return 8_000 // of G.711; others need less
}
