package relay

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
)

// TestResume: a stream goes on at the ports and with the keys of another process, be they
// of SDP or of a handshake, and tells the next one of them.
func TestResume(t *testing.T) {
	handshake := Handshake{Association: 3, Receive: sdes(1), Send: sdes(2)}
	for name, c := range map[string]struct {
		end    srtp.End
		former [2][2]Handshake
	}{
		"SDES": {end: srtp.End{Mode: srtp.KeyedSDES, Receive: sdes(1), Send: sdes(2)}},
		"DTLS": {srtp.End{Mode: srtp.KeyedDTLS, Association: 3}, [2][2]Handshake{media.External: {kindRTP: handshake}}},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(e env) {
				s, carrier, pbx := e.call()
				ext, in := s.Local(media.External), s.Local(media.Internal)
				if err := s.Close(); err != nil {
					e.Fatal(err)
				}
				s, err := e.relay.OpenAt([2]netip.AddrPort{ext, in}, Options{RTP: true})
				if err != nil {
					e.Fatal(err)
				}
				if err := s.Resume([2]srtp.End{c.end, {}}, c.former); err != nil {
					e.Fatal(err)
				}
				e.protect(s, c.end, srtp.End{}) // nothing new
				s.SetRemote(media.External, carrier.remote(false))
				s.SetRemote(media.Internal, pbx.remote(false))
				var tap collector
				s.SetTap(media.External, &tap)

				far := newSecureParty(e, srtp.End{Mode: srtp.KeyedSDES, Receive: sdes(1), Send: sdes(2)})
				for i := range 4 { // the second time around
					_ = far.seal(rtpPacket(1, uint16(i*0x4000), 20))
				}
				for i := range 3 {
					e.send(carrier.rtp, ext, far.seal(rtpPacket(1, uint16(i), 20)))
					e.want(pbx.rtp, in, rtpPacket(1, uint16(i), 20))
					plain := rtpPacket(2, uint16(40_000+i), 30)
					e.send(pbx.rtp, in, plain)
					wire, _, err := receive(carrier.rtp)
					if err != nil {
						e.Fatal(err)
					}
					got, err := far.in.RTP(wire, wire, time.Now())
					if err != nil || !bytes.Equal(got[12:], plain[12:]) || bytes.Equal(got[8:12], plain[8:12]) {
						e.Fatalf("%v, got %x of %x", err, got, plain)
					}
				}
				e.eventually("the tap", func() bool { return tap.len() == 3 })
				h := s.Handshakes()[media.External][kindRTP]
				if want := c.former[media.External][kindRTP]; h.Association != want.Association || want.Association > 0 && !(h.Receive.SameKeys(want.Receive) && h.Send.SameKeys(want.Send)) {
					e.Errorf("handshake %d, want %d, or other keys", h.Association, want.Association)
				}
				if s.sec.sides[media.External].shaker.Load() != nil {
					e.Error("a handshake has begun")
				}
			})
		})
	}
}

// TestHandshakesForgotten: the keys of a handshake go with their stream.
func TestHandshakesForgotten(t *testing.T) {
	receive, send := sdes(1), sdes(2)
	var a agreedKeys
	k1, err1 := srtp.NewKeys(receive)
	k2, err2 := srtp.NewKeys(send)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	a.note(media.External, kindRTP, dtls.Keys{Association: 1, Receive: k1, Send: k2})
	kept := a.sides[media.External][kindRTP][0].Receive.Keys[0].Key
	a.wipe()
	if kept.Len() != 0 || len(a.sides[media.External][kindRTP]) != 0 {
		t.Error("the keys are still there")
	}
}
