package sip

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestReplyWithoutConnection: the answer to a request whose connection has gone is sent
// over a new one to where the peer listens (RFC 3261 section 18.2.2); nobody can be
// connected to over WebSocket.
func TestReplyWithoutConnection(t *testing.T) {
	a, in := newAgent(t, nil, loopback("tcp"))
	listens, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listens.Close() }() // nothing was sent on it
	conn, err := net.Dial("tcp", a.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(conn, "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/TCP %s;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n", listens.Addr())
	req := receive(t, in)
	there := req.Flow
	if !a.Connected(there) {
		t.Error("it is not connected")
	}
	there.TLS = &ClientTLS{} // what we would show makes no difference to a connection of theirs
	if !a.Connected(there) {
		t.Error("it is not connected with another certificate")
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(20 * time.Second); a.Connected(req.Flow); {
		if time.Now().After(limit) {
			t.Fatal("it is still connected")
		}
		time.Sleep(time.Millisecond)
	}
	a.Reply(req, 200, "OK")
	back, err := listens.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = back.Close() }() // only read
	if err := back.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := back.Read(buf)
	if m, _, perr := Parse(buf[:n], true); perr != nil || m.Status != 200 {
		t.Errorf("%v %v: %s", err, perr, buf[:n])
	}
	req.Flow.Network = "ws"
	if f := ReplyFlow(req); f.Return != (netip.AddrPort{}) {
		t.Errorf("a WebSocket would be opened to %s", f.Return)
	}
}
