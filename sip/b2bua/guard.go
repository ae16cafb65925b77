package b2bua

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip/callstate"
	"github.com/trunktap/trunktap/suppress"
)

// guard stands between a call and its recorder, so that a fault of the recorder
// is not one of the call: after a panic the recorder is not asked again. It
// makes times run forward only: messages of two sockets may reach the owner of
// the call in another order than that in which they came.
// Methods are called by the owner of the call alone.
type guard struct {
	tap   media.SessionTap // nil: do not record, or not any more
	log   *slog.Logger
	fault *atomic.Uint64
	last  time.Time // told
}

// forward returns at, or the last time told when that is later.
func (g *guard) forward(at time.Time) time.Time {
	if at.Before(g.last) {
		return g.last
	}
	g.last = at
	return at
}

// do calls f with the recorder, if there is one.
func (g *guard) do(what string, f func(media.SessionTap)) {
	if g.tap == nil {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			g.tap = nil
			g.fault.Add(1)
			g.log.Error("recorder panicked, call goes on unrecorded", "in", what, "panic", fmt.Sprint(r))
		}
	}()
	f(g.tap)
}

func (g *guard) streamStarted(s media.Stream) (tap media.Tap) {
	s.At = g.forward(s.At)
	g.do("StreamStarted", func(t media.SessionTap) { tap = t.StreamStarted(s) })
	return tap
}

func (g *guard) streamEnded(id media.StreamID, at time.Time) {
	at = g.forward(at)
	g.do("StreamEnded", func(t media.SessionTap) { t.StreamEnded(id, at) })
}

func (g *guard) answered(at time.Time) {
	at = g.forward(at)
	g.do("Answered", func(t media.SessionTap) { t.Answered(at) })
}

// signal passes a signal on; of one that tells of an earlier time, Received is
// what runs forward.
func (g *guard) signal(s suppress.Signal) {
	if s.Received.IsZero() {
		s.At = g.forward(s.At)
	} else {
		s.Received = g.forward(s.Received)
	}
	g.do("Signal", func(t media.SessionTap) { t.Signal(s) })
}

// digit passes on a key of which an INFO told.
func (g *guard) digit(from media.Side, at time.Time, d callstate.Digit) {
	t, ok := g.tap.(media.DigitTap)
	if !ok {
		return
	}
	at = g.forward(at)
	g.do("Digit", func(media.SessionTap) { t.Digit(from, at, d.Digit, d.Down) })
}

// otherMedia passes on what is agreed and not recorded.
func (g *guard) otherMedia(at time.Time, all []media.OtherMedia) {
	t, ok := g.tap.(media.MediaTap)
	if !ok {
		return
	}
	at = g.forward(at)
	g.do("OtherMedia", func(media.SessionTap) { t.OtherMedia(at, all) })
}

// ended is the last call; the recorder is gone after it.
func (g *guard) ended(at time.Time, cause media.Cause) {
	at = g.forward(at)
	g.do("Ended", func(t media.SessionTap) { t.Ended(at, cause) })
	g.tap = nil
}
