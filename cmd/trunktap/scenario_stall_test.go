package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip/siptest"
)

// A scenario tells by its own clock when the machine stood still: packets are
// sent or passed on late then, and what the recorder makes of them is not what it
// makes of a call. Such a run shows nothing, and is repeated.
const (
	stallMax     = 100 * time.Millisecond // that something may be late
	stepTakes    = 200 * time.Millisecond // from the begin of a step to the last answer in it
	standMax     = 300 * time.Millisecond // that the machine, or the daemon on it, may have stood still in all
	attemptsMax  = 6
	stallsListed = 5
)

// stall notes by how much something was late, if it matters.
func (s *scene) stall(what string, late time.Duration) {
	if late > stallMax {
		s.stalls = append(s.stalls, fmt.Sprintf("%s by %d ms", what, late.Milliseconds()))
	}
}

// transit notes how late an end sent, and how long its packets took to the other.
func (s *scene) transit(from, to *siptest.Call) {
	s.stall("a packet was sent late", from.Media().Latest())
	at := map[string]time.Time{}
	number := func(p siptest.Packet) string { return string(p.Wire[2:12]) } // sequence, timestamp and source
	for _, p := range from.Media().Sent() {
		if !p.RTCP {
			at[number(p)] = p.At
		}
	}
	var longest time.Duration
	for _, p := range to.Media().Received() {
		if sent, ok := at[number(p)]; ok && !p.RTCP {
			longest = max(longest, p.At.Sub(sent))
		}
	}
	s.stall("a packet was passed on late", longest)
}

// test plays a scenario. It is false when the run shows nothing and is to be repeated.
func (sc scenario) test(t *testing.T, place int, again bool) bool {
	t.Helper()
	s := newScene(t, sc, place)
	faults := s.play(sc)
	if again && len(faults) > 0 && len(s.stalls) > 0 {
		t.Logf("repeated, for the machine stood still; late were %q; what was wrong: %q", s.stalls[:min(len(s.stalls), stallsListed)], faults)
		return false
	}
	for _, f := range faults {
		t.Error(f)
	}
	return true
}
