package recorder

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestPausedForWantOfAKey: while the key is not to be used nothing is written, the
// call goes on, and the manifest says how much is missing and why.
func TestPausedForWantOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const why = "the key was revoked, and keys.on_revoked is stop"
		sink := newMemSink()
		var paused atomic.Bool
		steps := script(plainCall(20000), []step{
			{at: at(4001), do: func(*testCall) { paused.Store(true) }},
			{at: at(12001), do: func(*testCall) { paused.Store(false) }},
		})
		recordedLive(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: sink.open, Paused: func() string {
			if paused.Load() {
				return why
			}
			return ""
		}}, steps)
		time.Sleep(10 * time.Second)
		m := sink.manifest
		if m == nil {
			t.Fatal("nothing was published")
		}
		checkAccount(t, m, sink)
		lost := int64(0)
		for _, g := range m.Gaps {
			if g.Cause != GapKey || g.Detail != why {
				t.Errorf("gap %+v: want %s, %s", g, GapKey, why)
			}
			lost += g.DurationMS
		}
		if lost < 2*7000 || lost > 2*9000 {
			t.Errorf("%d ms are missing, want 16000", lost)
		}
	})
}

// TestNoKeyForSoLong: a call that begins before there is a key waits for it in
// memory; what has no room there is a gap of the key, not of the store.
func TestNoKeyForSoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newMemSink()
		var keyless atomic.Bool
		keyless.Store(true)
		steps := script(plainCall(20000), []step{{at: at(15001), do: func(*testCall) { keyless.Store(false) }}})
		recordedLive(t, Config{Policy: fixedPolicy{testPlan()}, CallBudgetBytes: 100 << 10, NewSink: func(ctx context.Context, id, prefix string) (Sink, error) {
			if keyless.Load() {
				return nil, fmt.Errorf("new recording: %w", ErrKeyUnreachable)
			}
			return sink.open(ctx, id, prefix)
		}}, steps)
		time.Sleep(10 * time.Second)
		m := sink.manifest
		if m == nil {
			t.Fatal("nothing was published")
		}
		checkAccount(t, m, sink)
		if len(m.Gaps) == 0 {
			t.Fatal("no gap")
		}
		for _, g := range m.Gaps {
			if g.Cause != GapKey || g.RealMS == 0 {
				t.Errorf("gap %+v: want %s, behind what had room", g, GapKey)
			}
		}
	})
}
