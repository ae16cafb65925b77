package sip

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// Limits of connections.
const (
	connsMax        = 1024 // connections of TCP, TLS and WebSocket
	connQueueBytes  = 1 << 20
	connDialTimeout = 10 * time.Second
	connHastyMax    = 2 * time.Second  // to open one for which there is another way
	connGreetingMax = 10 * time.Second // for the handshakes of TLS and WebSocket
	connWriteMax    = 10 * time.Second
)

type connKey struct {
	network string
	remote  netip.AddrPort
	tls     *ClientTLS // connections with different certificates do not stand for each other
}

var (
	errConnFull  = errors.New("connection takes nothing: too much is waiting to be written")
	errConnsFull = errors.New("too many connections")
)

// streamConn is one TCP or TLS connection, from the first message to be sent on
// it or from its acceptance. sipgo reads it, through wireConn; one goroutine of
// ours writes it.
type streamConn struct {
	a    *Agent
	key  connKey
	flow Flow
	ours bool          // we opened it
	wake chan struct{} // capacity 1

	mu    sync.Mutex
	conn  *wireConn  // guarded by mu; nil while dialling
	queue []outgoing // guarded by mu
	bytes int        // guarded by mu
	err   error      // guarded by mu: why it is shut
}

type outgoing struct {
	data []byte
	fail func(error)
}

// streamSocket is a listener as sipgo sees it: it accepts peers only.
type streamSocket struct {
	a       *Agent
	l       net.Listener
	network string
	local   netip.AddrPort
}

func (s *streamSocket) serve() { s.a.serveStream(s.network, s) }

func (a *Agent) serveStream(network string, l net.Listener) {
	serve := a.layer.ServeTCP
	if poolOf(network) == "tls" {
		serve = a.layer.ServeTLS
	}
	a.wg.Go(func() { _ = serve(l) }) // ends when l is closed
}

// Accept gives sipgo the next connection of a peer. It hides errors that may
// pass (out of descriptors and the like), after which sipgo would accept no more.
func (s *streamSocket) Accept() (net.Conn, error) {
	s.a.awaitStart()
	for {
		conn, err := s.l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !s.a.pause(50*time.Millisecond) {
				return nil, net.ErrClosed
			}
			continue
		}
		remote := addrPortOf(conn.RemoteAddr())
		if !s.a.cfg.Allow(remote) {
			s.a.Counters.Denied.Add(1)
			_ = conn.Close() // nobody we talk to
			continue
		}
		c := s.a.newConn(Flow{Network: s.network, Local: s.local, Remote: remote})
		if framed(s.network) {
			conn = newWSConn(conn, s.a.cfg.KeepAlive)
		}
		w := c.wire(conn)
		if !s.a.enter(c) {
			s.a.Counters.Refused.Add(1)
			w.abandon() // beyond the limit, counted
			continue
		}
		s.a.wg.Go(func() { c.write(w) })
		return w, nil
	}
}

// Close ends Accept.
func (s *streamSocket) Close() error { return ignoreClosed(s.l.Close()) }

// Addr is the address listened on.
func (s *streamSocket) Addr() net.Addr { return s.l.Addr() }

// dialListener hands connections that we opened to sipgo. It cannot open them
// itself: its dialler is a net.Dialer and nothing else, its TLS knows one server
// name for all next hops, and who sends would wait for the connection.
type dialListener struct {
	a     *Agent
	conns chan *wireConn
}

func (a *Agent) serveDialled(network string) *dialListener {
	d := &dialListener{a: a, conns: make(chan *wireConn)}
	a.serveStream(network, d)
	return d
}

// Accept gives sipgo the next connection that was opened.
func (d *dialListener) Accept() (net.Conn, error) {
	select {
	case w := <-d.conns:
		return w, nil
	case <-d.a.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close does nothing: Accept ends with the agent.
func (d *dialListener) Close() error { return nil }

// Addr is none.
func (d *dialListener) Addr() net.Addr { return &net.TCPAddr{} }

// poolOf is under which of sipgo's transports connections of ours are: WebSocket is
// framed by us, and each message looks as one of TCP.
func poolOf(network string) string {
	if network == "tls" {
		return network
	}
	return "tcp"
}

func keyOf(f Flow) connKey { return connKey{f.Network, f.Remote, f.TLS} }

func (a *Agent) newConn(f Flow) *streamConn {
	return &streamConn{a: a, key: keyOf(f), flow: f, wake: make(chan struct{}, 1)}
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

// connOf returns the connection of a flow, nil when there is none. One that the peer
// has opened is the same whatever certificate we would show.
func (a *Agent) connOf(f Flow) *streamConn {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.conns[keyOf(f)]
	if c == nil && f.TLS != nil {
		if c = a.conns[connKey{f.Network, f.Remote, nil}]; c != nil && c.ours {
			return nil
		}
	}
	return c
}

// Connected says whether what is sent on a flow goes out without a connection being
// opened for it.
func (a *Agent) Connected(f Flow) bool {
	if !f.Reliable() {
		return true
	}
	c := a.connOf(f)
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil && c.err == nil
}

func (a *Agent) sendStream(data []byte, f Flow, fail func(error)) error {
	for {
		if c := a.connOf(f); c != nil {
			if err := c.enqueue(data, fail); !errors.Is(err, net.ErrClosed) {
				return err
			}
		}
		if !f.Return.IsValid() {
			break
		}
		f.Remote, f.Return = f.Return, netip.AddrPort{}
	}
	_, f, err := a.Local(f, netip.Addr{})
	if err != nil {
		return err
	}
	c := a.newConn(f)
	c.ours = true
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
	limit := connDialTimeout
	if c.flow.Hasty {
		limit = connHastyMax
	}
	ctx, cancel := context.WithTimeout(c.a.ctx, limit)
	defer cancel()
	conn, err := c.open(ctx)
	if err != nil {
		c.shut(err)
		return
	}
	w := c.wire(conn)
	select {
	case c.a.dialled[c.key.network].conns <- w:
		c.write(w)
	case <-c.a.ctx.Done():
		w.abandon()
	}
}

// open connects, up to where messages can be sent.
func (c *streamConn) open(ctx context.Context) (net.Conn, error) {
	conn, err := c.a.cfg.Net.Dial(ctx, "tcp", c.key.remote)
	if err != nil {
		return nil, err
	}
	if secured(c.key.network) {
		t := tls.Client(conn, c.a.clientTLS(c.flow))
		if err := t.HandshakeContext(ctx); err != nil {
			_ = conn.Close() // the handshake's error says why
			return nil, err
		}
		conn = t
	}
	if !framed(c.key.network) {
		return conn, nil
	}
	upgraded, err := dialWS(ctx, conn, c.flow, c.a.cfg.KeepAlive)
	if err != nil {
		_ = conn.Close() // as above
		return nil, err
	}
	return upgraded, nil
}

// write is the owner of the connection's writes. They go through sipgo's
// connection, from here and not from who sends, because it writes at once and a
// peer that reads nothing must hold nobody.
func (c *streamConn) write(w *wireConn) {
	select {
	case <-w.ready:
	case <-c.a.ctx.Done():
		return
	}
	pooled, err := c.a.layer.GetConnection(poolOf(c.key.network), w.in.source)
	if err != nil {
		c.shut(err) // it has ended already
		return
	}
	conn, ok := pooled.(*sipgo.TCPConnection)
	if !ok {
		c.shut(ErrNoTransport)
		return
	}
	idle := c.idleTimer(w)
	defer idle.Stop()
	for {
		next, ok := c.next()
		if !ok {
			return
		}
		if next.data == nil {
			select {
			case <-c.wake:
			case <-idle.C:
				c.keepAlive(w)
				idle.Reset(c.a.cfg.KeepAlive)
			case <-c.a.ctx.Done():
				return
			}
			continue
		}
		if _, err := conn.Write(next.data); err != nil {
			if next.fail != nil {
				next.fail(err)
			}
			c.shut(err)
			return
		}
	}
}

// idleTimer goes off when the connection is to be kept alive; of one that is not, never.
func (c *streamConn) idleTimer(w *wireConn) *time.Timer {
	t := time.NewTimer(max(c.a.cfg.KeepAlive, time.Hour))
	if c.a.cfg.KeepAlive <= 0 || !c.ours && w.ws == nil {
		t.Stop()
		return t
	}
	t.Reset(c.a.cfg.KeepAlive)
	return t
}

// keepAlive sends what nobody needs to answer. Its failure shows at the reader, or
// with the next message.
func (c *streamConn) keepAlive(w *wireConn) {
	if w.ws != nil {
		_ = w.ws.ping()
		return
	}
	_, _ = w.Write([]byte("\r\n\r\n"))
}

// next takes what is to be written from the queue; false when the connection is shut.
func (c *streamConn) next() (next outgoing, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return next, false // shut has told those who wait
	}
	if len(c.queue) > 0 {
		next, c.queue = c.queue[0], c.queue[1:]
		c.bytes -= len(next.data)
	}
	return next, true
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
		_ = conn.Conn.Close() // it is given up either way
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
