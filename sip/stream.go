package sip

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of connections.
const (
	connsMax        = 1024 // TCP and TLS connections
	connQueueBytes  = 1 << 20
	connDialTimeout = 10 * time.Second
	connWriteMax    = 10 * time.Second
)

type connKey struct {
	network string
	remote  netip.AddrPort
}

var (
	errConnFull  = errors.New("connection takes nothing: too much is waiting to be written")
	errConnsFull = errors.New("too many connections")
)

// streamConn is one TCP or TLS connection, from the first message to be sent on
// it or from its acceptance. One goroutine reads it, one writes it.
type streamConn struct {
	a    *Agent
	key  connKey
	flow Flow
	wake chan struct{} // capacity 1

	mu    sync.Mutex
	conn  net.Conn   // guarded by mu; nil while dialling
	queue []outgoing // guarded by mu
	bytes int        // guarded by mu
	err   error      // guarded by mu: why it is shut
}

type outgoing struct {
	data []byte
	fail func(error)
}

// accept is the owner of one listener.
func (a *Agent) accept(s *streamSocket) {
	for {
		conn, err := s.l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || a.ctx.Err() != nil {
				return
			}
			select { // out of descriptors and the like: it may pass
			case <-a.ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		remote := addrPortOf(conn.RemoteAddr())
		if !a.cfg.Allow(remote) {
			a.Counters.Denied.Add(1)
			_ = conn.Close() // nobody we talk to
			continue
		}
		c := a.newConn(Flow{Network: s.network, Local: s.local, Remote: remote})
		c.conn = conn
		if !a.enter(c) {
			a.Counters.Refused.Add(1)
			_ = conn.Close() // beyond the limit, counted
			continue
		}
		a.wg.Go(func() { c.read(conn) })
		a.wg.Go(c.write)
	}
}

func (a *Agent) newConn(f Flow) *streamConn {
	return &streamConn{a: a, key: connKey{f.Network, f.Remote}, flow: f, wake: make(chan struct{}, 1)}
}

// enter registers c in place of an older one of the same peer; false when full or closed.
func (a *Agent) enter(c *streamConn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || len(a.conns) >= connsMax {
		return false
	}
	a.conns[c.key] = c
	a.Counters.ConnsOpen.Add(1)
	return true
}

func (a *Agent) sendStream(data []byte, f Flow, fail func(error)) error {
	a.mu.Lock()
	c := a.conns[connKey{f.Network, f.Remote}]
	a.mu.Unlock()
	if c != nil {
		if err := c.enqueue(data, fail); !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	_, f, err := a.Local(f, netip.Addr{})
	if err != nil {
		return err
	}
	c = a.newConn(f)
	if err := c.enqueue(data, fail); err != nil {
		return err
	}
	if !a.enter(c) {
		return errConnsFull
	}
	a.wg.Go(c.dial)
	return nil
}

func (c *streamConn) enqueue(data []byte, fail func(error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return net.ErrClosed
	}
	if c.bytes+len(data) > connQueueBytes {
		return errConnFull
	}
	c.queue = append(c.queue, outgoing{data, fail})
	c.bytes += len(data)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

func (c *streamConn) dial() {
	ctx, cancel := context.WithTimeout(c.a.ctx, connDialTimeout)
	defer cancel()
	conn, err := c.a.cfg.Net.Dial(ctx, "tcp", c.key.remote)
	if err == nil && c.key.network == "tls" {
		t := tls.Client(conn, c.a.clientTLS(c.flow))
		if err = t.HandshakeContext(ctx); err != nil {
			_ = conn.Close() // the handshake's error says why
		}
		conn = t
	}
	if err != nil {
		c.shut(err)
		return
	}
	c.mu.Lock()
	shut := c.err != nil
	c.conn = conn
	c.mu.Unlock()
	if shut {
		_ = conn.Close() // closed while dialling
		return
	}
	c.a.wg.Go(func() { c.read(conn) })
	c.write()
}

func (a *Agent) clientTLS(f Flow) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.cfg.TLS != nil {
		cfg = a.cfg.TLS.Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName = f.Name
	}
	if cfg.ServerName == "" {
		cfg.ServerName = f.Remote.Addr().String()
	}
	return cfg
}

// write is the owner of the connection's writes.
func (c *streamConn) write() {
	for {
		c.mu.Lock()
		err, conn := c.err, c.conn
		var next outgoing
		if len(c.queue) > 0 {
			next, c.queue = c.queue[0], c.queue[1:]
			c.bytes -= len(next.data)
		}
		c.mu.Unlock()
		if err != nil {
			if next.fail != nil {
				next.fail(err)
			}
			return
		}
		if next.data == nil {
			select {
			case <-c.wake:
			case <-c.a.ctx.Done():
				return
			}
			continue
		}
		_ = conn.SetWriteDeadline(time.Now().Add(connWriteMax)) // a peer that reads nothing must not hold us
		if _, err := conn.Write(next.data); err != nil {
			if next.fail != nil {
				next.fail(err)
			}
			c.shut(err)
			return
		}
	}
}

// read is the owner of the connection's reads.
func (c *streamConn) read(conn net.Conn) {
	var buf []byte
	chunk := make([]byte, 16<<10)
	for {
		n, err := conn.Read(chunk)
		if err != nil {
			c.shut(err)
			return
		}
		buf = append(buf, chunk[:n]...)
		if buf, err = c.take(buf); err != nil {
			// Where a message ends is not known any more.
			c.a.Counters.Unparseable.Add(1)
			c.shut(err)
			return
		}
	}
}

// take hands on the whole messages of data and returns the rest.
func (c *streamConn) take(data []byte) ([]byte, error) {
	for len(data) > 0 {
		if bytes.HasPrefix(data, []byte("\r\n\r\n")) { // ping, RFC 5626 section 3.5.1
			c.a.Counters.KeepAlives.Add(1)
			_ = c.enqueue([]byte("\r\n"), nil) // a full connection needs no pong
			data = data[4:]
			continue
		}
		if len(bytes.Trim(data, "\r\n")) == 0 {
			break
		}
		m, rest, err := Parse(data, true)
		if errors.Is(err, ErrPartial) {
			break
		}
		if err != nil {
			// One message that nobody can read must not cost the connection that
			// other calls use, as long as it is clear where it ends.
			if rest, err = skip(data); errors.Is(err, ErrPartial) {
				break
			}
			if err != nil {
				return nil, err
			}
			c.a.Counters.Unparseable.Add(1)
			data = rest
			continue
		}
		m.Flow, m.Arrival = c.flow, time.Now()
		c.a.Counters.Received.Add(1)
		c.a.cfg.Handle(m)
		data = rest
	}
	if len(data) > MessageBytesMax+4 {
		return nil, errors.New("message too large")
	}
	return append([]byte(nil), data...), nil
}

// shut ends the connection; what waits to be written has failed.
func (c *streamConn) shut(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	conn, queue := c.conn, c.queue
	c.queue, c.bytes = nil, 0
	c.mu.Unlock()
	c.a.Counters.ConnsOpen.Add(-1)
	if conn != nil {
		_ = conn.Close() // it is given up either way
	}
	c.a.mu.Lock()
	if c.a.conns[c.key] == c {
		delete(c.a.conns, c.key)
	}
	c.a.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	for _, o := range queue {
		if o.fail != nil {
			o.fail(err)
		}
	}
}
