package vfstest

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// ErrCrashed is what every operation returns after the machine has died.
var ErrCrashed = errors.New("vfstest: the machine is dead")

// Kind is how the named operation fails.
type Kind int

// Kinds of faults.
const (
	Fail       Kind = iota // it does nothing and returns Err
	ShortWrite             // a write writes half and returns Err; others as Fail
	DoneButErr             // it does its work and returns Err all the same
	Crash                  // it does its work, everything later returns ErrCrashed
	FailFrom               // it and everything later return Err, up to Until
	Slow                   // it does its work after Delay
)

// String returns the kind's name.
func (k Kind) String() string {
	return [...]string{"fail", "short write", "done but error", "crash", "fail from here", "slow"}[k]
}

// Faults is a file system that fails its At-th operation (from 1; 0 fails
// none). Every call that can fail on a real machine counts, those of files
// included.
type Faults struct {
	FS    vfs.FS
	At    int
	Kind  Kind
	Err   error
	Until int           // of FailFrom: the first operation that works again; 0: none
	Delay time.Duration // of Slow

	mu   sync.Mutex
	ops  int
	last string
	when time.Time
}

// Ops returns how many operations were asked for.
func (f *Faults) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Hit names the operation that failed; empty when At was not reached.
func (f *Faults) Hit() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// When tells when the operation failed.
func (f *Faults) When() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.when
}

// step counts an operation, runs do as far as the fault allows it and returns
// the error to give.
func (f *Faults) step(op, name string, do func() error, half func()) error {
	f.mu.Lock()
	f.ops++
	n := f.ops
	if n == f.At {
		f.last = fmt.Sprintf("%s %s (operation %d, %s)", op, name, n, f.Kind)
		f.when = time.Now()
	}
	f.mu.Unlock()
	switch {
	case f.At == 0 || n < f.At:
		return do()
	case n > f.At:
		switch {
		case f.Kind == Crash:
			return ErrCrashed
		case f.Kind == FailFrom && (f.Until == 0 || n < f.Until):
			return f.Err
		default:
			return do()
		}
	}
	switch f.Kind {
	case Crash:
		return do()
	case Slow:
		time.Sleep(f.Delay) // of a synctest bubble
		return do()
	case DoneButErr:
		_ = do() // the injected error wins
		return f.Err
	case ShortWrite:
		if half != nil {
			half()
		}
	case Fail, FailFrom:
	}
	return f.Err
}

// OpenFile implements vfs.FS.
func (f *Faults) OpenFile(name string, flag int, perm fs.FileMode) (out vfs.File, err error) {
	var file vfs.File
	err = f.step("open", name, func() (err error) {
		file, err = f.FS.OpenFile(name, flag, perm)
		return err
	}, nil)
	if err != nil {
		if file != nil {
			_ = file.Close() // opened, but the caller never sees it
		}
		return nil, err
	}
	return &faultFile{f: f, file: file, name: name}, nil
}

// Rename implements vfs.FS.
func (f *Faults) Rename(o, n string) error {
	return f.step("rename", n, func() error { return f.FS.Rename(o, n) }, nil)
}

// Remove implements vfs.FS.
func (f *Faults) Remove(name string) error {
	return f.step("remove", name, func() error { return f.FS.Remove(name) }, nil)
}

// Mkdir implements vfs.FS.
func (f *Faults) Mkdir(name string, perm fs.FileMode) error {
	return f.step("mkdir", name, func() error { return f.FS.Mkdir(name, perm) }, nil)
}

// SyncDir implements vfs.FS.
func (f *Faults) SyncDir(name string) error {
	return f.step("syncdir", name, func() error { return f.FS.SyncDir(name) }, nil)
}

// ReadDir implements vfs.FS.
func (f *Faults) ReadDir(name string) (out []fs.DirEntry, err error) {
	err = f.step("readdir", name, func() (err error) {
		out, err = f.FS.ReadDir(name)
		return err
	}, nil)
	return out, err
}

// Stat implements vfs.FS.
func (f *Faults) Stat(name string) (out fs.FileInfo, err error) {
	err = f.step("stat", name, func() (err error) {
		out, err = f.FS.Stat(name)
		return err
	}, nil)
	return out, err
}

// Total is that of the file system behind it, which has no faults of its own.
func (f *Faults) Total(name string) (int64, error) { return vfs.Total(f.FS, name), nil }

// Free implements vfs.FS.
func (f *Faults) Free(name string) (n int64, err error) {
	err = f.step("statfs", name, func() (err error) {
		n, err = f.FS.Free(name)
		return err
	}, nil)
	return n, err
}

type faultFile struct {
	f    *Faults
	file vfs.File
	name string
}

func (f *faultFile) Read(p []byte) (n int, err error) {
	err = f.f.step("read", f.name, func() (err error) {
		n, err = f.file.Read(p)
		return err
	}, nil)
	return n, err
}

func (f *faultFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.f.step("read", f.name, func() (err error) {
		n, err = f.file.ReadAt(p, off)
		return err
	}, nil)
	return n, err
}

func (f *faultFile) Write(p []byte) (n int, err error) {
	err = f.f.step("write", f.name, func() (err error) {
		n, err = f.file.Write(p)
		return err
	}, func() { n, _ = f.file.Write(p[:len(p)/2]) }) // the injected error wins
	return n, err
}

func (f *faultFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.f.step("write", f.name, func() (err error) {
		n, err = f.file.WriteAt(p, off)
		return err
	}, func() { n, _ = f.file.WriteAt(p[:len(p)/2], off) }) // as above
	return n, err
}

func (f *faultFile) Sync() error { return f.f.step("fsync", f.name, f.file.Sync, nil) }

func (f *faultFile) Truncate(size int64) error {
	return f.f.step("truncate", f.name, func() error { return f.file.Truncate(size) }, nil)
}

func (f *faultFile) Stat() (out fs.FileInfo, err error) {
	err = f.f.step("stat", f.name, func() (err error) {
		out, err = f.file.Stat()
		return err
	}, nil)
	return out, err
}

func (f *faultFile) Close() error { return f.f.step("close", f.name, f.file.Close, nil) }
