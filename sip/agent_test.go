package sip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunktap/trunktap/media"
)

func loopback(network string) Listen {
	return Listen{Network: network, Addr: netip.MustParseAddrPort("127.0.0.1:0")}
}

// newAgent returns a running agent and the messages that it gets.
func newAgent(t *testing.T, allow func(netip.AddrPort) bool, listen ...Listen) (*Agent, chan *Message) {
	t.Helper()
	in := make(chan *Message, 1000)
	if allow == nil {
		allow = func(netip.AddrPort) bool { return true }
	}
	a, err := New(Config{Listen: listen, Allow: allow, Handle: func(m *Message) { in <- m }})
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
	return a, in
}

func receive(t *testing.T, in chan *Message) *Message {
	t.Helper()
	select {
	case m := <-in:
		return m
	case <-time.After(5 * time.Second):
		t.Fatal("nothing came")
		return nil
	}
}

func TestSendAndReceive(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			a, _ := newAgent(t, nil, loopback(network))
			b, in := newAgent(t, nil, loopback(network))
			m := mustParse(t, plain)
			m.Body = []byte(strings.Repeat("x", 40000)) // far beyond any MTU
			for range 3 {
				if err := a.Send(m, Flow{Network: network, Remote: b.Addrs()[0]}, nil); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				got := receive(t, in)
				if len(got.Body) != 40000 || got.Flow.Network != network || got.Flow.Remote.Addr() != netip.MustParseAddr("127.0.0.1") {
					t.Errorf("%d bytes, %+v", len(got.Body), got.Flow)
				}
			}
			m.Body = make([]byte, MessageBytesMax)
			if err := a.Send(m, Flow{Network: network, Remote: b.Addrs()[0]}, nil); err == nil {
				t.Error("a message beyond the limit was sent")
			}
		})
	}
}

func TestConnectionRefusedIsReported(t *testing.T) {
	a, _ := newAgent(t, nil, loopback("tcp"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := addrPortOf(l.Addr())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	if err := a.Send(mustParse(t, plain), Flow{Network: "tcp", Remote: gone}, func(err error) { failed <- err }); err != nil {
		t.Fatal(err)
	}
	select {
	case <-failed:
	case <-time.After(5 * time.Second):
		t.Fatal("nobody was told")
	}
	if n := a.Counters.ConnsOpen.Load(); n != 0 {
		t.Errorf("%d connections open", n)
	}
}

func TestStreamFraming(t *testing.T) {
	a, in := newAgent(t, nil, loopback("tcp"))
	c, err := net.Dial("tcp", a.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, piece := range []string{"\r\n\r\n", plain[:30], plain[30:] + plain[:7], plain[7:] + "\r\n"} {
		if _, err := c.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	pong := make([]byte, 2)
	if _, err := c.Read(pong); err != nil || string(pong) != "\r\n" {
		t.Errorf("answer to a ping: %q %v", pong, err)
	}
	for range 2 {
		if got := receive(t, in); string(got.Body) != "body" {
			t.Errorf("body %q", got.Body)
		}
	}
	broken := strings.Replace(plain, "CSeq: 42 INVITE", "CSeq: x", 1)
	if _, err := c.Write([]byte(broken + plain)); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, in); string(got.Body) != "body" || a.Counters.Unparseable.Load() != 1 {
		t.Error("a broken message costs the one after it")
	}
	answer := make([]byte, 4096)
	if n, err := c.Read(answer); err != nil || !strings.HasPrefix(string(answer[:n]), "SIP/2.0 400 ") {
		t.Errorf("answer to it: %q %v", answer[:n], err)
	}
	if _, err := c.Write([]byte("no sip\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(pong); err == nil {
		t.Error("the connection outlives a framing error")
	}
}

func TestAccessListComesFirst(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	a, in := newAgent(t, func(netip.AddrPort) bool {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return false
	}, loopback("udp"), loopback("tcp"))
	u, err := net.Dial("udp", a.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	if _, err := u.Write([]byte(plain)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", a.Addrs()[1].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("the connection was taken")
	}
	for end := time.Now().Add(5 * time.Second); a.Counters.Denied.Load() < 2 && time.Now().Before(end); {
		select {
		case <-in:
			t.Fatal("a message came through")
		case <-time.After(time.Millisecond):
		}
	}
	if n := a.Counters.Denied.Load(); n != 2 || a.Counters.Unparseable.Load() != 0 {
		t.Errorf("denied %d", n)
	}
}

func TestListenErrors(t *testing.T) {
	for _, s := range []string{"", "udp:1.2.3.4:5", "sctp://1.2.3.4:5", "udp://host:5060", "udp://1.2.3.4", "udp://1.2.3.4:70000"} {
		if _, err := ParseListen(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
	if l, err := ParseListen("tcp://[::]:5060"); err != nil || l.Addr.Port() != 5060 {
		t.Errorf("%+v %v", l, err)
	}
	if _, err := New(Config{Listen: []Listen{loopback("tls")}, Allow: func(netip.AddrPort) bool { return true }, Handle: func(*Message) {}}); err == nil {
		t.Error("TLS without a certificate")
	}
	a, _ := newAgent(t, nil, loopback("udp"))
	taken := Listen{Network: "udp", Addr: a.Addrs()[0]}
	b, err := New(Config{Listen: []Listen{loopback("tcp"), taken}, Allow: func(netip.AddrPort) bool { return true }, Handle: func(*Message) {}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err == nil {
		t.Error("an address was opened twice")
	}
}

func TestLocalAddress(t *testing.T) {
	a, _ := newAgent(t, nil, Listen{Network: "udp", Addr: netip.MustParseAddrPort("0.0.0.0:0")})
	port := a.Addrs()[0].Port()
	got, _, err := a.Local(Flow{Network: "udp", Remote: netip.MustParseAddrPort("127.0.0.9:5060")}, netip.Addr{})
	if err != nil || got != netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port) {
		t.Errorf("%s %v", got, err)
	}
	public := netip.MustParseAddr("203.0.113.1")
	if got, _, _ = a.Local(Flow{Network: "udp", Remote: netip.MustParseAddrPort("127.0.0.9:5060")}, public); got.Addr() != public {
		t.Errorf("%s", got)
	}
	for _, f := range []Flow{{Network: "tcp", Remote: got}, {Network: "udp", Remote: netip.MustParseAddrPort("[::1]:5060")}} {
		if _, _, err := a.Local(f, netip.Addr{}); err == nil {
			t.Errorf("%+v has a local address", f)
		}
	}
}

func TestReplyFlowAndMarkSource(t *testing.T) {
	src := netip.MustParseAddrPort("198.51.100.1:33333")
	for _, c := range []struct{ via, to, mark string }{
		{"SIP/2.0/UDP 198.51.100.1:5070;branch=z9hG4bK1", "198.51.100.1:5070", "SIP/2.0/UDP 198.51.100.1:5070;branch=z9hG4bK1"},
		{"SIP/2.0/UDP host;branch=z9hG4bK1", "198.51.100.1:5060", "SIP/2.0/UDP host;branch=z9hG4bK1;received=198.51.100.1"},
		{
			"SIP/2.0/UDP 10.0.0.1;rport;branch=z9hG4bK1, SIP/2.0/UDP x", "198.51.100.1:33333",
			"SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1;received=198.51.100.1;rport=33333, SIP/2.0/UDP x",
		},
	} {
		m := mustParse(t, strings.Replace(plain, plain[strings.Index(plain, "Via: ")+5:strings.Index(plain, "\r\nf:")], c.via, 1))
		m.Flow = Flow{Network: "udp", Remote: src}
		MarkSource(m)
		if got := m.Get("Via"); got != c.mark {
			t.Errorf("Via %s, want %s", got, c.mark)
		}
		if got := ReplyFlow(m).Remote.String(); got != c.to {
			t.Errorf("reply to %s, want %s", got, c.to)
		}
	}
}

func TestTable(t *testing.T) {
	pfx := netip.MustParsePrefix
	side := func(hop string, peers ...netip.Prefix) Side {
		h, err := ParseNextHop(hop)
		if err != nil {
			t.Fatal(err)
		}
		return Side{Peers: peers, NextHops: []NextHop{h}, MediaAddr: netip.MustParseAddr("192.0.2.1")}
	}
	table, err := NewTable([]Trunk{
		{Name: "a", Sides: [2]Side{side("sip:198.51.100.1", pfx("198.51.100.0/24")), side("sip:pbx.example", pfx("10.0.0.0/8"))}},
		{Name: "b", Sides: [2]Side{side("sip:198.51.100.9:5070", pfx("198.51.100.128/25")), side("sip:10.0.0.5:5080;transport=tcp", pfx("10.0.0.0/8"))}},
		{Name: "c", Sides: [2]Side{side("sip:127.0.0.1:6001"), side("sip:127.0.0.1:6002")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for src, want := range map[string]string{
		"198.51.100.7:1": "a external", "198.51.100.200:1": "b external", "[::ffff:10.1.1.1]:1": "a internal",
		"10.0.0.5:9": "b internal", "127.0.0.1:6002": "c internal", "127.0.0.1:6001": "c external", "203.0.113.1:1": "none",
		"192.0.2.200:1": "none",
	} {
		got := "none"
		if p, ok := table.Lookup(netip.MustParseAddrPort(src)); ok {
			got = fmt.Sprint(p.Trunk.Name, " ", p.Side)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", src, got, want)
		}
	}
	peer := Peer{&table.Trunks()[0], media.Internal}
	table.Learn(peer, []netip.Addr{netip.MustParseAddr("192.0.2.200")})
	if p, ok := table.Lookup(netip.MustParseAddrPort("192.0.2.200:5")); !ok || p != peer || !table.Allows(peer, netip.MustParseAddr("192.0.2.200")) {
		t.Error("the address of a next hop's name is not let in")
	}
	_, err = NewTable([]Trunk{{Name: "x"}, {Name: "x", Sides: [2]Side{{Peers: []netip.Prefix{{}}}, {NextHops: []NextHop{{}}}}}})
	for _, want := range []string{"external side has no next hop", "no media address", "taken by an earlier", "no prefix", "next hop without host"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among the faults: %v", want, err)
		}
	}
}

func TestNextHops(t *testing.T) {
	for s, want := range map[string]string{
		"sip:a": "sip:a;transport=udp", "sip:a:5;transport=TCP": "sip:a:5;transport=tcp", "sips:[::1]": "sip:[::1];transport=tls",
	} {
		if h, err := ParseNextHop(s); err != nil || h.String() != want {
			t.Errorf("%s: %s %v", s, h, err)
		}
	}
	for _, s := range []string{"", "a", "tel:1", "sip:a;transport=sctp", "sip:a:0"} {
		if _, err := ParseNextHop(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestResolve(t *testing.T) {
	a, err := New(Config{
		Listen: []Listen{loopback("udp")}, Allow: func(netip.AddrPort) bool { return true }, Handle: func(*Message) {},
		Net: Net{LookupNetIP: func(_ context.Context, host string) ([]netip.Addr, error) {
			if host == "none" {
				return nil, nil
			}
			return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.2")}, nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	flows, err := a.Resolve(context.Background(), NextHop{Host: "pbx", Transport: "tls"})
	if err != nil || fmt.Sprint(flows[0].Remote, flows[1].Remote) != "192.0.2.1:5061 192.0.2.2:5061" {
		t.Errorf("%v %v", flows, err)
	}
	if _, err := a.Resolve(context.Background(), NextHop{Host: "none"}); err == nil {
		t.Error("no address is no error")
	}
}

// Messages of one socket are handed on in the order in which they came.
func TestOrder(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		a, _ := newAgent(t, nil, loopback(network))
		b, in := newAgent(t, nil, loopback(network))
		const n = 500
		for i := range n {
			m := mustParse(t, plain)
			m.Set("CSeq", fmt.Sprint(i, " INVITE"))
			if err := a.Send(m, Flow{Network: network, Remote: b.Addrs()[0]}, nil); err != nil {
				t.Fatal(err)
			}
		}
		for i := range n {
			if seq, _ := receive(t, in).CSeq(); int(seq) != i {
				t.Fatalf("%s: CSeq %d came as number %d", network, seq, i)
			}
		}
	}
}

// What sipgo read is joined with the text of the same message, on every connection.
func TestMessagesOfConnectionsAreNotMixed(t *testing.T) {
	a, in := newAgent(t, nil, loopback("tcp"))
	var conns []net.Conn
	for range 8 {
		c, err := net.Dial("tcp", a.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		conns = append(conns, c)
	}
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			for range 50 {
				text := strings.Replace(plain, "id@host", fmt.Sprint("id", i), 1)
				text = strings.Replace(text, "body", fmt.Sprintf("%04d", i), 1)
				for _, piece := range []string{text[:100+i], text[100+i:]} {
					if _, err := c.Write([]byte(piece)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	from := map[string]netip.AddrPort{}
	for range 50 * len(conns) {
		m := receive(t, in)
		if want := strings.TrimPrefix(m.CallID(), "id"); strings.TrimLeft(string(m.Body), "0") != strings.TrimLeft(want, "0") {
			t.Fatalf("%s came with body %q", m.CallID(), m.Body)
		}
		if was, known := from[m.CallID()]; known && was != m.Flow.Remote {
			t.Fatalf("%s came from %s and %s", m.CallID(), was, m.Flow.Remote)
		}
		from[m.CallID()] = m.Flow.Remote
	}
}

// sipgo's pool must not grow with the sources that it has seen.
func TestSourcesLeaveNothingBehind(t *testing.T) {
	a, in := newAgent(t, nil, loopback("udp"), loopback("tcp"))
	for i := range 40 {
		network := []string{"udp", "tcp"}[i%2]
		c, err := net.Dial(network, a.Addrs()[i%2].String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(plain)); err != nil {
			t.Fatal(err)
		}
		receive(t, in)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	size := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.layer.Pool("udp").Size() + a.layer.Pool("tcp").Size() + len(a.inbound) + len(a.conns)
	}
	const want = 3 // the socket by its address and by its name in the pool, and its inbound
	for end := time.Now().Add(5 * time.Second); size() > want && time.Now().Before(end); {
		<-time.After(time.Millisecond)
	}
	if n := size(); n != want || a.Counters.ConnsOpen.Load() != 0 {
		t.Errorf("%d entries are left, %d connections", n, a.Counters.ConnsOpen.Load())
	}
}

// pipes is a listener whose connections all come from one address.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5060} }

type pipeEnd struct{ net.Conn }

func (pipeEnd) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 5060} }

func TestTwoConnectionsOfOnePeer(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	in := make(chan *Message, 10)
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	a, err := New(Config{
		Listen: []Listen{loopback("tcp")}, Allow: func(netip.AddrPort) bool { return true }, Handle: func(m *Message) { in <- m },
		Net: Net{Listen: func(string, netip.AddrPort) (net.Listener, error) { return l, nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	var far []net.Conn
	for range 2 {
		ours, theirs := net.Pipe()
		l.conns <- pipeEnd{ours}
		far = append(far, theirs)
	}
	for i, c := range far {
		if _, err := c.Write([]byte(strings.Replace(plain, "id@host", fmt.Sprint(i), 1))); err != nil {
			t.Fatal(err)
		}
		if m := receive(t, in); m.CallID() != fmt.Sprint(i) {
			t.Errorf("connection %d brought %s", i, m.CallID())
		}
	}
	if err := a.Close(); err != nil { // must not wait for the one that was replaced
		t.Error(err)
	}
	for _, c := range far {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection outlives its agent")
		}
	}
}
