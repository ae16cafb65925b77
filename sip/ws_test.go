package sip

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// wsClient is a browser's end of a WebSocket.
type wsClient struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dialTestWS(t *testing.T, to netip.AddrPort, protocols ...string) (*wsClient, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, r, _, err := ws.Dialer{Protocols: protocols}.Dial(ctx, "ws://"+to.String()+"/")
	if err != nil {
		return nil, err
	}
	if r == nil {
		r = bufio.NewReader(conn)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &wsClient{t, conn, r}, nil
}

func (c *wsClient) write(frames ...ws.Frame) {
	c.t.Helper()
	for _, f := range frames {
		if err := ws.WriteFrame(c.conn, ws.MaskFrame(f)); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *wsClient) read() ws.Frame {
	c.t.Helper()
	f, err := ws.ReadFrame(c.r)
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

func TestWebSocket(t *testing.T) {
	a, in := newAgent(t, nil, loopback("ws"))
	c, err := dialTestWS(t, a.Addrs()[0], "sip")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(plain, "Content-Length: 4\r\n", "") // RFC 7118 section 5 does without
	half := len(text) / 2
	c.write(
		ws.NewTextFrame([]byte(text)),
		ws.NewBinaryFrame([]byte("this is no message")), // costs only itself
		ws.NewPingFrame([]byte("p")),
		ws.NewFrame(ws.OpText, false, []byte(text[:half])), ws.NewPingFrame([]byte("q")), ws.NewFrame(ws.OpContinuation, true, []byte(text[half:])),
		ws.NewTextFrame([]byte("\r\n\r\n")),
	)
	for range 2 {
		m := receive(t, in)
		if m.Flow.Network != "ws" || !bytes.Equal(m.Append(nil), mustParse(t, text).Append(nil)) {
			t.Errorf("%+v\n%s", m.Flow, m.Append(nil))
		}
		if err := a.Send(ResponseTo(m, 200, "OK"), ReplyFlow(m), nil); err != nil {
			t.Fatal(err)
		}
	}
	var answers, pongs, keepAlives int
	for answers+pongs+keepAlives < 5 {
		switch f := c.read(); {
		case f.Header.OpCode == ws.OpPong:
			pongs++
		case string(f.Payload) == "\r\n":
			keepAlives++
		case f.Header.OpCode == ws.OpText && bytes.HasPrefix(f.Payload, []byte("SIP/2.0 200 ")):
			answers++
		default:
			t.Fatalf("%+v %s", f.Header, f.Payload)
		}
	}
	if answers != 2 || pongs != 2 || keepAlives != 1 || a.Counters.Unparseable.Load() != 1 {
		t.Errorf("%d answers, %d pongs, %d keep-alives, %d unparseable", answers, pongs, keepAlives, a.Counters.Unparseable.Load())
	}
}

// TestWebSocketRefused: who speaks another subprotocol, sends too much or breaks the
// rules of frames costs nobody else.
func TestWebSocketRefused(t *testing.T) {
	a, in := newAgent(t, nil, loopback("ws"))
	for _, protocols := range [][]string{nil, {"mqtt"}} {
		if _, err := dialTestWS(t, a.Addrs()[0], protocols...); err == nil {
			t.Errorf("%v: taken", protocols)
		}
	}
	good, err := dialTestWS(t, a.Addrs()[0], "mqtt", "sip")
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, MessageBytesMax+1)
	for name, frames := range map[string][]ws.Frame{
		"too large":         {ws.NewTextFrame(big)},
		"too large in sum":  {ws.NewFrame(ws.OpText, false, big[:40000]), ws.NewFrame(ws.OpContinuation, true, big[:40000])},
		"not begun":         {ws.NewFrame(ws.OpContinuation, true, []byte("x"))},
		"long control":      {ws.NewFrame(ws.OpPing, true, make([]byte, 126))},
		"closed by us both": {ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))},
	} {
		c, err := dialTestWS(t, a.Addrs()[0], "sip")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			_ = ws.WriteFrame(c.conn, ws.MaskFrame(f)) // it may be closed before all is written
		}
		for err == nil {
			var f ws.Frame
			if f, err = ws.ReadFrame(c.r); err == nil && f.Header.OpCode != ws.OpClose {
				t.Errorf("%s: answered by %+v", name, f.Header)
			}
		}
		if isTimeout(err) {
			t.Errorf("%s: the connection stays", name)
		}
	}
	good.write(ws.NewTextFrame([]byte(plain)))
	receive(t, in)
	if n := a.Counters.Handshakes.Load(); n != 2 {
		t.Errorf("%d failed handshakes, want 2", n)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// TestWebSocketBothEnds is ours on both ends, secured and not, kept alive.
func TestWebSocketBothEnds(t *testing.T) {
	cert, pool := selfSigned(t)
	for _, network := range []string{"ws", "wss"} {
		listen := loopback(network)
		if network == "wss" {
			listen.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		}
		in := [2]chan *Message{make(chan *Message, 10), make(chan *Message, 10)}
		var agents [2]*Agent
		for i := range agents {
			a, err := New(Config{
				Listen: []Listen{listen}, TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, KeepAlive: 20 * time.Millisecond,
				Allow: func(netip.AddrPort) bool { return true }, Handle: func(m *Message) { in[i] <- m },
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := a.Close(); err != nil {
					t.Error(err)
				}
			})
			agents[i] = a
		}
		flow := Flow{Network: network, Remote: agents[1].Addrs()[0]}
		m := mustParse(t, plain)
		m.Body = []byte("\xff\xfe") // no text
		for range 2 {
			if err := agents[0].Send(m, flow, func(err error) { t.Error(err) }); err != nil {
				t.Fatal(err)
			}
			got := receive(t, in[1])
			if err := agents[1].Send(ResponseTo(got, 200, "OK"), ReplyFlow(got), nil); err != nil {
				t.Fatal(err)
			}
			if res := receive(t, in[0]); res.Status != 200 || res.Flow.Network != network {
				t.Errorf("%d over %s", res.Status, res.Flow.Network)
			}
			time.Sleep(150 * time.Millisecond) // several keep-alives, after which the connection is still good
		}
		if n := agents[1].Counters.ConnsOpen.Load(); n != 1 {
			t.Errorf("%d connections, want one that is used again", n)
		}
	}
}

// TestVerifyPeer: a listener that demands certificates, and a name of each source.
func TestVerifyPeer(t *testing.T) {
	cert, pool := selfSigned(t)
	other, _ := selfSigned(t)
	listen := loopback("tls")
	listen.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	want := "pbx.example"
	in := make(chan *Message, 10)
	b, err := New(Config{
		Listen: []Listen{listen}, Allow: func(netip.AddrPort) bool { return true }, Handle: func(m *Message) { in <- m },
		VerifyPeer: func(_ netip.AddrPort, state tls.ConnectionState) error { return VerifyName(state, want) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	a, _ := newAgent(t, nil, func() Listen { l := loopback("tls"); l.TLS = listen.TLS; return l }())
	for _, c := range []struct {
		name  string
		certs []tls.Certificate
		want  string
		ok    bool
	}{
		{"right", []tls.Certificate{cert}, "pbx.example", true},
		{"by address", []tls.Certificate{cert}, "127.0.0.1", true},
		{"another name", []tls.Certificate{cert}, "sbc.example", false},
		{"another authority", []tls.Certificate{other}, "pbx.example", false},
		{"none", nil, "pbx.example", false},
	} {
		want = c.want
		flow := Flow{Network: "tls", Remote: b.Addrs()[0], TLS: &ClientTLS{
			Config: &tls.Config{RootCAs: pool, Certificates: c.certs, MinVersion: tls.VersionTLS12}, Name: "pbx.example",
		}}
		if err := a.Send(mustParse(t, plain), flow, nil); err != nil {
			t.Fatal(err)
		}
		if c.ok {
			receive(t, in)
			continue
		}
		for deadline := time.Now().Add(5 * time.Second); a.Counters.ConnsOpen.Load() > 2 || len(in) > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d connections stay, %d messages came", c.name, a.Counters.ConnsOpen.Load(), len(in))
			}
		}
	}
	if n := b.Counters.Handshakes.Load(); n != 3 {
		t.Errorf("%d failed handshakes, want 3", n)
	}
}

func TestVerifyName(t *testing.T) {
	uri := &x509.Certificate{DNSNames: []string{"a.example"}}
	if err := VerifyName(tls.ConnectionState{PeerCertificates: []*x509.Certificate{uri}}, "A.example"); err != nil {
		t.Error(err)
	}
	if VerifyName(tls.ConnectionState{}, "a.example") == nil {
		t.Error("no certificate passes")
	}
}
