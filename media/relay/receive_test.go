package relay

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
)

// A stream that only receives takes one pair of ports, and gives it back.
func TestReceiveOnlyTakesOnePair(t *testing.T) {
	host := netip.MustParseAddr("127.0.0.1")
	r, err := New(Config{PortMin: 38000, PortMax: 38199, Quarantine: -1, Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	free := r.PortsFree(host)
	s, err := r.Open([2]netip.Addr{media.External: host}, Options{RTP: true, ReceiveOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := free - r.PortsFree(host); got != 1 {
		t.Errorf("%d pairs were taken", got)
	}
	if s.Local(media.Internal).IsValid() {
		t.Error("the internal side has a port")
	}
	tap := make(chan []byte, 10)
	s.SetTap(media.External, chanTap(tap))
	s.SetRemote(media.External, Remote{PayloadTypes: []uint8{0}})
	c := dialUDP(t, s.Local(media.External))
	wire := make([]byte, 172)
	wire[0], wire[3] = 0x80, 1
	if _, err := c.Write(wire); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-tap:
		if len(got) != len(wire) {
			t.Errorf("%d bytes", len(got))
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing reached the tap")
	}
	if st := s.Stats()[media.External]; st.Packets != 1 || st.Unroutable != 0 || st.Forwarded != 0 {
		t.Errorf("%+v", st)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := r.PortsFree(host); got != free {
		t.Errorf("%d pairs are free, %d were", got, free)
	}
}

type chanTap chan []byte

func (c chanTap) Put(_ time.Time, wire []byte) { c <- append([]byte(nil), wire...) }

func dialUDP(t *testing.T, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // nothing is kept in it
	return c
}
