package siprec

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// guard stands between a recording session and its recorder: after a panic the
// recorder is not asked again, and times run forward only. The zero tap is told
// nothing. Its methods are called by whoever owns the recording.
type guard struct {
	tap   media.SessionTap
	log   *slog.Logger
	fault *atomic.Uint64
	last  time.Time
}

func (g *guard) forward(at time.Time) time.Time {
	if at.Before(g.last) {
		return g.last
	}
	g.last = at
	return at
}

func (g *guard) do(what string, f func(media.SessionTap)) {
	if g.tap == nil {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			g.tap = nil
			g.fault.Add(1)
			g.log.Error("recorder panicked, session goes on unrecorded", "in", what, "panic", fmt.Sprint(r))
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

func (g *guard) signal(s suppress.Signal) {
	s.At = g.forward(s.At)
	g.do("Signal", func(t media.SessionTap) { t.Signal(s) })
}

func (g *guard) metadata(m media.Metadata) {
	t, ok := g.tap.(media.MetadataTap)
	if !ok {
		return
	}
	m.At = g.forward(m.At)
	g.do("Metadata", func(media.SessionTap) { t.Metadata(m) })
}

func (g *guard) ended(at time.Time, cause media.Cause) {
	at = g.forward(at)
	g.do("Ended", func(t media.SessionTap) { t.Ended(at, cause) })
	g.tap = nil
}
