package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/trunktap/trunktap/recorder/archive"
)

type rebuildCmd struct {
	configFlag
	FromStart bool `help:"Begin anew, also when a run before was interrupted."`
	Progress  bool `help:"Show progress even when standard error is no terminal."`
}

// Run makes the catalogue anew. The daemon must not run: it owns the catalogue.
func (c *rebuildCmd) Run(e *env) (err error) {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	unlock, err := lock(cfg)
	if err != nil {
		return fmt.Errorf("rebuild catalogue: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	a, err := openArchive(e.ctx, cfg, nil)
	if err != nil {
		return fmt.Errorf("rebuild catalogue: %w", err)
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	p := newProgress(e.stderr, c.Progress)
	defer p.done()
	began, first := time.Now(), int64(-1)
	r, err := a.RebuildWith(e.ctx, archive.RebuildQuery{FromStart: c.FromStart}, func(done, total int64) {
		if first < 0 {
			first = done
		}
		p.tell("rebuilding: %s", pace(done-first, done, total, time.Since(began)))
	})
	p.done()
	if r.Resumed > 0 {
		_, _ = fmt.Fprintf(e.stderr, "went on with the rebuild of %s, which had %d recordings\n", r.Began.Format(time.RFC3339), r.Resumed)
	}
	if err != nil && e.ctx.Err() != nil {
		return fmt.Errorf("%w: run it again to go on, --from-start begins anew", err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%d recordings in the catalogue\n", r.Recordings)
	return err
}

// pace prints how far a task is that did n since it began, how fast it is, and how
// long it will take when that is known.
func pace(n, done, total int64, took time.Duration) string {
	s := of(done, total) + " recordings"
	rate := float64(n) / max(took.Seconds(), 0.001)
	if n <= 0 || took < time.Second {
		return s
	}
	s += fmt.Sprintf(", %.0f a second", rate)
	if total > done {
		s += ", " + time.Duration(float64(total-done)/rate*float64(time.Second)).Round(time.Second).String() + " left"
	}
	return s
}
