package relay

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay/kernel"
	"github.com/trunktap/trunktap/media/relay/kernel/kerneltest"
)

// scene is a relay between two hosts, each with a network namespace of its own.
type scene struct {
	*testing.T
	carrier, pbx *kerneltest.Host
	relay        *Relay
	local        [2]netip.Addr
	far          [2]string // addresses of carrier and PBX, with port 0
	hook         kernel.Hook
	finish       []func() // after start
}

// here is the namespace of the relay.
var here = &kerneltest.Host{}

// twoCables has an interface for each side, and both IP versions.
func twoCables(t *testing.T) *scene {
	s := &scene{T: t, carrier: kerneltest.NewHost(t), pbx: kerneltest.NewHost(t)}
	kerneltest.Cable(t, here, "ra", s.carrier, "ca")
	kerneltest.Cable(t, here, "rb", s.pbx, "pb")
	here.Address(t, "ra", "10.1.0.1/24", "fd01::1/64")
	here.Address(t, "rb", "10.2.0.1/24", "fd02::1/64")
	s.carrier.Address(t, "ca", "10.1.0.2/24", "fd01::2/64")
	s.pbx.Address(t, "pb", "10.2.0.2/24", "fd02::2/64")
	s.four()
	return s
}

func (s *scene) set(extern, intern, carrier, pbx string) {
	s.local = [2]netip.Addr{netip.MustParseAddr(extern), netip.MustParseAddr(intern)}
	s.far = [2]string{netip.AddrPortFrom(netip.MustParseAddr(carrier), 0).String(), netip.AddrPortFrom(netip.MustParseAddr(pbx), 0).String()}
}

func (s *scene) four() { s.set("10.1.0.1", "10.2.0.1", "10.1.0.2", "10.2.0.2") }
func (s *scene) six()  { s.set("fd01::1", "fd02::1", "fd01::2", "fd02::2") }

func (s *scene) start(cfg Config) {
	s.Helper()
	cfg.PortMin, cfg.PortMax, cfg.Engine = 20000, 20999, EngineKernel
	cfg.Kernel.Hook = s.hook
	s.relay = mustRelay(s, cfg)
	for _, f := range s.finish {
		f()
	}
}

// call opens a stream between two sockets of the hosts.
func (s *scene) call() (st *Stream, conns [2]*net.UDPConn) {
	s.Helper()
	st, err := s.relay.Open(s.local, Options{RTP: true})
	if err != nil {
		s.Fatal(err)
	}
	for side, h := range []*kerneltest.Host{s.carrier, s.pbx} {
		conns[side] = h.Listen(s, s.far[side])
		st.SetRemote(media.Side(side), Remote{RTP: addrOf(conns[side]), PayloadTypes: []uint8{0}})
	}
	return st, conns
}

// both sends packets both ways, one at a time, and demands that each arrives as
// it is, from the relay's address.
func (s *scene) both(st *Stream, conns [2]*net.UDPConn, first, n int) {
	s.Helper()
	for i := first; i < first+n; i++ {
		for side, from := range conns {
			wire := rtpPacket(uint32(side+1), uint16(i), 1+i*7%1300)
			s.pass(st, media.Side(side), from, conns[1-side], wire)
		}
	}
}

// byKernel sends packets both ways until the kernel has forwarded all of one round
// of them, and returns the number after the last. How soon it takes a flow over is
// up to the machine: every packet that finds the sockets still at work goes by them.
func (s *scene) byKernel(st *Stream, conns [2]*net.UDPConn, first int) (next int) {
	s.Helper()
	const round, rounds = 20, 200
	for next = first; next < first+rounds*round; next += round {
		before := st.Stats()
		s.both(st, conns, next, round)
		after := st.Stats()
		if after[0].Kernel == before[0].Kernel+round && after[1].Kernel == before[1].Kernel+round {
			return next + round
		}
	}
	s.Fatalf("the kernel forwards none of %d rounds: %+v", rounds, st.Stats())
	return 0
}

func (s *scene) pass(st *Stream, side media.Side, from, to *net.UDPConn, wire []byte) {
	s.Helper()
	if _, err := from.WriteToUDPAddrPort(wire, st.Local(side)); err != nil {
		s.Fatal(err)
	}
	got, at, err := kerneltest.Read(to, 2*time.Second)
	if err != nil || !bytes.Equal(got, wire) || at != st.Local(side.Other()) {
		s.Fatalf("from %s: got %d bytes from %v (%v), want %d from %v; %+v",
			side, len(got), at, err, len(wire), st.Local(side.Other()), st.Stats())
	}
}

// In every network that is known the packets arrive, by the kernel, with valid checksums.
func TestKernelForwards(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	routed := func(s *scene) {
		s.carrier.Address(s, "lo", "10.9.0.2/32")
		here.IP(s, "route add 10.9.0.0/24 via 10.1.0.2")
		s.far[0] = "10.9.0.2:0"
	}
	oneInterface := func(s *scene) {
		s.pbx = s.carrier
		here.Address(s, "ra", "10.1.0.3/24")
		s.carrier.Address(s, "ca", "10.1.0.4/24")
		s.set("10.1.0.1", "10.1.0.3", "10.1.0.2", "10.1.0.4")
	}
	sameHost := func(s *scene) {
		s.pbx = here
		s.set("10.1.0.1", "127.0.0.9", "10.1.0.2", "127.0.0.8")
	}
	sameHostOneAddress := func(s *scene) {
		s.pbx = here
		s.set("10.1.0.1", "10.1.0.1", "10.1.0.2", "10.1.0.1")
	}
	bridged := func(s *scene) {
		here.IP(s, "link add br0 type bridge")
		here.IP(s, "addr flush dev ra")
		here.IP(s, "link set ra master br0")
		here.Address(s, "br0", "10.1.0.1/24")
		here.IP(s, "link set br0 up")
	}
	vlan := func(s *scene) {
		s.finish = append(s.finish, here.VLAN(s, "ra", "ra.7", 7), s.carrier.VLAN(s, "ca", "ca.7", 7))
		here.Address(s, "ra.7", "10.7.0.1/24")
		s.carrier.Address(s, "ca.7", "10.7.0.2/24")
		s.set("10.7.0.1", "10.2.0.1", "10.7.0.2", "10.2.0.2")
	}
	macvlan := func(s *scene) {
		here.IP(s, "link add link ra name mv type macvlan mode bridge")
		here.IP(s, "addr flush dev ra")
		here.Address(s, "mv", "10.1.0.1/24")
		here.IP(s, "link set mv up")
	}
	clsact := func(s *scene) { s.hook = kernel.HookClsact }
	clsactSix := func(s *scene) {
		s.hook = kernel.HookClsact
		s.six()
	}
	for name, arrange := range map[string]func(*scene){
		"clsact": clsact, "clsact, IPv6": clsactSix,
		"IPv4": (*scene).four, "IPv6": (*scene).six, "routed": routed, "one interface": oneInterface,
		"PBX on this host": sameHost, "PBX at the same address": sameHostOneAddress,
		"bridge": bridged, "VLAN": vlan, "macvlan": macvlan,
	} {
		for _, sums := range []string{"to be completed", "complete", "completed on the way"} {
			t.Run(name+"/checksums "+sums, func(t *testing.T) { forwards(t, arrange, sums) })
		}
	}
}

func forwards(t *testing.T, arrange func(*scene), sums string) {
	s := twoCables(t)
	defer func() { // the next scene has the same names
		here.IP(t, "link del ra")
		here.IP(t, "link del rb")
		_ = here.TryIP("link del br0")
		_ = here.TryIP("link del ra.7")
	}()
	arrange(s)
	switch sums {
	case "complete":
		s.carrier.NoOffload(t, "ca")
		if s.pbx != s.carrier && s.pbx != here {
			s.pbx.NoOffload(t, "pb")
		}
	case "completed on the way":
		here.NoOffload(t, "ra")
		here.NoOffload(t, "rb")
	}
	s.start(Config{})
	st, conns := s.call()
	taps := [2]*collector{{}, {}}
	st.SetTap(media.External, taps[0])
	st.SetTap(media.Internal, taps[1])
	first := s.byKernel(st, conns, 0)
	before := st.Stats()
	s.both(st, conns, first, 150) // of all sizes
	packets := first + 150
	after := st.Stats()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	for side, n := range st.Stats() {
		if after[side].Kernel != before[side].Kernel+150 || n.Packets != uint64(packets) || n.Forwarded != uint64(packets) || n.Bytes == 0 || time.Since(n.LastRTP) > time.Minute {
			t.Errorf("side %d: %+v", side, n)
		}
	}
	for side, tap := range taps {
		want := &collector{}
		for i := range packets {
			want.Put(time.Time{}, rtpPacket(uint32(side+1), uint16(i), 1+i*7%1300))
		}
		if tap.String() != want.String() {
			t.Errorf("side %d: the tap got %d packets that are not those forwarded", side, tap.len())
		}
	}
	for _, h := range []*kerneltest.Host{s.carrier, s.pbx} {
		if n := h.Counter(t, "Udp: InCsumErrors") + h.Counter(t, "Udp6InCsumErrors"); n != 0 {
			t.Errorf("%d packets with wrong checksums", n)
		}
	}
}

// What is sent is marked, and lives as long as what a socket sends.
func TestKernelMarks(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	s := twoCables(t)
	s.start(Config{DSCP: 46})
	for _, arrange := range []func(){s.four, s.six} {
		arrange()
		st, conns := s.call()
		raw, err := conns[1].SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			for _, o := range [][2]int{{unix.IPPROTO_IP, unix.IP_RECVTOS}, {unix.IPPROTO_IP, unix.IP_RECVTTL}, {unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS}, {unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT}} {
				_ = unix.SetsockoptInt(int(fd), o[0], o[1], 1) // those of the other version fail
			}
		})
		for i := 0; st.Stats()[0].Kernel < 10; i++ {
			if i == 2000 {
				t.Fatalf("%+v", st.Stats()[0])
			}
			<-time.After(200 * time.Microsecond) // the sockets are through with the packet before
			if _, err := conns[0].WriteToUDPAddrPort(rtpPacket(1, uint16(i), 160), st.Local(media.External)); err != nil {
				t.Fatal(err)
			}
			b, oob := make([]byte, 2000), make([]byte, 200)
			_ = conns[1].SetReadDeadline(time.Now().Add(2 * time.Second))
			_, n, _, _, err := conns[1].ReadMsgUDP(b, oob)
			if err != nil {
				t.Fatal(err)
			}
			msgs, err := unix.ParseSocketControlMessage(oob[:n])
			if err != nil || len(msgs) != 2 {
				t.Fatalf("%v, %d messages", err, len(msgs))
			}
			got := map[byte]bool{msgs[0].Data[0]: true, msgs[1].Data[0]: true}
			if !got[46<<2] || !got[64] {
				t.Fatalf("packet %d: class and hop limit %v, want %d and 64", i, got, 46<<2)
			}
		}
	}
}

// Whatever makes the source or the way of a stream another one brings it back to
// the sockets, and from there to the kernel again.
func TestKernelFollowsTheStream(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	s := twoCables(t)
	s.start(Config{})
	st, conns := s.call()
	carrier := conns[0]
	tap := &collector{}
	st.SetTap(media.External, tap)
	seq := 0
	settle := func(what string) {
		t.Log(what)
		seq = s.byKernel(st, conns, seq)
	}
	settle("start")

	thief := s.carrier.Listen(t, "10.1.0.2:0")
	s.carrier.Address(t, "ca", "10.1.0.66/24")
	other := s.carrier.Listen(t, "10.1.0.66:0")
	for _, c := range []*net.UDPConn{thief, other} {
		_, _ = c.WriteToUDPAddrPort(rtpPacket(77, 1, 160), st.Local(media.External))
	}
	env{T: t}.eventually("strangers are rejected", func() bool { return st.Stats()[0].RejectedSource == 2 })
	if b, _, err := kerneltest.Read(conns[1], 50*time.Millisecond); err == nil {
		t.Fatalf("a stranger's packet went through: %x", b)
	}
	settle("strangers")

	conns[0] = thief // the same SSRC from another port
	settle("port changed")
	for i := range 20 { // another SSRC
		s.pass(st, media.External, thief, conns[1], rtpPacket(99, uint16(i), 160))
	}
	settle("SSRC changed")

	conns[0] = other
	st.SetRemote(media.External, Remote{RTP: addrOf(other), PayloadTypes: []uint8{0}})
	settle("renegotiated")

	extended := append(rtpPacket(1, 9, 0), 0xbe, 0xde, 0, 0)
	extended[0] |= 0x10
	s.pass(st, media.External, other, conns[1], extended)
	st.SetRemote(media.Internal, Remote{RTP: netip.MustParseAddrPort("0.0.0.0:9")})
	for i := range 5 {
		_, _ = other.WriteToUDPAddrPort(rtpPacket(1, uint16(1000+i), 160), st.Local(media.External))
	}
	env{T: t}.eventually("held", func() bool { return st.Stats()[0].Unroutable == 5 })
	st.SetRemote(media.Internal, Remote{RTP: addrOf(conns[1]), PayloadTypes: []uint8{0}})
	settle("held and taken back")

	v := &inverter{every: 1}
	st.SetOverlay(media.External, v)
	for i := range 10 {
		wire := rtpPacket(1, uint16(3000+i), 160)
		_, _ = other.WriteToUDPAddrPort(wire, st.Local(media.External))
		if got, _, err := kerneltest.Read(conns[1], time.Second); err != nil || !bytes.Equal(got, inverted(nil, wire)) {
			t.Fatalf("without the overlay: %v", err)
		}
	}
	st.SetOverlay(media.External, nil)
	settle("overlay over")

	st.SetTap(media.External, nil)
	had := tap.len()
	if st := st.Stats()[0]; uint64(had) != st.Packets {
		t.Fatalf("the tap got %d of %d packets", had, st.Packets)
	}
	settle("no tap")
	st.SetTap(media.External, tap)
	settle("tap again")
	here.IP(t, "route add 10.2.0.2/32 via 10.2.0.2 dev rb onlink")
	<-time.After(200 * time.Millisecond)
	settle("route changed")
	here.IP(t, "link set rb mtu 600")
	<-time.After(200 * time.Millisecond)
	if err := here.TryIP("link set rb mtu 1500"); err != nil {
		t.Fatal(err)
	}
	_ = st.Close()
	if had+40 > tap.len() || carrier == nil {
		t.Fatalf("%d packets after %d", tap.len(), had)
	}
}

// The arrival is when the kernel saw the packet, on Go's clock.
func TestKernelArrivals(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	s := twoCables(t)
	s.start(Config{})
	st, conns := s.call()
	first := s.byKernel(st, conns, 0)
	tap := &collector{}
	st.SetTap(media.External, tap)
	const packets = 100
	var sent [packets][2]time.Time
	for i := range packets {
		sent[i][0] = time.Now()
		s.pass(st, media.External, conns[0], conns[1], rtpPacket(1, uint16(first+i), 160))
		sent[i][1] = time.Now()
		<-time.After(200 * time.Microsecond)
	}
	last := st.Stats()[0].LastRTP
	_ = st.Close()
	const slack = 50 * time.Microsecond // of the two clocks
	for i, at := range tap.at {
		if at.Before(sent[i][0].Add(-slack)) || at.After(sent[i][1].Add(slack)) {
			t.Fatalf("packet %d came %v after it was sent and %v before it was there", i, at.Sub(sent[i][0]), sent[i][1].Sub(at))
		}
		if !strings.Contains(at.String(), " m=") {
			t.Fatalf("packet %d: %v has no monotonic reading", i, at)
		}
	}
	if d := last.Sub(tap.at[packets-1]).Abs(); d > slack {
		t.Fatalf("LastRTP is %v away", d)
	}
}

// A stream that goes to and fro between sockets and kernel loses, doubles and
// reorders nothing, neither on the wire nor in the tap.
func TestKernelSwitchesWithoutATrace(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	s := twoCables(t)
	s.start(Config{ReceiveBufferBytes: 4 << 20})
	st, conns := s.call()
	tap := &sequence{}
	st.SetTap(media.External, tap)
	const packets, underWay = 20000, 150
	got := make(chan sequence, 1)
	arrived := make(chan struct{}, packets)
	go func() {
		defer close(arrived)
		var q sequence
		for q.n < packets {
			b, _, err := kerneltest.Read(conns[1], 3*time.Second)
			if err != nil {
				break
			}
			q.Put(time.Time{}, b)
			arrived <- struct{}{}
		}
		got <- q
	}()
	switches := 0
	for i := range packets {
		if i%500 == 499 {
			switches++
			switch switches % 4 {
			case 0:
				st.SetOverlay(media.External, &inverter{every: 1 << 20})
			case 1:
				st.SetOverlay(media.External, nil)
			default:
				st.SetRemote(media.Internal, Remote{RTP: addrOf(conns[1]), PayloadTypes: []uint8{0}})
			}
		}
		if i%8 == 7 {
			<-time.After(300 * time.Microsecond)
		}
		if i >= underWay { // what the reader's socket holds
			<-arrived
		}
		if _, err := conns[0].WriteToUDPAddrPort(rtpPacket(1, uint16(i), 160), st.Local(media.External)); err != nil {
			t.Fatal(err)
		}
	}
	q := <-got
	_ = st.Close() // a packet is counted after it was sent
	n := st.Stats()[0]
	t.Logf("%d of %d by the kernel", n.Kernel, n.Forwarded)
	if q.n != packets || q.wrong != 0 || n.Forwarded != packets || n.Kernel < packets/3 || n.Kernel > packets-200 {
		t.Fatalf("%d of %d arrived, %d out of order; %+v", q.n, packets, q.wrong, n)
	}
	if tap.n != packets || tap.wrong != 0 {
		t.Fatalf("the tap got %d of %d, %d out of order", tap.n, packets, tap.wrong)
	}
}

// sequence counts the packets that do not follow the one before.
type sequence struct {
	n, wrong int
	next     uint16
}

func (q *sequence) Put(_ time.Time, wire []byte) {
	seq := uint16(wire[2])<<8 | uint16(wire[3])
	if seq != q.next {
		q.wrong++
	}
	q.next = seq + 1
	q.n++
}
