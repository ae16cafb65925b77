package sip

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// wsProtocol is the subprotocol of SIP (RFC 7118 section 4.1).
const wsProtocol = "sip"

// wsHeadBytesMax bounds the request by which a peer begins a WebSocket.
const wsHeadBytesMax = 8 << 10

var (
	errWSProtocol = errors.New("the peer does not speak the WebSocket subprotocol sip")
	errWSTooLarge = errors.New("a message of a WebSocket is too large")
	errWSClosed   = errors.New("the peer has closed its WebSocket")
)

// wsConn carries one SIP message in each message of a WebSocket (RFC 7118).
// One goroutine reads, any may write.
type wsConn struct {
	net.Conn
	state  ws.State
	silent time.Duration // after which the peer is taken for dead; 0: never
	in     io.Reader     // of the reader
	up     chan struct{} // closed when the WebSocket is there, or will never be
	opened sync.Once     // closes up

	mu sync.Mutex // held while a frame is written
}

// open lets those write who wait for the handshake; when that has failed they fail.
func (c *wsConn) open() { c.opened.Do(func() { close(c.up) }) }

// newWSConn wraps a connection that a peer has opened; accept comes next.
func newWSConn(conn net.Conn, keepAlive time.Duration) *wsConn {
	return &wsConn{Conn: conn, state: ws.StateServerSide, silent: silence(keepAlive), in: bufio.NewReader(conn), up: make(chan struct{})}
}

// wsSilentMin is the least time after which a peer that says nothing is dead.
const wsSilentMin = 10 * time.Second

func silence(keepAlive time.Duration) time.Duration {
	if keepAlive <= 0 {
		return 0
	}
	return max(3*keepAlive, wsSilentMin)
}

// RemoteAddr is the peer's.
func (c *wsConn) RemoteAddr() net.Addr { return c.Conn.RemoteAddr() }

// accept takes the peer's handshake (RFC 6455 section 4.2).
func (c *wsConn) accept(deadline time.Time) error {
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	asked := false
	upgrader := ws.Upgrader{
		ReadBufferSize: wsHeadBytesMax,
		Protocol: func(p []byte) bool {
			is := strings.EqualFold(string(p), wsProtocol)
			asked = asked || is
			return is
		},
		OnBeforeUpgrade: func() (ws.HandshakeHeader, error) {
			if !asked {
				return nil, ws.RejectConnectionError(ws.RejectionStatus(400), ws.RejectionReason(errWSProtocol.Error()))
			}
			return nil, nil
		},
	}
	if _, err := upgrader.Upgrade(struct {
		io.Reader
		io.Writer
	}{io.LimitReader(c.Conn, 4*wsHeadBytesMax), c.Conn}); err != nil {
		return fmt.Errorf("begin a WebSocket: %w", err)
	}
	c.open()
	return c.SetDeadline(time.Time{})
}

// dialWS begins a WebSocket on a connection that we have opened.
func dialWS(ctx context.Context, conn net.Conn, f Flow, keepAlive time.Duration) (*wsConn, error) {
	host := f.Remote.String()
	if f.Name != "" {
		host = net.JoinHostPort(f.Name, fmt.Sprint(f.Remote.Port()))
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	dialer := ws.Dialer{Protocols: []string{wsProtocol}, ReadBufferSize: wsHeadBytesMax}
	early, got, err := dialer.Upgrade(conn, &url.URL{Scheme: f.Network, Host: host, Path: "/"})
	if err != nil {
		return nil, fmt.Errorf("begin a WebSocket: %w", err)
	}
	if !strings.EqualFold(got.Protocol, wsProtocol) {
		return nil, errWSProtocol
	}
	c := &wsConn{Conn: conn, state: ws.StateClientSide, silent: silence(keepAlive), in: bufio.NewReader(conn), up: make(chan struct{})}
	if early != nil {
		c.in = early // what came behind the peer's answer is in it
	}
	c.open()
	return c, conn.SetDeadline(time.Time{})
}

// readMessage returns the next message. Pings are answered; a message of more than
// MessageBytesMax ends the connection before it is taken.
func (c *wsConn) readMessage() ([]byte, error) {
	var data []byte
	for begun := false; ; {
		if err := c.expect(); err != nil {
			return nil, err
		}
		h, err := ws.ReadHeader(c.in)
		if err != nil {
			return nil, err
		}
		state := c.state
		if begun {
			state = state.Set(ws.StateFragmented)
		}
		if err := ws.CheckHeader(h, state); err != nil {
			return nil, err
		}
		if h.Length > int64(MessageBytesMax-len(data)) {
			_ = c.writeFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusMessageTooBig, ""))) // it is given up either way
			return nil, errWSTooLarge
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(c.in, payload); err != nil {
			return nil, err
		}
		if h.Masked {
			ws.Cipher(payload, h.Mask, 0)
		}
		if h.OpCode.IsControl() {
			if err := c.control(h.OpCode, payload); err != nil {
				return nil, err
			}
			continue
		}
		data = append(data, payload...)
		if begun = !h.Fin; !begun {
			return data, nil
		}
	}
}

// expect gives the peer a limited time for its next frame: a pong, at least.
func (c *wsConn) expect() error {
	if c.silent <= 0 {
		return nil
	}
	return c.SetReadDeadline(time.Now().Add(c.silent))
}

func (c *wsConn) control(op ws.OpCode, payload []byte) error {
	switch op {
	case ws.OpPing:
		return c.writeFrame(ws.NewPongFrame(payload))
	case ws.OpClose:
		_ = c.writeFrame(ws.NewCloseFrame(payload)) // it is over either way
		return errWSClosed
	default: // a pong
		return nil
	}
}

// ping asks for a pong.
func (c *wsConn) ping() error { return c.writeFrame(ws.NewPingFrame(nil)) }

// Write sends one message.
func (c *wsConn) Write(data []byte) (int, error) {
	<-c.up // accept ends in a limited time, or Close has it end
	f := ws.NewTextFrame(data)
	if !utf8.Valid(data) {
		f = ws.NewBinaryFrame(data)
	}
	if err := c.writeFrame(f); err != nil {
		return 0, err
	}
	return len(data), nil
}

func (c *wsConn) writeFrame(f ws.Frame) error {
	if c.state.ClientSide() {
		f = ws.MaskFrame(f) // copies
	}
	frame, err := ws.CompileFrame(f)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.SetWriteDeadline(time.Now().Add(connWriteMax)); err != nil {
		return err
	}
	_, err = c.Conn.Write(frame)
	return err
}
