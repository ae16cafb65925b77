// Package relay forwards the media of calls between the two sides of a trunk
// and copies what it accepts into taps. An overlay may put sound into it first.
//
// Nothing that a tap does changes, delays or drops a forwarded packet, short of
// a Put that breaks its contract and waits: packets are forwarded first, and a
// tap that panics is taken out.
package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay/kernel"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
)

// Errors of Open that callers branch on.
var (
	ErrNoPorts = errors.New("no free media port")
	ErrClosed  = errors.New("the relay is closed")
)

// Conn is a UDP socket, as *net.UDPConn is.
type Conn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	LocalAddr() net.Addr
	Close() error
}

// Config of a Relay. The zero value of every field but the ports is usable.
type Config struct {
	// PortMin and PortMax bound the ports, both included. Streams take pairs of
	// an even port (RTP) and the odd one after it (RTCP), RFC 3550 section 11.
	PortMin, PortMax uint16

	// Quarantine is how long a pair rests after its stream was closed, so that
	// stale media cannot enter the next call. 30 s when zero; negative: none.
	Quarantine time.Duration

	// Loops is the number of event loops; when zero as many as there are CPUs, else
	// GOMAXPROCS. Without meaning when Open is set.
	//
	// A loop that was asleep runs again when the Go scheduler has a processor for
	// it. As long as fewer than GOMAXPROCS minus Loops goroutines compute at a time
	// that is at once; beyond that it waits its turn, tens of milliseconds. With
	// GOMAXPROCS larger than Loops a busy loop keeps a processor of the scheduler for
	// itself, which costs the least.
	Loops int

	// CPUs are those that the loops are bound to, in turn; any when empty.
	CPUs []int

	// ReceiveBufferBytes and SendBufferBytes are asked of the kernel per socket;
	// 256 KiB when zero. The kernel's own limit may give less.
	ReceiveBufferBytes, SendBufferBytes int

	// DSCP marks what is sent (RFC 2474): 1..63; 46, expedited forwarding, when
	// zero; negative: unmarked.
	DSCP int

	// Engine moves the packets; EngineUser when empty. With EngineKernel, New fails
	// where that cannot be had.
	Engine Engine

	// Kernel configures the kernel engine; ports and log are taken from here.
	Kernel kernel.Config

	// CoalesceMax is how long a busy loop lets packets gather before it looks for
	// them, so that one wake-up serves many: at most that much is added to their
	// delay. A loop that has little to do does not wait. 1 ms when zero; negative: never.
	CoalesceMax time.Duration

	// Open replaces the real sockets. The error for a port in use must wrap
	// syscall.EADDRINUSE.
	Open func(netip.AddrPort) (Conn, error)

	// Restore keeps what a process before left in the kernel until Restored is
	// called, so that OpenAt can go on with it.
	Restore bool

	// Certificate is shown in DTLS handshakes; nil: none are made.
	Certificate *dtls.Certificate

	// Log is told when a handshake fails, and when a tap or an overlay is taken out after a panic; nil: nobody is.
	Log *slog.Logger
}

// withDefaults returns the complete configuration.
func (c Config) withDefaults() (Config, error) {
	if len(newPool(c.PortMin, c.PortMax).free) == 0 || c.PortMin == 0 {
		return c, fmt.Errorf("media ports %d-%d: the range holds no pair of an even port and the next", c.PortMin, c.PortMax)
	}
	if c.DSCP > 63 {
		return c, fmt.Errorf("DSCP %d: the largest is 63", c.DSCP)
	}
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&c.Loops, len(c.CPUs))
	set(&c.Loops, runtime.GOMAXPROCS(0))
	set(&c.ReceiveBufferBytes, 256<<10)
	set(&c.SendBufferBytes, 256<<10)
	set(&c.DSCP, 46)
	if c.CoalesceMax == 0 {
		c.CoalesceMax = time.Millisecond
	}
	if c.Quarantine == 0 {
		c.Quarantine = 30 * time.Second
	}
	if c.Loops < 0 {
		return c, fmt.Errorf("%d event loops: cannot be negative", c.Loops)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// engine moves packets between sockets and streams.
type engine interface {
	// bind opens a silent socket.
	bind(at netip.AddrPort) (socket, error)
	// attach lets packets flow between the stream's sockets.
	attach(s *Stream) error
	// run lets f have the stream as the packet path has it, between two packets, and
	// returns when it has returned.
	run(s *Stream, f func())
	// settle returns when every packet whose handling began before is through.
	settle(s *Stream)
	// detach ends the flow, settles and closes the sockets.
	detach(s *Stream) error
	// close is called after all streams were detached.
	close() error
}

// socket is one bound socket of an engine.
type socket interface {
	// send sends a datagram without waiting. Safe for all, as long as the stream
	// is not detached.
	send(b []byte, to netip.AddrPort) error
	close() error
}

// Relay owns the media ports and the goroutines that serve them. Safe for
// concurrent use.
type Relay struct {
	cfg    Config
	base   time.Time // times of packets are kept as distances from it
	engine engine

	// offload takes settled streams off the engine; nil: none does
	offload        offload
	declines       atomic.Uint64
	declineReasons sync.Map // texts logged so far
	held           atomic.Bool
	restoring      restoring

	opening sync.WaitGroup // Opens that found the relay open; added to under mu

	mu      sync.Mutex // guards all following; never held while packets are handled or sockets made
	pools   map[netip.Addr]*pool
	streams map[*Stream]struct{}
	naming  int       // sides whose descriptions name a port of ours
	past    SideStats // of streams that are closed
	closed  bool
}

// New starts a relay.
func New(cfg Config) (*Relay, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Relay{cfg: cfg, base: time.Now(), pools: map[netip.Addr]*pool{}, streams: map[*Stream]struct{}{}}
	if cfg.Open != nil {
		r.engine = connEngine{cfg.Open}
		return r, nil
	}
	if r.engine, err = newEngine(cfg); err != nil {
		return nil, fmt.Errorf("start the media relay: %w", err)
	}
	if err := r.startOffload(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the media relay: %w", err), r.engine.close())
	}
	return r, nil
}

// Close closes all streams and waits for the relay's goroutines.
func (r *Relay) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return ErrClosed
	}
	r.closed = true
	r.mu.Unlock()
	r.opening.Wait()
	r.mu.Lock()
	streams := make([]*Stream, 0, len(r.streams))
	for s := range r.streams {
		streams = append(streams, s)
	}
	r.mu.Unlock()
	var errs []error
	for _, s := range streams {
		errs = append(errs, s.Close())
	}
	errs = append(errs, r.engine.close())
	if r.offload != nil {
		errs = append(errs, r.offload.Close())
	}
	return errors.Join(errs...)
}

// Options of a stream.
type Options struct {
	// RTP lets only RTP and RTCP through, by the latching rules. Without it any
	// datagram of the side's SDP address, else of the first source, goes through.
	RTP bool

	// ReceiveOnly opens no ports for the internal side: what the external side sends
	// is for its tap alone and counts as none of Forwarded, Unroutable, SendErrors
	// and Unprotected.
	ReceiveOnly bool

	// Suites that each side's DTLS may agree on; see dtls.Config.
	Suites [2][]srtp.Suite

	// Forks says that the far ends of a side may be several until Decided is called,
	// and that the one of an earlier Protect may come back, with its DTLS association.
	Forks bool

	// Failed is told when a side has no keys because its DTLS handshake failed; see
	// dtls.Config. It must not wait and not close the stream. May be nil.
	Failed func(media.Side, error)

	// Keyed is told when a DTLS handshake has agreed on keys, which Handshakes then
	// returns; as Failed is. May be nil.
	Keyed func()
}

// Open binds a pair of ports per side and relays between them. local is the
// address to bind per side, indexed by media.Side. Packets of a side are dropped
// and counted until SetRemote was called for it. ErrNoPorts (wrapped) says that
// every pair is in use or in quarantine.
func (r *Relay) Open(local [2]netip.Addr, opt Options) (*Stream, error) {
	return r.open(opt, func(s *Stream, side media.Side) error {
		if opt.ReceiveOnly && side != media.External {
			return nil
		}
		return r.bindPair(s, side, canonical(local[side]))
	})
}

// open makes a stream whose sides get their ports from bind.
func (r *Relay) open(opt Options, bind func(*Stream, media.Side) error) (*Stream, error) {
	if !r.begin() {
		return nil, ErrClosed
	}
	defer r.opening.Done()
	s := newStream(r, opt)
	for _, side := range []media.Side{media.External, media.Internal} {
		if err := bind(s, side); err != nil {
			return nil, errors.Join(err, r.release(s))
		}
	}
	if err := r.engine.attach(s); err != nil {
		return nil, errors.Join(fmt.Errorf("serve media ports: %w", err), r.release(s))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams[s] = struct{}{}
	return s, nil
}

// begin lets an Open go on, whose end Close waits for.
func (r *Relay) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.opening.Add(1)
	}
	return !r.closed
}

// bindPair binds the ports of one side. Pairs that somebody else uses are
// passed over.
func (r *Relay) bindPair(s *Stream, side media.Side, addr netip.Addr) error {
	for tries := r.PortsFree(addr); tries > 0; tries-- {
		even, ok := r.take(addr)
		if !ok {
			break
		}
		socks, err := r.bindBoth(netip.AddrPortFrom(addr, even))
		switch {
		case err == nil:
			s.ends[side].socks = socks
			s.ends[side].local = netip.AddrPortFrom(addr, even)
			return nil
		case errors.Is(err, syscall.EADDRINUSE):
			r.giveBack(addr, even, (*pool).later)
		default:
			r.giveBack(addr, even, (*pool).unused)
			return fmt.Errorf("bind a media port: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pool(addr)
	return fmt.Errorf("%w at %s: of %d pairs %d are in quarantine, the others in use; widen the port range",
		ErrNoPorts, addr, p.total, len(p.resting))
}

func (r *Relay) take(addr netip.Addr) (even uint16, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pool(addr).take()
}

func (r *Relay) giveBack(addr netip.Addr, even uint16, how func(*pool, uint16)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	how(r.pool(addr), even)
}

func (r *Relay) bindBoth(at netip.AddrPort) ([2]socket, error) {
	first, err := r.engine.bind(at)
	if err != nil {
		return [2]socket{}, err
	}
	second, err := r.engine.bind(netip.AddrPortFrom(at.Addr(), at.Port()+1))
	if err != nil {
		return [2]socket{}, errors.Join(err, first.close())
	}
	return [2]socket{kindRTP: first, kindRTCP: second}, nil
}

// release undoes the binding of a stream that was never served.
func (r *Relay) release(s *Stream) error {
	var errs []error
	for i := range s.ends {
		e := &s.ends[i]
		if !e.local.IsValid() {
			continue
		}
		errs = append(errs, e.socks[kindRTP].close(), e.socks[kindRTCP].close())
		r.giveBack(e.local.Addr(), e.local.Port(), (*pool).unused)
	}
	return errors.Join(errs...)
}

// pool returns the pool of a local address, brought up to date.
func (r *Relay) pool(addr netip.Addr) *pool {
	p := r.pools[addr]
	if p == nil {
		p = newPool(r.cfg.PortMin, r.cfg.PortMax)
		r.pools[addr] = p
	}
	p.wake(time.Now())
	return p
}

// retire puts the ports of a stream, whose sockets are closed, into quarantine.
func (r *Relay) retire(s *Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, s)
	for _, side := range s.Stats() {
		r.past.add(side)
	}
	until := time.Now().Add(r.cfg.Quarantine)
	for i := range s.ends {
		at := s.ends[i].local
		if !at.IsValid() {
			continue
		}
		r.pool(at.Addr()).rest(at.Port(), until)
	}
}

// PortsFree returns how many pairs of ports a local address has that are neither
// in use nor in quarantine.
func (r *Relay) PortsFree(local netip.Addr) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pool(canonical(local)).free)
}

// owns tells whether an address is one of the relay's own. A description that
// names it could let packets run in a circle; see crossing.
func (r *Relay) owns(a netip.AddrPort) bool {
	if a.Port() < r.cfg.PortMin || a.Port() > r.cfg.PortMax {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pools[a.Addr()] != nil
}

// Totals sums the counters of all streams, closed ones included. Its times and
// its source are zero.
func (r *Relay) Totals() SideStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum := r.past
	for s := range r.streams {
		for _, side := range s.Stats() {
			sum.add(side)
		}
	}
	return sum
}

func (t *SideStats) add(s SideStats) {
	t.Packets += s.Packets
	t.Bytes += s.Bytes
	t.RejectedSource += s.RejectedSource
	t.RejectedForm += s.RejectedForm
	t.Unnegotiated += s.Unnegotiated
	t.Overrun += s.Overrun
	t.Forwarded += s.Forwarded
	t.Unroutable += s.Unroutable
	t.Checks += s.Checks
	t.Undecrypted += s.Undecrypted
	t.Keyless += s.Keyless
	t.Replayed += s.Replayed
	t.Unprotected += s.Unprotected
	t.SendErrors += s.SendErrors
	t.TapPanics += s.TapPanics
	t.Overlaid += s.Overlaid
	t.Kernel += s.Kernel
	t.Untapped += s.Untapped
	t.Reports += s.Reports
	t.OverlayPanics += s.OverlayPanics
}

// Streams returns the number of open streams.
func (r *Relay) Streams() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.streams)
}
