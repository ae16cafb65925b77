package pcap

import "time"

// Frame is what a live link gave: a frame, or the news that time went on.
type Frame struct {
	At   time.Time // when it passed
	Data []byte    // from its Ethernet header on; valid until the next Frame
	Cut  bool      // the frame was longer
	Lost uint64    // frames that passed before it and could not be kept
	Idle bool      // nothing passed until At; there is no frame
}

// Frames yields the frames of a live link, and an idle one now and then when
// nothing passes. NextFrame returns io.EOF when the link was closed.
type Frames interface {
	NextFrame() (Frame, error)
}

// NewLive reads a live link as Open reads a file. Its packets carry Lost, and
// there are packets of protocol None that only tell the time.
func NewLive(frames Frames) *Reader {
	r := &Reader{records: live{frames}}
	r.frags.init(&r.stats)
	r.streams.init(&r.stats)
	return r
}

// live makes records of frames.
type live struct{ frames Frames }

func (l live) next() (record, error) {
	f, err := l.frames.NextFrame()
	return record{at: f.At, link: linkEthernet, data: f.Data, cut: f.Cut, lost: f.Lost, idle: f.Idle}, err
}
