package srtp

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[key]"

// Key is a master key followed by its master salt. However it is printed,
// logged or marshalled, it shows nothing of itself; in an unexported field, whose
// methods printing cannot call, it shows an address. Copies share the bytes, so
// Wipe acts on all of them.
type Key struct {
	reach func() *secret // a function, for printing follows pointers but not these
}

type secret struct{ b []byte }

// NewKey returns a key of a copy of the bytes.
func NewKey(b []byte) Key { return keyOf(append([]byte(nil), b...)) }

func keyOf(b []byte) Key {
	s := &secret{b}
	return Key{func() *secret { return s }}
}

// randomKey makes a key for the suite; nil: of the system's random source.
func randomKey(s Suite, random io.Reader) (Key, error) {
	if random == nil {
		random = rand.Reader
	}
	b := make([]byte, s.KeyBytes())
	if _, err := io.ReadFull(random, b); err != nil {
		return Key{}, fmt.Errorf("make a key for %s: %w", s, err)
	}
	return keyOf(b), nil
}

func (k Key) bytes() []byte {
	if k.reach == nil {
		return nil
	}
	return k.reach().b
}

// clone returns a key that Wipe of k does not reach.
func (k Key) clone() Key { return NewKey(k.bytes()) }

// Len is the number of bytes; 0 without a key and after Wipe.
func (k Key) Len() int { return len(k.bytes()) }

// Equal compares in constant time. A wiped key equals none.
func (k Key) Equal(other Key) bool {
	return k.Len() > 0 && subtle.ConstantTimeCompare(k.bytes(), other.bytes()) == 1
}

// Wipe zeroes the bytes for all copies of the key.
func (k Key) Wipe() {
	if k.reach != nil {
		s := k.reach()
		clear(s.b)
		s.b = nil
	}
}

// String returns "[key]".
func (Key) String() string { return redacted }

// GoString returns "[key]".
func (Key) GoString() string { return redacted }

// Format writes "[key]", whatever the verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) } // fmt keeps the error

// LogValue returns "[key]".
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText writes "[key]".
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }
