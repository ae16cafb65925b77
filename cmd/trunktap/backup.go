package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/catalog"
)

type backupCmd struct {
	configFlag
	Out  string `help:"File to write; it must not exist." placeholder:"FILE" required:"" short:"o"`
	Copy bool   `help:"Of SQLite: a copy of the database, not the text that fits either engine."`
}

// backupSource is the catalogue that is backed up.
type backupSource interface {
	Backup(ctx context.Context, to io.Writer) (int64, error)
	CopyTo(ctx context.Context, path string) error
	Close() error
}

// Run writes the catalogue as it is now. The daemon may go on.
func (c *backupCmd) Run(e *env) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	cat, err := catalog.OpenURL(e.ctx, cfg.Catalog.URL, catalogOptions(cfg))
	if err != nil {
		return err
	}
	if err := trace(cfg, audit.KindList, "", "backup of the catalogue"); err != nil {
		return errors.Join(err, cat.Close())
	}
	return c.from(e, cat)
}

// from backs up and closes the catalogue. What is told last is how it ended: a server
// that cannot be taken leave of makes a whole backup no worse.
func (c *backupCmd) from(e *env, cat backupSource) (err error) {
	f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("back up the catalogue: %w", errors.Join(err, cat.Close()))
	}
	defer func() {
		if err != nil {
			_ = os.Remove(c.Out) // half a backup is none
		}
	}()
	told := ""
	if c.Copy {
		err = c.copyTo(e.ctx, cat, f)
	} else {
		var n int64
		n, err = cat.Backup(e.ctx, f)
		err = errors.Join(err, f.Sync(), f.Close())
		told = fmt.Sprintf("%d recordings in the backup\n", n)
	}
	if err == nil {
		err = syncDir(c.Out)
	}
	closed := cat.Close()
	if err != nil {
		return fmt.Errorf("back up the catalogue: %w", errors.Join(err, closed))
	}
	if closed != nil {
		e.note("the backup is whole; then: %v", closed)
	}
	_, err = io.WriteString(e.stdout, told)
	return err
}

// copyTo has SQLite write into an empty file, whose mode it keeps.
func (c *backupCmd) copyTo(ctx context.Context, cat backupSource, f *os.File) error {
	err := errors.Join(f.Close(), cat.CopyTo(ctx, c.Out))
	if err == nil {
		f, err = os.OpenFile(c.Out, os.O_RDWR, 0)
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
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
	n, err := cat.Restore(e.ctx, f)
	closed := cat.Close()
	if err != nil {
		return fmt.Errorf("restore the catalogue: %w", errors.Join(err, closed))
	}
	if closed != nil {
		e.note("the rows are saved; then: %v", closed)
	}
	_, err = fmt.Fprintf(e.stdout, "%d recordings restored\n", n)
	return err
}
