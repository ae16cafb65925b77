package seal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestRevokedStaysSo: a key service that has revoked the key and does not answer
// afterwards has not allowed it again, whatever the policy says of one that does
// not answer.
func TestRevokedStaysSo(t *testing.T) {
	away, gone := fmt.Errorf("x: %w", ErrUnreachable), fmt.Errorf("x: %w", ErrRevoked)
	s := standing{cfg: Caching{OnUnreachable: PolicyContinue, OnRevoked: PolicyStop}.withDefaults()}
	now := time.Unix(1e9, 0)
	s.made = now
	s.answered(now)
	for i, err := range []error{away, gone, away, away, gone, away} {
		now = now.Add(time.Second)
		s.failed(now, err)
		if refused := s.refuse(now); errors.Is(refused, ErrRevoked) != (i > 0) || s.revoked() != (i > 0) {
			t.Errorf("after answer %d: revoked %v, refused by %v", i, s.revoked(), refused)
		}
	}
	if n := len(s.err.Error()); n > 200 {
		t.Errorf("the error grows: %d bytes", n)
	}
	s.answered(now)
	s.failed(now, away)
	if s.revoked() || s.refuse(now) != nil {
		t.Errorf("allowed again, then away: %v", s.refuse(now))
	}
}

// TestRevokedThenUnreachable is the same with the owner: nothing is made or opened.
func TestRevokedThenUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeKEK{}
		var mu sync.Mutex
		var told []string
		e := NewEnvelope(EnvelopeConfig{Active: Source{"fake", f}, Tell: func(event string, _ map[string]string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, event)
		}})
		e.Start(context.Background())
		defer func() { _ = e.Close() }()
		k := mustKey(t, e, rec)
		f.set(ErrRevoked)
		time.Sleep(2 * time.Minute)
		f.set(ErrUnreachable)
		time.Sleep(10 * time.Minute)
		if _, err := e.NewKey(context.Background(), rec); !errors.Is(err, ErrRevoked) {
			t.Errorf("a new key: %v", err)
		}
		if _, err := e.OpenKey(context.Background(), rec, k.Wrapped()); !errors.Is(err, ErrRevoked) {
			t.Errorf("open: %v", err)
		}
		if e.Paused() == "" {
			t.Error("what goes on is sealed again")
		}
		f.set(nil)
		time.Sleep(time.Minute)
		mustKey(t, e, rec)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{EventRevoked, EventStopped, EventRestored}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}
