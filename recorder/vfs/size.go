package vfs

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// sized is a file system that knows how large it is.
type sized interface {
	Total(name string) (int64, error)
}

// Total returns the size of the file system below name in bytes: what an
// unprivileged process could have of it when it was empty. 0 when that is not
// known.
func Total(fsys FS, name string) int64 {
	if s, ok := fsys.(sized); ok {
		if n, err := s.Total(name); err == nil {
			return n
		}
	}
	return 0
}

// Total returns the size of the file system below name.
func (OS) Total(name string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(name, &s); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	reserved := s.Bfree - s.Bavail                                   // for root
	return (int64(s.Blocks) - int64(reserved)) * int64(s.Bsize), nil //nolint:unconvert // types differ between systems
}
