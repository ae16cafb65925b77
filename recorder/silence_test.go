package recorder_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/plain"
	"github.com/trunktap/trunktap/suppress"
)

type onePlan struct{ plan recorder.Plan }

func (p onePlan) Plan(media.Session) (recorder.Plan, bool) { return p.plan, true }

// TestSilenceBeforeConsent: where windows become silence, nothing is on the disk
// before consent is granted, and the files have all of it afterwards.
func TestSilenceBeforeConsent(t *testing.T) {
	for _, format := range []string{recorder.FormatWAVPCM16, recorder.FormatWAVPCMU, recorder.FormatOggOpus} {
		for _, grantedMS := range []int{-1, 0, 7, 1147, 2000, 4333, 7000} {
			t.Run(fmt.Sprint(format, " granted at ", grantedMS), func(t *testing.T) { silentUntil(t, format, grantedMS) })
		}
	}
}

func silentUntil(t *testing.T, format string, grantedMS int) {
	dir := t.TempDir()
	p := recorder.DefaultPlan()
	p.SampleRate = 8000
	p.Format, p.Suppressed, p.SegmentMax, p.Rules.ConsentRequired = format, recorder.SuppressedSilence, 2*time.Second, true
	r, err := recorder.New(recorder.Config{Policy: onePlan{p}, NewSink: plain.New(dir).NewSink, Synchronous: true})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	tap, err := r.SessionStarted(t.Context(), media.Session{ID: "call", SIPCallID: "call@test", Start: start})
	if err != nil {
		t.Fatal(err)
	}
	tap.Answered(start)
	in := tap.StreamStarted(media.Stream{At: start, Sending: true, Formats: []media.Format{{Name: "PCMU", ClockRate: 8000}}})
	for n := range 300 {
		if 20*n >= grantedMS && 20*n < grantedMS+20 && grantedMS >= 0 {
			if n > 0 {
				if list, _ := os.ReadDir(dir); len(list) > 0 {
					t.Errorf("%d ms before consent there is %s", grantedMS-20*n, list[0].Name())
				}
			}
			tap.Signal(suppress.Signal{V: 1, Event: suppress.ConsentGranted, At: at(grantedMS), Received: at(20 * n), Source: "test"})
		}
		wire := append([]byte{0x80, 0, byte(n >> 8), byte(n), 0, byte(160 * n >> 16), byte(160 * n >> 8), byte(160 * n), 0, 0, 0, 1}, make([]byte, 160)...)
		in.Put(at(20*n), wire)
	}
	tap.Ended(at(6000), media.CauseBye)
	all, err := r.Results()
	if err != nil || len(all) != 1 {
		t.Fatalf("%d recordings: %v", len(all), err)
	}
	m, sum := all[0], int64(0)
	for _, s := range m.Segments {
		if s.AudioMS != sum || s.RealMS != sum {
			t.Errorf("segment %+v begins at %d", s, sum)
		}
		sum += s.DurationMS
		info, err := os.Stat(filepath.Join(dir, "call", s.File))
		switch {
		case err != nil:
			t.Error(err)
		case format == recorder.FormatWAVPCM16 && info.Size() < 32*s.DurationMS:
			t.Errorf("segment %d of %d ms has %d bytes", s.N, s.DurationMS, info.Size())
		}
	}
	granted := grantedMS >= 0 && grantedMS < 6000
	if granted && (sum != 6000 || m.AudioMS != 6000) || !granted && sum+m.AudioMS != 0 {
		t.Errorf("segments of %d ms, audio %d ms of %d", sum, m.AudioMS, m.RealMS)
	}
}
