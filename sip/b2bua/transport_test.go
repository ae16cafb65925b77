package b2bua

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/sip"
)

type pipeListener struct {
	addr   netip.AddrPort
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l *pipeListener) Close() error              { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr            { return net.TCPAddrFromAddrPort(l.addr) }

// overPipes lets a bench have TCP beside UDP.
func overPipes(cfg *Config, dial func(to netip.AddrPort) (net.Conn, error)) {
	for _, l := range []netip.AddrPort{outside, inside} {
		cfg.Listen = append(cfg.Listen, sip.Listen{Network: "tcp", Addr: l})
	}
	cfg.Net.Listen = func(_ string, a netip.AddrPort) (net.Listener, error) {
		return &pipeListener{a, make(chan struct{})}, nil
	}
	cfg.Net.Dial = func(ctx context.Context, _ string, a netip.AddrPort) (net.Conn, error) {
		conn, err := dial(a)
		if conn == nil && err == nil { // a firewall
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return conn, err
	}
	cfg.UDPBytesMax = 1300
}

// largeSDP is a description of about 8 kB.
func largeSDP(addr netip.Addr, port int) string {
	var b strings.Builder
	b.WriteString(sdpOf(addr, port))
	for i := range 130 {
		fmt.Fprintf(&b, "a=x-candidate:%d of a party that has many addresses and names all\r\n", i)
	}
	return b.String()
}

// TestLargeRequestUDPOnly: a carrier that speaks UDP alone gets a large request in
// one datagram, and at once the next time.
func TestLargeRequestUDPOnly(t *testing.T) {
	for name, dial := range map[string]func(netip.AddrPort) (net.Conn, error){
		"refused":  func(netip.AddrPort) (net.Conn, error) { return nil, errors.New("connection refused") },
		"firewall": func(netip.AddrPort) (net.Conn, error) { return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			dialled := 0
			inBubble(t, func(cfg *Config) {
				overPipes(cfg, func(to netip.AddrPort) (net.Conn, error) { dialled++; return dial(to) })
			}, func(w *bench) {
				for i := range 2 {
					begun := time.Now()
					begin(w.a, outside, fmt.Sprint("big", i), largeSDP(carrier.Addr(), 7000))
					w.a.want("100")
					p := w.p.take(inside)
					if via, _ := p.invite.TopVia(); via.Transport != "UDP" || len(p.invite.Body) < 8000 {
						t.Errorf("Via %s, %d bytes", via, len(p.invite.Body))
					}
					if took := time.Since(begun); took > 3*time.Second || i > 0 && took > time.Second {
						t.Errorf("call %d waited %s", i, took)
					}
					w.p.reply(p.invite, 486, "pbx", nil, "")
					w.p.want("ACK")
					w.a.want("486")
				}
				if n := w.b.counters.LargeOverUDP.Load(); dialled != 1 || n != 2 {
					t.Errorf("dialled %d times, %d over UDP", dialled, n)
				}
			})
		})
	}
}

// TestLargeRequestTCP: where the peer takes TCP, a large request goes over it and a
// small one over UDP; what is answered comes back.
func TestLargeRequestTCP(t *testing.T) {
	var far net.Conn
	inBubble(t, func(cfg *Config) {
		overPipes(cfg, func(to netip.AddrPort) (net.Conn, error) {
			if to != pbx {
				return nil, errors.New("connection refused")
			}
			near, other := net.Pipe()
			far = other
			return near, nil
		})
	}, func(w *bench) {
		begin(w.a, outside, "small", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		small := w.p.take(inside)
		w.p.reply(small.invite, 486, "pbx", nil, "")
		w.p.want("ACK")
		w.a.want("486")
		begin(w.a, outside, "big", largeSDP(carrier.Addr(), 7000))
		w.a.want("100")
		time.Sleep(time.Second)
		synctest.Wait()
		if far == nil {
			t.Fatal("no connection was opened")
		}
		m := readPipe(t, far)
		via, _ := m.TopVia()
		if m.Method != sip.Invite || via.Transport != "TCP" || via.Port != 5060 || len(m.Body) < 8000 {
			t.Errorf("%s, Via %s, %d bytes", m.Method, via, len(m.Body))
		}
		res := sip.ResponseTo(m, 486, "Busy Here")
		res.Set("To", m.Get("To")+";tag=x")
		if _, err := far.Write(res.Append(nil)); err != nil {
			t.Fatal(err)
		}
		w.a.want("486")
		if ack := readPipe(t, far); ack.Method != sip.Ack {
			t.Errorf("%s instead of the ACK", ack.Method)
		}
		w.p.quiet(time.Second)
		if n := w.b.counters.LargeOverTCP.Load(); n != 1 {
			t.Errorf("%d requests over TCP", n)
		}
	})
}

// readPipe reads one message.
func readPipe(t *testing.T, conn net.Conn) *sip.Message {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var data []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("%v after %d bytes", err, len(data))
		}
		data = append(data, bytes.TrimLeft(buf[:n], "\r\n")...)
		if m, _, err := sip.Parse(data, true); err == nil {
			return m
		} else if !errors.Is(err, sip.ErrPartial) {
			t.Fatal(err)
		}
	}
}
