package mediatest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Conn is one socket of a Net. It serves as the Conn of a relay and as a
// net.PacketConn; its addresses are *net.UDPAddr. All waiting is on channels,
// durable in the sense of testing/synctest. Safe for concurrent use.
type Conn struct {
	net *Net
	at  netip.AddrPort
	in  chan packet

	once   sync.Once
	closed chan struct{}

	mu       sync.Mutex    // guards the following
	deadline time.Time     // of reads
	moved    chan struct{} // closed when the deadline changes
}

var _ net.PacketConn = (*Conn)(nil)

type packet struct {
	src     netip.AddrPort
	payload []byte
}

func newConn(n *Net, at netip.AddrPort) *Conn {
	return &Conn{
		net: n, at: at, in: make(chan packet, queuePackets),
		closed: make(chan struct{}), moved: make(chan struct{}),
	}
}

// ReadFromUDPAddrPort waits for a packet. What does not fit b is cut off.
// The error is net.ErrClosed or os.ErrDeadlineExceeded, wrapped.
func (c *Conn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		deadline, moved := c.readDeadline()
		p, err := c.wait(deadline, moved)
		if err != nil {
			return 0, netip.AddrPort{}, fmt.Errorf("read at %s: %w", c.at, err)
		}
		if p.src.IsValid() {
			return copy(b, p.payload), p.src, nil
		}
	}
}

func (c *Conn) readDeadline() (time.Time, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadline, c.moved
}

// wait returns a packet, or one without a source when the deadline moved.
func (c *Conn) wait(deadline time.Time, moved <-chan struct{}) (packet, error) {
	select {
	case <-c.closed:
		return packet{}, net.ErrClosed
	default:
	}
	var expired <-chan time.Time
	if !deadline.IsZero() {
		left := time.Until(deadline)
		if left <= 0 {
			return packet{}, os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case p := <-c.in:
		return p, nil
	case <-c.closed:
		return packet{}, net.ErrClosed
	case <-expired:
		return packet{}, os.ErrDeadlineExceeded
	case <-moved:
		return packet{}, nil
	}
}

// WriteToUDPAddrPort sends a copy of b. It never waits.
func (c *Conn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	select {
	case <-c.closed:
		return 0, fmt.Errorf("write at %s: %w", c.at, net.ErrClosed)
	default:
	}
	if !to.IsValid() || to.Port() == 0 {
		return 0, fmt.Errorf("write at %s: no destination", c.at)
	}
	c.net.send(c.at, netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), b)
	return len(b), nil
}

// ReadFrom implements net.PacketConn.
func (c *Conn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, src, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(src), nil
}

// WriteTo implements net.PacketConn; to must be a *net.UDPAddr.
func (c *Conn) WriteTo(b []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("write at %s: %T is no UDP address", c.at, to)
	}
	return c.WriteToUDPAddrPort(b, udp.AddrPort())
}

// Close ends all reads with net.ErrClosed and frees the address.
func (c *Conn) Close() error {
	err := fmt.Errorf("close %s: %w", c.at, net.ErrClosed)
	c.once.Do(func() {
		c.net.close(c)
		close(c.closed)
		err = nil
	})
	return err
}

// LocalAddr returns a *net.UDPAddr.
func (c *Conn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.at) }

// SetDeadline sets the read deadline; writes never wait.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline acts on reads that wait already, too.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	close(c.moved)
	c.moved = make(chan struct{})
	return nil
}

// SetWriteDeadline does nothing: writes never wait.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }
