// Package service is what all sources of key-encryption keys have in common: the
// limits of seal.KEK, attempts bounded in number and time, faults of
// configurations, and secrets that are read from files.
package service

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
)

// Limits of what seal.KEK takes.
const (
	PlaintextBytesMin = 16
	PlaintextBytesMax = 4096
	AADBytesMax       = 1024
	NameBytesMax      = 512
	WrappedBytesMax   = 16 << 10
)

// ErrClosed is given to calls after Close.
var ErrClosed = fmt.Errorf("%w: the key service is closed", recorder.ErrKey)

// CheckWrap holds the limits of Wrap. What is beyond them is a fault of the caller.
func CheckWrap(plaintext, aad []byte) error {
	if n := len(plaintext); n < PlaintextBytesMin || n > PlaintextBytesMax {
		return fmt.Errorf("wrap data key: %d bytes, must be %d to %d", n, PlaintextBytesMin, PlaintextBytesMax)
	}
	if n := len(aad); n > AADBytesMax {
		return fmt.Errorf("wrap data key: bound to %d bytes, at most %d", n, AADBytesMax)
	}
	return nil
}

// CheckUnwrap refuses what no Wrap can have made, before any service is asked.
func CheckUnwrap(name string, wrapped, aad []byte) error {
	if len(name) > NameBytesMax || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || name == "" {
		return fmt.Errorf("unwrap data key: %w: no key can have the name %.80q", seal.ErrRevoked, name)
	}
	if len(wrapped) < PlaintextBytesMin || len(wrapped) > WrappedBytesMax {
		return fmt.Errorf("unwrap data key: %d bytes: %w", len(wrapped), recorder.ErrTampered)
	}
	if len(aad) > AADBytesMax {
		return fmt.Errorf("unwrap data key: bound to %d bytes: %w", len(aad), recorder.ErrTampered)
	}
	return nil
}

// bindLabel parts hashes of bound data from all other hashes.
const bindLabel = "trunktap bound data key 1\x00"

// Bind puts a hash of aad before the plaintext, for services whose cipher has no
// associated data but is authenticated.
func Bind(plaintext, aad []byte) []byte {
	h := sha256.Sum256(append([]byte(bindLabel), aad...))
	return append(h[:], plaintext...)
}

// Unbind reverses Bind. recorder.ErrTampered when aad is another.
func Unbind(bound, aad []byte) ([]byte, error) {
	h := sha256.Sum256(append([]byte(bindLabel), aad...))
	if len(bound) < len(h)+PlaintextBytesMin || [sha256.Size]byte(bound[:len(h)]) != h {
		return nil, fmt.Errorf("unwrap data key: bound to something else: %w", recorder.ErrTampered)
	}
	return bound[len(h):], nil
}

// Fault is one thing that is wrong with a configuration: at which key, what, and
// what to do about it.
type Fault struct {
	Key  string // as in the provider's block, e.g. "pin_file"
	Text string
}

// Error implements error.
func (f Fault) Error() string { return f.Key + ": " + f.Text }

// Faults collects what is wrong with a configuration.
type Faults []Fault

// Add notes a fault when wrong.
func (f *Faults) Add(wrong bool, key, format string, a ...any) {
	if wrong {
		*f = append(*f, Fault{key, fmt.Sprintf(format, a...)})
	}
}

// Err returns all faults as one error, nil when there are none.
func (f Faults) Err() error {
	var errs []error
	for _, x := range f {
		errs = append(errs, x)
	}
	return errors.Join(errs...)
}
