package relay

import (
	"bytes"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media"
)

// blocker is a tap that breaks its contract: it holds the loop up until let go.
type blocker struct {
	once         sync.Once
	entered, let chan struct{}
}

func (b *blocker) Put(time.Time, []byte) { b.once.Do(func() { close(b.entered); <-b.let }) }

// stamped returns when the kernel stamps packets as they come, which takes it a
// while after the relay's start. Until then it stamps them when they are read.
func (e env) stamped() {
	e.Helper()
	f, err := openUDP(netip.AddrPortFrom(thiefHost, 29999), Config{DSCP: -1, ReceiveBufferBytes: 1 << 16, SendBufferBytes: 1 << 16})
	if err != nil {
		e.Fatal(err)
	}
	defer func() { _ = f.close() }()
	in := newInbound()
	e.eventually("time stamps", func() bool {
		if err := unix.Sendto(f.fd, []byte{1}, 0, &unix.SockaddrInet4{Port: 29999, Addr: thiefHost.As4()}); err != nil {
			e.Fatal(err)
		}
		const late = 2 * time.Millisecond
		<-time.After(late)
		n := in.receive(f.fd)
		age, _ := in.control(0, time.Now().UnixNano())
		in.arm(0)
		return n == 1 && age >= late
	})
}

// hold keeps the loop of all streams from going on until release is called.
func (e env) hold() (release func()) {
	e.Helper()
	s, carrier, _ := e.call()
	b := &blocker{entered: make(chan struct{}), let: make(chan struct{})}
	s.SetTap(media.External, b)
	e.send(carrier.rtp, s.Local(media.External), rtpPacket(99, 1, 4))
	<-b.entered
	return func() { close(b.let) }
}

// closing closes a stream and returns when that waits for the loop.
func (e env) closing(s *Stream) (done <-chan error) {
	e.Helper()
	l, c := s.place.(*loop), make(chan error, 1)
	go func() { c <- s.Close() }()
	e.eventually("asked", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.asked) > 0
	})
	return c
}

// What came before a stream was closed is forwarded and tapped, however late the
// loop is; what came after is not.
func TestCloseReadsOut(t *testing.T) { onSockets(t, closeReadsOut) }

func closeReadsOut(e env) {
	const first, waiting, late = 20, 3*batchPackets + 5, 10
	e.stamped()
	s, carrier, pbx := e.call()
	ends := [2]party{carrier, pbx}
	taps := [2]*collector{{}, {}}
	for side, tap := range taps {
		s.SetTap(media.Side(side), tap)
	}
	send := func(side, i int) {
		e.send(ends[side].rtp, s.Local(media.Side(side)), rtpPacket(uint32(side), uint16(i), 160))
	}
	for i := range first { // with the kernel engine, the flow goes over
		for side := range ends {
			send(side, i)
			e.want(ends[1-side].rtp, s.Local(media.Side(1-side)), rtpPacket(uint32(side), uint16(i), 160))
		}
	}
	release := e.hold()
	for i := first; i < first+waiting; i++ {
		send(0, i)
		send(1, i)
	}
	e.send(carrier.rtcp, rtcpOf(s.Local(media.External)), rtcpPacket(1))
	done := e.closing(s)
	for i := first + waiting; i < first+waiting+late; i++ {
		send(0, i)
		send(1, i)
	}
	release()
	if err := <-done; err != nil {
		e.Fatal(err)
	}
	for side, tap := range taps {
		want := &collector{}
		for i := range first + waiting {
			want.Put(time.Time{}, rtpPacket(uint32(side), uint16(i), 160))
			if i >= first {
				e.want(ends[1-side].rtp, s.Local(media.Side(1-side)), want.wires[i])
			}
		}
		if side == int(media.External) { // at whatever place among the batches of RTP
			e.want(pbx.rtcp, rtcpOf(s.Local(media.Internal)), rtcpPacket(1))
			want.Put(time.Time{}, rtcpPacket(1))
			at := slices.IndexFunc(tap.wires, func(wire []byte) bool { return bytes.Equal(wire, rtcpPacket(1)) })
			if at < first {
				e.Fatalf("side %d: the tap got RTCP in place %d", side, at)
			}
			tap.wires = append(slices.Delete(tap.wires, at, at+1), rtcpPacket(1))
		}
		if tap.String() != want.String() {
			e.Errorf("side %d: the tap got %d packets that are not the %d sent before", side, tap.len(), len(want.wires))
		}
		if n := s.Stats()[side]; n.Forwarded != uint64(len(want.wires)) || n.Packets != n.Forwarded || n.Overrun+n.RejectedForm+n.RejectedSource != 0 {
			e.Errorf("side %d: %+v", side, n)
		}
	}
}

// A stream that takes too long is given up, and what it leaves is counted: what
// came before, not what came after.
func TestReadingOutEnds(t *testing.T) {
	l, s, carrier, _ := still(t)
	e := env{T: t}
	e.stamped()
	send := func(from, to int) {
		for i := from; i < to; i++ {
			e.send(carrier, s.Local(media.External), rtpPacket(1, uint16(i), 4))
		}
	}
	send(0, 3*batchPackets)
	now := time.Now()
	v := &errand{done: make(chan struct{}), socks: []*fdSocket{s.socket(media.External)}, until: now.UnixNano(), over: now.Add(time.Hour)}
	send(3*batchPackets, 3*batchPackets+7)
	l.errands = append(l.errands, v)
	if n := l.runErrands(); n != batchPackets || !l.behind() {
		t.Fatalf("%d packets in a turn", n)
	}
	v.over = now
	if l.runErrands(); l.behind() {
		t.Fatal("not given up")
	}
	<-v.done
	if n := s.Stats()[0]; n.Packets != 2*batchPackets || n.Overrun != batchPackets {
		t.Fatalf("%d packets and %d lost of %d", n.Packets, n.Overrun, 3*batchPackets)
	}
}

// What the kernel dropped is counted at the end, though no packet tells of it.
func TestOverrunIsCountedAtTheEnd(t *testing.T) {
	l, s, carrier, _ := stillWith(t, Config{PortMin: 23000, PortMax: 23999, ReceiveBufferBytes: 8192})
	env{T: t}.stamped()
	const sent = 200
	for i := range sent {
		env{T: t}.send(carrier, s.Local(media.External), rtpPacket(1, uint16(i), 160))
	}
	done := env{T: t}.closing(s)
	l.round(l.poll(0, true))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := s.Stats()[0]; n.Overrun == 0 || n.Packets+n.Overrun != sent {
		t.Fatalf("%d packets and %d lost of %d", n.Packets, n.Overrun, sent)
	}
}

// Descriptors are used again by another loop's sockets while this one's batch of
// events is old.
func TestForeignSocketsAreNotServed(t *testing.T) {
	l, s, carrier, pbx := still(t)
	f := s.socket(media.External)
	wire := rtpPacket(1, 1, 160)
	env{T: t}.send(carrier, s.Local(media.External), wire)
	other := &loop{}
	f.loop = other
	if n := l.visit(int32(f.fd)); n != 0 {
		t.Fatal("served another loop's socket")
	}
	f.loop = l
	if n := l.visit(int32(f.fd)); n != 1 {
		t.Fatal("did not serve its own")
	}
	_ = pbx.SetReadDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 2000)
	if n, _, err := pbx.ReadFromUDPAddrPort(buf); err != nil || !bytes.Equal(buf[:n], wire) {
		t.Fatal(err)
	}
}
