package recorder

import (
	"errors"
	"fmt"
	"time"
)

// ErrShredded says that the key of a recording was destroyed on purpose.
var ErrShredded = errors.New("shredded")

// Shredded tells of the destruction of a recording's key: what is left of it can
// never be read again.
type Shredded struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"` // who asked for it; empty: not known
}

// ShreddedError says that a recording cannot be read, because it was shredded.
type ShreddedError struct {
	Recording string
	Shredded
}

// Error implements error.
func (e *ShreddedError) Error() string {
	return fmt.Sprintf("recording %s was shredded at %s, reason: %s", e.Recording, e.At.UTC().Format(time.RFC3339), e.Reason)
}

// Unwrap returns ErrShredded.
func (e *ShreddedError) Unwrap() error { return ErrShredded }
