package kernel_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunktap/trunktap/media/relay/kernel"
	"github.com/trunktap/trunktap/media/relay/kernel/kerneltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink keeps what it gets.
type sink struct {
	mu        sync.Mutex
	wires     [][]byte
	at        []time.Time
	lost      uint32
	lostAt    []int // how many packets came before a loss
	withdrawn chan struct{}
}

func newSink() *sink { return &sink{withdrawn: make(chan struct{}, 100)} }

func (s *sink) Put(at time.Time, wire []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wires, s.at = append(s.wires, bytes.Clone(wire)), append(s.at, at)
}

func (s *sink) Lost(n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost += n
	s.lostAt = append(s.lostAt, len(s.wires))
}

func (s *sink) Withdraw() { s.withdrawn <- struct{}{} }

func (s *sink) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.wires)
}

func (s *sink) last() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wires[len(s.wires)-1]
}

// rtp is an RTP packet of PCMU.
func rtp(seq int, n int) []byte {
	wire := []byte{0x80, 0, byte(seq >> 8), byte(seq), 0, 0, byte(seq >> 8), byte(seq), 0, 0, 0, 7}
	for i := range n {
		wire = append(wire, byte(seq+i))
	}
	return wire
}

// pair is a sender and a receiver on lo, and a socket between them that sees
// what the program leaves.
type pair struct {
	testing.TB
	from, local, to *net.UDPConn
}

func newPair(t testing.TB) pair {
	listen := func(at string) *net.UDPConn { return (&kerneltest.Host{}).Listen(t, at) }
	return pair{t, listen("127.0.1.1:0"), listen("127.0.0.2:20000"), listen("127.0.1.2:0")}
}

func addr(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func (p pair) spec() kernel.Spec {
	return kernel.Spec{
		Local: addr(p.local), Source: addr(p.from), OutSource: addr(p.local), OutDest: addr(p.to),
		SSRC: 7, DSCP: -1, Record: true, Cookie: [6]uint64{1, 2, 3, 4, 5, 6},
	}
}

func (p pair) send(wire []byte) {
	p.Helper()
	if _, err := p.from.WriteToUDPAddrPort(wire, addr(p.local)); err != nil {
		p.Fatal(err)
	}
}

// want demands the next packet of a socket.
func (p pair) want(c *net.UDPConn, wire []byte) {
	p.Helper()
	if got, _, err := kerneltest.Read(c, time.Second); err != nil || !bytes.Equal(got, wire) {
		p.Fatalf("got %x (%v), want %x", got, err, wire)
	}
}

// take sends the packet that goes to the socket and lets the program have the rest.
func (p pair) take(f *kernel.Flow) {
	p.Helper()
	p.send(rtp(0, 4))
	p.want(p.local, rtp(0, 4))
	f.Handled(kernel.Mark(rtp(0, 4)))
}

func config() kernel.Config {
	return kernel.Config{PortMin: 20000, PortMax: 20999, RingBytes: 1 << 20, FlowsMax: 4}
}

func start(t testing.TB, cfg kernel.Config) *kernel.Engine {
	t.Helper()
	e := kerneltest.Open(t, cfg)
	e.Start()
	return e
}

func TestAFlowGoesOverAndComesBack(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	e, p, s := start(t, config()), newPair(t), newSink()
	f, err := e.Add(p.spec(), s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // nothing was handled
		p.send(rtp(i, 4))
	}
	p.want(p.local, rtp(0, 4))
	p.want(p.local, rtp(1, 4))
	f.Handled(kernel.Mark(rtp(1, 4))) // the third one waits
	p.send(rtp(3, 4))
	p.want(p.local, rtp(2, 4))
	p.want(p.local, rtp(3, 4))
	if f.Taken() {
		t.Fatal("taken while packets wait")
	}
	f.Handled(kernel.Mark(rtp(3, 4)))
	before := time.Now()
	for i := 4; i < 100; i++ {
		p.send(rtp(i, i*10))
		p.want(p.to, rtp(i, i*10))
	}
	after := time.Now()
	if !f.Taken() {
		t.Fatal("not taken")
	}
	n := f.Remove()
	if n.Packets != 96 || n.Lost != 0 || n.Unfit != 0 || n.Last.Before(before) || n.Last.After(after) || f.Counts() != n || f.Remove() != n {
		t.Fatalf("%+v", n)
	}
	if s.len() != 96 {
		t.Fatalf("%d packets in the sink", s.len())
	}
	for i, wire := range s.wires {
		if !bytes.Equal(wire, rtp(i+4, (i+4)*10)) || s.at[i].Before(before) || s.at[i].After(after) {
			t.Fatalf("packet %d: %x at %v", i, wire, s.at[i])
		}
	}
	p.send(rtp(100, 4))
	p.want(p.local, rtp(100, 4))
}

// Copies can be switched off and on; the flow does not notice.
func TestRecord(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	e, p, s := start(t, config()), newPair(t), newSink()
	f, err := e.Add(p.spec(), s)
	if err != nil {
		t.Fatal(err)
	}
	p.take(f)
	for i := 1; i < 31; i++ {
		f.Record(i <= 10 || i > 20)
		p.send(rtp(i, 160))
		p.want(p.to, rtp(i, 160))
	}
	if f.Remove(); s.len() != 20 || !bytes.Equal(s.wires[10], rtp(21, 160)) {
		t.Fatalf("%d packets in the sink", s.len())
	}
}

// The ring is as small as can be and is drained now and then: what did not fit is
// told before the packet that follows it.
func TestLossIsTold(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	cfg := config()
	cfg.RingBytes, cfg.Rings, cfg.DrainInterval = 1, 1, time.Hour
	e, p, s := start(t, cfg), newPair(t), newSink()
	f, err := e.Add(p.spec(), s)
	if err != nil {
		t.Fatal(err)
	}
	p.take(f)
	const packets = 1000
	for i := 1; i <= packets; i++ {
		p.send(rtp(i, i%2*1000))
		p.want(p.to, rtp(i, i%2*1000))
		if i%50 == 0 {
			e.Drain()
		}
	}
	n := f.Remove()
	if n.Packets != packets || n.Lost == 0 || uint64(s.lost) != n.Lost || uint64(s.len())+n.Lost != packets || len(s.lostAt) < 15 {
		t.Fatalf("%+v; %d in the sink, %d lost, in %d places", n, s.len(), s.lost, len(s.lostAt))
	}
	told, next := uint32(0), 1
	for i, wire := range s.wires {
		seq := int(wire[2])<<8 | int(wire[3])
		if seq != next {
			if !slices.Contains(s.lostAt, i) {
				t.Fatalf("packets %d to %d are missing and nothing was told", next, seq-1)
			}
			told += uint32(seq - next)
		}
		next = seq + 1
	}
	if told += uint32(packets + 1 - next); told != s.lost {
		t.Fatalf("%d are missing, %d were told", told, s.lost)
	}
}

func TestAddRefuses(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	e, p := start(t, config()), newPair(t)
	at := netip.MustParseAddrPort
	for name, change := range map[string]func(*kernel.Spec){
		"unspecified local": func(s *kernel.Spec) { s.Local = at("0.0.0.0:20000") },
		"no source":         func(s *kernel.Spec) { s.Source = netip.AddrPort{} },
		"port 0":            func(s *kernel.Spec) { s.OutDest = at("127.0.0.1:0") },
		"other family":      func(s *kernel.Spec) { s.OutDest = at("[::1]:9") },
		"mapped":            func(s *kernel.Spec) { s.OutDest = at("[::ffff:127.0.0.1]:9") },
		"multicast":         func(s *kernel.Spec) { s.OutDest = at("224.0.0.1:9") },
		"link-local": func(s *kernel.Spec) {
			s.Local, s.Source, s.OutSource, s.OutDest = at("[::1]:9"), at("[::1]:9"), at("[::1]:9"), at("[fe80::1]:9")
		},
		"broadcast": func(s *kernel.Spec) { s.OutDest = at("127.255.255.255:9") },
	} {
		s := p.spec()
		change(&s)
		if _, err := e.Add(s, newSink()); !errors.Is(err, kernel.ErrUnfit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := p.spec()
	s.OutDest = at("203.0.113.1:9")
	if _, err := e.Add(s, newSink()); err == nil || !strings.Contains(err.Error(), "203.0.113.1") {
		t.Errorf("no route: %v", err)
	}
	for i := range 5 {
		s := p.spec()
		s.Local = netip.AddrPortFrom(s.Local.Addr(), uint16(20000+i))
		if _, err := e.Add(s, newSink()); i == 4 && !errors.Is(err, kernel.ErrFull) || i < 4 && err != nil {
			t.Errorf("flow %d: %v", i, err)
		}
	}
}

func TestAddRefusesTheSameTwice(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	e, p := start(t, config()), newPair(t)
	f, err := e.Add(p.spec(), newSink())
	if err != nil {
		t.Fatal(err)
	}
	for range 10 { // and no place is lost by it
		if _, err := e.Add(p.spec(), newSink()); !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	f.Remove()
	if _, err := e.Add(p.spec(), newSink()); err != nil {
		t.Fatal(err)
	}
}

// Interfaces that come are looked at, and changes of routes and IPsec policies
// call flows back.
func TestWatch(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	here, far := &kerneltest.Host{}, kerneltest.NewHost(t)
	e := start(t, config())
	if got := e.Interfaces(); !slices.Equal(got, []string{"lo"}) {
		t.Fatalf("looks at %v", got)
	}
	kerneltest.Cable(t, here, "ra", far, "ca")
	here.Address(t, "ra", "10.1.0.1/24")
	eventually(t, func() bool { return slices.Contains(e.Interfaces(), "ra") })
	p, s := newPair(t), newSink()
	spec := p.spec()
	spec.OutSource, spec.OutDest = netip.MustParseAddrPort("10.1.0.1:20000"), netip.MustParseAddrPort("10.1.0.2:9")
	f, err := e.Add(spec, s)
	if err != nil {
		t.Fatal(err)
	}
	withdrawn := func(what string) {
		t.Helper()
		select {
		case <-s.withdrawn:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: not called back", what)
		}
		f.Remove()
		for len(s.withdrawn) > 0 {
			<-s.withdrawn
		}
	}
	here.IP(t, "route add 10.1.0.2/32 via 10.1.0.77")
	withdrawn("another route")
	if f, err = e.Add(spec, s); err != nil {
		t.Fatal(err)
	}
	if err := here.TryIP("xfrm policy add dir out src 10.9.0.0/24 dst 10.8.0.0/24 proto udp action block"); err != nil {
		t.Log(err)
	} else {
		withdrawn("an IPsec policy")
		if _, err := e.Add(spec, s); !errors.Is(err, kernel.ErrUnfit) {
			t.Fatalf("beside an IPsec policy: %v", err)
		}
	}
	here.IP(t, "link del ra")
	eventually(t, func() bool { return !slices.Contains(e.Interfaces(), "ra") })
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("did not happen")
		}
		<-time.After(time.Millisecond)
	}
}

// The process is gone, packets go on, and their copies wait for the next one.
func TestFlowsOutliveTheirOwner(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	cfg := config()
	cfg.PinDir = kerneltest.BPFFS(t) + "/trunktap"
	t.Run("in it", func(t *testing.T) { outlive(t, cfg) }) // closes before the file system goes
}

func outlive(t *testing.T, cfg kernel.Config) {
	first, p, s := start(t, cfg), newPair(t), newSink()
	if err := first.Pinned(); err != nil {
		t.Fatal(err)
	}
	f, err := first.Add(p.spec(), s)
	if err != nil {
		t.Fatal(err)
	}
	p.take(f)
	pass := func(from, n int) {
		t.Helper()
		for i := from; i < from+n; i++ {
			p.send(rtp(i, 160))
			p.want(p.to, rtp(i, 160))
		}
	}
	pass(1, 100)
	if second := kerneltest.Open(t, cfg); second.Pinned() == nil || !strings.Contains(second.Pinned().Error(), "another process") {
		t.Fatalf("two owners: %v", second.Pinned())
	} else if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	f.Handled(1) // harmless
	f.Remove()
	had := s.len()
	pass(101, 200)
	bigger := cfg
	bigger.RingBytes *= 2 // flows are worth more than the configuration
	second := kerneltest.Open(t, bigger)
	pass(301, 100)
	left := second.Left()
	if len(left) != 1 || left[0].Spec != p.spec() && left[0].DSCP != 0 || left[0].Packets != 300 || left[0].Cookie != p.spec().Cookie {
		t.Fatalf("left %+v", left)
	}
	if f, err = second.Adopt(left[0], s); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Adopt(left[0], s); err == nil {
		t.Fatal("adopted twice")
	}
	second.Start()
	pass(401, 100)
	if n := f.Remove(); n.Packets != 500 || s.len() != 500 || had == 500 {
		t.Fatalf("%+v; %d packets in the sink, %d of them before", n, s.len(), had)
	}
	for i, wire := range s.wires {
		if !bytes.Equal(wire, rtp(i+1, 160)) {
			t.Fatalf("packet %d of the sink is %x", i, wire)
		}
	}
	if f, err = second.Add(p.spec(), s); err != nil {
		t.Fatal(err)
	}
	p.send(rtp(0, 4))
	p.want(p.local, rtp(0, 4))
	f.Handled(kernel.Mark(rtp(0, 4)))
	pass(501, 10)
	if err := second.Release(); err != nil {
		t.Fatal(err)
	}
	third := start(t, cfg) // adopts nothing: the flow ends
	p.send(rtp(600, 4))
	p.want(p.local, rtp(600, 4))
	if err := third.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(cfg.PinDir); err != nil || len(entries) != 0 {
		t.Fatalf("%v stay, %v", entries, err)
	}
}

// BenchmarkAddRemove is what a stream's way into the kernel and back costs.
func BenchmarkAddRemove(b *testing.B) {
	cfg := config()
	cfg.Interfaces = []string{"lo"}
	e, p, s := start(b, cfg), newPair(b), newSink()
	spec := p.spec()
	for b.Loop() {
		f, err := e.Add(spec, s)
		if err != nil {
			b.Fatal(err)
		}
		f.Remove()
	}
}
