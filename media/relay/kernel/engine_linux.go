package kernel

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Engine is the program, its flows and the goroutines that fetch the copies.
// Safe for concurrent use.
type Engine struct {
	// constant after Open
	cfg     Config
	obj     *objects
	lock    *os.File // on the directory of pins; nil: nothing is pinned
	notice  error    // why nothing is pinned although it was asked for
	dir     string
	rings   []*ring
	nl      *netlink
	flowMem []byte
	cpuMem  []byte
	states  []flowState // shared with the program
	cpus    []cpuState  // the same
	base    time.Time
	baseNS  int64 // CLOCK_MONOTONIC at base

	live    []atomic.Pointer[Flow] // by place
	active  atomic.Int64
	secured atomic.Bool // there are IPsec policies, which the program would pass by
	present atomic.Pointer[map[int]network]

	stop    chan struct{}
	wake    []chan struct{} // by ring; see idle
	running sync.WaitGroup
	news    *os.File

	mu      sync.Mutex // guards all following
	at      attachments
	free    []uint32
	left    []Left
	started bool
	closed  bool
}

// Open loads the program, attaches it, and finds what an owner before has left;
// copies are fetched, and what is left is removed, from Start on. An
// ErrUnsupported (a *NeedError mostly) says that this cannot be had here.
func Open(cfg Config) (*Engine, error) {
	if err := rights(); err != nil {
		return nil, err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the CPUs: %w", err)
	}
	e := &Engine{cfg: cfg.withDefaults(cpus), stop: make(chan struct{})}
	e.base, e.baseNS = clocks()
	if err := e.open(cpus); err != nil {
		e.discard()
		return nil, err
	}
	return e, nil
}

func (e *Engine) open(cpus int) (err error) {
	if e.cfg.PinDir != "" {
		if e.lock, e.notice = prepare(e.cfg.PinDir); e.notice == nil {
			e.dir, e.notice = pinDir(e.cfg.PinDir)
		}
	}
	if e.nl, err = openNetlink(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	present, err := links()
	if err != nil {
		return err
	}
	e.present.Store(&present)
	if err := e.cfg.unknown(present); err != nil {
		return err
	}
	if e.obj, err = load(e.cfg, e.dir, cpus); err != nil {
		return err
	}
	if err := e.mapMemory(cpus); err != nil {
		return err
	}
	e.checkSecured()
	e.findLeft()
	if e.at, err = newAttachments(e.obj.program, e.nl, &e.cfg, e.dir); err != nil {
		return err
	}
	if err := e.at.adopt(present); err != nil {
		return err
	}
	if _, err = e.at.follow(&e.cfg, present); err != nil {
		return err
	}
	e.news, err = openNews()
	return err
}

func (e *Engine) mapMemory(cpus int) (err error) {
	share := func(m *ebpf.Map, each int) ([]byte, error) {
		return unix.Mmap(m.FD(), 0, int(m.MaxEntries())*each, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if e.flowMem, err = share(e.obj.flows, flowBytes); err != nil {
		return fmt.Errorf("map the flows: %w", err)
	}
	if e.cpuMem, err = share(e.obj.cpus, cpuBytes); err != nil {
		return fmt.Errorf("map the counters of the CPUs: %w", err)
	}
	e.states = unsafe.Slice((*flowState)(unsafe.Pointer(&e.flowMem[0])), len(e.flowMem)/flowBytes)
	e.cpus = unsafe.Slice((*cpuState)(unsafe.Pointer(&e.cpuMem[0])), cpus)
	e.live = make([]atomic.Pointer[Flow], len(e.states))
	for _, m := range e.obj.ring {
		r, err := newRing(m)
		if err != nil {
			return err
		}
		e.rings = append(e.rings, r)
		e.wake = append(e.wake, make(chan struct{}, 1))
	}
	return nil
}

// clocks relates Go's clock to the program's, which is CLOCK_MONOTONIC: Go's
// monotonic readings are of the same clock. The tightest of some tries counts.
func clocks() (base time.Time, ns int64) {
	best := int64(1 << 62)
	for range 8 {
		before := monotonic()
		now := time.Now()
		after := monotonic()
		if after-before < best {
			best, base, ns = after-before, now, before+(after-before)/2
		}
	}
	return base, ns
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // this clock is always there
	return ts.Nano()
}

// Pinned returns nil when flows outlive the process, else why they do not.
func (e *Engine) Pinned() error {
	switch {
	case e.dir != "":
		return nil
	case e.notice != nil:
		return e.notice
	}
	return errors.New("no directory to pin to is configured")
}

// Interfaces returns the names of the interfaces that the program is on.
func (e *Engine) Interfaces() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	present := *e.present.Load()
	var names []string
	for index := range e.at.on {
		names = append(names, present[index].name)
	}
	sort.Strings(names)
	return names
}

// Hook returns how the program is attached.
func (e *Engine) Hook() Hook {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at.hook
}

// Start fetches copies from now on. Flows that were left and not adopted end.
func (e *Engine) Start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started || e.closed {
		return
	}
	e.started = true
	for _, l := range e.left {
		_ = e.obj.places.Delete(keyOf(l.Local)) // gone already is as good
	}
	e.quiesce()
	for _, l := range e.left {
		e.free = append(e.free, l.place)
	}
	e.left = nil
	for n := range e.rings {
		e.running.Go(func() { e.fetch(n) })
	}
	e.running.Go(e.watch)
}

// quiesce returns when no program runs that began before. Programs run without
// preemption, so that takes microseconds.
func (e *Engine) quiesce() {
	for i := range e.cpus {
		c := &e.cpus[i]
		entered := atomic.LoadUint64(&c.enter)
		if !within(busyMax, func() bool { return atomic.LoadUint64(&c.leave) >= entered }) {
			// A program was ended in its middle, or its CPU was taken away: the
			// kernel's own way to wait for it (membarrier(2), a grace period).
			_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, 1, 0, 0)
		}
	}
}

// Drain hands over the copies of everything forwarded before.
func (e *Engine) Drain() {
	for _, r := range e.rings {
		e.drain(r, busyMax)
	}
}

func (e *Engine) drain(r *ring, patience time.Duration) {
	now := time.Now()
	nowNS := e.baseNS + int64(now.Sub(e.base))
	r.drain(patience, func(rec []byte) { e.deliver(rec, now, nowNS) })
}

// fetch is the goroutine of a ring.
func (e *Engine) fetch(n int) {
	tick := time.NewTimer(e.cfg.DrainInterval)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
		}
		e.drain(e.rings[n], busyMax)
		if !e.idle(n) {
			return
		}
		tick.Reset(e.cfg.DrainInterval)
	}
}

// idle waits while there is no flow at all, and returns false at the end.
func (e *Engine) idle(n int) bool {
	if e.active.Load() > 0 {
		return true
	}
	select {
	case <-e.stop:
		return false
	case <-e.wake[n]:
		return true
	}
}

// Close ends all flows and takes the program away. Copies that were not fetched
// are lost: owners remove their flows first.
func (e *Engine) Close() error {
	if !e.halt() {
		return nil
	}
	for place := range e.live {
		if f := e.live[place].Load(); f != nil {
			f.Remove()
		}
	}
	var err error
	for index := range e.at.on {
		err = errors.Join(err, e.at.drop(index))
	}
	if e.dir != "" {
		err = errors.Join(err, unpinAll(e.dir), os.Remove(e.dir))
	}
	e.discard()
	return err
}

// Release ends this owner and leaves flows, and copies not fetched, to the next
// one, when they are pinned; else it is as Close.
func (e *Engine) Release() error {
	if e.dir == "" {
		return e.Close()
	}
	if e.halt() {
		for place := range e.live {
			if f := e.live[place].Load(); f != nil {
				f.gone.Store(true)
			}
		}
		e.discard()
	}
	return nil
}

// halt ends the goroutines, once.
func (e *Engine) halt() bool {
	e.mu.Lock()
	was := e.closed
	e.closed = true
	e.mu.Unlock()
	if was {
		return false
	}
	close(e.stop)
	_ = e.news.SetReadDeadline(time.Now()) // wakes watch; it can time out, so this does not fail
	e.running.Wait()
	return true
}

// discard gives back what the process holds, whatever of it there is.
func (e *Engine) discard() {
	e.at.leave()
	for _, r := range e.rings {
		_ = r.close()
	}
	for _, mem := range [][]byte{e.flowMem, e.cpuMem} {
		if mem != nil {
			_ = unix.Munmap(mem)
		}
	}
	if e.obj != nil {
		e.obj.close()
	}
	if e.nl != nil {
		_ = e.nl.close()
	}
	if e.news != nil {
		_ = e.news.Close()
	}
	if e.lock != nil {
		_ = e.lock.Close()
	}
}
