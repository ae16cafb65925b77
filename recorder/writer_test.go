package recorder

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
)

// TestSynchronousGivesUpAtTheFirstFailure lets the n-th call of the sink fail,
// for every n: the failure is reported once, and nothing untrue is published.
func TestSynchronousGivesUpAtTheFirstFailure(t *testing.T) {
	full := errors.New("no space left on device")
	for n := 1; ; n++ {
		calls := 0
		sink := newMemSink()
		sink.failWrite = func() error {
			if calls++; calls == n {
				return full
			}
			return nil
		}
		r := mustRecorder(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: sink.open, Synchronous: true})
		tap, err := r.SessionStarted(t.Context(), testSession("call-1"))
		if err != nil {
			t.Fatal(err)
		}
		c := &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}}
		for _, s := range script(answered(3000), talk(media.External, 0, 3000, constant(0x30))) {
			s.do(c)
		}
		done, err := r.Results()
		if calls < n {
			if err != nil || len(done) != 1 || n < 4 {
				t.Fatalf("without a failure after %d calls: %d recordings, %v", calls, len(done), err)
			}
			return
		}
		if !errors.Is(err, full) || sink.manifest != nil || len(done) != 0 {
			t.Errorf("call %d of the sink failed: %d recordings, error %v", n, len(done), err)
		}
		if failed := r.Stats().Failed.Load(); calls != n || failed != 0 {
			t.Errorf("call %d of the sink failed: it was called %d times, and %d pipelines failed", n, calls, failed)
		}
	}
}

// TestSynchronousReportsFailingClose holds that no error of the sink is lost.
func TestSynchronousReportsFailingClose(t *testing.T) {
	broken := errors.New("input/output error")
	sink := &failingClose{newMemSink(), broken}
	r := mustRecorder(t, Config{
		Policy: fixedPolicy{testPlan()}, Synchronous: true,
		NewSink: func(context.Context, string, string) (Sink, error) { return sink, nil },
	})
	tap, err := r.SessionStarted(t.Context(), testSession("call-1"))
	if err != nil {
		t.Fatal(err)
	}
	c := &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}}
	for _, s := range script(answered(500)) {
		s.do(c)
	}
	if _, err := r.Results(); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of Close", err)
	}
}

type failingClose struct {
	*memSink
	err error
}

func (f *failingClose) Close() error { return f.err }

// TestFillLeavesTheAccountAlone: the account handed to the writer is read by
// the session's owner too, when it has to salvage.
func TestFillLeavesTheAccountAlone(t *testing.T) {
	w := &writer{finished: map[int]Segment{1: {N: 1, File: "0001.seg", Bytes: 7, SHA256: "x"}}}
	given := &Manifest{RealMS: 20, Segments: []Segment{{N: 1}, {N: 2}}}
	got := w.fill(given)
	want := []Segment{{N: 1, File: "0001.seg", Bytes: 7, SHA256: "x"}, {N: 2}}
	if diff := cmp.Diff(want, got.Segments); diff != "" || got.RealMS != 20 {
		t.Errorf("filled (-want +got): %s", diff)
	}
	if given.Segments[0].File != "" {
		t.Error("the account that was given has changed")
	}
}
