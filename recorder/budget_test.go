package recorder

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
)

// TestBudgetOfAllCalls: what waits for a store that fails stays within the budget of all
// calls together, though no call has used up its own; what has no room is a gap, calls
// that must be recorded are refused meanwhile, and with the store all of it is over.
func TestBudgetOfAllCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const call, total = 256 << 10, 384 << 10 // 8 s of a call, and 6 s of two
		var broken atomic.Bool
		var mu sync.Mutex // guards sinks
		sinks := map[string]*memSink{}
		plan := testPlan()
		time.Sleep(time.Until(t0)) // before the recorder's tickers exist
		r := mustRecorder(t, Config{Policy: fixedPolicy{plan}, CallBudgetBytes: call, TotalBudgetBytes: total, NewSink: func(ctx context.Context, id, prefix string) (Sink, error) {
			s := newMemSink()
			s.failWrite = func() error {
				if broken.Load() {
					return errors.New("no space left on device")
				}
				return nil
			}
			mu.Lock()
			sinks[id] = s
			mu.Unlock()
			return s.open(ctx, id, prefix)
		}})
		var calls []*testCall
		for _, id := range []string{"call-1", "call-2"} {
			tap, err := r.SessionStarted(t.Context(), testSession(id))
			if err != nil {
				t.Fatal(err)
			}
			calls = append(calls, &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}})
		}
		most := int64(0)
		for _, s := range script(plainCall(20000), []step{
			{at: at(3001), do: func(*testCall) { broken.Store(true) }},
			{at: at(11001), do: func(*testCall) {
				must := plan
				must.RefuseUnready = true
				r.SetPolicy(fixedPolicy{must})
				if _, err := r.SessionStarted(t.Context(), testSession("call-3")); err == nil {
					t.Error("a call that must be recorded is taken while the budget is used up")
				}
				r.SetPolicy(fixedPolicy{plan})
			}},
			{at: at(15001), do: func(*testCall) { broken.Store(false) }},
		}) {
			time.Sleep(time.Until(s.at))
			for _, c := range calls {
				s.do(c)
			}
			most = max(most, r.QueuedBytes())
		}
		time.Sleep(time.Second)
		if err := r.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if most > total || most < total*9/10 {
			t.Errorf("at most %d bytes waited, want nearly %d and no more", most, total)
		}
		if r.QueuedBytes() != 0 {
			t.Errorf("%d bytes are still charged to the budget", r.QueuedBytes())
		}
		for id, s := range sinks {
			checkOverrun(t, id, s)
		}
	})
}

// checkOverrun holds that a call lacks what had no room, and nothing else.
func checkOverrun(t *testing.T, id string, s *memSink) {
	t.Helper()
	if s.manifest == nil {
		t.Fatalf("%s was not published", id)
	}
	checkAccount(t, s.manifest, s)
	lost := int64(0)
	for _, g := range s.manifest.Gaps {
		if g.Cause != GapOverrun {
			t.Errorf("%s: gap %+v", id, g)
		}
		lost += g.DurationMS
	}
	if lost < 2*4000 || lost > 2*9000 { // of 12 to 14 s some 6 wait
		t.Errorf("%s: %d ms lost", id, lost)
	}
}
