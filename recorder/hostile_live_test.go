package recorder

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// Close returns when its context ends, even when a disk does not.
func TestHostileCloseReturnsThoughTheDiskHangs(t *testing.T) {
	sink := newMemSink()
	hang := make(chan struct{})
	defer close(hang)
	sink.failWrite = func() error { <-hang; return nil }
	r := mustRecorder(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: sink.open})
	s := testSession("a")
	s.Start = time.Now()
	tap, _ := r.SessionStarted(context.Background(), s)
	tap.Answered(time.Now())
	time.Sleep(200 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	done := make(chan struct{})
	go func() { _ = r.Close(ctx); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		t.Error("Close hangs 2.7 s beyond its context")
	}
}

// lagSink measures how old the oldest sample of each frame is when it is handed to the sink.
type lagSink struct {
	*memSink
	worst time.Duration
	at    int64
}

func (l *lagSink) Begin(i SegmentInfo) (SegmentWriter, error) {
	w, err := l.memSink.Begin(i)
	return &lagSegment{w, l}, err
}

type lagSegment struct {
	SegmentWriter
	l *lagSink
}

func (s *lagSegment) Write(a Audio, m *Manifest) error {
	// What is less than a granule of the encoder may wait for as long as a window
	// lasts: 10 ms of audio here, before the window at 3490 ms.
	if carry := a.RealMS < 3490 && a.RealMS+20 > 3490; a.Samples > 0 && !carry {
		if d := time.Since(at(int(a.RealMS))); d > s.l.worst {
			s.l.worst, s.l.at = d, a.RealMS
		}
	}
	return s.SegmentWriter.Write(a, m)
}

func TestHostileDurability(t *testing.T) {
	for _, format := range []string{FormatWAVPCM16, FormatOggOpus} {
		for _, window := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				sink := &lagSink{memSink: newMemSink()}
				plan := testPlan()
				plan.Format = format
				var sig []step
				if window {
					sig = []step{signalAt(3490, suppress.PauseStart), signalAt(20000, suppress.PauseEnd)}
				}
				recordedLive(t, Config{Policy: fixedPolicy{plan}, NewSink: func(context.Context, string, string) (Sink, error) { return sink, nil }}, script(plainCall(30000), sig))
				t.Logf("%s window %v: oldest sample %v at hand-over (frame at %d)", format, window, sink.worst, sink.at)
				if sink.worst > 2*time.Second {
					t.Errorf("%s window %v: beyond 2 s", format, window)
				}
			})
		}
	}
}

// A hairpinned call passes the trunk twice with one Call-ID: a pause by Call-ID reaches both.
func TestHostilePauseByCallIDReachesEveryCallOfThatID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := mustRecorder(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: func(context.Context, string, string) (Sink, error) { return newMemSink(), nil }})
		a, b := testSession("a"), testSession("b")
		a.SIPCallID, b.SIPCallID = "same@x", "same@x"
		a.Start, b.Start = time.Now(), time.Now()
		ta, _ := r.SessionStarted(context.Background(), a)
		tb, _ := r.SessionStarted(context.Background(), b)
		ta.Answered(time.Now())
		tb.Answered(time.Now())
		time.Sleep(time.Second)
		if _, err := r.Signal(context.Background(), suppress.Signal{V: 1, Event: suppress.PauseStart, At: time.Now(), Source: "http", SIPCall: "same@x"}); err != nil {
			t.Fatal(err)
		}
		for _, c := range r.Calls() {
			if !slices.Contains(c.Reasons, "pause") {
				t.Errorf("call %s is recorded through the pause", c.ID)
			}
		}
		tb.Ended(time.Now(), media.CauseBye)
		time.Sleep(time.Second)
		if _, err := r.Signal(context.Background(), suppress.Signal{V: 1, Event: suppress.PauseStart, At: time.Now(), Source: "http", SIPCall: "same@x"}); err != nil {
			t.Errorf("after the younger one ended, the older cannot be found: %v", err)
		}
		ta.Ended(time.Now(), media.CauseBye)
		time.Sleep(time.Second)
		_ = r.Close(context.Background())
	})
}

// A pipeline that fails before the answer leaves an account when the call is answered.
func TestHostileFailureBeforeTheAnswerIsAccountedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rounds := 0
		fault := func(string) {
			if rounds++; rounds == 10 {
				panic("injected")
			}
		}
		sink, m, _ := recordedLive(t, Config{Policy: fixedPolicy{testPlan()}, Fault: fault}, plainCall(6000))
		if m == nil {
			t.Fatalf("an answered call of 6 s has no account (discarded: %v)", sink.discarded)
		}
	})
}

// Writing goroutine and salvage share the account handed on.
func TestHostileSalvageRace(t *testing.T) {
	slow := &slowSink{memSink: newMemSink()}
	var boom atomic.Bool
	plan := testPlan()
	plan.SegmentMax = time.Second
	r := mustRecorder(t, Config{
		Policy: fixedPolicy{plan}, NewSink: func(context.Context, string, string) (Sink, error) { return slow, nil },
		Fault: func(string) {
			if boom.Load() {
				panic("x")
			}
		},
	})
	s := testSession("call-1")
	base := time.Now()
	s.Start = base.Add(-10 * time.Second)
	tap, _ := r.SessionStarted(context.Background(), s)
	tap.Answered(base.Add(-9 * time.Second))
	p := tap.StreamStarted(media.Stream{ID: 0, Side: media.External, At: base.Add(-9 * time.Second), Formats: g711Formats, Sending: true})
	for n := range 300 {
		p.Put(base.Add(time.Duration(-9000+20*n)*time.Millisecond), packet(0, uint16(n), uint32(160*n), 9, make([]byte, 160)))
	}
	time.Sleep(700 * time.Millisecond)
	boom.Store(true)
	time.Sleep(100 * time.Millisecond)
	tap.Ended(time.Now(), media.CauseBye)
	time.Sleep(100 * time.Millisecond)
	_ = r.Close(context.Background())
}

type slowSink struct{ *memSink }

func (s *slowSink) Begin(i SegmentInfo) (SegmentWriter, error) {
	w, err := s.memSink.Begin(i)
	return &slowSegment{w, i.N}, err
}

type slowSegment struct {
	SegmentWriter
	n int
}

func (s *slowSegment) Finish(m *Manifest) (Segment, error) {
	time.Sleep(300 * time.Millisecond)
	return s.SegmentWriter.Finish(m)
}

// TestCloseTwiceAtOnce: neither Close returns before the audio is published.
func TestCloseTwiceAtOnce(t *testing.T) {
	sink := newMemSink()
	hang := make(chan struct{})
	sink.failWrite = func() error { <-hang; return nil }
	r := mustRecorder(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: sink.open})
	s := testSession("a")
	s.Start = time.Now()
	tap, err := r.SessionStarted(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	tap.Answered(time.Now())
	over := make(chan error, 2)
	go func() { over <- r.Close(context.Background()) }()
	for closing := false; !closing; runtime.Gosched() {
		r.mu.Lock()
		closing = r.closed
		r.mu.Unlock()
	}
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := r.Close(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second Close gave %v before the first was over", err)
	}
	go func() { over <- r.Close(context.Background()) }()
	close(hang)
	for range 2 {
		if err := <-over; err != nil {
			t.Error(err)
		}
	}
}
