package b2bua

import (
	"fmt"
	"time"

	"github.com/trunktap/trunktap/media"
)

// askOverlay is Config.Overlay.
type askOverlay = func(trunk string, st media.Stream, answered time.Time, tap media.SessionTap) media.Overlay

// overlays is what an anchor needs to put sound into its streams.
type overlays struct {
	ask askOverlay // nil: nothing is touched
	at  time.Time  // the answer; zero: there was none
}

// answered says that the call is answered: from now on sound may be put into its
// streams, those included that the answer leaves as they are.
func (a *anchor) answered(at time.Time, ask askOverlay) {
	a.overlays = overlays{ask: ask, at: at}
	for _, st := range a.streams {
		a.overlay(st)
	}
}

// overlay asks what is to be heard in the packets of a stream from now on. A fault
// of who is asked leaves the stream alone.
func (a *anchor) overlay(st media.Stream) {
	s := a.streamOf(st.ID)
	if s == nil || a.overlays.ask == nil || a.overlays.at.IsZero() {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			a.log.Error("no overlay for a stream after a panic", "side", st.Side, "panic", fmt.Sprintf("%T", r))
			s.SetOverlay(st.Side, nil)
		}
	}()
	if _, passed := a.revealed(st); passed {
		st.Secure = true
	}
	s.SetOverlay(st.Side, a.overlays.ask(a.trunk.Name, st, a.overlays.at, a.tap.Tap))
}
