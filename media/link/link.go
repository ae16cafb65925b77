// Package link reads what passes network interfaces, for calls that are only
// listened to: a mirror port of a switch, a tap, or a host's own interface.
package link

import (
	"errors"
	"sync/atomic"
	"time"
)

// Limits of a capture.
const (
	InterfacesMax = 16
	RingBytesMin  = 2 << 20
	blockBytes    = 128 << 10 // handed over in one piece: room for the longest frame, and as many of them as can be
	frameBytes    = 4096      // of which a block is a multiple; frames may be longer
	snapBytes     = 64 << 10  // of a frame; none is longer
)

// Times of a capture.
const (
	blockWait   = 20 * time.Millisecond  // a block that is not full is handed over after it: on a quiet link the ring lasts for as many of these as it has blocks
	idleAfter   = 100 * time.Millisecond // a link on which nothing passes says so
	reopenAfter = time.Second            // between attempts to open a link that has gone
)

// ErrUnsupported means that this system has no AF_PACKET.
var ErrUnsupported = errors.New("capture of interfaces is for Linux alone")

// Config of a Link.
type Config struct {
	Interfaces  []string // at least one, at most InterfacesMax
	Promiscuous bool     // take frames for other hosts too, as a mirror port sends them
	RingBytes   int      // for frames that wait; rounded down to blocks of 128 KiB, at least 16 of them
}

// Counters of a Link. Safe for concurrent use.
type Counters struct {
	Frames atomic.Uint64
	Lost   atomic.Uint64 // had no room in the ring
	Gone   atomic.Uint64 // times that the interfaces were given up and opened again
	Down   atomic.Bool   // they cannot be read at present
}
