package b2bua

import (
	"os"

	"golang.org/x/sys/unix"
)

// descriptorsPerCall is what one audio stream takes: RTP and RTCP on two sides.
const descriptorsPerCall = 4

// makeRoom lets the process's table of file descriptors have its final size
// before calls come. The kernel doubles it when it is full, and where there are
// threads it waits for an RCU grace period then: for 10 to 20 ms nobody opens a
// socket, and every call that begins meanwhile rings so much later.
func makeRoom(calls int) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur < 2 {
		return
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return
	}
	defer func() { _ = null.Close() }() // nothing was written
	last := min(uint64(calls)*descriptorsPerCall, limit.Cur-1)
	if fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, int(last)); err == nil {
		_ = unix.Close(fd) // the table stays as large
	}
}
