// Package dtls agrees on SRTP keys by DTLS handshakes over a socket that somebody
// else owns (RFC 5763, RFC 5764).
package dtls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"

	"github.com/trunktap/trunktap/media/srtp"
)

// Config of an Endpoint.
type Config struct {
	Certificate *Certificate

	// Send sends a datagram to the peer, as the relay's socket does. It does not
	// keep the bytes and does not wait. Goroutines of the endpoint call it until
	// Close returned. An error counts as a loss.
	Send func([]byte) error

	// Established gets the keys of each handshake that succeeded, after the
	// fingerprint was checked. Failed gets the error of an association for which no
	// handshake did; it wraps srtp.ErrFingerprint, ErrProfile or
	// context.DeadlineExceeded where that was why. The owner goroutine calls
	// both: they must not wait and not call Close. Keys may be of an association
	// that was replaced at that moment: their number tells.
	Established func(Keys)
	Failed      func(error)

	// Suites allowed, by preference; those of them that DTLS can negotiate count.
	// srtp.DefaultSuites when empty.
	Suites []srtp.Suite

	SHA1 bool // let the peer's certificate be announced by SHA-1

	Timeout           time.Duration // of an association from Start to its keys; 10 s when zero
	Attempts          int           // handshakes within it; 3 when zero
	Retransmit        time.Duration // first interval, doubled each time; 400 ms when zero
	QueueDatagramsMax int           // that wait to be read; 64 when zero
	MTU               int           // bytes of a datagram; 1200 when zero
}

// Keys are what a handshake agreed on.
type Keys struct {
	Association   uint32
	Suite         srtp.Suite
	Receive, Send *srtp.Keys // for Unprotector.Rekey, and Protector.Rekey with restart
}

// ErrProfile is wrapped when the peer does not do DTLS-SRTP with an allowed suite.
var ErrProfile = errors.New("no SRTP suite in common")

// Association says with whom to shake hands; the fields of an srtp.End.
type Association struct {
	Number       uint32
	Role         srtp.Role
	Fingerprints []srtp.Fingerprint
}

// Phase is what an Endpoint is at.
type Phase uint8

// Phases.
const (
	Idle Phase = iota
	Handshaking
	Established
	Failed
)

// Stats of an Endpoint.
type Stats struct {
	Phase       Phase
	Association uint32 // latest that was started
	Handshakes  uint64 // begun
	Dropped     uint64 // datagrams: the queue was full, or they were no DTLS
	SendErrors  uint64
}

// Endpoint is one end of the DTLS associations of a media stream, one after the
// other. Its methods are safe for concurrent use. One goroutine owns it; Close
// waits for that.
type Endpoint struct {
	cfg   Config
	queue *queue
	wake  chan struct{} // of one place: there is something in next
	quit  context.CancelFunc
	over  context.Context
	done  chan struct{}

	phase      atomic.Uint32
	latest     atomic.Uint32
	handshakes atomic.Uint64
	noDTLS     atomic.Uint64
	sendErrors atomic.Uint64

	mu     sync.Mutex // guards all following
	closed bool
	next   *Association       // waits to be taken up
	cancel context.CancelFunc // ends what is being done for the one before
	pipe   *pipe              // of it; nil: none
}

// New starts an endpoint that waits for Start. Datagrams may come before it:
// they wait in the queue.
func New(cfg Config) (*Endpoint, error) {
	if cfg.Certificate == nil || cfg.Send == nil || cfg.Established == nil || cfg.Failed == nil {
		return nil, errors.New("dtls endpoint: Certificate, Send, Established and Failed are needed")
	}
	if cfg.Suites = srtp.DTLSSuites(cfg.Suites); len(cfg.Suites) == 0 {
		return nil, fmt.Errorf("dtls endpoint: %w: none of the allowed can be used with DTLS", ErrProfile)
	}
	if cfg.Timeout < 0 || cfg.Attempts < 0 || cfg.Retransmit < 0 || cfg.QueueDatagramsMax < 0 || cfg.MTU < 0 {
		return nil, errors.New("dtls endpoint: a limit is negative")
	}
	defaultTo(&cfg.Timeout, 10*time.Second)
	defaultTo(&cfg.Attempts, 3)
	defaultTo(&cfg.Retransmit, 400*time.Millisecond)
	defaultTo(&cfg.QueueDatagramsMax, 64)
	defaultTo(&cfg.MTU, 1200)
	e := &Endpoint{cfg: cfg, queue: newQueue(cfg.QueueDatagramsMax), wake: make(chan struct{}, 1), done: make(chan struct{})}
	e.over, e.quit = context.WithCancel(context.Background())
	go e.run()
	return e, nil
}

func defaultTo[T ~int | ~int64](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// IsDTLS tells a datagram of DTLS from one of RTP, RTCP, STUN and TURN on the
// same port (RFC 7983 section 7).
func IsDTLS(datagram []byte) bool { return len(datagram) > 0 && datagram[0] >= 20 && datagram[0] <= 63 }

// Deliver hands in a datagram that came from the peer. It copies and never
// waits.
func (e *Endpoint) Deliver(datagram []byte) {
	if !IsDTLS(datagram) {
		e.noDTLS.Add(1)
		return
	}
	e.queue.put(datagram)
}

// Start begins the association, instead of the one before. Number says which is
// meant: for that of the latest Start nothing happens unless it failed, so it may
// be called after every negotiation. The keys of before stay in use until
// Established is called.
func (e *Endpoint) Start(a Association) {
	e.mu.Lock()
	defer e.mu.Unlock()
	phase := Phase(e.phase.Load())
	if e.closed || a.Number == e.latest.Load() && (phase == Handshaking || phase == Established) {
		return
	}
	e.latest.Store(a.Number)
	e.phase.Store(uint32(Handshaking))
	a.Fingerprints = slices.Clone(a.Fingerprints)
	e.next = &a
	if e.pipe != nil {
		e.pipe.detached.Store(true) // the peer's new association must not see the end of the old one
	}
	if e.cancel != nil {
		e.cancel()
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Stats returns the counts so far.
func (e *Endpoint) Stats() Stats {
	return Stats{
		Phase: Phase(e.phase.Load()), Association: e.latest.Load(), Handshakes: e.handshakes.Load(),
		Dropped: e.queue.dropped.Load() + e.noDTLS.Load(), SendErrors: e.sendErrors.Load(),
	}
}

// Close ends the association, telling the peer, and waits for the endpoint's
// goroutine.
func (e *Endpoint) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.quit()
	<-e.done
	return nil
}

// run is the owner goroutine.
func (e *Endpoint) run() {
	defer close(e.done)
	for {
		select {
		case <-e.over.Done():
			return
		case <-e.wake:
		}
		if ctx, a := e.take(); a != nil {
			e.serve(ctx, *a)
		}
	}
}

// take takes up the association that waits.
func (e *Endpoint) take() (context.Context, *Association) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.next
	e.next = nil
	ctx, cancel := context.WithCancel(e.over)
	if e.cancel != nil {
		e.cancel()
	}
	e.cancel, e.pipe = cancel, nil
	return ctx, a
}

// serve does what one association needs, until the context ends it.
func (e *Endpoint) serve(ctx context.Context, a Association) {
	conn, keys, err := e.establish(ctx, a)
	if ctx.Err() != nil {
		if conn != nil {
			keys.Receive.Wipe()
			keys.Send.Wipe()
			_ = conn.Close() // it is being replaced
		}
		return
	}
	if err != nil {
		e.setPhase(a, Failed)
		e.cfg.Failed(fmt.Errorf("DTLS handshake as the %s end: %w", a.Role, err))
		return
	}
	e.setPhase(a, Established)
	e.cfg.Established(keys)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks Read
	b := make([]byte, datagramBytesMax)
	for {
		// Nothing is sent in it, but while it is read a lost last flight is repeated.
		if _, err := conn.Read(b); errors.Is(err, io.EOF) || errors.Is(err, dtls.ErrConnClosed) {
			break
		}
	}
	<-ctx.Done() // the peer's end of the association does not end its media: the dialog does
	stop()
	_ = conn.Close() // once more, to wait for it
}

// setPhase tells what became of an association, unless there is a newer one.
func (e *Endpoint) setPhase(a Association, p Phase) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.next == nil && e.latest.Load() == a.Number {
		e.phase.Store(uint32(p))
	}
}

// establish tries handshakes until one succeeds or the time is over.
func (e *Endpoint) establish(ctx context.Context, a Association) (*dtls.Conn, Keys, error) {
	limit, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	deadline, _ := limit.Deadline()
	var last error
	for left := e.cfg.Attempts; left > 0; left-- {
		if a.Role == srtp.Passive {
			if err := e.queue.await(limit); err != nil {
				return nil, Keys{}, errors.Join(last, err)
			}
		}
		try, stop := context.WithTimeout(limit, time.Until(deadline)/time.Duration(left))
		conn, keys, err := e.shake(try, a)
		stop()
		if err == nil {
			return conn, keys, nil
		}
		last = err
		if limit.Err() != nil {
			break
		}
		e.queue.clear() // of the handshake that failed
	}
	return nil, Keys{}, last
}
