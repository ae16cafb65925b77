package recorder

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// TestPrerollOfAMinute: a minute at 48 kHz in two channels waits for consent in the
// memory that it needs and no more, is written whole though it is more than the write
// budget of a call and the store is slow, and leaves nothing behind.
func TestPrerollOfAMinute(t *testing.T) {
	const minute = 60_000
	for _, granted := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			plan := testPlan()
			plan.SampleRate, plan.SegmentMax = 48_000, 20*time.Second
			plan.Rules.ConsentRequired, plan.ConsentPreroll, plan.ConsentTimeout = true, true, 2*time.Minute
			sink := newMemSink()
			sink.failWrite = func() error { time.Sleep(50 * time.Millisecond); return nil } // slow, and takes all
			var steps []step
			if granted {
				steps = []step{signalAt(minute, suppress.ConsentGranted)}
			}
			const budget = (minute/1000 + 6) * 2 * 48_000 * 2 // seconds, channels, samples, bytes
			_, _, r := recordedLive(t, Config{Policy: fixedPolicy{plan}, NewSink: sink.open, PrerollBudgetBytes: budget}, script(plainCall(minute+5000), steps))
			m, want := sink.manifest, int64(0)
			if granted {
				want = minute + 5000
			}
			if m != nil && m.Refused["consent_preroll"] != 0 && os.Geteuid() != 0 {
				t.Skip("left out: as much locked memory as this needs root, or a larger RLIMIT_MEMLOCK")
			}
			if m == nil || m.AudioMS != want || m.Refused["consent_preroll"] != 0 {
				t.Fatalf("granted %v: manifest %+v", granted, m)
			}
			for _, g := range m.Gaps {
				if g.Cause == GapOverrun {
					t.Errorf("gap %+v", g)
				}
			}
			if v, ok := r.vault.(*lockedMemory); !ok || v.budget != budget {
				t.Errorf("granted %v: of %d bytes %d are free in the end", granted, budget, v.budget)
			}
		})
	}
}
