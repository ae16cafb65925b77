package relay

import (
	"net/netip"
	"testing"

	"github.com/trunktap/trunktap/media"
)

// A stream can be opened again at the ports that it had, also out of quarantine.
func TestOpenAt(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		at := [2]netip.AddrPort{s.Local(media.External), s.Local(media.Internal)}
		if _, err := e.relay.OpenAt(at, Options{RTP: true}); err == nil {
			t.Error("ports in use were opened")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := e.relay.OpenAt(at, Options{RTP: true})
		if err != nil {
			t.Fatal(err)
		}
		for side, at := range at {
			if again.Local(media.Side(side)) != at {
				t.Errorf("side %d is at %s, want %s", side, again.Local(media.Side(side)), at)
			}
		}
		again.SetRemote(media.External, Remote{RTP: addrOf(carrier.rtp), PayloadTypes: []uint8{0}})
		again.SetRemote(media.Internal, Remote{RTP: addrOf(pbx.rtp), PayloadTypes: []uint8{0}})
		e.send(carrier.rtp, at[media.External], rtpPacket(1, 1, 160))
		e.want(pbx.rtp, at[media.Internal], rtpPacket(1, 1, 160))
		if _, err := e.relay.OpenAt([2]netip.AddrPort{netip.AddrPortFrom(locals[0], 9), netip.AddrPortFrom(locals[1], 9)}, Options{}); err == nil {
			t.Error("ports out of the range were opened")
		}
		if n := e.relay.Streams(); n != 1 {
			t.Errorf("%d streams", n)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
