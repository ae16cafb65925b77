package journal

import (
	"net/netip"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// Store is a Journal as those use it whose states are in it. It never waits.
type Store interface {
	// Put replaces the state of that name. False: it was not taken.
	Put(name string, state []byte) bool
	Drop(name string)
	// After does f, which does not wait, when what was put before is kept, or cannot be.
	After(f func())
}

// Flow is a sip.Flow as a state has it, without what only its process knows.
type Flow struct {
	Network       string
	Local, Remote netip.AddrPort
	Name          string `json:",omitempty"`
}

// FlowOf returns a flow as a state has it.
func FlowOf(f sip.Flow) Flow {
	return Flow{Network: f.Network, Local: f.Local, Remote: f.Remote, Name: f.Name}
}

// Flow returns what a state has of a flow.
func (f Flow) Flow() sip.Flow {
	return sip.Flow{Network: f.Network, Local: f.Local, Remote: f.Remote, Name: f.Name}
}

// Wall is a time as a state has it: without a reading of the monotonic clock.
func Wall(t time.Time) time.Time { return t.UTC().Round(0) }

// Live gives a time of the wall clock the reading of the monotonic one that belongs to it.
func Live(t time.Time) time.Time {
	now := time.Now()
	return now.Add(t.Sub(now))
}
