package src

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip"
)

func TestRefusing(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		after []time.Duration // since the one before
		long  bool
	}{
		"once":                  {nil, false},
		"while it opens":        {[]time.Duration{0, 100 * time.Millisecond, time.Second}, false},
		"for long":              {[]time.Duration{time.Second, time.Second}, true},
		"now and then":          {[]time.Duration{6 * time.Second, time.Minute, time.Hour}, false},
		"now and then, at last": {[]time.Duration{6 * time.Second, time.Second, time.Second}, true},
	} {
		r, at := refusing{}, now
		long := r.take(at)
		for _, d := range c.after {
			at = at.Add(d)
			long = r.take(at)
		}
		if long != c.long || r.long() != c.long {
			t.Errorf("%s: %v", name, long)
		}
	}
}

// TestAHostThatRefusesAudio: nobody listens where the answer says. The next server
// gets the call, and another call goes on meanwhile. The sockets are the system's:
// what a host refuses is what only that can tell.
func TestAHostThatRefusesAudio(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	local := netip.MustParseAddr("127.0.0.1")
	c, err := New(Config{Address: local})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	open := func() *net.UDPConn {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	hears := [2]*net.UDPConn{open(), open()}
	closed := open()
	refuses := closed.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	_ = closed.Close() // so that nobody listens there
	heard := make(chan struct{}, 1000)
	for _, h := range hears {
		defer func() { _ = h.Close() }()
		go func() {
			buf := make([]byte, 1500)
			for {
				if _, err := h.Read(buf); err != nil {
					return
				}
				heard <- struct{}{}
			}
		}()
	}
	port := func(h *net.UDPConn) uint16 { return h.LocalAddr().(*net.UDPAddr).AddrPort().Port() }
	bad, byes := answering(t, local, refuses, port(hears[1]))
	good, _ := answering(t, local, port(hears[0]), port(hears[1]))
	f := c.Fork("", session(), []Server{bad, good}, false)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(15 * time.Second)
	for ms, after := int64(0), 0; after < 20; ms += 100 {
		select {
		case <-ticker.C:
			f.Audio(ms, 8000, tone(ms, 100, 8000))
		case <-timeout:
			t.Fatalf("%d servers are given up, %d refuse", c.counters.Failovers.Load(), c.counters.Unreachable.Load())
		}
		if c.counters.Failovers.Load() > 0 {
			after++
		}
	}
	<-byes
	if n := c.counters.Unreachable.Load(); n != 1 {
		t.Errorf("%d refuse", n)
	}
	if n := c.counters.SendErrors.Load(); n > 0 {
		t.Errorf("%d packets are lost to what another host says", n)
	}
	if f := c.counters.Failovers.Load(); f != 1 || len(heard) < 100 {
		t.Errorf("%d failovers, %d packets", f, len(heard))
	}
	f.End()
}

// answering is a server that takes sessions, and tells of those that were ended.
func answering(t *testing.T, local netip.Addr, ports ...uint16) (Server, chan struct{}) {
	t.Helper()
	byes := make(chan struct{}, 10)
	var agent *sip.Agent
	handle := func(m *sip.Message) {
		if !m.IsRequest() || m.Method == sip.Ack {
			return
		}
		sip.MarkSource(m)
		res := sip.ResponseTo(m, 200, "OK")
		if m.ToTag() == "" {
			res.Set("To", m.Get("To")+";tag=srs")
		}
		res.Add("Contact", fmt.Sprintf("<sip:%s>;+sip.srs", agent.Addrs()[0]))
		if m.Method == sip.Invite {
			res.Add("Content-Type", "application/sdp")
			text := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\n", local, local)
			for _, p := range ports {
				text += fmt.Sprintf("m=audio %d RTP/AVP 0\r\na=recvonly\r\n", p)
			}
			res.Body = []byte(text)
		}
		if m.Method == sip.Bye {
			byes <- struct{}{}
		}
		_ = agent.Send(res, sip.ReplyFlow(m), nil) // or the request comes again
	}
	agent, err := sip.New(sip.Config{
		Listen: []sip.Listen{{Network: "udp", Addr: netip.AddrPortFrom(local, 0)}},
		Allow:  func(netip.AddrPort) bool { return true }, Handle: handle,
	})
	if err == nil {
		err = agent.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := agent.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := ParseServer("sip:record@" + agent.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	return s, byes
}
