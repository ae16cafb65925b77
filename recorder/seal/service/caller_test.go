package service

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
)

// TestCaller: limits before anybody is asked, tries for what may pass, one for what
// may have had an effect, and nothing of an answer beside an error.
func TestCaller(t *testing.T) {
	c := NewCaller(Attempts{Tries: 2})
	asked := 0
	away := func(context.Context) (string, []byte, error) {
		asked++
		return "k", []byte("half"), seal.ErrUnreachable
	}
	if name, wrapped, err := c.Wrap(t.Context(), make([]byte, 32), nil, away); !errors.Is(err, seal.ErrUnreachable) || name != "" || wrapped != nil || asked != 2 {
		t.Errorf("%q %q %v, asked %d times", name, wrapped, err, asked)
	}
	open := func(context.Context) ([]byte, error) { asked++; return []byte("half"), seal.ErrRevoked }
	if b, err := c.Unwrap(t.Context(), "k", make([]byte, 32), nil, open); !errors.Is(err, seal.ErrRevoked) || b != nil || asked != 3 {
		t.Errorf("%q %v, asked %d times", b, err, asked)
	}
	if err := c.Once(t.Context(), "rotate key", func(context.Context) error { asked++; return seal.ErrUnreachable }); !errors.Is(err, seal.ErrUnreachable) || asked != 4 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	if _, _, err := c.Wrap(t.Context(), make([]byte, 3), nil, away); err == nil || asked != 4 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	if _, err := c.Unwrap(t.Context(), strings.Repeat("k", 600), make([]byte, 32), nil, open); !errors.Is(err, seal.ErrRevoked) || asked != 4 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	if !c.Close() || c.Close() {
		t.Error("it is closed once")
	}
	if _, _, err := c.Wrap(t.Context(), make([]byte, 32), nil, away); !errors.Is(err, recorder.ErrKey) || asked != 4 {
		t.Errorf("closed: %v, asked %d times", err, asked)
	}
}
