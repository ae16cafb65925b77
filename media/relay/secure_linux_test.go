//go:build !race

package relay

import (
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
)

// Under the race detector ciphers allocate.
func TestServeOfSRTPDoesNotAllocate(t *testing.T) {
	l, s, carrier, pbx := still(t)
	ends := [2]srtp.End{
		{Mode: srtp.KeyedSDES, Receive: sdes(1), Send: sdes(2)},
		{Mode: srtp.KeyedSDES, Receive: sdes(3), Send: sdes(4)},
	}
	if err := s.Protect(ends); err != nil {
		t.Fatal(err)
	}
	s.SetTap(media.External, media.NewRing(1<<20, time.Now()))
	far := newSecureParty(t, ends[0])
	plain, sealed, buf := rtpPacket(1, 1, 160), make([]byte, 200), make([]byte, 2000)
	seq := uint16(0)
	round := func() {
		for range 8 {
			seq++
			plain[2], plain[3] = byte(seq>>8), byte(seq)
			wire, err := far.out.RTP(sealed, plain)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = carrier.WriteToUDPAddrPort(wire, s.Local(media.External))
		}
		l.serve(s.socket(media.External), 0)
		for range 8 {
			_, _, _ = pbx.ReadFromUDPAddrPort(buf)
		}
	}
	round() // the first packet of an SSRC allocates
	if n := testing.AllocsPerRun(500, round); n != 0 {
		t.Errorf("%v allocations for 8 packets", n)
	}
	if st := s.Stats()[0]; st.Forwarded < 4000 || st.Undecrypted != 0 {
		t.Errorf("%+v", st)
	}
}
