// Package guard stands between signalling and a recorder.
package guard

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// Guard stands between a call, or a recording session, and its recorder, so that a
// fault of the recorder is not one of the call: after a panic the recorder is not
// asked again. It makes times run forward only: messages of two sockets may reach
// the owner of the call in another order than that in which they came.
// Methods are called by the owner of the call alone.
type Guard struct {
	Tap   media.SessionTap // nil: do not record, or not any more
	What  string           // goes on after a panic: call, session
	Log   *slog.Logger
	Fault *atomic.Uint64 // counts panics

	last time.Time // told
}

// forward returns at, or the last time told when that is later.
func (g *Guard) forward(at time.Time) time.Time {
	if at.Before(g.last) {
		return g.last
	}
	g.last = at
	return at
}

// do calls f with the recorder, if there is one.
func (g *Guard) do(what string, f func(media.SessionTap)) {
	if g.Tap == nil {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			g.Tap = nil
			g.Fault.Add(1)
			g.Log.Error("recorder panicked, "+g.What+" goes on unrecorded", "in", what, "panic", fmt.Sprint(r))
		}
	}()
	f(g.Tap)
}

// StreamStarted passes on a stream and returns what takes its packets.
func (g *Guard) StreamStarted(s media.Stream) (tap media.Tap) {
	s.At = g.forward(s.At)
	g.do("StreamStarted", func(t media.SessionTap) { tap = t.StreamStarted(s) })
	return tap
}

// StreamEnded passes on the end of a stream.
func (g *Guard) StreamEnded(id media.StreamID, at time.Time) {
	at = g.forward(at)
	g.do("StreamEnded", func(t media.SessionTap) { t.StreamEnded(id, at) })
}

// Answered passes on the answer.
func (g *Guard) Answered(at time.Time) {
	at = g.forward(at)
	g.do("Answered", func(t media.SessionTap) { t.Answered(at) })
}

// Signal passes a signal on; of one that tells of an earlier time, Received is
// what runs forward.
func (g *Guard) Signal(s suppress.Signal) {
	if s.Received.IsZero() {
		s.At = g.forward(s.At)
	} else {
		s.Received = g.forward(s.Received)
	}
	g.do("Signal", func(t media.SessionTap) { t.Signal(s) })
}

// Digit passes on a key of which an INFO told.
func (g *Guard) Digit(from media.Side, at time.Time, digit byte, down time.Duration) {
	t, ok := g.Tap.(media.DigitTap)
	if !ok {
		return
	}
	at = g.forward(at)
	g.do("Digit", func(media.SessionTap) { t.Digit(from, at, digit, down) })
}

// OtherMedia passes on what is agreed and not recorded.
func (g *Guard) OtherMedia(at time.Time, all []media.OtherMedia) {
	t, ok := g.Tap.(media.MediaTap)
	if !ok {
		return
	}
	at = g.forward(at)
	g.do("OtherMedia", func(media.SessionTap) { t.OtherMedia(at, all) })
}

// Metadata passes on what a recording client told of the call.
func (g *Guard) Metadata(m media.Metadata) {
	t, ok := g.Tap.(media.MetadataTap)
	if !ok {
		return
	}
	m.At = g.forward(m.At)
	g.do("Metadata", func(media.SessionTap) { t.Metadata(m) })
}

// Ended is the last call; the recorder is gone after it.
func (g *Guard) Ended(at time.Time, cause media.Cause) {
	at = g.forward(at)
	g.do("Ended", func(t media.SessionTap) { t.Ended(at, cause) })
	g.Tap = nil
}
