package seal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// A key file may be shared by the processes of one machine, or of several on a file
// system that knows locks (NFS 4, and whatever passes flock(2) on): the daemons of a
// cluster, and commands beside a daemon.

const (
	keyLockWait = 30 * time.Second // for another process that changes the file
	keyLockPoll = 10 * time.Millisecond
)

// lock makes this process the only one that changes the key file. The kernel frees
// the lock when the process ends, however it ends.
func (l *Local) lock() (unlock func(), err error) {
	name := l.path + ".lock"
	f, err := l.fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &KeyFileError{name, "make its directory writable for the daemon's user", err}
	}
	locked, ok := f.(interface{ Fd() uintptr })
	if !ok { // a file system in memory, of one process
		return func() { _ = f.Close() }, nil // nothing was written
	}
	for deadline := time.Now().Add(keyLockWait); ; time.Sleep(keyLockPoll) {
		err = syscall.Flock(int(locked.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(deadline) {
			break
		}
	}
	if err == nil {
		return func() { _ = f.Close() }, nil // which unlocks
	}
	_ = f.Close() // the first error is the one to report
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, &KeyFileError{name, "see which process that uses the key file hangs", fmt.Errorf("another process has held it for %v", keyLockWait)}
	}
	return nil, &KeyFileError{name, "put the key file onto a file system that knows locks", err}
}

// sameFile tells whether a file is still what it was. One that is only in memory is
// not known to be.
func sameFile(was, is fs.FileInfo) bool {
	return was.ModTime().Equal(is.ModTime()) && was.Size() == is.Size() && os.SameFile(was, is)
}

// follow returns the keys as they are in the file now: what another process has
// retired must not wrap anything any more. While the file cannot be read those that
// were read last go on.
func (l *Local) follow() *keks {
	k := l.current()
	if info, err := l.fsys.Stat(l.path); err != nil || sameFile(k.info, info) {
		return k
	}
	if _, err := l.reload(); err != nil {
		return k
	}
	now := l.current()
	if l.Envelope != nil && now.primary != k.primary {
		l.tell(EventRotated, map[string]string{"key": now.primary, "before": k.primary})
	}
	return now
}

// Renew finds out whether another process has rotated the key.
func (l *Local) Renew(context.Context) error {
	_ = l.follow()
	return nil
}
