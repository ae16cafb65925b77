package recorder

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// recordedLive runs a script against a live recorder on a bubble's clock.
func recordedLive(t *testing.T, cfg Config, steps []step) (*memSink, *Manifest, *Recorder) {
	t.Helper()
	sink := newMemSink()
	if cfg.NewSink == nil {
		cfg.NewSink = sink.open
	}
	time.Sleep(time.Until(t0)) // before the recorder's tickers exist: it is decades away
	r := mustRecorder(t, cfg)
	tap, err := r.SessionStarted(context.Background(), testSession("call-1"))
	if err != nil {
		t.Fatal(err)
	}
	c := &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}}
	for _, s := range steps {
		time.Sleep(time.Until(s.at))
		s.do(c)
	}
	time.Sleep(time.Second)
	if err := r.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return sink, sink.manifest, r
}

// TestLiveEqualsReplay holds promise 3 for the pipeline: the same packets and
// signals give the same samples and the same account, whether they come on a
// running clock or out of a capture.
func TestLiveEqualsReplay(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 2))
		const length = 8000
		steps := script(answered(length),
			impaired(rng, media.External, rng.IntN(1000), length, 150, 0.05, 120, 0x30),
			impaired(rng, media.Internal, rng.IntN(1000), length, -150, 0.02, 60, 0x20),
			[]step{signalAt(1500, suppress.HoldStart), signalAt(2733, suppress.HoldEnd), signalAt(5000, suppress.PauseStart), signalAt(5500, suppress.PauseEnd)},
			digit(media.External, 3000, 5, 60000))
		wantSink, want := replayed(t, testPlan(), steps)
		synctest.Test(t, func(t *testing.T) {
			gotSink, got, _ := recordedLive(t, Config{Policy: fixedPolicy{testPlan()}}, steps)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("seed %d: account (-replay +live): %s", seed, d)
			}
			w, g := wantSink.pcm(), gotSink.pcm()
			for ch := range w {
				if !slices.Equal(w[ch], g[ch]) {
					t.Errorf("seed %d: channel %d differs: %d and %d samples", seed, ch, len(w[ch]), len(g[ch]))
				}
			}
		})
	}
}

func plainCall(ms int) []step {
	return script(answered(ms), talk(media.External, 0, ms, constant(0x30)), talk(media.Internal, 0, ms, constant(0x20)))
}

func TestFailingSinkBecomesGapsAndNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newMemSink()
		var broken atomic.Bool
		sink.failWrite = func() error {
			if broken.Load() {
				return errors.New("no space left on device")
			}
			return nil
		}
		steps := script(plainCall(20000), []step{
			{at: at(3001), do: func(*testCall) { broken.Store(true) }},
			{at: at(15001), do: func(*testCall) { broken.Store(false) }},
		})
		_, _, r := recordedLive(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: sink.open, CallBudgetBytes: 100 << 10}, steps)
		time.Sleep(10 * time.Second)
		m := sink.manifest
		if m == nil {
			t.Fatal("nothing published after the sink recovered")
		}
		checkAccount(t, m, sink)
		lost := int64(0)
		for _, g := range m.Gaps {
			if g.Cause != GapOverrun || g.Detail == "" {
				t.Errorf("gap %+v: want overrun with a detail", g)
			}
			lost += g.DurationMS
		}
		// 12 s and at most 2 s until the next try, at 32 kB/s, of which 100 KiB
		// hold 3 s: 9 to 11 s are lost on both channels.
		if lost < 2*8500 || lost > 2*11500 {
			t.Errorf("%d ms lost, want 18000 to 22000", lost)
		}
		if r.Stats().FramesRefused.Load() == 0 || r.Stats().WriteErrors.Load() == 0 {
			t.Error("refused frames and write errors are not counted")
		}
		if r.QueuedBytes() != 0 {
			t.Errorf("%d bytes are still charged to the budget", r.QueuedBytes())
		}
	})
}

func TestPanicInThePipelineEndsTheRecordingAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rounds := 0
		fault := func(string) {
			if rounds++; rounds == 200 { // 4 s after the start, 3 s after the answer
				panic("injected")
			}
		}
		sink, m, r := recordedLive(t, Config{Policy: fixedPolicy{testPlan()}, Fault: fault}, plainCall(6000))
		if m == nil {
			t.Fatal("nothing published")
		}
		if len(m.Gaps) != 2 || m.Gaps[0].Cause != GapOverrun || m.Gaps[0].Detail != "pipeline fault: injected" {
			t.Fatalf("gaps %+v", m.Gaps)
		}
		if m.RealMS != 6000 || m.AudioMS != 6000 || m.Gaps[0].RealMS+m.Gaps[0].DurationMS != 6000 {
			t.Errorf("real %d, audio %d, gap %+v", m.RealMS, m.AudioMS, m.Gaps[0])
		}
		if n := len(sink.pcm()[0]) / 8; int64(n) != m.Gaps[0].RealMS || n < 1500 {
			t.Errorf("%d ms written, gap from %d", n, m.Gaps[0].RealMS)
		}
		if r.Stats().Failed.Load() != 1 {
			t.Error("not counted")
		}
	})
}

func TestSignalIsAnsweredWithItsEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newMemSink()
		r := mustRecorder(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: sink.open})
		events, cancel := r.Subscribe()
		defer cancel()
		s := testSession("call-9")
		s.Start = time.Now()
		tap, err := r.SessionStarted(context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		tap.Answered(time.Now())
		time.Sleep(time.Second)
		now := time.Now()
		got, err := r.Signal(context.Background(), suppress.Signal{V: 1, Event: suppress.PauseStart, At: now, Source: "http", SIPCall: s.SIPCallID})
		if err != nil {
			t.Fatal(err)
		}
		if !got.AppliedAt.Equal(now) || !slices.Equal(got.Reasons, []string{"pause"}) || got.LateMS != 0 {
			t.Errorf("applied %+v", got)
		}
		if took := time.Since(now); took > 200*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
		if c := r.Calls(); len(c) != 1 || !slices.Equal(c[0].Reasons, []string{"pause"}) || c[0].ID != "call-9" {
			t.Errorf("calls %+v", c)
		}
		if _, err := r.Signal(context.Background(), suppress.Signal{Event: suppress.PauseEnd, At: now, Call: "other"}); !errors.Is(err, ErrNotFound) {
			t.Errorf("unknown call: %v", err)
		}
		tap.Ended(time.Now(), media.CauseBye)
		time.Sleep(time.Second)
		if len(r.Calls()) != 0 {
			t.Error("the call is still listed")
		}
		var types []string
		for len(events) > 0 {
			types = append(types, (<-events).Type)
		}
		want := []string{"call.started", "call.answered", "signal", "call.ended", "segment.complete", "recording.published"}
		if d := cmp.Diff(want, types); d != "" {
			t.Error(d)
		}
		if err := r.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRefusalFollowsThePlan(t *testing.T) {
	down := func(context.Context) error { return errors.New("store is read-only") }
	plan := testPlan()
	r := mustRecorder(t, Config{Policy: fixedPolicy{plan}, NewSink: newMemSink().open, Ready: down, Synchronous: true})
	if tap, err := r.SessionStarted(context.Background(), testSession("a")); tap == nil || err != nil {
		t.Errorf("on_failure allow: tap %v, error %v", tap, err)
	}
	plan.RefuseUnready = true
	r.SetPolicy(fixedPolicy{plan})
	if _, err := r.SessionStarted(context.Background(), testSession("b")); err == nil {
		t.Error("on_failure refuse: no error")
	}
}
