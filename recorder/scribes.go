package recorder

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// scribes are the goroutines that carry out what writers queued: a few for all
// recordings, so that a call has no stack of its own for it. One writer is served
// by one of them at a time.
type scribes struct {
	max, keep int // goroutines at most, and those that stay without work

	given atomic.Bool // nobody waits for what is unwritten any longer

	work sync.WaitGroup

	mu      sync.Mutex // guards all following
	cond    sync.Cond  // something is ready, or stopped
	ready   []*writer  // ready[head:], first come first served
	head    int
	live    map[*writer]struct{} // begun and not ended
	running int
	idle    int // those that wait and that nobody has woken
	stopped bool
	none    chan struct{} // closed when live is empty after drain was called
}

// writerState says who may touch a writer's sink next. It is guarded by the
// writer's mu.
type writerState uint8

const (
	writerNew    writerState = iota // nothing was queued yet
	writerIdle                      // nothing is queued
	writerReady                     // waits for a scribe
	writerServed                    // by a scribe
	writerParked                    // failed, and is tried again later
	writerOver                      // published, discarded or given up
)

func newScribes(atMost int) *scribes {
	s := &scribes{max: atMost, keep: min(atMost, 2*runtime.NumCPU()), live: make(map[*writer]struct{})}
	s.cond.L = &s.mu
	return s
}

// begin makes a writer known and ready.
func (s *scribes) begin(w *writer) {
	s.mu.Lock()
	s.live[w] = struct{}{}
	s.mu.Unlock()
	s.enqueue(w)
}

// enqueue gives a writer, whose state is ready, to the next scribe.
func (s *scribes) enqueue(w *writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head > 64 && s.head > len(s.ready)/2 {
		n := copy(s.ready, s.ready[s.head:]) // it may never become empty
		clear(s.ready[n:])
		s.ready, s.head = s.ready[:n], 0
	}
	s.ready = append(s.ready, w)
	switch {
	case s.idle > 0:
		s.idle--
		s.cond.Signal()
	case s.running < s.max:
		s.running++
		s.work.Go(s.scribe)
	}
}

// later makes a parked writer ready after a while.
func (s *scribes) later(w *writer, wait time.Duration) {
	time.AfterFunc(wait, func() { s.unpark(w, writerParked) })
	if s.abandoned() {
		s.unpark(w, writerParked) // abandon may have come before it was parked
	}
}

// unpark makes a writer ready that is in a state.
func (s *scribes) unpark(w *writer, is writerState) {
	w.mu.Lock()
	was := w.state
	if was == is {
		w.state = writerReady
	}
	w.mu.Unlock()
	if was == is {
		s.enqueue(w)
	}
}

// scribe is one of the goroutines.
func (s *scribes) scribe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for s.head == len(s.ready) {
			if s.stopped || s.idle >= s.keep {
				s.running--
				return
			}
			s.idle++
			s.cond.Wait()
		}
		w := s.ready[s.head]
		s.ready[s.head] = nil
		if s.head++; s.head == len(s.ready) {
			s.ready, s.head = s.ready[:0], 0
		}
		s.mu.Unlock()
		w.serve()
		s.mu.Lock()
	}
}

// end forgets a writer.
func (s *scribes) end(w *writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, w)
	s.settle()
}

// settle tells drain when nothing is left. s.mu is held.
func (s *scribes) settle() {
	if s.none != nil && len(s.live) == 0 {
		close(s.none)
		s.none = nil
	}
}

// drain returns a channel that is closed when all that was begun has ended. No
// writer may begin after it.
func (s *scribes) drain() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := make(chan struct{})
	s.none = done
	s.settle()
	return done
}

func (s *scribes) abandoned() bool { return s.given.Load() }

// abandon makes every writer give up what it has not written: those that wait
// at once, those that are being served after the operation under way.
func (s *scribes) abandon() {
	s.given.Store(true)
	s.mu.Lock()
	all := make([]*writer, 0, len(s.live))
	for w := range s.live {
		all = append(all, w)
	}
	s.mu.Unlock()
	for _, w := range all {
		s.unpark(w, writerIdle)
		s.unpark(w, writerParked)
	}
}

// stop ends the scribes; none of them may be at work.
func (s *scribes) stop() {
	s.mu.Lock()
	s.stopped = true
	s.cond.Broadcast()
	s.mu.Unlock()
	s.work.Wait()
}

// framePool holds buffers for the coded audio of one frame.
var framePool = sync.Pool{New: func() any { return new([]byte) }}

// frameBytesMax bounds the buffers that are kept.
const frameBytesMax = 64 << 10

// newFrame returns an empty buffer with room for so many bytes.
func newFrame(bytes int) []byte {
	b := framePool.Get().(*[]byte)
	if cap(*b) < bytes {
		return make([]byte, 0, bytes)
	}
	return (*b)[:0]
}

// releaseFrame wipes a buffer and keeps it for another frame.
func releaseFrame(b []byte) {
	clear(b)
	if cap(b) == 0 || cap(b) > frameBytesMax {
		return
	}
	framePool.Put(&b)
}
