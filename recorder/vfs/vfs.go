// Package vfs is the seam between the recorder and the file system: the few
// operations that durable files need, so that tests can crash and fail each one.
package vfs

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File is an open file. What was written survives a crash only after Sync.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	// Sync makes content and size durable, not the directory entry: see FS.SyncDir.
	Sync() error
	// Truncate changes the size in bytes.
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
}

// FS is a file system. Paths are those of package path/filepath. Safe for
// concurrent use.
type FS interface {
	// OpenFile opens like os.OpenFile.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Rename replaces newName in one step. It is durable after SyncDir of the
	// directory of newName. syscall.EXDEV when the two lie on different file systems.
	Rename(oldName, newName string) error
	Remove(name string) error
	// Mkdir makes one directory; fs.ErrExist when it is there.
	Mkdir(name string, perm fs.FileMode) error
	// ReadDir lists a directory in order of name.
	ReadDir(name string) ([]fs.DirEntry, error)
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
	// Free returns the bytes that an unprivileged process may still write below name.
	Free(name string) (int64, error)
}

// dirMode and fileMode keep recordings from everybody but the daemon's user.
const (
	dirMode  fs.FileMode = 0o700
	fileMode fs.FileMode = 0o600
)

// MkdirAll makes a directory and its missing parents, mode 0700, and makes
// each new entry durable.
func MkdirAll(fsys FS, dir string) error {
	info, err := fsys.Stat(dir)
	if err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: errors.New("is a file, not a directory")}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent == dir {
		return err
	}
	if err := MkdirAll(fsys, parent); err != nil {
		return err
	}
	err = fsys.Mkdir(dir, dirMode)
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = fsys.SyncDir(parent)
	}
	if err != nil {
		_ = fsys.Remove(dir) // else the next attempt finds it and takes it for durable
	}
	return err
}

// WriteFile replaces name by a file of the given content in one step, mode
// 0600: temporary file, fsync, rename, fsync of the directory. The temporary
// file lies beside it, with TempPrefix; it is removed when something fails.
func WriteFile(fsys FS, name string, content []byte) error {
	tmp, err := TempName(name)
	if err != nil {
		return err
	}
	if err := writeSynced(fsys, tmp, content); err != nil {
		_ = fsys.Remove(tmp) // the first error is the one to report
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		_ = fsys.Remove(tmp) // as above
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// Durable syncs a file, if there is one, and then the entries of directories.
func Durable(fsys FS, f File, dirs ...string) error {
	if f != nil {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	for _, d := range dirs {
		if err := fsys.SyncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// TempPrefix begins the names of files that are not finished. What bears it
// after a crash holds nothing that anybody was promised.
const TempPrefix = ".tmp-"

// TempName returns a fresh temporary name beside name.
func TempName(name string) (string, error) {
	var b [6]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("name a temporary file: %w", err)
	}
	dir, base := filepath.Split(name)
	return filepath.Join(dir, TempPrefix+hex.EncodeToString(b[:])+"-"+base), nil
}

func writeSynced(fsys FS, name string, content []byte) error {
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		_ = f.Close() // the write's error is the one to report
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close() // the sync's error is the one to report
		return err
	}
	return f.Close()
}

// ReadFile reads a file of at most maxBytes.
func ReadFile(fsys FS, name string, maxBytes int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > maxBytes {
		return nil, fmt.Errorf("read %s: longer than %d bytes", name, maxBytes)
	}
	return b, nil
}

// RemoveAll removes a directory and everything below it. A name that is not
// there is no error.
func RemoveAll(fsys FS, name string) error {
	info, err := fsys.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		entries, err := fsys.ReadDir(name)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := RemoveAll(fsys, filepath.Join(name, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
