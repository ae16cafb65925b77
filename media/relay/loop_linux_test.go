package relay

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media"
)

// still returns a call whose loop does not run, so that a test can hand it one
// batch at a time.
func still(t testing.TB) (l *loop, s *Stream, carrier, pbx *net.UDPConn) {
	t.Helper()
	cfg, err := Config{PortMin: 23000, PortMax: 23999}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	e := &userEngine{cfg: cfg}
	if l, err = newLoop(&e.socks); err != nil {
		t.Fatal(err)
	}
	e.loops = []*loop{l}
	r := &Relay{cfg: cfg, base: time.Now(), engine: e, pools: map[netip.Addr]*pool{}, streams: map[*Stream]struct{}{}}
	t.Cleanup(func() {
		go l.run() // Close needs it
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	if s, err = r.Open(locals, Options{RTP: true}); err != nil {
		t.Fatal(err)
	}
	far := func(side media.Side, host netip.Addr) *net.UDPConn {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host, 0)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetReadBuffer(4 << 20)
		s.SetRemote(side, Remote{RTP: addrOf(c), PayloadTypes: []uint8{0}})
		return c
	}
	return l, s, far(media.External, carrierHost), far(media.Internal, pbxHost)
}

func (s *Stream) socket(side media.Side) *fdSocket { return s.ends[side].socks[kindRTP].(*fdSocket) }

func TestBatchIsForwardedThenTapped(t *testing.T) {
	l, s, carrier, pbx := still(t)
	e := env{T: t}
	ext, in := s.Local(media.External), s.Local(media.Internal)
	tap := &collector{}
	s.SetTap(media.External, tap)
	var want [][]byte
	for i := range batchPackets + 10 {
		want = append(want, rtpPacket(1, uint16(i), i*20))
		e.send(carrier, ext, want[i])
		e.send(carrier, ext, []byte("junk"))
	}
	for range 3 {
		l.serve(s.socket(media.External))
	}
	for _, wire := range want {
		e.want(pbx, in, wire)
	}
	if !bytes.Equal(bytes.Join(tap.wires, nil), bytes.Join(want, nil)) || len(tap.wires) != len(want) {
		t.Fatalf("the tap got %d packets, want the same %d", len(tap.wires), len(want))
	}
	if st := s.Stats()[0]; st.Forwarded != uint64(len(want)) || st.RejectedForm != uint64(len(want)) {
		t.Fatalf("%+v", st)
	}
}

// The time stamp is the kernel's: it must not matter how late the loop is.
func TestArrivalIsTheKernels(t *testing.T) {
	l, s, carrier, _ := still(t)
	e := env{T: t}
	tap := &collector{}
	s.SetTap(media.External, tap)
	e.send(carrier, s.Local(media.External), rtpPacket(1, 0, 4)) // the kernel starts stamping late after the first socket asks
	l.serve(s.socket(media.External))
	before := time.Now()
	e.send(carrier, s.Local(media.External), rtpPacket(1, 1, 4))
	after := time.Now()
	<-time.After(30 * time.Millisecond)
	l.serve(s.socket(media.External))
	if len(tap.at) != 2 {
		t.Fatalf("%d packets", len(tap.at))
	}
	// The wall clock and the monotonic clock are read one after the other, and
	// the former may be slewed.
	const slack = 2 * time.Millisecond
	if at := tap.at[1]; at.Before(before.Add(-slack)) || at.After(after.Add(slack)) {
		t.Fatalf("arrival is %v after the send, which took %v", at.Sub(before), after.Sub(before))
	}
}

func TestAge(t *testing.T) {
	now := time.Unix(1700000000, 500)
	stamp := func(in *inbound, at time.Time) {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&in.ctrl[0]))
		h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_TIMESTAMPNS
		h.SetLen(unix.CmsgLen(int(unsafe.Sizeof(unix.Timespec{}))))
		ts := (*unix.Timespec)(unsafe.Add(unsafe.Pointer(h), unix.CmsgLen(0)))
		*ts = unix.NsecToTimespec(at.UnixNano())
		in.msgs[0].hdr.SetControllen(unix.CmsgSpace(int(unsafe.Sizeof(*ts))))
	}
	in := newInbound()
	for _, c := range []struct {
		name  string
		stamp time.Duration // relative to now
		want  time.Duration
	}{
		{"just now", 0, 0},
		{"a while ago", -7 * time.Millisecond, 7 * time.Millisecond},
		{"the clock was stepped back", time.Hour, 0},
		{"the clock was stepped forward", -time.Hour, ageMax},
	} {
		stamp(in, now.Add(c.stamp))
		if got := in.age(0, now.UnixNano()); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	stamp(in, now.Add(-time.Millisecond))
	(*unix.Cmsghdr)(unsafe.Pointer(&in.ctrl[0])).Type = unix.SCM_RIGHTS
	if got := in.age(0, now.UnixNano()); got != 0 {
		t.Errorf("another control message: %v", got)
	}
	for _, size := range []int{0, 3, 1000} {
		(*unix.Cmsghdr)(unsafe.Pointer(&in.ctrl[0])).SetLen(size)
		if got := in.age(0, now.UnixNano()); got != 0 {
			t.Errorf("a control message of length %d: %v", size, got)
		}
	}
	in.arm(0)
	in.msgs[0].hdr.SetControllen(0)
	if got := in.age(0, now.UnixNano()); got != 0 {
		t.Errorf("no control message: %v", got)
	}
}

func TestIPv6(t *testing.T) {
	if c, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
		t.Skipf("SKIPPED: no IPv6 loopback here: %v", err)
	} else {
		_ = c.Close()
	}
	e := realEnv(t)
	six := netip.IPv6Loopback()
	s, err := e.relay.Open([2]netip.Addr{six, locals[1]}, Options{RTP: true}) // IPv6 outside, IPv4 inside
	if err != nil {
		t.Fatal(err)
	}
	carrier, pbx := e.party(six), e.party(pbxHost)
	s.SetRemote(media.External, carrier.remote(false))
	s.SetRemote(media.Internal, pbx.remote(false))
	ext, in := s.Local(media.External), s.Local(media.Internal)
	for i := range 100 {
		e.send(carrier.rtp, ext, rtpPacket(1, uint16(i), 160))
		e.want(pbx.rtp, in, rtpPacket(1, uint16(i), 160))
		e.send(pbx.rtp, in, rtpPacket(2, uint16(i), 160))
		e.want(carrier.rtp, ext, rtpPacket(2, uint16(i), 160))
	}
	e.send(carrier.rtcp, rtcpOf(ext), rtcpPacket(1))
	e.want(pbx.rtcp, rtcpOf(in), rtcpPacket(1))
}

// What the kernel refuses is counted and keeps nothing else back.
func TestSendErrorsAreCounted(t *testing.T) {
	l, s, carrier, pbx := still(t)
	e := env{T: t}
	ext, in := s.Local(media.External), s.Local(media.Internal)
	s.SetRemote(media.Internal, Remote{RTP: netip.MustParseAddrPort("[2001:db8::1]:4000")}) // out of an IPv4 socket
	for i := range 5 {
		e.send(carrier, ext, rtpPacket(1, uint16(i), 4))
	}
	l.serve(s.socket(media.External))
	if st := s.Stats()[0]; st.SendErrors != 5 || st.Packets != 5 || st.Forwarded != 0 {
		t.Fatalf("%+v", st)
	}
	s.SetRemote(media.Internal, Remote{RTP: addrOf(pbx), PayloadTypes: []uint8{0}})
	e.send(carrier, ext, rtpPacket(1, 5, 4))
	l.serve(s.socket(media.External))
	e.want(pbx, in, rtpPacket(1, 5, 4))
}

func TestSocketOptions(t *testing.T) {
	r := mustRelay(t, Config{PortMin: 24000, PortMax: 24099, Loops: 1})
	s, err := r.Open(locals, Options{})
	if err != nil {
		t.Fatal(err)
	}
	fd := s.socket(media.Internal).fd
	if tos, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS); err != nil || tos != 46<<2 {
		t.Errorf("IP_TOS %#x, %v", tos, err)
	}
	if size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || size < 128<<10 {
		t.Errorf("SO_RCVBUF %d, %v", size, err)
	}
	for zone, want := range map[string]uint32{"7": 7, "lo": 1} {
		sa, err := sockaddr(netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(zone), 9))
		if err != nil || sa.(*unix.SockaddrInet6).ZoneId != want {
			t.Errorf("zone %s: %v, %v", zone, sa, err)
		}
	}
	if _, err := sockaddr(netip.MustParseAddrPort("[fe80::1%nowhere]:9")); err == nil {
		t.Error("a zone that does not exist")
	}
}

// TestManyStreams relays 200 streams at once, both ways, and misses none of it.
func TestManyStreams(t *testing.T) {
	const streams, packets = 200, 50
	e := realEnv(t)
	type pair struct {
		s    *Stream
		ends [2]party
		taps [2]*collector
	}
	var pairs []pair
	for range streams {
		s, carrier, pbx := e.call()
		p := pair{s, [2]party{carrier, pbx}, [2]*collector{{}, {}}}
		s.SetTap(media.External, p.taps[0])
		s.SetTap(media.Internal, p.taps[1])
		pairs = append(pairs, p)
	}
	for i := range packets {
		for k, p := range pairs {
			e.send(p.ends[0].rtp, p.s.Local(media.External), rtpPacket(uint32(k), uint16(i), 160))
			e.send(p.ends[1].rtp, p.s.Local(media.Internal), rtpPacket(uint32(k+streams), uint16(i), 160))
		}
	}
	for k, p := range pairs {
		for i := range packets {
			e.want(p.ends[1].rtp, p.s.Local(media.Internal), rtpPacket(uint32(k), uint16(i), 160))
			e.want(p.ends[0].rtp, p.s.Local(media.External), rtpPacket(uint32(k+streams), uint16(i), 160))
		}
	}
	for _, p := range pairs {
		e.eventually("tapped", func() bool { return p.taps[0].len() == packets && p.taps[1].len() == packets })
	}
}

// Opening, renegotiating and closing while media flows must disturb no other
// stream, although descriptors are used again.
func TestChurn(t *testing.T) {
	e := realEnv(t)
	s, carrier, pbx := e.call()
	stop := make(chan struct{})
	var churn sync.WaitGroup
	for range 2 {
		churn.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				other, err := e.relay.Open(locals, Options{RTP: true})
				if err != nil {
					continue // all ports rest
				}
				other.SetRemote(media.External, carrier.remote(i%2 == 0))
				other.SetTap(media.External, &collector{})
				_, _ = carrier.rtp.WriteToUDPAddrPort(rtpPacket(9, 1, 4), other.Local(media.External))
				if err := other.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 2000 {
		e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, uint16(i), 160))
		e.want(pbx.rtp, s.Local(media.Internal), rtpPacket(1, uint16(i), 160))
	}
	close(stop)
	churn.Wait()
}

func TestServeDoesNotAllocate(t *testing.T) {
	l, s, carrier, pbx := still(t)
	ring := media.NewRing(1<<20, time.Now())
	s.SetTap(media.External, ring)
	wire, buf := rtpPacket(1, 1, 160), make([]byte, 2000)
	n := testing.AllocsPerRun(500, func() {
		for range 8 {
			_, _ = carrier.WriteToUDPAddrPort(wire, s.Local(media.External))
		}
		l.serve(s.socket(media.External))
		for range 8 {
			_, _, _ = pbx.ReadFromUDPAddrPort(buf)
		}
		for ok := true; ok; {
			_, _, _, ok = ring.Next()
		}
	})
	if n != 0 || s.Stats()[0].Forwarded < 4000 {
		t.Fatalf("%v allocations per batch; %+v", n, s.Stats()[0])
	}
}

func TestTable(t *testing.T) {
	var tab table
	f := &fdSocket{}
	if tab.get(5000) != nil {
		t.Fatal("something in an empty table")
	}
	if err := tab.set(5000, f); err != nil || tab.get(5000) != f || tab.get(5001) != nil {
		t.Fatalf("%v %v", err, tab.get(5000))
	}
	if err := tab.set(pageSize*pagesMax, f); err == nil {
		t.Fatal("no limit")
	}
}

// BenchmarkServe is the cost of receiving, deciding, forwarding and tapping one
// packet in batches of a size. Sending to the relay and reading from it are left out.
func BenchmarkServe(b *testing.B) {
	for _, batch := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			l, s, carrier, pbx := still(b)
			ring := media.NewRing(1<<20, time.Now())
			s.SetTap(media.External, ring)
			wire, buf := rtpPacket(1, 1, 160), make([]byte, 2000)
			var spent time.Duration
			b.ReportAllocs()
			for b.Loop() {
				for range batch {
					_, _ = carrier.WriteToUDPAddrPort(wire, s.Local(media.External))
				}
				start := time.Now()
				l.serve(s.socket(media.External))
				spent += time.Since(start)
				for range batch {
					_, _, _ = pbx.ReadFromUDPAddrPort(buf)
				}
				for ok := true; ok; {
					_, _, _, ok = ring.Next()
				}
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*batch), "ns/packet")
		})
	}
}

// BenchmarkRoundTrip is one packet at a time through the running loop.
func BenchmarkRoundTrip(b *testing.B) {
	r := mustRelay(b, Config{PortMin: 24100, PortMax: 24999, Loops: 1})
	s, err := r.Open(locals, Options{RTP: true})
	if err != nil {
		b.Fatal(err)
	}
	open := func(host netip.Addr, side media.Side) *net.UDPConn {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host, 0)))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		s.SetRemote(side, Remote{RTP: addrOf(c), PayloadTypes: []uint8{0}})
		return c
	}
	carrier, pbx := open(carrierHost, media.External), open(pbxHost, media.Internal)
	wire, buf := rtpPacket(1, 1, 160), make([]byte, 2000)
	for b.Loop() {
		_, _ = carrier.WriteToUDPAddrPort(wire, s.Local(media.External))
		_, _, _ = pbx.ReadFromUDPAddrPort(buf)
	}
}
