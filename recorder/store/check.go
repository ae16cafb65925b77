package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// CheckError says why the store cannot take a recording and what to do.
type CheckError struct {
	Path string
	Hint string
	Err  error
}

// Error implements error.
func (e *CheckError) Error() string { return fmt.Sprintf("store %s: %v (%s)", e.Path, e.Err, e.Hint) }

// Unwrap returns the cause.
func (e *CheckError) Unwrap() error { return e.Err }

// ErrSpace says that too little space is free.
var ErrSpace = errors.New("too little free space")

// Check implements recorder.Store: enough space is free and a file can be written.
func (d *Dir) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return CheckDir(d.fsys, d.root, d.freeBytesMin)
}

// CheckDir tells whether files can be written below a directory now. Errors
// are *CheckError.
func CheckDir(fsys vfs.FS, dir string, freeBytesMin int64) error {
	free, err := fsys.Free(dir)
	if err != nil {
		return &CheckError{dir, "check that the directory exists and is mounted", err}
	}
	if free < freeBytesMin {
		return &CheckError{dir, "free some space, or shorten the retention", fmt.Errorf("%w: %d bytes, want %d", ErrSpace, free, freeBytesMin)}
	}
	tmp, err := vfs.TempName(filepath.Join(dir, "check"))
	if err != nil {
		return err
	}
	f, err := fsys.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &CheckError{dir, "make the directory writable for the daemon's user", err}
	}
	_, err = f.Write([]byte("trunktap"))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if rerr := fsys.Remove(tmp); err == nil {
		err = rerr
	}
	if err != nil {
		return &CheckError{dir, "check the disk", err}
	}
	return nil
}
