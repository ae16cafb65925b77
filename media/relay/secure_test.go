package relay

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
)

// sdes is a key of one direction; first tells keys apart.
func sdes(first byte) srtp.Crypto {
	b := make([]byte, srtp.AESCM128SHA1x80.KeyBytes())
	b[0] = first
	return srtp.Crypto{Tag: 1, Suite: srtp.AESCM128SHA1x80, Keys: []srtp.MasterKey{{Key: srtp.NewKey(b)}}}
}

// secureParty is the other end of an End.
type secureParty struct {
	t   testing.TB
	out *srtp.Protector
	in  *srtp.Unprotector
}

func newSecureParty(t testing.TB, e srtp.End) secureParty {
	t.Helper()
	receive, send, err := e.Keys()
	if err != nil {
		t.Fatal(err)
	}
	p := secureParty{t: t}
	if p.out, err = srtp.NewProtector(receive); err != nil {
		t.Fatal(err)
	}
	if send != nil {
		if p.in, err = srtp.NewUnprotector(send, 0); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p secureParty) seal(plain []byte) []byte {
	p.t.Helper()
	wire, err := p.out.RTP(make([]byte, len(plain)+srtp.OverheadBytesMax), plain)
	if err != nil {
		p.t.Fatal(err)
	}
	return bytes.Clone(wire)
}

// wantSealed reads a packet at a protected party and demands that it be this one.
func (e env) wantSealed(at testConn, p secureParty, plain []byte) {
	e.Helper()
	wire, _, err := receive(at)
	if err != nil {
		e.Fatalf("nothing came: %v", err)
	}
	if bytes.Equal(wire, plain) {
		e.Fatal("the packet came in clear")
	}
	got, err := p.in.RTP(wire, wire, time.Now())
	if err != nil || !bytes.Equal(got, plain) {
		e.Fatalf("%v, got %x, want %x", err, got, plain)
	}
}

// A protected carrier meets a plain PBX: what is forged, repeated or plain is
// dropped, taps get plain packets, and the rollover counter and new keys follow.
func TestOneSideProtected(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		ext, in := s.Local(media.External), s.Local(media.Internal)
		end := srtp.End{Mode: srtp.KeyedSDES, Receive: sdes(1), Send: sdes(2)}
		e.protect(s, end, srtp.End{})
		far := newSecureParty(e, end)
		var taps [2]collector
		s.SetTap(media.External, &taps[0])
		s.SetTap(media.Internal, &taps[1])

		thief := e.party(thiefHost)
		e.send(thief.rtp, ext, rtpPacket(1, 65530, 20)) // plain
		e.send(thief.rtp, ext, newSecureParty(e, srtp.End{Mode: srtp.KeyedSDES, Receive: sdes(9)}).seal(rtpPacket(1, 65530, 20)))
		for i := range 20 { // over the wrap
			seq := uint16(65526 + i)
			wire := far.seal(rtpPacket(1, seq, 20))
			e.send(carrier.rtp, ext, wire)
			e.want(pbx.rtp, in, rtpPacket(1, seq, 20))
			e.send(carrier.rtp, ext, wire) // again: dropped
			e.send(pbx.rtp, in, rtpPacket(2, seq, 30))
			e.wantSealed(carrier.rtp, far, rtpPacket(2, seq, 30))
		}
		renewed := srtp.End{Mode: srtp.KeyedSDES, Receive: sdes(3), Send: sdes(4)}
		e.protect(s, renewed, srtp.End{})
		late := far.seal(rtpPacket(1, 100, 20))
		receive, send, err := renewed.Keys()
		if err = errors.Join(err, far.out.Rekey(receive, false), far.in.Rekey(send)); err != nil {
			e.Fatal(err)
		}
		e.send(carrier.rtp, ext, far.seal(rtpPacket(1, 101, 20)))
		e.want(pbx.rtp, in, rtpPacket(1, 101, 20))
		e.send(carrier.rtp, ext, late) // under the keys before
		e.want(pbx.rtp, in, rtpPacket(1, 100, 20))
		e.send(pbx.rtp, in, rtpPacket(2, 101, 30))
		e.wantSealed(carrier.rtp, far, rtpPacket(2, 101, 30))

		e.eventually("counts", func() bool {
			st := s.Stats()
			return st[0].Undecrypted == 22 && st[0].Forwarded == 22 && st[1].Forwarded == 21 && taps[0].len() == 22 && taps[1].len() == 21
		})
		if st := s.Stats(); st[0].Kernel+st[1].Kernel != 0 || st[0].Source != addrOf(carrier.rtp) {
			e.Errorf("%+v", st)
		}
		if taps[0].wires[19][2] != 0 || !bytes.Equal(taps[0].wires[0], rtpPacket(1, 65526, 20)) {
			e.Errorf("the tap got %s", &taps[0])
		}
	})
}

func (e env) protect(s *Stream, ext, in srtp.End) {
	e.Helper()
	if err := s.Protect([2]srtp.End{ext, in}); err != nil {
		e.Fatal(err)
	}
}

// Without keys nothing passes in either direction; what was held is counted.
func TestNothingPassesWithoutKeys(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		e.protect(s, srtp.End{Mode: srtp.KeyedSDES}, srtp.End{})
		e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, 1, 20))
		e.send(pbx.rtp, s.Local(media.Internal), rtpPacket(2, 1, 20))
		e.eventually("counts", func() bool {
			st := s.Stats()
			return st[0].Undecrypted == 1 && st[0].Packets == 0 && st[1].Unprotected == 1 && st[1].Forwarded == 0
		})
		if err := s.Protect([2]srtp.End{{Mode: srtp.KeyedDTLS, Association: 1}}); err == nil {
			e.Error("DTLS without a certificate")
		}
		e.protect(s, srtp.End{}, srtp.End{})
		e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, 2, 20))
		e.want(pbx.rtp, s.Local(media.Internal), rtpPacket(1, 2, 20))
	})
}

// Passed protection: the far side gets the same bytes, the tap plain packets.
func TestPassedProtection(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		ends := [2]srtp.End{{Mode: srtp.Passed, Receive: sdes(1)}, {Mode: srtp.Passed, Receive: sdes(2)}}
		e.protect(s, ends[0], ends[1])
		var tap collector
		s.SetTap(media.External, &tap)
		s.SetOverlay(media.External, &inverter{every: 1})
		far := newSecureParty(e, ends[0])
		for i := range uint16(5) {
			wire := far.seal(rtpPacket(1, i, 20))
			e.send(carrier.rtp, s.Local(media.External), wire)
			e.want(pbx.rtp, s.Local(media.Internal), wire)
		}
		e.eventually("tapped", func() bool { return tap.len() == 5 })
		if !bytes.Equal(tap.wires[4], rtpPacket(1, 4, 20)) {
			e.Errorf("the tap got %s", &tap)
		}
	})
}

// RTCP on its own port and, by rtcp-mux, on that of RTP.
func TestProtectedRTCP(t *testing.T) {
	onBoth(t, func(e env) {
		for _, mux := range []bool{false, true} {
			s, carrier, pbx := e.call()
			s.SetRemote(media.External, carrier.remote(mux))
			end := srtp.End{Mode: srtp.KeyedSDES, Receive: sdes(1), Send: sdes(2)}
			e.protect(s, end, srtp.End{})
			far := newSecureParty(e, end)
			e.send(carrier.rtp, s.Local(media.External), far.seal(rtpPacket(1, 1, 20)))
			e.want(pbx.rtp, s.Local(media.Internal), rtpPacket(1, 1, 20))
			wire, err := far.out.RTCP(make([]byte, 200), rtcpPacket(1))
			if err != nil {
				e.Fatal(err)
			}
			from, to := carrier.rtcp, rtcpOf(s.Local(media.External))
			if mux {
				from, to = carrier.rtp, s.Local(media.External)
			}
			e.send(from, to, wire)
			e.want(pbx.rtcp, rtcpOf(s.Local(media.Internal)), rtcpPacket(1))
			e.send(pbx.rtcp, rtcpOf(s.Local(media.Internal)), rtcpPacket(2))
			got, _, err := receive(from)
			if err != nil {
				e.Fatal(err)
			}
			if got, err = far.in.RTCP(got, got, time.Now()); err != nil || !bytes.Equal(got, rtcpPacket(2)) {
				e.Errorf("mux %t: %v, %x", mux, err, got)
			}
			if err := s.Close(); err != nil {
				e.Fatal(err)
			}
		}
	})
}
