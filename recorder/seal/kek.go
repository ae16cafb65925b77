// Package seal makes, wraps and opens the data keys of recordings; FORMAT.md says
// what a wrapped key is.
package seal

import (
	"context"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// Why a key-encryption key is not at hand; both are recorder.ErrKey.
var (
	ErrUnreachable = recorder.ErrKeyUnreachable
	ErrRevoked     = recorder.ErrKeyRevoked
)

// KEK wraps data keys under a key-encryption key that may never leave a device
// or service. Safe for concurrent use; calls may take as long as ctx allows.
type KEK interface {
	// Wrap encrypts a data key (16 to 4096 bytes) under the active key and binds
	// it to aad (at most 1024 bytes). The name of a key tells its version too and
	// is no secret. ErrUnreachable, ErrRevoked.
	Wrap(ctx context.Context, plaintext, aad []byte) (name string, wrapped []byte, err error)
	// Unwrap reverses Wrap with the key that name tells, active or not.
	// ErrUnreachable, ErrRevoked, recorder.ErrTampered when wrapped or aad differ.
	Unwrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error)
	Close() error
}

// Rotator is a KEK that can make itself a new active key. What was wrapped under
// older ones is still unwrapped.
type Rotator interface {
	Rotate(ctx context.Context) (name string, err error)
}

// KeyInfo tells of a key-encryption key; it holds no secret.
type KeyInfo struct {
	Name    string
	Created time.Time // zero: not known
	Active  bool      // it wraps what is new
}

// Lister is a KEK that knows its keys.
type Lister interface {
	Keys(ctx context.Context) ([]KeyInfo, error)
}

// Retirer is a KEK that can destroy a key that is not active. What is wrapped
// under it can never be opened again: ask the store first.
type Retirer interface {
	Retire(ctx context.Context, name string) error
}
