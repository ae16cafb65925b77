package main

import (
	"errors"
	"fmt"
)

type rebuildCmd struct {
	configFlag
	Progress bool `help:"Show progress even when standard error is no terminal."`
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
	var recordings int64
	err = a.Rebuild(e.ctx, func(done, total int64) {
		recordings = done
		p.tell("rebuilding: %s recordings", of(done, total))
	})
	p.done()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%d recordings in the catalogue\n", recordings)
	return err
}
