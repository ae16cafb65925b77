package recorder

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

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
