package relay

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
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
	return stillWith(t, Config{PortMin: 23000, PortMax: 23999})
}

func stillWith(t testing.TB, cfg Config) (l *loop, s *Stream, carrier, pbx *net.UDPConn) {
	t.Helper()
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	e := &userEngine{cfg: cfg}
	if e.stamping, err = openStamping(); err != nil {
		t.Fatal(err)
	}
	if l, err = newLoop(&e.socks, cfg); err != nil {
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
		l.serve(s.socket(media.External), 0)
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

// What an overlay returns lasts until its next call, the packets of a batch longer.
func TestBatchKeepsWhatTheOverlayMade(t *testing.T) {
	l, s, carrier, pbx := still(t)
	e := env{T: t}
	s.SetOverlay(media.External, &inverter{every: 2})
	for i := range batchPackets {
		e.send(carrier, s.Local(media.External), rtpPacket(1, uint16(i), 20+i))
	}
	l.serve(s.socket(media.External), 0)
	for i := range batchPackets {
		wire := rtpPacket(1, uint16(i), 20+i)
		if i%2 == 0 {
			wire = inverted(nil, wire)
		}
		e.want(pbx, s.Local(media.Internal), wire)
	}
}

// The time stamp is the kernel's: it must not matter how late the loop is.
func TestArrivalIsTheKernels(t *testing.T) {
	l, s, carrier, _ := still(t)
	e := env{T: t}
	tap := &collector{}
	s.SetTap(media.External, tap)
	// The kernel takes some time to begin stamping; until then it stamps when read.
	const late = 30 * time.Millisecond
	var before, after, at time.Time
	e.eventually("a stamp", func() bool {
		before = time.Now()
		e.send(carrier, s.Local(media.External), rtpPacket(1, 1, 4))
		after = time.Now()
		<-time.After(late)
		l.serve(s.socket(media.External), 0)
		at = tap.at[len(tap.at)-1]
		return at.Sub(after) < late
	})
	// The wall clock and the monotonic clock are read one after the other, and
	// the former may be slewed.
	const slack = 5 * time.Millisecond
	if at.Before(before.Add(-slack)) || at.After(after.Add(slack)) {
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
		if got, _ := in.control(0, now.UnixNano()); plausible(got) != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	stamp(in, now.Add(-time.Millisecond))
	(*unix.Cmsghdr)(unsafe.Pointer(&in.ctrl[0])).Type = unix.SCM_RIGHTS
	if got, _ := in.control(0, now.UnixNano()); got != 0 {
		t.Errorf("another control message: %v", got)
	}
	for _, size := range []int{0, 3, 1000} {
		(*unix.Cmsghdr)(unsafe.Pointer(&in.ctrl[0])).SetLen(size)
		if got, _ := in.control(0, now.UnixNano()); got != 0 {
			t.Errorf("a control message of length %d: %v", size, got)
		}
	}
	in.arm(0)
	in.msgs[0].hdr.SetControllen(0)
	if got, _ := in.control(0, now.UnixNano()); got != 0 {
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
	l.serve(s.socket(media.External), 0)
	if st := s.Stats()[0]; st.SendErrors != 5 || st.Packets != 5 || st.Forwarded != 0 {
		t.Fatalf("%+v", st)
	}
	s.SetRemote(media.Internal, Remote{RTP: addrOf(pbx), PayloadTypes: []uint8{0}})
	e.send(carrier, ext, rtpPacket(1, 5, 4))
	l.serve(s.socket(media.External), 0)
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

// What the kernel dropped because nobody read is seen and counted.
func TestOverrunIsCounted(t *testing.T) {
	l, s, carrier, _ := stillWith(t, Config{PortMin: 23000, PortMax: 23999, ReceiveBufferBytes: 8192})
	e := env{T: t}
	const sent = 200
	for i := range sent {
		e.send(carrier, s.Local(media.External), rtpPacket(1, uint16(i), 160))
	}
	f := s.socket(media.External)
	l.serve(f, 0)
	for range 2 { // the count comes with packets queued after the loss
		e.send(carrier, s.Local(media.External), rtpPacket(1, sent, 160))
		l.serve(f, 0)
	}
	st := s.Stats()[media.External]
	if st.Overrun == 0 || st.Packets+st.Overrun != sent+2 {
		t.Fatalf("%d packets and %d lost of %d", st.Packets, st.Overrun, sent+2)
	}
	f.lost = 1<<32 - 2
	f.countOverrun(3)
	if now := s.Stats()[media.External].Overrun; now != st.Overrun+5 {
		t.Fatalf("over the wrap: %d more, want 5", now-st.Overrun)
	}
}

// TestManyStreams relays 200 streams at once, both ways, and misses none of it.
func TestManyStreams(t *testing.T) { onSockets(t, manyStreams) }

func manyStreams(e env) {
	const streams, packets = 200, 50
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
func TestChurn(t *testing.T) { onSockets(t, testChurn) }

func testChurn(e env) {
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
					e.Error(err)
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
	t.Run("plain", func(t *testing.T) { serveDoesNotAllocate(t, nil) })
	t.Run("overlay", func(t *testing.T) { serveDoesNotAllocate(t, &inverter{every: 1}) })
}

func serveDoesNotAllocate(t *testing.T, o media.Overlay) {
	l, s, carrier, pbx := still(t)
	ring := media.NewRing(1<<20, time.Now())
	s.SetTap(media.External, ring)
	if o != nil {
		s.SetOverlay(media.External, o)
	}
	wire, buf := rtpPacket(1, 1, 160), make([]byte, 2000)
	n := testing.AllocsPerRun(500, func() {
		for range 8 {
			_, _ = carrier.WriteToUDPAddrPort(wire, s.Local(media.External))
		}
		l.serve(s.socket(media.External), 0)
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
				l.serve(s.socket(media.External), 0)
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

// running is a call over real sockets with one loop.
func running(b *testing.B) (s *Stream, carrier, pbx *net.UDPConn) {
	b.Helper()
	r := mustRelay(b, Config{PortMin: 24100, PortMax: 24999, Loops: 1, CoalesceMax: -1})
	var err error
	if s, err = r.Open(locals, Options{RTP: true}); err != nil {
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
	return s, open(carrierHost, media.External), open(pbxHost, media.Internal)
}

// BenchmarkRoundTrip is one packet at a time through the running loop.
func BenchmarkRoundTrip(b *testing.B) {
	s, carrier, pbx := running(b)
	wire, buf := rtpPacket(1, 1, 160), make([]byte, 2000)
	for b.Loop() {
		_, _ = carrier.WriteToUDPAddrPort(wire, s.Local(media.External))
		_, _, _ = pbx.ReadFromUDPAddrPort(buf)
	}
}

// BenchmarkUnderLoad tells how old packets are when they have been forwarded
// while other goroutines compute, with GOMAXPROCS raised so that these do not
// take every processor of the scheduler.
func BenchmarkUnderLoad(b *testing.B) {
	for _, busy := range []int{0, 4} {
		b.Run(fmt.Sprintf("busy=%d", busy), func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(busy + 4))
			s, carrier, pbx := running(b)
			ages := &ageTap{}
			s.SetTap(media.External, ages)
			stop := make(chan struct{})
			defer close(stop)
			for range busy {
				go compute(stop)
			}
			wire, buf := rtpPacket(1, 1, 160), make([]byte, 2000)
			for b.Loop() {
				_, _ = carrier.WriteToUDPAddrPort(wire, s.Local(media.External))
				_, _, _ = pbx.ReadFromUDPAddrPort(buf)
			}
			s.SetTap(media.External, nil)
			slices.Sort(ages.ages)
			n := len(ages.ages)
			b.ReportMetric(float64(ages.ages[n/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(ages.ages[n*99/100].Microseconds()), "p99-us")
		})
	}
}

type ageTap struct{ ages []time.Duration }

func (a *ageTap) Put(at time.Time, _ []byte) { a.ages = append(a.ages, time.Since(at)) }

func compute(stop <-chan struct{}) {
	for x := 1; ; x = x*31 + 1 {
		select {
		case <-stop:
			return
		default:
		}
	}
}
