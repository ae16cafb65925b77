package relay

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// When a stream is closed, packets may wait in its sockets that came before: more
// of them the later the loop is. They belong to the call, so the loop reads them
// out, a batch in turn with all its other work.

const (
	// readOutMax bounds how long a closing stream is read out, and abandonBatches
	// how much is counted of what it leaves then.
	readOutMax     = 250 * time.Millisecond
	abandonBatches = 256
)

// errand is what somebody waits for the loop to do: to finish what it is at,
// and to read out sockets that are to be closed.
type errand struct {
	done chan struct{}
	do   func() // first of all, once; nil: nothing

	// the loop's once it was asked
	socks []*fdSocket // that may hold something
	until int64       // nanoseconds of the wall clock; what came later does not count
	over  time.Time   // when to give up
}

// settle returns when the batch that is being handled now is through.
func (l *loop) settle() { l.ask(&errand{done: make(chan struct{})}) }

// readOut relays what came to the sockets of a stream before, by the kernel's
// time stamps. When it returns the loop never touches them again: closing them
// takes them out of the epoll set.
func (l *loop) readOut(s *Stream) {
	now := time.Now()
	v := &errand{until: now.UnixNano(), over: now.Add(readOutMax), done: make(chan struct{}), socks: make([]*fdSocket, 0, 4)}
	for i := range s.ends {
		for _, sock := range s.ends[i].opened() {
			f := sock.(*fdSocket)
			if l.socks.get(f.fd) != f {
				continue // attach failed before it
			}
			_ = l.socks.set(f.fd, nil) // fits: it was set before
			v.socks = append(v.socks, f)
		}
	}
	l.ask(v)
}

// ask returns when the loop has run the errand, or has ended.
func (l *loop) ask(v *errand) {
	l.mu.Lock()
	stop := l.stop
	if !stop {
		l.asked = append(l.asked, v)
	}
	l.mu.Unlock()
	if stop {
		<-l.done
		return
	}
	l.rouse()
	select {
	case <-v.done:
	case <-l.done:
	}
}

// behind tells whether the loop has work that no event will tell of.
func (l *loop) behind() bool { return len(l.again)+len(l.errands) > 0 }

// runErrands reads a batch from each socket that is being closed, and lets
// those go whose errand is done.
func (l *loop) runErrands() (packets int) {
	if len(l.errands) == 0 {
		return 0
	}
	now := time.Now()
	rest := l.errands[:0]
	for _, v := range l.errands {
		if v.do != nil {
			v.do()
			v.do = nil
		}
		left := v.socks[:0]
		for _, f := range v.socks {
			n, past := l.serve(f, v.until)
			packets += n
			switch {
			case n < batchPackets || past:
				f.countOverrun(f.drops())
			case now.After(v.over):
				l.abandon(f, v.until)
			default:
				left = append(left, f)
			}
		}
		if v.socks = left; len(left) > 0 {
			rest = append(rest, v)
		} else {
			close(v.done)
		}
	}
	clear(l.errands[len(rest):])
	l.errands = rest
	return packets
}

// abandon counts as lost what a socket still holds.
func (l *loop) abandon(f *fdSocket, until int64) {
	n := batchPackets
	for turn := 0; turn < abandonBatches && n == batchPackets; turn++ {
		n = l.in.receive(f.fd)
		wall := time.Now().UnixNano()
		for i := range n {
			if age, _ := l.in.control(i, wall); age >= time.Duration(wall-until) {
				f.stream.stats[f.side].overrun.Add(1)
			}
			l.in.arm(i)
		}
	}
	f.countOverrun(f.drops())
}

// drops asks for the number of datagrams that did not fit the receive buffer: 0
// when the kernel does not say. Packets that came after the loss tell it as well.
func (f *fdSocket) drops() uint32 {
	const dropsAt = 8 // SK_MEMINFO_DROPS of linux/sock_diag.h
	var info [dropsAt + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(f.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || size != uint32(unsafe.Sizeof(info)) {
		return 0
	}
	return info[dropsAt]
}
