package recorder

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/suppress"
)

// TestActiveReasons: what is remembered of them is what they are, at once after
// a signal and soon after what happens by itself.
func TestActiveReasons(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tl := suppress.New(suppress.Rules{Hold: true, PauseAutoResume: 700 * time.Millisecond})
		tl.SetOrigin(at(0))
		var a activeReasons
		signals, settled := 0, 0
		events := []suppress.Event{suppress.HoldStart, suppress.HoldEnd, suppress.PauseStart, suppress.PauseEnd}
		for ms := 0; ms < 6000; ms += 20 {
			if rapid.IntRange(0, 20).Draw(rt, "signal") == 0 {
				e := events[rapid.IntRange(0, 3).Draw(rt, "event")]
				tl.Apply(suppress.Signal{Event: e, At: at(ms + rapid.IntRange(-900, 300).Draw(rt, "lag"))})
				signals++
				settled = ms
			}
			got, want := a.at(tl, signals, int64(ms), int64(ms)*1e6), words(tl.Reasons(int64(ms)))
			if slices.Equal(got, want) {
				settled = ms
			}
			if ms-settled > int(activeEvery/time.Millisecond) || settled == ms && !slices.Equal(got, want) {
				rt.Fatalf("at %d ms: %v, want %v", ms, got, want)
			}
			tl.Seal(int64(ms-500), nil)
		}
	})
}
