package dtls

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const datagramBytesMax = 8192 // what a handshake reads at once

// queue holds the datagrams that came for an endpoint until they are read.
type queue struct {
	max     int
	dropped atomic.Uint64

	mu    sync.Mutex // guards all following, and the pipe's state
	cond  sync.Cond
	items [][]byte
}

func newQueue(datagramsMax int) *queue {
	q := &queue{max: datagramsMax}
	q.cond.L = &q.mu
	return q
}

// put keeps a copy of a datagram, or drops it when there is no room.
func (q *queue) put(b []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) >= q.max || len(b) > datagramBytesMax {
		q.dropped.Add(1)
		return
	}
	q.items = append(q.items, append([]byte(nil), b...))
	q.cond.Broadcast()
}

// await returns when there is something to read, or with the context's error.
func (q *queue) await(ctx context.Context) error {
	stop := context.AfterFunc(ctx, q.wake)
	defer stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && ctx.Err() == nil {
		q.cond.Wait()
	}
	return ctx.Err()
}

func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cond.Broadcast()
}

// clear forgets what waits.
func (q *queue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = nil
}

// pipe is the packet connection of one association.
type pipe struct {
	q    *queue
	send func([]byte) error
	errs *atomic.Uint64

	detached atomic.Bool // nothing goes out any more

	// guarded by q.mu
	closed, expired bool
}

// peer is the only address that a pipe knows.
type peer struct{}

func (peer) Network() string { return "udp" }
func (peer) String() string  { return "peer" }

// ReadFrom waits for the next datagram.
func (p *pipe) ReadFrom(b []byte) (int, net.Addr, error) {
	p.q.mu.Lock()
	defer p.q.mu.Unlock()
	for {
		switch {
		case p.closed:
			return 0, nil, net.ErrClosed
		case p.expired:
			return 0, nil, os.ErrDeadlineExceeded
		case len(p.q.items) > 0:
			n := copy(b, p.q.items[0])
			p.q.items = p.q.items[1:]
			return n, peer{}, nil
		}
		p.q.cond.Wait()
	}
}

// WriteTo sends a datagram. One that could not be sent counts as lost: the
// handshake repeats it.
func (p *pipe) WriteTo(b []byte, _ net.Addr) (int, error) {
	if !p.detached.Load() {
		if err := p.send(b); err != nil {
			p.errs.Add(1)
		}
	}
	return len(b), nil
}

// Close makes reading end.
func (p *pipe) Close() error {
	p.q.mu.Lock()
	defer p.q.mu.Unlock()
	p.closed = true
	p.q.cond.Broadcast()
	return nil
}

func (p *pipe) LocalAddr() net.Addr { return peer{} }

// SetReadDeadline takes a time that is over, or none: the library sets no other.
func (p *pipe) SetReadDeadline(t time.Time) error {
	if t.After(time.Now()) {
		return os.ErrNoDeadline
	}
	p.q.mu.Lock()
	defer p.q.mu.Unlock()
	p.expired = !t.IsZero()
	p.q.cond.Broadcast()
	return nil
}

func (p *pipe) SetDeadline(t time.Time) error    { return p.SetReadDeadline(t) }
func (p *pipe) SetWriteDeadline(time.Time) error { return nil } // writing does not wait
