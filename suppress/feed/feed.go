// Package feed is what the sources of call-state signals have in common that do
// I/O: each connects to the system that knows, translates what it says and
// comes back when the connection breaks.
package feed

import (
	"context"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// Source is a live source of call-state signals.
type Source interface {
	// Name stands in Signal.Source, logs and metrics: "ami:pbx1".
	Name() string
	// Run connects, reads and connects again until ctx ends, and waits for its
	// goroutines. It hands every signal to emit, which does not block. When the
	// connection breaks it emits SourceLost, when it is back SourceRestored. It
	// returns nil when ctx ended and an error when it can never work (a refused
	// password is none: it may be mended there).
	Run(ctx context.Context, emit func(suppress.Signal)) error
	// Status may be called from any goroutine.
	Status() Status
}

// Status is how a source does.
type Status struct {
	Connected  bool
	Since      time.Time // of the present state
	Signals    uint64    // emitted
	Reconnects uint64
	Ignored    uint64 // messages that are none of ours or could not be understood
	LastError  string // of the latest failure; never a password
}
