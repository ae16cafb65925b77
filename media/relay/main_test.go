package relay

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/relay/kernel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every host has an address of its own in 127/8, so that one test runs over real
// sockets and in memory alike.
var (
	locals      = [2]netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}
	carrierHost = netip.MustParseAddr("127.0.1.1")
	pbxHost     = netip.MustParseAddr("127.0.1.2")
	thiefHost   = netip.MustParseAddr("127.0.1.66")
)

// env is a relay and the network around it.
type env struct {
	*testing.T
	relay  *Relay
	listen func(netip.AddrPort) (testConn, error)
}

type testConn interface {
	Conn
	SetReadDeadline(time.Time) error
}

// onBoth runs a test over the injected path in a bubble, and over the real
// engine of this system.
func onBoth(t *testing.T, test func(env)) {
	t.Run("in memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := mediatest.NewNet(1)
			listen := func(a netip.AddrPort) (testConn, error) { return n.Listen(a) }
			r := mustRelay(t, Config{
				PortMin: 20000, PortMax: 20999,
				Open: func(a netip.AddrPort) (Conn, error) { return n.Listen(a) },
			})
			test(env{t, r, listen})
		})
	})
	onSockets(t, test)
}

// onSockets runs a test over the real engines of this system.
func onSockets(t *testing.T, test func(env)) {
	t.Run("sockets", func(t *testing.T) { test(realEnv(t)) })
	t.Run("kernel", func(t *testing.T) { test(kernelEnv(t)) })
}

func realEnv(t *testing.T) env {
	return env{t, mustRelay(t, Config{PortMin: 21000, PortMax: 22999, Loops: 2}), listenUDP}
}

// kernelEnv is like realEnv, with the kernel engine on the loopback interface.
func kernelEnv(t *testing.T) env {
	r, err := New(Config{
		PortMin: 25000, PortMax: 26999, Loops: 2, Engine: EngineKernel,
		Kernel: kernel.Config{Interfaces: []string{"lo"}, RingBytes: 4 << 20, FlowsMax: 1000},
	})
	if errors.Is(err, kernel.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close the relay: %v", err)
		}
	})
	return env{t, r, listenUDP}
}

func listenUDP(a netip.AddrPort) (testConn, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
	if err == nil {
		err = c.SetReadBuffer(4 << 20) // whole bursts wait in it
	}
	return c, err
}

func mustRelay(t testing.TB, cfg Config) *Relay {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close the relay: %v", err)
		}
	})
	return r
}

// party is one far end with its RTP and RTCP socket.
type party struct {
	env
	rtp, rtcp testConn
}

func (e env) party(host netip.Addr) party {
	e.Helper()
	open := func() testConn {
		c, err := e.listen(netip.AddrPortFrom(host, 0))
		if err != nil {
			e.Fatal(err)
		}
		e.Cleanup(func() { _ = c.Close() })
		return c
	}
	return party{e, open(), open()}
}

func addrOf(c Conn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func (p party) remote(mux bool) Remote {
	return Remote{RTP: addrOf(p.rtp), RTCP: addrOf(p.rtcp), Mux: mux, PayloadTypes: []uint8{0, 101}}
}

func (e env) open(opt Options) *Stream {
	e.Helper()
	s, err := e.relay.Open(locals, opt)
	if err != nil {
		e.Fatal(err)
	}
	return s
}

// call opens a stream between a carrier and a PBX whose addresses are known.
func (e env) call() (s *Stream, carrier, pbx party) {
	e.Helper()
	s = e.open(Options{RTP: true})
	carrier, pbx = e.party(carrierHost), e.party(pbxHost)
	s.SetRemote(media.External, carrier.remote(false))
	s.SetRemote(media.Internal, pbx.remote(false))
	return s, carrier, pbx
}

func (e env) send(from Conn, to netip.AddrPort, wire []byte) {
	e.Helper()
	if _, err := from.WriteToUDPAddrPort(wire, to); err != nil {
		e.Fatal(err)
	}
}

// want reads one packet and demands that it be this one, from there.
func (e env) want(at testConn, from netip.AddrPort, wire []byte) {
	e.Helper()
	got, src, err := receive(at)
	if err != nil {
		e.Fatalf("nothing came: %v", err)
	}
	if !bytes.Equal(got, wire) || src != from {
		e.Fatalf("got %x from %v, want %x from %v", got, src, wire, from)
	}
}

func receive(at testConn) ([]byte, netip.AddrPort, error) {
	if err := at.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, netip.AddrPort{}, err
	}
	b := make([]byte, 65536)
	n, src, err := at.ReadFromUDPAddrPort(b)
	return b[:n], netip.AddrPortFrom(src.Addr().Unmap(), src.Port()), err
}

// rtcpOf is the RTCP address beside a Local one.
func rtcpOf(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }

// eventually waits until the relay's goroutines have done what is expected.
func (e env) eventually(what string, ok func() bool) {
	e.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); {
		if time.Now().After(end) {
			e.Fatalf("%s: did not happen", what)
		}
		<-time.After(time.Millisecond)
	}
}

// collector is a tap that keeps everything.
type collector struct {
	mu    sync.Mutex
	wires [][]byte
	at    []time.Time
}

func (c *collector) Put(at time.Time, wire []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wires = append(c.wires, bytes.Clone(wire))
	c.at = append(c.at, at)
}

func (c *collector) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%x", c.wires)
}

func (c *collector) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.wires)
}

// rtpPacket is an RTP packet of PCMU with n octets of payload.
func rtpPacket(ssrc uint32, seq uint16, n int) []byte {
	s := mediatest.RTPStream{SSRC: ssrc, Seq: seq, Timestamp: uint32(seq) * 160}
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(int(seq) + i)
	}
	return s.Next(payload, 160)
}

// rtcpPacket is an empty receiver report (RFC 3550 section 6.4.2).
func rtcpPacket(ssrc byte) []byte { return []byte{0x80, 201, 0, 1, 0, 0, 0, ssrc} }
