package seal

import (
	"bytes"
	"context"
)

// ModeNone is the mode without key-encryption keys.
const ModeNone = "none"

// None is no key-encryption key: data keys lie beside their recordings as they
// are. Whoever can read the store can hear them, and whoever can write it can
// make up others that open as well.
type None struct{}

var _ KEK = None{}

const noneName = "unsealed"

// Active returns the name that stands where that of a key would.
func (None) Active() string { return noneName }

// Wrap implements KEK: it wraps nothing.
func (None) Wrap(_ context.Context, plaintext, _ []byte) (string, []byte, error) {
	return noneName, bytes.Clone(plaintext), nil
}

// Unwrap implements KEK.
func (None) Unwrap(_ context.Context, _ string, wrapped, _ []byte) ([]byte, error) {
	return bytes.Clone(wrapped), nil
}

// Close implements KEK.
func (None) Close() error { return nil }
