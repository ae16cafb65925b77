package sip

import "time"

// Is says whether the header field has that name, in any case or in its compact form.
func (h Header) Is(name string) bool { return sameName(h.Name, name) }

// TimerMode says what becomes of session timers (RFC 4028) on a trunk.
type TimerMode uint8

// Modes of session timers.
const (
	TimersPass TimerMode = iota // the parties agree on them, as if we were not there
	TimersKeep                  // each leg has one, which we refresh where the party does not
	TimersOff                   // the parties hear nothing of them from each other
)

// SessionTimers is what a trunk does about session timers.
type SessionTimers struct {
	Mode    TimerMode
	Expires time.Duration // of TimersKeep: the interval asked for
	MinSE   time.Duration // of TimersKeep: shorter ones are refused with 422
}
