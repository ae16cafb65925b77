package relay

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// waitMaxMS bounds how long a loop holds up the collector that wants to stop it.
	waitMaxMS = 1
	waitMax   = waitMaxMS * time.Millisecond
	forever   = ^uintptr(0) // as a time limit of epoll_wait
)

// await sleeps as long as it is told, then waits until there is something to
// read, and returns how many descriptors of events to look at. It may be 0.
//
// The Go scheduler is told of a system call that may block, takes the processor
// from the goroutine then, and has a thread look every 20 us for such calls. To a
// loop that waits a thousand times a second that costs more than its waiting. So
// where the scheduler has processors to spare, a busy loop keeps its own and
// waits for at most waitMax at a time. The garbage collector that wants it to stop
// sends the thread a signal, which ends the wait, and the next function that is
// called obeys: round is one.
func (l *loop) await(sleep time.Duration, brisk bool) int {
	if l.behind() {
		return l.poll(0, true)
	}
	if sleep > 0 {
		l.sleep(sleep)
		if n := l.poll(0, true); n > 0 {
			return n
		}
	}
	brisk = brisk && l.short
	l.setTicking(brisk && l.pace.max == 0 && l.pace.rate > paceFrom)
	switch {
	case l.ticking:
		return l.poll(forever, true)
	case brisk:
		return l.poll(waitMaxMS, true)
	}
	return l.poll(forever, false)
}

// setTicking starts or stops a timer that ends the loop's wait every waitMax. It is
// cheaper than a time limit of each wait when they are many. Nobody reads the
// timer: watched edge-triggered, it wakes all the same.
func (l *loop) setTicking(on bool) {
	if on == l.ticking {
		return
	}
	var spec unix.ItimerSpec
	if on {
		spec.Interval = unix.NsecToTimespec(int64(waitMax))
		spec.Value = spec.Interval
	}
	l.ticking = unix.TimerfdSettime(l.tick, 0, &spec, nil) == nil && on
}

// poll is epoll_wait. The Go scheduler is not told of a short one.
func (l *loop) poll(ms uintptr, short bool) int {
	var n uintptr
	var errno unix.Errno
	if short {
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), eventsMax, ms, 0, 0)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), eventsMax, ms, 0, 0)
	}
	switch errno {
	case 0:
		return int(n)
	case unix.EINTR:
		return 0
	default:
	}
	panic("epoll_pwait: " + errno.Error()) // EBADF, EFAULT, EINVAL: a bug of this file
}

// sleep lets packets gather. A signal, which may want the goroutine to stop, ends it early.
func (l *loop) sleep(d time.Duration) {
	var errno unix.Errno
	for ; d > 0 && errno == 0; d -= waitMax {
		l.nap = unix.NsecToTimespec(int64(min(d, waitMax)))
		if l.short {
			_, _, errno = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&l.nap)), 0, 0)
		} else {
			_, _, errno = unix.Syscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&l.nap)), 0, 0)
		}
	}
}
