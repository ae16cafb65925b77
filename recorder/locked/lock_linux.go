package locked

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Works tells whether memory is locked on this system at all.
const Works = true

// lock maps pages that are neither swapped out nor dumped.
func lock(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map memory for keys: %w", err)
	}
	if err = unix.Mlock(b); err == nil {
		err = unix.Madvise(b, unix.MADV_DONTDUMP)
	}
	if err != nil {
		_ = unix.Munmap(b) // nothing was in it
		return nil, fmt.Errorf("lock memory for keys: %w (raise RLIMIT_MEMLOCK: LimitMEMLOCK= of systemd, --ulimit memlock= of docker)", err)
	}
	return b, nil
}
