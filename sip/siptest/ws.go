package siptest

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/gobwas/ws"
)

// webSocket is SIP over WebSockets as a browser has it (RFC 7118): it connects, and
// nobody connects to it.
type webSocket struct {
	secure *tls.Config // nil: not
	addr   netip.AddrPort
	take   sink
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[netip.AddrPort]*wsClient // by remote address
}

// wsClient is one connection; frames are written whole.
type wsClient struct {
	net.Conn
	in io.Reader
	mu sync.Mutex // held while a frame is written
}

func newWebSocket(addr netip.AddrPort, secure *tls.Config, take sink) *webSocket {
	return &webSocket{secure: secure, addr: addr, take: take, conns: map[netip.AddrPort]*wsClient{}}
}

func (c *wsClient) write(f ws.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ws.WriteFrame(c.Conn, ws.MaskFrame(f))
}

func (t *webSocket) connect(ctx context.Context, to netip.AddrPort) (*wsClient, error) {
	from := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.addr.Addr(), 0))}
	d := ws.Dialer{Protocols: []string{"sip"}, NetDial: from.DialContext, TLSConfig: t.secure}
	conn, early, _, err := d.Dial(ctx, strings.ToLower(t.name())+"://"+to.String()+"/")
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	c := &wsClient{Conn: conn, in: bufio.NewReader(conn)}
	if early != nil {
		c.in = early // what came behind the handshake is in it
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = conn.Close() // nothing was written to it
		return nil, net.ErrClosed
	}
	t.conns[to] = c
	t.wg.Go(func() { t.read(c, to) })
	return c, nil
}

func (t *webSocket) read(c *wsClient, from netip.AddrPort) {
	defer t.drop(c, from)
	for {
		f, err := ws.ReadFrame(c.in)
		if err != nil {
			return
		}
		switch f.Header.OpCode {
		case ws.OpPing:
			err = c.write(ws.NewPongFrame(f.Payload))
		case ws.OpText, ws.OpBinary:
			if m, perr := ParseMessage(f.Payload); perr == nil {
				t.take(f.Payload, m, from, func(b []byte) error { return c.write(ws.NewTextFrame(b)) })
			}
		case ws.OpClose:
			return
		case ws.OpContinuation, ws.OpPong:
		}
		if err != nil {
			return
		}
	}
}

func (t *webSocket) drop(c *wsClient, from netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns[from] == c {
		delete(t.conns, from)
	}
	_ = c.Close() // its other end sees it, nobody here waits for more
}

func (t *webSocket) name() string {
	if t.secure != nil {
		return "WSS"
	}
	return "WS"
}

func (t *webSocket) local() netip.AddrPort { return t.addr }
func (t *webSocket) reliable() bool        { return true }

func (t *webSocket) send(ctx context.Context, b []byte, to netip.AddrPort) error {
	t.mu.Lock()
	c := t.conns[to]
	t.mu.Unlock()
	if c == nil {
		var err error
		if c, err = t.connect(ctx, to); err != nil {
			return err
		}
	}
	return c.write(ws.NewTextFrame(b))
}

func (t *webSocket) close() error {
	t.mu.Lock()
	t.closed = true
	for _, c := range t.conns {
		_ = c.Close() // ends its reader
	}
	t.mu.Unlock()
	t.wg.Wait()
	return nil
}
