package vfs

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

var _ Grouper = OS{}

// group holds the directory open: the kernel tells an open file of the errors
// since it was opened (syncfs(2), from Linux 5.8 on).
type group struct{ dir *os.File }

// OpenGroup implements Grouper by syncfs(2), which flushes what other programs
// wrote to the file system as well. A server of FUSE need not be told of it.
func (OS) OpenGroup(dir string) (Group, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if int64(s.Type) == unix.FUSE_SUPER_MAGIC { //nolint:unconvert // its type differs between systems
		return nil, &fs.PathError{Op: "syncfs", Path: dir, Err: errors.ErrUnsupported}
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return group{d}, nil
}

func (g group) Sync() error {
	if err := unix.Syncfs(int(g.dir.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: g.dir.Name(), Err: err}
	}
	return nil
}

func (g group) Close() error { return g.dir.Close() }
