package recorder

import (
	"slices"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// Signals that come before their call wait for it, within these bounds.
const (
	earlySignalsMax = 1024
	earlyWait       = time.Minute // by the signals' own times
)

// Post applies a signal without waiting for its effect: replay, and sources that
// do not ask. A signal that
// names no call is meant for every call that is going on; one whose call has
// not begun waits for it. False when it was given up.
func (r *Recorder) Post(sig suppress.Signal) bool {
	if sig.Received.IsZero() {
		sig.Received = sig.At
	}
	r.mu.Lock()
	to := r.meantBy(sig)
	kept := true
	if len(to) == 0 {
		r.early = slices.DeleteFunc(r.early, func(e suppress.Signal) bool {
			if sig.Received.Sub(e.Received) <= earlyWait {
				return false
			}
			r.unheard++
			return true
		})
		if len(r.early) >= earlySignalsMax {
			r.early, kept = r.early[1:], false // the oldest has the least hope
			r.unheard++
		}
		if sig.Call != "" || sig.SIPCall != "" || r.cfg.Synchronous {
			r.early = append(r.early, sig) // what is for all calls is for those of now
		}
	}
	r.mu.Unlock()
	for _, s := range to {
		kept = s.post(sig, nil) && kept
	}
	return kept
}

// meantBy lists the live calls that a signal is for, oldest first. r.mu is held.
func (r *Recorder) meantBy(sig suppress.Signal) []*session {
	var all []*session
	for _, s := range r.sessions {
		if meant(sig, s) {
			all = append(all, s)
		}
	}
	sortSessions(all)
	return all
}

// meant tells whether a signal is for a call.
func meant(sig suppress.Signal, s *session) bool {
	switch {
	case sig.Call != "":
		return sig.Call == s.info.ID
	case sig.SIPCall != "":
		return sig.SIPCall == s.info.SIPCallID || sig.SIPCall == s.info.OtherSIPCallID
	}
	return true
}

// deliverEarly gives a new call the signals that came before it.
func (r *Recorder) deliverEarly(s *session) {
	r.mu.Lock()
	var mine []suppress.Signal
	rest := r.early[:0]
	for _, sig := range r.early {
		switch {
		case s.info.Start.Sub(sig.Received) > earlyWait:
			r.unheard++
		case meant(sig, s):
			mine = append(mine, sig)
		default:
			rest = append(rest, sig)
		}
	}
	clear(r.early[len(rest):])
	r.early = rest
	r.mu.Unlock()
	for _, sig := range mine {
		s.post(sig, nil)
	}
}

// Unheard counts the posted signals that found no call in time.
func (r *Recorder) Unheard() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unheard + len(r.early)
}
