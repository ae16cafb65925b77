package feed

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestClock(t *testing.T) {
	t0 := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const ms = time.Millisecond
	type message struct{ happened, delay time.Duration }
	regular := []message{{0, 2 * ms}, {time.Second, 3 * ms}, {2 * time.Second, 400 * ms}, {3 * time.Second, ms}}
	for _, tt := range []struct {
		name     string
		off      func(time.Duration) time.Duration // of the clock, at a time; positive: fast
		messages []message
		within   time.Duration // of the truth
	}{
		{"right", func(time.Duration) time.Duration { return 0 }, regular, 0},
		{"a little slow is taken for a delay", func(time.Duration) time.Duration { return -100 * ms }, regular, 100 * ms},
		{"a second slow", func(time.Duration) time.Duration { return -time.Second }, regular, 3 * ms},
		{"an hour slow", func(time.Duration) time.Duration { return -time.Hour }, regular, 3 * ms},
		{"a day fast", func(time.Duration) time.Duration { return 24 * time.Hour }, regular, 3 * ms},
		{"a little fast", func(time.Duration) time.Duration { return 100 * ms }, []message{{0, ms}, {time.Second, 300 * ms}}, 100 * ms},
		{"set right in the meantime", func(at time.Duration) time.Duration {
			if at < time.Minute {
				return -10 * time.Second
			}
			return 0
		}, []message{{0, ms}, {time.Minute, ms}, {time.Minute + time.Second, ms}}, ms},
		{"fast, and set right", func(at time.Duration) time.Duration {
			if at < time.Minute {
				return time.Hour
			}
			return 0
		}, []message{{0, ms}, {time.Minute, ms}, {time.Minute + time.Second, 2 * ms}}, 2 * ms},
		{"put wrong long ago", func(at time.Duration) time.Duration {
			if at < time.Minute {
				return 0
			}
			return -10 * time.Second
		}, []message{{0, ms}, {4 * time.Minute, ms}, {5 * time.Minute, ms}}, ms},
	} {
		var c Clock
		for i, m := range tt.messages {
			truth := t0.Add(m.happened)
			now := truth.Add(m.delay)
			got := c.Time(truth.Add(tt.off(m.happened)), now)
			if got.After(now) || got.Sub(truth).Abs() > max(tt.within, 0) {
				t.Errorf("%s, message %d: %v from the truth", tt.name, i, got.Sub(truth))
			}
		}
	}
}

// A time is never after the arrival, nor before the right one by more than a
// clock may be off unnoticed.
func TestClockNeverAhead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Clock
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		off := time.Duration(rapid.Int64Range(-int64(48*time.Hour), int64(48*time.Hour)).Draw(t, "off"))
		for range rapid.IntRange(1, 50).Draw(t, "messages") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(90*time.Second)).Draw(t, "step")))
			delay := time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "delay"))
			got := c.Time(now.Add(-delay).Add(off), now)
			if early := now.Add(-delay).Sub(got); got.After(now) || early > clockOffMin {
				t.Fatalf("%v after the arrival, %v too early", got.Sub(now), early)
			}
		}
	})
}
