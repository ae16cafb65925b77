package recorder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// mustLive begins calls on a running recorder and answers them.
func mustLive(t *testing.T, r *Recorder, ids ...string) []media.SessionTap {
	t.Helper()
	var taps []media.SessionTap
	for _, id := range ids {
		info := testSession(id)
		info.Start, info.SIPCallID, info.Links = time.Now(), id+"@example.net", nil
		tap, err := r.SessionStarted(context.Background(), info)
		if err != nil {
			t.Fatal(err)
		}
		tap.Answered(time.Now())
		taps = append(taps, tap)
	}
	time.Sleep(time.Second)
	return taps
}

// TestSignalsOfABatch: the signals of a call act in order, each is answered for
// itself, and a thousand of them take no longer than one.
func TestSignalsOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newMemSink()
		r := mustRecorder(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: sink.open})
		taps := mustLive(t, r, "call-1", "call-2")
		sig := func(e suppress.Event, call string) suppress.Signal {
			return suppress.Signal{V: 1, Event: e, At: time.Now(), Source: "test", Call: call}
		}
		batch := []suppress.Signal{
			sig(suppress.PauseStart, "call-1"), sig(suppress.HoldStart, "call-2"), sig(suppress.PauseStart, "none"), sig(suppress.SnippetStart, "call-1"),
			sig(suppress.HoldStart, "call-1"), sig(suppress.PauseEnd, "call-1"),
			{V: 1, Event: suppress.HoldEnd, At: time.Now(), Source: "test", SIPCall: "call-2@example.net"},
			{V: 1, Event: suppress.HoldEnd, At: time.Now(), Source: "test"},
		}
		batch[3].User = "alice"
		begin := time.Now()
		got := r.Signals(context.Background(), batch)
		if took := time.Since(begin); took > 200*time.Millisecond {
			t.Errorf("took %v", took)
		}
		var refused *RefusedError
		for i, want := range []string{"[pause]", "[hold]", "", "", "[hold pause]", "[hold]", "[]", ""} {
			switch {
			case i == 2 || i == 7:
				if !errors.Is(got[i].Err, ErrNotFound) {
					t.Errorf("signal %d: %v", i, got[i].Err)
				}
			case i == 3:
				if !errors.As(got[i].Err, &refused) || refused.Why == "" {
					t.Errorf("signal %d: %v", i, got[i].Err)
				}
			case got[i].Err != nil || fmt.Sprint(got[i].Applied.Reasons) != want:
				t.Errorf("signal %d: %v %v, want %s", i, got[i].Applied.Reasons, got[i].Err, want)
			}
		}
		many := slices.Repeat([]suppress.Signal{sig(suppress.PauseStart, "call-1"), sig(suppress.PauseEnd, "call-1")}, 500)
		begin = time.Now()
		got = r.Signals(context.Background(), many)
		if took := time.Since(begin); took > 200*time.Millisecond {
			t.Errorf("%d signals took %v", len(many), took)
		}
		for i, o := range got {
			if o.Err != nil || slices.Contains(o.Applied.Reasons, "pause") != (i%2 == 0) {
				t.Fatalf("signal %d: %+v", i, o)
			}
		}
		for _, tap := range taps {
			tap.Ended(time.Now(), media.CauseBye)
		}
		time.Sleep(time.Second)
		if err := r.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := r.Signals(context.Background(), batch[:1]); !errors.Is(got[0].Err, ErrNotFound) {
			t.Errorf("after the call: %v", got[0].Err)
		}
	})
}

// TestSignalsAreNotWaitedForLong: a recorder whose pipeline does not come to
// the signals says that their effect is not known.
func TestSignalsAreNotWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newMemSink()
		stuck := make(chan struct{})
		var block atomic.Bool
		r := mustRecorder(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: sink.open, Workers: 1, Fault: func(string) {
			if block.Load() {
				<-stuck
			}
		}})
		mustLive(t, r, "call-1")
		block.Store(true)
		time.Sleep(time.Second)
		begin := time.Now()
		got := r.Signals(context.Background(), slices.Repeat([]suppress.Signal{{V: 1, Event: suppress.PauseStart, At: time.Now(), Call: "call-1"}}, 100))
		for i, o := range got {
			if !errors.Is(o.Err, context.DeadlineExceeded) {
				t.Fatalf("signal %d: %+v", i, o)
			}
		}
		if took := time.Since(begin); took != signalWait {
			t.Errorf("took %v", took)
		}
		close(stuck)
		if err := r.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}
