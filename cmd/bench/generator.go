//go:build linux

package main

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// frameInterval is 20 ms and 150 ppm more: the kernel samples at multiples of
	// 4 ms what runs, and a generator in step with that would always be sampled at
	// the same place.
	frameInterval = 20003 * time.Microsecond

	// slots is how many moments of a frame interval packets are sent at: calls
	// begin at any time.
	slots = 100

	samplesPerFrame = 160

	// How many slots a sender that is late goes on without a pause, and the pause.
	awakeMax = 20
	breath   = 200 * time.Microsecond

	settleTime = 300 * time.Millisecond // for what is under way when sending ends
)

// window is the part of a run that is measured, by the packets' time of sending,
// as nanoseconds after epoch. It is set while the generator runs.
type window struct{ from, until atomic.Int64 }

func (w *window) holds(stamp int64) bool {
	from := w.from.Load()
	return from != 0 && stamp >= from && stamp < w.until.Load()
}

// outgoing is the sending end of a stream.
type outgoing struct {
	frame  []byte
	fd     int // of the socket that it leaves by
	side   int
	call   int
	number int // of packets so far
	begins int // frame intervals after the generator
	seq    uint16
}

// sender sends streams, each packet at its own moment and by its own system
// call: so the time in it is that of its own sending.
type sender struct {
	// constant while it runs
	cpu    int
	begin  time.Duration // after epoch
	window *window
	voice  *voice

	slots [slots][]outgoing
	stop  atomic.Bool
	done  chan struct{}

	// run's alone until done
	sent   uint64 // in the window
	failed uint64 // not taken by the kernel, in the window
	late   histogram
	err    error
}

// openSender opens a raw socket on an interface of the namespace of the calling
// thread. It bypasses the queueing discipline, of which veth has none.
func openSender(device string) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	ifi, err := net.InterfaceByName(device)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index}) // protocol 0: it receives nothing
	}
	if err != nil {
		_ = unix.Close(fd) // the first error is the one to tell
		return -1, fmt.Errorf("packet socket on %s: %w", device, err)
	}
	return fd, nil
}

// callsPerSecond is how many calls begin to send in a second: a trunk does not
// bring them all at once.
const callsPerSecond = 1000

// rampOf is how long after the first call that one begins to send.
func rampOf(call int) time.Duration { return time.Duration(call) * time.Second / callsPerSecond }

// addStream gives a stream its place. Streams begin at moments spread evenly over
// the frame interval, neighbours far apart.
func (s *sender) addStream(call, side, fd int, l link) {
	o := outgoing{frame: make([]byte, frameBytes), fd: fd, side: side, call: call, seq: uint16(call * 7919), begins: int(rampOf(call) / frameInterval)}
	prepareFrame(o.frame, l, ssrcBase+uint32(2*call+side))
	at := (call*61 + side*31) % slots
	s.slots[at] = append(s.slots[at], o)
}

// run sends until stop. It has a thread of its own that is preferred to all
// others, so that packets leave at their moments whatever else runs. One that does
// not keep up still sleeps a little now and then: it must not take all of its
// processor from everybody else.
func (s *sender) run() {
	defer close(s.done)
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	var set unix.CPUSet
	set.Set(s.cpu)
	if s.err = unix.SchedSetaffinity(0, &set); s.err != nil {
		return
	}
	// A network card does not wait for its turn either. Without the right to
	// real-time scheduling the thread is only preferred.
	if unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0) != nil {
		if s.err = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20); s.err != nil {
			return
		}
	}
	if s.err = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); s.err != nil {
		return
	}
	awake := 0 // slots since it slept
	for k := 0; !s.stop.Load(); k++ {
		due := s.begin + frameInterval*time.Duration(k)/slots
		now := time.Since(epoch)
		wait := due - now
		if awake++; awake > awakeMax {
			wait = max(wait, breath)
		}
		if wait > 0 {
			sleepThread(wait)
			now, awake = time.Since(epoch), 0
		}
		if s.window.holds(int64(now)) {
			s.late.add(now - due)
		}
		s.sendSlot(s.slots[k%slots], k/slots)
	}
}

// sleepThread sleeps without telling the Go scheduler: it would hand the
// processor over and back 5000 times a second. It is short enough for the
// garbage collector to wait for it.
func sleepThread(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0) // an early end is made up by the next turn
}

func (s *sender) sendSlot(streams []outgoing, interval int) {
	for i := range streams {
		o := &streams[i]
		if interval < o.begins {
			continue
		}
		stamp := int64(time.Since(epoch))
		fillFrame(o.frame, o.seq, uint32(o.number*samplesPerFrame), s.voice.frame(o.call, o.side, o.number), stamp)
		o.seq++
		o.number++
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(o.fd), uintptr(unsafe.Pointer(&o.frame[0])), frameBytes, unix.MSG_DONTWAIT, 0, 0)
		if s.window.holds(stamp) {
			s.sent++
			if errno != 0 {
				s.failed++
			}
		}
	}
}

// generator sends both ways of all calls and receives what comes of it.
type generator struct {
	window  window
	sockets [2]int // of the sides
	senders []*sender
	rings   [2]*ring
	stop    chan struct{}
	drained sync.WaitGroup
}

// route says over which interfaces the packets of a side go, and between which
// addresses those of a call.
type route struct {
	device, arrives string // interface names in the namespace of the parties
	link            func(call int) link
	receiver        func(call int) (port uint16)
}

// oneSenderMax is the number of calls that one thread sends for: so the other
// processors wake up for the program under test alone. More need a thread a side,
// on different processors.
const oneSenderMax = 1000

// newGenerator opens all sockets. Call start next.
func newGenerator(calls int, routes [2]route, v *voice) (*generator, error) {
	g := &generator{sockets: [2]int{-1, -1}, stop: make(chan struct{})}
	threads := 1
	if calls > oneSenderMax {
		threads = 2
	}
	for i := range threads {
		g.senders = append(g.senders, &sender{cpu: runtime.NumCPU() - 1 - i%runtime.NumCPU(), window: &g.window, voice: v, done: make(chan struct{})})
	}
	err := within(partiesNS, func() (err error) {
		for side, r := range routes {
			if g.sockets[side], err = openSender(r.device); err != nil {
				return err
			}
			for call := range calls {
				g.senders[side%threads].addStream(call, side, g.sockets[side], r.link(call))
			}
			if g.rings[side], err = openRing(r.arrives, side, calls, &g.window, r.receiver); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// start begins to send and to receive.
func (g *generator) start() {
	for _, r := range g.rings {
		g.drained.Go(func() { r.drainUntil(g.stop) })
	}
	begin := time.Since(epoch) + frameInterval
	for i, s := range g.senders {
		// Not in step: the second sends when the first sleeps.
		s.begin = begin + time.Duration(i)*frameInterval/slots/2
		go s.run()
	}
}

// finish ends sending, waits for what is under way and returns the counts.
func (g *generator) finish() (*traffic, error) {
	t := &traffic{}
	var late histogram
	for _, s := range g.senders {
		s.stop.Store(true)
	}
	for _, s := range g.senders {
		<-s.done
		if s.err != nil {
			return nil, fmt.Errorf("sender: %w", s.err)
		}
		t.Sent += s.sent
		t.Unsent += s.failed
		late.merge(&s.late)
	}
	time.Sleep(settleTime)
	close(g.stop)
	g.drained.Wait()
	for _, r := range g.rings {
		r.addTo(t)
	}
	t.Late99, t.LateMax = micros(late.quantile(0.99)), micros(late.max)
	return t, nil
}

func (g *generator) close() {
	for _, fd := range g.sockets {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing was written that could be lost
		}
	}
	for _, r := range g.rings {
		if r != nil {
			r.close()
		}
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
