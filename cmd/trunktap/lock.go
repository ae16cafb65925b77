package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
)

// lock makes this process the only one that writes to the archive: a second
// daemon would take the recordings of the first for those of a crash. The
// kernel frees the lock when the process ends, however it ends.
func lock(cfg *config.Config) (unlock func() error, err error) {
	path := cfg.Storage.Spool + ".lock"
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("lock the archive: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the archive: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return f.Close, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		err = fmt.Errorf("another trunktap works on this archive (it holds %s)", path)
	default:
		err = fmt.Errorf("lock the archive: %w", err)
	}
	return nil, errors.Join(err, f.Close())
}
