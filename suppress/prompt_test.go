package suppress

import (
	"slices"
	"testing"
	"time"
)

func TestPrompt(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	starts := []Event{IVRStart, QueueStart, HoldStart, PauseStart, ConsentDenied, TransferExternal, DTMFStart}
	for _, e := range events {
		for _, ahead := range []time.Duration{-time.Second, 0, time.Hour} {
			want := now.Add(ahead)
			if ahead > 0 && slices.Contains(starts, e) {
				want = now
			}
			got := Prompt(Signal{Event: e, At: now.Add(ahead), Received: now})
			if !got.At.Equal(want) || got.Event != e || !got.Received.Equal(now) {
				t.Errorf("%s, %v ahead: acts %v after the arrival", e, ahead, got.At.Sub(now))
			}
		}
	}
}
