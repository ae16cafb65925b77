package recorder

import (
	"time"

	"github.com/trunktap/trunktap/media"
)

// streamTap is the ring of one stream and its first unprocessed packet.
type streamTap struct {
	id   media.StreamID
	ring *media.Ring
	room int // bytes
	s    *session

	// owned by the session's owner
	head    bool
	arrival time.Time
	wire    []byte
	dropped uint32
}

// replayTap is the tap of a synchronous recorder; a live one gives out the ring
// itself, so that a packet touches no more memory than it must.
type replayTap struct{ t *streamTap }

// Put implements media.Tap.
func (r replayTap) Put(arrival time.Time, wire []byte) {
	r.t.s.catchUp(arrival)
	r.t.ring.Put(arrival, wire)
}

// Refused implements relay's Refuser: n packets came and could not be decrypted.
func (r replayTap) Refused(arrival time.Time, n uint32) {
	r.t.s.catchUp(arrival)
	r.t.ring.Refused(arrival, n)
}

// Drop implements relay's Dropper: n packets were forwarded and not copied.
func (r replayTap) Drop(n uint32) { r.t.ring.Drop(n) }
