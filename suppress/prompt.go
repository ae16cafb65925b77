package suppress

import "slices"

var suppressing = []Event{IVRStart, QueueStart, HoldStart, PauseStart, ConsentDenied, TransferExternal, DTMFStart}

// Suppresses tells whether an event can only make less be captured.
func (e Event) Suppresses() bool { return slices.Contains(suppressing, e) }

// Prompt lets a signal that suppresses and tells of a time to come act when it
// arrives: the clock of its sender is fast, and what it is about is being said
// already. Any other waits for its time, for what is in doubt stays closed. For
// live sources; Received must be set.
func Prompt(s Signal) Signal {
	if s.Event.Suppresses() && s.At.After(s.Received) {
		s.At = s.Received
	}
	return s
}
