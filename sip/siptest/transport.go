package siptest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// Conn is a datagram socket: *net.UDPConn, or one of a network in memory.
type Conn interface {
	net.PacketConn
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// listenUDP is the Config.Listen of real networks.
func listenUDP(addr netip.AddrPort) (Conn, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	return c, nil
}

func localOf(c Conn) (netip.AddrPort, error) {
	local, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("local address %v is no UDP address", c.LocalAddr())
	}
	return unmap(local.AddrPort()), nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// sink takes one received message and a way to answer where it came from.
type sink func(raw []byte, m *Message, from netip.AddrPort, reply func([]byte) error)

// transport carries whole SIP messages.
type transport interface {
	name() string // as Via names it
	local() netip.AddrPort
	reliable() bool
	send(ctx context.Context, b []byte, to netip.AddrPort) error
	close() error // waits for the readers
}

// udp is SIP over one datagram socket.
type udp struct {
	conn Conn
	addr netip.AddrPort
	wg   sync.WaitGroup
}

func newUDP(listen func(netip.AddrPort) (Conn, error), addr netip.AddrPort, take sink) (*udp, error) {
	conn, err := listen(addr)
	if err != nil {
		return nil, fmt.Errorf("listen for SIP on %s: %w", addr, err)
	}
	t := &udp{conn: conn}
	if t.addr, err = localOf(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	t.wg.Go(func() { t.read(take) })
	return t, nil
}

func (t *udp) read(take sink) {
	buf := make([]byte, 65535)
	for {
		n, from, err := t.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		raw := append([]byte(nil), buf[:n]...)
		m, err := ParseMessage(raw)
		if err != nil {
			continue // a peer under test sees no answer, as from any agent
		}
		take(raw, m, unmap(from), func(b []byte) error { return t.send(context.Background(), b, unmap(from)) })
	}
}

func (t *udp) name() string          { return "UDP" }
func (t *udp) local() netip.AddrPort { return t.addr }
func (t *udp) reliable() bool        { return false }

func (t *udp) send(_ context.Context, b []byte, to netip.AddrPort) error {
	_, err := t.conn.WriteToUDPAddrPort(b, to)
	return err
}

func (t *udp) close() error {
	err := t.conn.Close()
	t.wg.Wait()
	return err
}

// tcp is SIP over streams: a listener and the connections of both kinds.
type tcp struct {
	secure   *tls.Config // nil: not
	listener net.Listener
	addr     netip.AddrPort
	take     sink
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[netip.AddrPort]net.Conn // by remote address
}

func newTCP(addr netip.AddrPort, secure *tls.Config, take sink) (*tcp, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("listen for SIP on %s: %w", addr, err)
	}
	local, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(fmt.Errorf("local address %v is no TCP address", l.Addr()), l.Close())
	}
	t := &tcp{secure: secure, listener: l, addr: unmap(local.AddrPort()), take: take, conns: map[netip.AddrPort]net.Conn{}}
	t.wg.Go(t.accept)
	return t, nil
}

func (t *tcp) accept() {
	for {
		c, err := t.listener.Accept()
		if err != nil {
			return
		}
		if t.secure != nil {
			c = tls.Server(c, t.secure)
		}
		t.keep(c)
	}
}

// keep takes the connection over and reads it until it ends.
func (t *tcp) keep(c net.Conn) bool {
	remote, ok := c.RemoteAddr().(*net.TCPAddr)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || !ok {
		_ = c.Close() // nothing was written to it
		return false
	}
	from := unmap(remote.AddrPort())
	t.conns[from] = c
	t.wg.Go(func() { t.read(c, from) })
	return true
}

func (t *tcp) read(c net.Conn, from netip.AddrPort) {
	defer t.drop(c, from)
	reply := func(b []byte) error {
		_, err := c.Write(b)
		return err
	}
	var pending []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		pending = append(pending, buf[:n]...)
		for {
			for len(pending) > 0 && (pending[0] == '\r' || pending[0] == '\n') {
				pending = pending[1:] // keep-alive of RFC 5626 section 3.5.1
			}
			m, used, perr := parse(pending, true)
			if errors.Is(perr, errPartial) {
				break
			}
			if perr != nil {
				return // a stream that lost its framing cannot be found again
			}
			t.take(append([]byte(nil), pending[:used]...), m, from, reply)
			pending = pending[used:]
		}
		if err != nil {
			return
		}
	}
}

func (t *tcp) drop(c net.Conn, from netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns[from] == c {
		delete(t.conns, from)
	}
	_ = c.Close() // its other end sees it, nobody here waits for more
}

func (t *tcp) name() string {
	if t.secure != nil {
		return "TLS"
	}
	return "TCP"
}

func (t *tcp) local() netip.AddrPort { return t.addr }
func (t *tcp) reliable() bool        { return true }

func (t *tcp) send(ctx context.Context, b []byte, to netip.AddrPort) error {
	t.mu.Lock()
	c := t.conns[to]
	t.mu.Unlock()
	if c == nil {
		// The peer tells us from others by our address, so the connection leaves from it.
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.addr.Addr(), 0))}
		var err error
		if c, err = dialer.DialContext(ctx, "tcp", to.String()); err != nil {
			return fmt.Errorf("connect to %s: %w", to, err)
		}
		if t.secure != nil {
			c = tls.Client(c, t.secure)
		}
		if !t.keep(c) {
			return net.ErrClosed
		}
	}
	_, err := c.Write(b)
	return err
}

func (t *tcp) close() error {
	err := t.listener.Close()
	t.mu.Lock()
	t.closed = true
	for _, c := range t.conns {
		_ = c.Close() // ends its reader
	}
	t.mu.Unlock()
	t.wg.Wait()
	return err
}
