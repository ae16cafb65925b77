package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media/pcap"
)

func open(t *testing.T, cfg Config) *Link {
	t.Helper()
	l, err := Open(cfg)
	if errors.Is(err, unix.EPERM) {
		t.Skip("left out: capturing needs CAP_NET_RAW")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		for {
			if _, err := l.NextFrame(); errors.Is(err, io.EOF) {
				return
			}
		}
	})
	return l
}

// sockets returns a sender and where it sends to.
func sockets(t *testing.T) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	to, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = to.Close() })
	from, err := net.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = from.Close() })
	return from, to.LocalAddr().(*net.UDPAddr).AddrPort()
}

func send(t *testing.T, from *net.UDPConn, first, n, size int) {
	t.Helper()
	b := make([]byte, size)
	for i := range n {
		binary.BigEndian.PutUint32(b, uint32(first+i))
		if _, err := from.Write(b); err != nil && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
}

// next returns the next datagram to an address, and what was lost before it.
func next(t *testing.T, r *pcap.Reader, to netip.AddrPort) (p pcap.Packet, lost uint64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		var err error
		if p, err = r.Next(); err != nil {
			t.Fatal(err)
		}
		lost += p.Lost
		if p.Proto == pcap.UDP && p.Dst == to {
			return p, lost
		}
	}
	t.Fatal("nothing came")
	return p, lost
}

func TestEachFrameOnce(t *testing.T) {
	for _, interfaces := range [][]string{{"lo"}, {"lo", other(t)}} {
		t.Run(fmt.Sprint(len(interfaces), " interfaces"), func(t *testing.T) {
			l := open(t, Config{Interfaces: interfaces})
			from, to := sockets(t)
			r := pcap.NewLive(l)
			before := time.Now()
			send(t, from, 0, 200, 172)
			for i := range 200 {
				p, lost := next(t, r, to)
				if n := binary.BigEndian.Uint32(p.Payload); n != uint32(i) || lost != 0 || len(p.Payload) != 172 || p.Cut {
					t.Fatalf("datagram %d is number %d of %d bytes, %d lost before it", i, n, len(p.Payload), lost)
				}
				if p.At.Before(before.Add(-time.Second)) || p.At.After(time.Now()) {
					t.Fatalf("datagram %d came at %s, it was sent after %s", i, p.At, before)
				}
			}
			if n := l.Counters.Frames.Load(); n < 200 {
				t.Errorf("%d frames counted", n)
			}
		})
	}
}

// other returns an interface that is up, besides lo.
func other(t *testing.T) string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
			return i.Name
		}
	}
	t.Skip("left out: there is no interface but lo")
	return ""
}

func TestLossesAreCounted(t *testing.T) {
	l := open(t, Config{Interfaces: []string{"lo"}, RingBytes: RingBytesMin})
	from, to := sockets(t)
	const sent, size = 6000, 1400 // four times the ring
	send(t, from, 0, sent, size)
	r := pcap.NewLive(l)
	var got, lost int
	for expect := 0; ; {
		p, n := next(t, r, to)
		at := int(binary.BigEndian.Uint32(p.Payload))
		lost += int(n)
		if missing := at - expect; missing > lost {
			t.Fatalf("%d datagrams are missing before number %d, %d were told", missing, at, lost)
		}
		if expect, got = at+1, got+1; at >= sent {
			break
		}
		if at < sent-1 && got%512 == 0 { // the ring has room again
			send(t, from, sent, 1, size)
		}
	}
	if lost == 0 || lost < sent-got {
		t.Errorf("%d of %d datagrams came, %d told as lost", got, sent, lost)
	}
	t.Logf("%d came, %d lost (frames of others included)", got, lost)
}

func TestAnInterfaceThatGoesAndComes(t *testing.T) {
	name := fmt.Sprintf("ttd%d", time.Now().UnixNano()%1_000_000)
	add := func() error {
		return errors.Join(exec.Command("ip", "link", "add", name, "type", "veth", "peer", "name", name+"p").Run(),
			exec.Command("ip", "link", "set", name, "up").Run(), exec.Command("ip", "link", "set", name+"p", "up").Run())
	}
	if err := add(); err != nil {
		t.Skip("left out: no interface can be made here")
	}
	defer func() { _ = exec.Command("ip", "link", "del", name).Run() }() // gone when the test went wrong
	l := open(t, Config{Interfaces: []string{name}, Promiscuous: true})
	until := func(what string, ok func() bool) {
		t.Helper()
		last := time.Time{}
		for range 200 {
			f, err := l.NextFrame()
			if err != nil || f.At.Before(last) {
				t.Fatalf("frame at %s after %s, error %v", f.At, last, err)
			}
			if last = f.At; ok() {
				return
			}
		}
		t.Fatalf("not %s", what)
	}
	if err := exec.Command("ip", "link", "del", name).Run(); err != nil {
		t.Fatal(err)
	}
	until("down", l.Counters.Down.Load)
	if err := add(); err != nil {
		t.Fatal(err)
	}
	until("up", func() bool { return !l.Counters.Down.Load() })
	if l.Counters.Gone.Load() != 1 {
		t.Errorf("gone %d times", l.Counters.Gone.Load())
	}
}

// TestOneOfTwoGoes: the other goes on, and the state says that one is missing.
func TestOneOfTwoGoes(t *testing.T) {
	name := fmt.Sprintf("tte%d", time.Now().UnixNano()%1_000_000)
	add := func() error {
		return errors.Join(exec.Command("ip", "link", "add", name, "type", "veth", "peer", "name", name+"p").Run(),
			exec.Command("ip", "link", "set", name, "up").Run(), exec.Command("ip", "link", "set", name+"p", "up").Run())
	}
	if err := add(); err != nil {
		t.Skip("left out: no interface can be made here")
	}
	defer func() { _ = exec.Command("ip", "link", "del", name).Run() }() // gone when the test went wrong
	l := open(t, Config{Interfaces: []string{"lo", name}})
	from, _ := sockets(t)
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
			send(t, from, 0, 1, 100) // the ring is never idle
			if _, err := l.NextFrame(); err != nil {
				t.Fatal(err)
			}
			if ok() {
				return
			}
		}
		t.Fatalf("not %s", what)
	}
	if err := exec.Command("ip", "link", "del", name).Run(); err != nil {
		t.Fatal(err)
	}
	until("down", l.Counters.Down.Load)
	before := l.Counters.Frames.Load()
	until("heard", func() bool { return l.Counters.Frames.Load() > before+100 })
	if !l.Counters.Down.Load() {
		t.Error("nothing is said to be missing")
	}
	if err := add(); err != nil {
		t.Fatal(err)
	}
	until("up", func() bool { return !l.Counters.Down.Load() })
}

func TestWhatCannotBeOpened(t *testing.T) {
	for _, list := range [][]string{nil, {"nosuchinterface0"}, make([]string, InterfacesMax+1)} {
		if l, err := Open(Config{Interfaces: list}); err == nil {
			_ = l.Close()
			t.Errorf("%q can be opened", list)
		}
	}
}
