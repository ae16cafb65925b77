package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/trunktap/trunktap/recorder/catalog"
)

type backupCmd struct {
	configFlag
	Out  string `help:"File to write; it must not exist." placeholder:"FILE" required:"" short:"o"`
	Copy bool   `help:"Of SQLite: a copy of the database, not the text that fits either engine."`
}

// Run writes the catalogue as it is now. The daemon may go on.
func (c *backupCmd) Run(e *env) (err error) {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	cat, err := catalog.OpenURL(e.ctx, cfg.Catalog.URL, catalogOptions(cfg))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cat.Close()) }()
	f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("back up the catalogue: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(c.Out) // half a backup is none
		}
	}()
	if c.Copy {
		// SQLite writes into an empty file, whose mode it keeps.
		err = errors.Join(f.Close(), cat.CopyTo(e.ctx, c.Out))
		if err == nil {
			f, err = os.OpenFile(c.Out, os.O_RDWR, 0)
		}
		if err != nil {
			return fmt.Errorf("back up the catalogue: %w", err)
		}
		return errors.Join(f.Sync(), f.Close(), syncDir(c.Out))
	}
	n, err := cat.Backup(e.ctx, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("back up the catalogue: %w", err)
	}
	if err := syncDir(c.Out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%d recordings in the backup\n", n)
	return err
}

// syncDir makes the entry of a file durable.
func syncDir(file string) error {
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type restoreCmd struct {
	configFlag
	File string `arg:"" help:"Backup to read."`
}

// Run brings rows back into the catalogue. The daemon must not run.
func (c *restoreCmd) Run(e *env) (err error) {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	unlock, err := lock(cfg)
	if err != nil {
		return fmt.Errorf("restore the catalogue: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("restore the catalogue: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	cat, err := catalog.OpenURL(e.ctx, cfg.Catalog.URL, catalogOptions(cfg))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cat.Close()) }()
	n, err := cat.Restore(e.ctx, f)
	if err != nil {
		return fmt.Errorf("restore the catalogue: %w", err)
	}
	_, err = fmt.Fprintf(e.stdout, "%d recordings restored\n", n)
	return err
}
