package relay

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
)

const (
	eventsMax  = 512
	streamsFew = 128 // are served by one loop, though there are several
	threadNice = -15

	timerSlackNS = 1000 // with the usual 50000 a sleep would take that much longer
	pageSize     = 1024 // sockets per page of a table
	pagesMax     = 1024
)

// table finds the socket of a file descriptor without a lock.
type table struct {
	mu    sync.Mutex // serialises set
	pages [pagesMax]atomic.Pointer[[pageSize]atomic.Pointer[fdSocket]]
}

func (t *table) get(fd int) *fdSocket {
	page := t.pages[fd/pageSize].Load()
	if page == nil {
		return nil
	}
	return page[fd%pageSize].Load()
}

func (t *table) set(fd int, f *fdSocket) error {
	if fd >= pageSize*pagesMax {
		return fmt.Errorf("file descriptor %d: the relay serves at most %d", fd, pageSize*pagesMax)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	page := t.pages[fd/pageSize].Load()
	if page == nil {
		page = new([pageSize]atomic.Pointer[fdSocket])
		t.pages[fd/pageSize].Store(page)
	}
	page[fd%pageSize].Store(f)
	return nil
}

// userEngine serves kernel sockets by event loops. All sockets of a stream
// belong to one loop.
type userEngine struct {
	cfg   Config
	socks table
	loops []*loop

	// stamping is a socket that nothing comes to. The kernel stamps packets as
	// they come only while some socket wants it, and takes its time to begin;
	// this one wants it as long as the relay lives.
	stamping *fdSocket
}

func newEngine(cfg Config) (engine, error) {
	if err := allowedCPUs(cfg.CPUs); err != nil {
		return nil, err
	}
	e := &userEngine{cfg: cfg}
	var err error
	if e.stamping, err = openStamping(); err != nil {
		return nil, err
	}
	for i := range cfg.Loops {
		l, err := newLoop(&e.socks, cfg)
		if err != nil {
			return nil, errors.Join(err, e.close())
		}
		if len(cfg.CPUs) > 0 {
			l.cpu = cfg.CPUs[i%len(cfg.CPUs)]
		}
		e.loops = append(e.loops, l)
		go l.run()
	}
	return e, nil
}

func (e *userEngine) bind(at netip.AddrPort) (socket, error) {
	f, err := openUDP(at, e.cfg)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// attach gives the stream to the first loop that has only a few, so that a
// relay with little to do wakes one thread and not all; else to the loop that
// has the fewest.
func (e *userEngine) attach(s *Stream) error {
	l := e.loops[0]
	for _, other := range e.loops[1:] {
		if n := l.streams.Load(); n >= streamsFew && other.streams.Load() < n {
			l = other
		}
	}
	s.place = l
	for side := range s.ends {
		for k, sock := range s.ends[side].opened() {
			f := sock.(*fdSocket)
			f.stream, f.side, f.kind, f.loop = s, media.Side(side), kind(k), l
			if err := l.add(f); err != nil {
				l.readOut(s)
				return err
			}
		}
	}
	l.streams.Add(1)
	return nil
}

func (e *userEngine) settle(s *Stream) { s.place.(*loop).settle() }

func (e *userEngine) run(s *Stream, f func()) {
	s.place.(*loop).ask(&errand{do: f, done: make(chan struct{})})
}

func (e *userEngine) detach(s *Stream) error {
	l := s.place.(*loop)
	l.streams.Add(-1)
	l.readOut(s)
	var errs []error
	for i := range s.ends {
		for _, sock := range s.ends[i].opened() {
			errs = append(errs, sock.close())
		}
	}
	return errors.Join(errs...)
}

func (e *userEngine) close() error {
	errs := []error{e.stamping.close()}
	for _, l := range e.loops {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// loop is one event loop: it waits for readable sockets and relays what they
// hold, a batch at a time.
type loop struct {
	// constant after construction
	socks *table
	epoll int
	wake  int  // eventfd
	tick  int  // timerfd
	cpu   int  // that it is bound to; negative: any
	short bool // it may keep its processor of the Go scheduler while it waits for a short time
	done  chan struct{}

	streams atomic.Int32

	// owned by run
	base     time.Time
	pace     pace
	events   [eventsMax]unix.EpollEvent
	again    []int32 // descriptors of sockets that held more than a batch
	turn     []int32 // the one before
	nap      unix.Timespec
	ticking  bool
	in       *inbound
	out      [2]*outbound // RTP, RTCP
	sealed   []byte       // what is protected, a place for each of a batch; only the pages that packets touch become resident
	taken    [batchPackets]bool
	arrivals [batchPackets]time.Time
	errands  []*errand

	mu    sync.Mutex // guards all following
	asked []*errand  // that run does not have yet
	stop  bool
}

func newLoop(socks *table, cfg Config) (*loop, error) {
	l := &loop{
		socks: socks, cpu: -1, short: runtime.GOMAXPROCS(0) > cfg.Loops, done: make(chan struct{}),
		base: time.Now(), pace: pace{max: max(0, cfg.CoalesceMax)},
		in: newInbound(), out: [2]*outbound{newOutbound(), newOutbound()},
		sealed: make([]byte, batchPackets*(bufferStride+srtp.OverheadBytesMax)),
	}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), unix.Close(l.epoll))
	}
	if l.tick, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC); err != nil {
		return nil, errors.Join(os.NewSyscallError("timerfd_create", err), unix.Close(l.wake), unix.Close(l.epoll))
	}
	if err = errors.Join(l.watch(l.wake, unix.EPOLLIN), l.watch(l.tick, unix.EPOLLIN|unix.EPOLLET)); err != nil {
		return nil, errors.Join(err, l.closeOwn())
	}
	return l, nil
}

func (l *loop) watch(fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &ev))
}

// add watches a socket for arrivals: edge-triggered, so that the kernel does not
// ask the socket again after it was read.
func (l *loop) add(f *fdSocket) error {
	if err := l.socks.set(f.fd, f); err != nil {
		return err
	}
	return l.watch(f.fd, unix.EPOLLIN|unix.EPOLLET)
}

func (l *loop) close() error {
	l.mu.Lock()
	l.stop = true
	l.mu.Unlock()
	l.rouse()
	<-l.done
	return l.closeOwn()
}

func (l *loop) closeOwn() error {
	return errors.Join(unix.Close(l.tick), unix.Close(l.wake), unix.Close(l.epoll))
}

func (l *loop) rouse() {
	one := [8]byte{1, 1}              // any number but zero, in either byte order
	_, _ = unix.Write(l.wake, one[:]) // fails only when the counter is full, and then it is awake
}

// run is the loop's goroutine.
func (l *loop) run() {
	defer close(l.done)
	runtime.LockOSThread() // never unlocked: the thread ends with the loop
	l.prepareThread()
	var sleep time.Duration
	brisk := false
	for {
		n := l.await(sleep, brisk)
		packets, stop := l.round(n)
		if stop {
			return
		}
		full := n == eventsMax || l.behind()
		sleep, brisk = l.pace.next(time.Since(l.base), packets, full)
	}
}

// prepareThread binds the loop's thread and asks that it be preferred to the
// threads that record. Without the right to (CAP_SYS_NICE) it is as good as any other.
func (l *loop) prepareThread() {
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), threadNice)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlackNS, 0, 0, 0) // without, some waits are longer
	if l.cpu >= 0 {
		var set unix.CPUSet
		set.Set(l.cpu)
		_ = unix.SchedSetaffinity(0, &set) // allowedCPUs has been asked
	}
}

// allowedCPUs returns an error when the process may not run on one of the CPUs.
func allowedCPUs(cpus []int) error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	for _, cpu := range cpus {
		if !set.IsSet(cpu) {
			return fmt.Errorf("loop on CPU %d: this process may not run on it (taskset -cp PID tells on which)", cpu)
		}
	}
	return nil
}

// round serves the sockets of the first n events, then those that held more
// than a batch the last time, then does its errands: last, because what they end
// may be among the others.
func (l *loop) round(n int) (packets int, stop bool) {
	l.turn, l.again = l.again, l.turn[:0]
	roused := false
	for _, ev := range l.events[:n] {
		if int(ev.Fd) == l.wake {
			roused = true
			continue
		}
		packets += l.visit(ev.Fd)
	}
	for _, fd := range l.turn {
		packets += l.visit(fd)
	}
	if roused {
		stop = l.roused()
	}
	return packets + l.runErrands(), stop
}

// visit relays one batch of a socket. What is left in it raises no event: the
// next round comes back to it.
func (l *loop) visit(fd int32) (packets int) {
	f := l.socks.get(int(fd))
	if f == nil || f.loop != l {
		return 0 // closed meanwhile, and its number may be another socket's
	}
	if packets, _ = l.serve(f, 0); packets == batchPackets {
		l.again = append(l.again, fd)
	}
	return packets
}

// roused takes what the loop was asked for, and tells whether it is to end.
func (l *loop) roused() (stop bool) {
	var count [8]byte
	_, _ = unix.Read(l.wake, count[:]) // resets it; empty is fine
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errands = append(l.errands, l.asked...)
	clear(l.asked)
	l.asked = l.asked[:0]
	return l.stop
}

// serve relays one batch from a socket: decide and overlay, forward all, then
// tap. It returns how many packets it read, and allocates nothing. What arrived
// after until (nanoseconds of the wall clock; 0: no end) is not looked at and
// makes past true.
func (l *loop) serve(f *fdSocket, until int64) (packets int, past bool) {
	n := l.in.receive(f.fd)
	if n == 0 {
		return 0, false
	}
	now := time.Now()
	wall := now.UnixNano()
	youngest := time.Duration(math.MinInt64)
	if until != 0 {
		youngest = time.Duration(wall - until)
	}
	s := f.stream
	r := s.refresh()
	s.rekey()
	for i := range n {
		age, lost := l.in.control(i, wall)
		l.arrivals[i] = now.Add(-plausible(age))
		f.countOverrun(lost)
		if l.taken[i] = false; age < youngest {
			past = true
			continue
		}
		wire, ok := s.unprotect(r, f.side, f.kind, l.in.from(i), l.in.wire(i), l.arrivals[i])
		if !ok {
			continue
		}
		l.in.shorten(i, len(wire))
		rtcp, ok := s.accept(r, f.side, f.kind, l.in.from(i), wire, l.arrivals[i])
		if l.taken[i] = ok; !ok {
			continue
		}
		if s.receiveOnly {
			s.observe(rtcp, wire, l.arrivals[i])
		}
		// What an overlay returns lasts until its next packet, a batch longer.
		if out := s.overlay(f.side, rtcp, l.arrivals[i], wire); unsafe.SliceData(out) != unsafe.SliceData(wire) {
			l.in.replace(i, out)
		}
		l.seal(s, f.side, rtcp, i)
	}
	s.recheck(r, f.side)
	for group := range l.out {
		l.forward(s, r, f.side, kind(group))
	}
	l.reveal(s, r, f, n)
	s.tapBegin(f.side)
	for i := 0; i < n; {
		i = l.tap(s, f.side, i, n)
	}
	s.tapEnd(r, f.side)
	for i := range n {
		l.in.arm(i)
	}
	return n, past
}

// seal puts an accepted packet among those to be forwarded.
func (l *loop) seal(s *Stream, from media.Side, rtcp bool, i int) {
	const stride = bufferStride + srtp.OverheadBytesMax
	wire, ok := s.protect(from.Other(), rtcp, l.sealed[i*stride:(i+1)*stride:(i+1)*stride], l.in.wire(i))
	if !ok {
		return
	}
	group := kindRTP
	if rtcp {
		group = kindRTCP
	}
	l.out[group].add(wire)
}

// forward sends the RTP or the RTCP of a batch to the other side.
func (l *loop) forward(s *Stream, r *route, from media.Side, group kind) {
	out := l.out[group]
	n := out.n
	if n == 0 {
		return
	}
	c := &s.stats[from]
	k, to, ok := s.destination(r, from.Other(), group == kindRTCP)
	if !ok {
		out.n = 0
		s.unroutable(c, uint64(n))
		return
	}
	sent := out.flush(s.ends[from.Other()].socks[k].(*fdSocket).fd, to)
	c.forwarded.Add(uint64(sent))
	if sent < n {
		c.sendErrors.Add(uint64(n - sent))
	}
}

// reveal decrypts what was forwarded protected, for the tap.
func (l *loop) reveal(s *Stream, r *route, f *fdSocket, n int) {
	if s.sec.sides[f.side].mode != srtp.Passed {
		return
	}
	for i := range n {
		if !l.taken[i] {
			continue
		}
		plain, ok := s.reveal(r, f.side, f.kind, l.in.wire(i), l.arrivals[i])
		l.taken[i] = ok
		l.in.shorten(i, len(plain))
	}
}

// tap copies the accepted packets from the i-th on into the side's tap. It
// returns where to go on: after the packet that made a tap panic, else n.
func (l *loop) tap(s *Stream, side media.Side, i, n int) (next int) {
	slot := s.taps[side].Load()
	if slot == nil {
		return n
	}
	defer s.tapFailed(side, slot)
	for next = i; next < n; {
		at := next
		next++
		if l.taken[at] {
			slot.tap.Put(l.arrivals[at], l.in.wire(at))
		}
	}
	return next
}
