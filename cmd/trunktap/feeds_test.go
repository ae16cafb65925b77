package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/suppress"
	"github.com/trunktap/trunktap/suppress/feed"
)

// waitingFeed is a source that runs until it is ended.
type waitingFeed struct{}

func (waitingFeed) Name() string { return "ami:pbx1" }
func (waitingFeed) Run(ctx context.Context, emit func(suppress.Signal)) error {
	emit(suppress.Signal{Event: suppress.PauseStart})
	<-ctx.Done()
	return nil
}
func (waitingFeed) Status() feed.Status { return feed.Status{Connected: true, Signals: 1} }

// A source that lacks something at the start begins when it is there.
func TestFeedThatBeginsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var there atomic.Bool
		begin := func() (feed.Source, error) {
			if !there.Load() {
				return nil, os.ErrNotExist
			}
			return waitingFeed{}, nil
		}
		f := newLateFeed("ami:pbx1", begin, os.ErrNotExist)
		signals := 0
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx, func(suppress.Signal) { signals++ }) }()
		time.Sleep(3 * lateFeedRetry / 2)
		synctest.Wait()
		if s := f.Status(); s.Connected || s.LastError == "" || f.Name() != "ami:pbx1" || signals != 0 {
			t.Errorf("without its secret: %+v, %d signals", s, signals)
		}
		there.Store(true)
		time.Sleep(lateFeedRetry)
		synctest.Wait()
		if s := f.Status(); !s.Connected || s.LastError != "" || signals != 1 {
			t.Errorf("with its secret: %+v, %d signals", s, signals)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// What a source lacks is told by the check, and no reason to take no calls.
func TestFeedsThatLackTheirSecret(t *testing.T) {
	dir := t.TempDir()
	secret, empty, wav := filepath.Join(dir, "secret"), filepath.Join(dir, "empty"), filepath.Join(dir, "notice.wav")
	mustWrite(t, secret, "s3cret\n")
	mustWrite(t, empty, "")
	mustWrite(t, wav, "no sound")
	for _, tt := range []struct {
		secret, announce string
		faults           []string
	}{
		{secret, "", nil},
		{empty, "", []string{"signals.ami[0]", "signals.esl[0]", "one line with a secret"}},
		{filepath.Join(dir, "missing"), "", []string{"signals.ami[0]", "signals.esl[0]", "no such file"}},
		{secret, wav, []string{"announcement of trunk carrier", wav}},
	} {
		announce := ""
		if tt.announce != "" {
			announce = "announce: " + tt.announce
		}
		cfg := mustConfig(t, announce, "", fmt.Sprintf(`signals:
  ami: [{name: a, address: "127.0.0.1:5038", username: u, secret_file: %[1]s, trunks: [PJSIP/x]}]
  esl: [{name: e, address: "127.0.0.1:8021", password_file: %[1]s, trunks: {gateways: [x]}}]
`, tt.secret))
		if feeds, _ := newFeeds(cfg, slog.New(slog.DiscardHandler)); len(feeds) != 2 || feeds[0].Name() != "ami:a" || feeds[1].Name() != "esl:e" {
			t.Errorf("%s: sources %v", tt.secret, feeds)
		}
		err := checkFiles(cfg, slog.New(slog.DiscardHandler))
		if (err == nil) != (tt.faults == nil) {
			t.Errorf("%s: %v", tt.secret, err)
		}
		for _, want := range tt.faults {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v lacks %q", tt.secret, err, want)
			}
		}
	}
}
