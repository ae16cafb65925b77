package sip

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// wireConn stands between a connection and sipgo's stream transport. Its Read
// gives one whole message that sipgo can read, so that a message which nobody
// can read does not cost the connection that other calls use, and two lengths
// in one message cannot shift where the next begins: sipgo closes in the first
// case and takes the last in the second.
type wireConn struct {
	net.Conn
	ws    *wsConn // Conn, when its messages come in frames
	c     *streamConn
	in    *inbound
	chunk []byte
	data  []byte // read and not yet taken apart
	out   []byte // what is left of the message that sipgo reads

	begin, end sync.Once
	ready      chan struct{} // closed when sipgo reads: then the connection is in its pool
}

// wire makes conn the connection of c. Close waits for its reader.
func (c *streamConn) wire(conn net.Conn) *wireConn {
	ws, _ := conn.(*wsConn)
	w := &wireConn{Conn: conn, ws: ws, c: c, in: c.a.register(c.key.network, c), chunk: make([]byte, 4<<10), ready: make(chan struct{})}
	c.a.wg.Add(1)
	c.mu.Lock()
	shut := c.err != nil
	c.conn = w
	c.mu.Unlock()
	if shut {
		_ = conn.Close() // shut while dialling; the reader finds it closed
	}
	return w
}

// abandon closes a connection that sipgo never got.
func (w *wireConn) abandon() {
	_ = w.Conn.Close() // nothing was sent on it
	w.ended()
}

// ended notes that nothing is read any more.
func (w *wireConn) ended() {
	w.end.Do(func() {
		w.c.a.unregister(w.in)
		w.c.a.wg.Done()
	})
}

// RemoteAddr is what sipgo keeps the connection under, one name for each: two
// connections may have one peer.
func (w *wireConn) RemoteAddr() net.Addr { return w.in }

// Read gives sipgo the next message, or the rest of it.
func (w *wireConn) Read(buf []byte) (int, error) {
	var err error
	w.begin.Do(func() {
		close(w.ready)
		err = w.greet()
	})
	if err == nil && w.ws != nil && len(w.out) == 0 {
		err = w.message()
	}
	if err != nil {
		return 0, w.fail(err)
	}
	for len(w.out) == 0 {
		if err := w.frame(); err != nil {
			w.c.a.Counters.Unparseable.Add(1) // where a message ends is not known any more
			return 0, w.fail(err)
		}
		if len(w.out) > 0 {
			break
		}
		n, err := w.Conn.Read(w.chunk)
		if err != nil {
			return 0, w.fail(err)
		}
		w.data = append(w.data, w.chunk[:n]...)
	}
	n := copy(buf, w.out)
	w.out = w.out[n:]
	return n, nil
}

// greet does the handshakes of a connection that was accepted, in a limited time.
func (w *wireConn) greet() error {
	t, secure := w.Conn.(*tls.Conn)
	if w.ws != nil {
		t, secure = w.ws.Conn.(*tls.Conn)
	}
	if w.c.ours || w.ws == nil && !secure {
		return nil
	}
	ctx, cancel := context.WithTimeout(w.c.a.ctx, connGreetingMax)
	defer cancel()
	if secure {
		if err := t.HandshakeContext(ctx); err != nil {
			w.c.a.Counters.Handshakes.Add(1)
			return err
		}
	}
	if w.ws == nil {
		return nil
	}
	if err := w.ws.accept(time.Now().Add(connGreetingMax)); err != nil {
		w.c.a.Counters.Handshakes.Add(1)
		return err
	}
	return nil
}

// message makes the next message of a WebSocket ready: its frames say where it
// ends, and one that cannot be read costs nothing else (RFC 7118 section 5).
func (w *wireConn) message() error {
	for {
		data, err := w.ws.readMessage()
		if err != nil {
			return err
		}
		m, _, err := precheck(data, false)
		switch {
		case errors.Is(err, ErrKeepAlive):
			w.c.a.Counters.KeepAlives.Add(1)
			if err := w.c.enqueue([]byte("\r\n"), nil); err != nil {
				return err
			}
		case err != nil:
			w.c.a.Counters.Unparseable.Add(1)
		default:
			w.c.a.expect(w.in, m, w.c.flow)
			w.out = m.excerpt(nil)
			return nil
		}
	}
}

// fail ends the connection and sipgo's reading.
func (w *wireConn) fail(err error) error {
	w.c.shut(err)
	if w.ws != nil {
		w.ws.open()
	}
	w.ended()
	return io.EOF
}

// frame makes the next message of the data ready; without one it leaves out empty.
func (w *wireConn) frame() error {
	for len(w.data) > 0 {
		if bytes.HasPrefix(w.data, []byte("\r\n\r\n")) { // ping, RFC 5626 section 3.5.1
			w.c.a.Counters.KeepAlives.Add(1)
			_ = w.c.enqueue([]byte("\r\n"), nil) // a full connection needs no pong
			w.data = w.data[4:]
			continue
		}
		if len(bytes.Trim(w.data, "\r\n")) == 0 {
			break
		}
		m, rest, err := precheck(w.data, true)
		switch {
		case err == nil:
			w.c.a.expect(w.in, m, w.c.flow)
			w.out, w.data = m.excerpt(nil), rest
			return nil
		case !errors.Is(err, ErrPartial):
			// As long as it is clear where it ends, it is left out.
			why := err
			if rest, err = skip(w.data); err == nil {
				w.c.a.Counters.Unparseable.Add(1)
				w.c.a.refuse(w.data, why, w.c.flow)
				w.data = rest
				continue
			}
		}
		if !errors.Is(err, ErrPartial) {
			return err
		}
		break
	}
	if len(w.data) > MessageBytesMax+4 {
		return errors.New("message too large")
	}
	w.data = append([]byte(nil), w.data...) // frees what was taken
	return nil
}

// Write gives a peer that reads nothing a limited time.
func (w *wireConn) Write(data []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(connWriteMax)); err != nil {
		return 0, err
	}
	return w.Conn.Write(data)
}

// Close is sipgo's way to end the connection.
func (w *wireConn) Close() error {
	w.c.shut(net.ErrClosed)
	w.ended()
	return nil
}
