package archive

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// beNice gives the calling goroutine a thread of its own with the least
// priority; the thread ends with the goroutine. Not SCHED_IDLE: the collector
// must wait for a thread that is in Go code, and on a busy machine such a one
// would hardly ever run.
func beNice() {
	runtime.LockOSThread()
	const least = 19
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), least) // else it works at the usual priority
}
