package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/vfs"
)

const (
	rewrapRateDefault = 50              // recordings a second, beside calls
	rewrapSaveEvery   = 5 * time.Second // how far it is
	rewrapAgain       = 30 * time.Second
	rewrapFindingsMax = 100
	rewrapDetailBytes = 300 // of a finding that is kept
	rewrapBytesMax    = 512 << 10
)

// rewrapRun is a job as it outlives the process.
type rewrapRun struct {
	Order api.RewrapOrder `json:"order"`
	By    api.Actor       `json:"by"`
	Began time.Time       `json:"began"`

	Active string               `json:"active,omitempty"` // key that wraps; another one begins anew
	Behind string               `json:"behind,omitempty"` // what was done
	So     archive.RewrapReport `json:"so,omitzero"`      // and what came of it
}

// rewrapJob is the one job of a daemon.
type rewrapJob struct {
	mu    sync.Mutex // guards all following
	state api.RewrapState
	stop  context.CancelCauseFunc // of the job that runs; nil: none does
	ended chan struct{}           // closed when it has
	over  bool                    // the daemon stops: no more are begun
}

// errCancelled ends a job for good.
var errCancelled = errors.New("cancelled by an operator")

func (w *keyWork) rewrapFile() string { return w.cfg.Storage.Spool + ".rewrap" }

// Rewrap implements api.Keys.
func (w *keyWork) Rewrap(ctx context.Context, o api.RewrapOrder, by api.Actor) (api.RewrapState, error) {
	run := rewrapRun{Order: o, By: by, Began: time.Now().UTC().Round(0)}
	if run.Order.PerSecond <= 0 {
		run.Order.PerSecond = rewrapRateDefault
	}
	what := "recordings " + rangeWhat(o.From, o.To)
	if err := w.trace(ctx, audit.Entry{Kind: audit.KindKeyRewrapped, Who: by.Who, From: by.From, What: what, Result: audit.ResultBegun}); err != nil {
		return api.RewrapState{}, noTrace(err)
	}
	if err := w.beginRewrap(run); err != nil {
		return api.RewrapState{}, w.done(ctx, audit.KindKeyRewrapped, what, by, err)
	}
	return w.Rewrapping(), nil
}

// rangeWhat tells of a range.
func rangeWhat(from, to time.Time) string {
	day := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.UTC().Format(time.DateOnly)
	}
	if from.IsZero() && to.IsZero() {
		return "of all days"
	}
	return "from " + day(from) + " to " + day(to)
}

func (w *keyWork) save(run rewrapRun) error {
	run.So = bounded(run.So)
	js, err := json.Marshal(run)
	if err != nil {
		return err
	}
	return vfs.WriteFile(vfs.OS{}, w.rewrapFile(), js)
}

// bounded is a report that fits the file: the findings that are left out are counted.
func bounded(r archive.RewrapReport) archive.RewrapReport {
	n := min(len(r.Findings), rewrapFindingsMax)
	r.Dropped += len(r.Findings) - n
	r.Findings = slices.Clone(r.Findings[:n])
	for i := range r.Findings {
		d := &r.Findings[i].Detail
		*d = strings.ToValidUTF8((*d)[:min(len(*d), rewrapDetailBytes)], "")
	}
	return r
}

// beginRewrap runs a job in a goroutine of its own.
func (w *keyWork) beginRewrap(run rewrapRun) error {
	j := &w.job
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stop != nil || j.over {
		return &recorder.RefusedError{Why: "keys are being rewrapped: wait for the end, or cancel it"}
	}
	if err := w.save(run); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(context.Background())
	ended := make(chan struct{})
	j.stop, j.ended = stop, ended
	j.state = api.RewrapState{State: "running", Began: run.Began, By: run.By.Who}
	go func() {
		defer close(ended)
		defer stop(nil)
		w.rewrap(ctx, run)
	}()
	return nil
}

// rewrap goes on until all is done, it is cancelled or the daemon stops. What only
// the key service keeps from going on is tried again.
func (w *keyWork) rewrap(ctx context.Context, run rewrapRun) {
	for {
		err := w.rewrapOnce(ctx, &run)
		if err != nil && ctx.Err() == nil && errors.Is(err, recorder.ErrKey) {
			w.job.set(func(s *api.RewrapState) { s.State, s.Error = "waiting", err.Error() })
			select {
			case <-time.After(rewrapAgain):
				continue
			case <-ctx.Done():
			}
		}
		w.endRewrap(ctx, run, err)
		return
	}
}

func (w *keyWork) rewrapOnce(ctx context.Context, run *rewrapRun) error {
	if active, err := w.sealer().ActiveKey(ctx); err == nil && active != run.Active {
		run.Active, run.Behind, run.So = active, "", archive.RewrapReport{}
	}
	saved := time.Now()
	q := archive.RewrapQuery{From: run.Order.From, To: run.Order.To, PerSecond: run.Order.PerSecond, Behind: run.Behind, So: run.So}
	q.At = func(mark string, r archive.RewrapReport) {
		w.job.set(func(s *api.RewrapState) { s.State, s.Error = "running", ""; rewrapTake(s, r) })
		run.Behind, run.So = mark, r
		if time.Since(saved) >= rewrapSaveEvery {
			saved = time.Now()
			_ = w.save(*run) // else more is looked at again
		}
	}
	r, err := w.archive.Rewrap(ctx, q, func(done, total int64) {
		w.job.set(func(s *api.RewrapState) { s.Done, s.Total = done, total })
	})
	w.job.set(func(s *api.RewrapState) { rewrapTake(s, r) })
	return err
}

// rewrapTake brings a state up to date.
func rewrapTake(s *api.RewrapState, r archive.RewrapReport) {
	s.Active, s.Rewrapped, s.Current, s.Live, s.Shredded = r.Active, r.Rewrapped, r.Current, r.Live, r.Shredded
	s.Failed, s.Findings = len(r.Findings)+r.Dropped, nil
	for _, f := range r.Findings[:min(len(r.Findings), rewrapFindingsMax)] {
		s.Findings = append(s.Findings, api.Finding(f))
	}
}

// rewrapWhat tells what came of it.
func rewrapWhat(s api.RewrapState) string {
	return fmt.Sprintf("%d rewrapped with %s, %d were current, %d go on, %d shredded, %d failed", s.Rewrapped, s.Active, s.Current, s.Live, s.Shredded, s.Failed)
}

// endRewrap tells of the end of a job. One that the daemon's end cut short stays.
func (w *keyWork) endRewrap(ctx context.Context, run rewrapRun, err error) {
	state := "done"
	switch {
	case errors.Is(context.Cause(ctx), errCancelled):
		state, err = "cancelled", errCancelled
	case ctx.Err() != nil:
		state = "waiting"
	case err != nil:
		state = "failed"
	}
	if state == "waiting" {
		_ = w.save(run) // else more is looked at again
	} else {
		_ = vfs.OS{}.Remove(w.rewrapFile()) // else it is run again, and finds nothing to do
	}
	s := w.job.end(state, err)
	if state == "waiting" {
		return
	}
	what := "recordings " + rangeWhat(run.Order.From, run.Order.To) + ": " + rewrapWhat(s)
	if err == nil && s.Failed > 0 {
		err = fmt.Errorf("%d keys were not rewrapped", s.Failed)
	}
	_ = w.done(ctx, audit.KindKeyRewrapped, what, run.By, err) // the log tells its own faults
	if w.tell != nil {
		w.tell("key.rewrapped", map[string]any{"state": state, "rewrapped": s.Rewrapped, "failed": s.Failed})
	}
}

func (j *rewrapJob) set(f func(*api.RewrapState)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(&j.state)
}

func (j *rewrapJob) end(state string, err error) api.RewrapState {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stop = nil
	j.state.State, j.state.Ended = state, time.Now().UTC().Round(0)
	if err != nil {
		j.state.Error = err.Error()
	}
	return j.state
}

// Rewrapping implements api.Keys.
func (w *keyWork) Rewrapping() api.RewrapState {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	s := w.job.state
	if s.State == "" {
		s.State = "idle"
	}
	return s
}

// CancelRewrap implements api.Keys.
func (w *keyWork) CancelRewrap(ctx context.Context, by api.Actor) (api.RewrapState, error) {
	j := &w.job
	j.mu.Lock()
	stop, ended := j.stop, j.ended
	j.mu.Unlock()
	if stop == nil {
		return w.Rewrapping(), w.done(ctx, audit.KindKeyRewrapped, "cancel", by, &recorder.RefusedError{Why: "nothing is being rewrapped"})
	}
	stop(errCancelled)
	select {
	case <-ended:
	case <-ctx.Done():
		return w.Rewrapping(), ctx.Err()
	}
	return w.Rewrapping(), w.done(ctx, audit.KindKeyRewrapped, "cancel", by, nil)
}

// resumeRewrap goes on with what a process before has begun.
func (w *keyWork) resumeRewrap() error {
	js, err := vfs.ReadFile(vfs.OS{}, w.rewrapFile(), rewrapBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var run rewrapRun
	if err == nil {
		err = json.Unmarshal(js, &run)
	}
	if err == nil {
		err = w.beginRewrap(run)
	}
	if err != nil {
		return fmt.Errorf("go on rewrapping keys: %w", err)
	}
	return nil
}

// stopRewrap lets a job wait for the next start.
func (w *keyWork) stopRewrap() error {
	w.job.mu.Lock()
	stop, ended := w.job.stop, w.job.ended
	w.job.over = true
	w.job.mu.Unlock()
	if stop != nil {
		stop(nil)
		<-ended
	}
	return nil
}
