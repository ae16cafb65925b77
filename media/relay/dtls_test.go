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

// dtlsParty is a far end that does DTLS on its socket of RTP.
type dtlsParty struct {
	*dtls.Endpoint
	keys   chan dtls.Keys
	failed chan error
	media  chan []byte
}

func (e env) dtlsParty(at testConn, to netip.AddrPort, cert *dtls.Certificate) dtlsParty {
	e.Helper()
	p := dtlsParty{keys: make(chan dtls.Keys, 1), failed: make(chan error, 1), media: make(chan []byte, 100)}
	var err error
	p.Endpoint, err = dtls.New(dtls.Config{
		Certificate: cert,
		Send:        func(b []byte) error { _, err := at.WriteToUDPAddrPort(b, to); return err },
		Established: func(k dtls.Keys) { p.keys <- k },
		Failed:      func(err error) { p.failed <- err },
	})
	if err != nil {
		e.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 65536)
		for {
			n, _, err := at.ReadFromUDPAddrPort(b)
			switch {
			case err != nil:
				return
			case dtls.IsDTLS(b[:n]):
				p.Deliver(b[:n])
			default:
				p.media <- bytes.Clone(b[:n])
			}
		}
	}()
	e.Cleanup(func() {
		_ = p.Endpoint.Close()
		_ = at.Close()
		<-done
	})
	return p
}

func certificate(t *testing.T) *dtls.Certificate {
	t.Helper()
	c, err := dtls.NewCertificate(time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Keys come from a handshake on the socket of RTP, in either role; until then, and
// for a certificate that was not announced, nothing passes.
func TestDTLS(t *testing.T) {
	ours, theirs := certificate(t), certificate(t)
	for name, role := range map[string]srtp.Role{"active": srtp.Active, "passive": srtp.Passive} {
		t.Run(name, func(t *testing.T) {
			e := env{t, mustRelay(t, Config{PortMin: 23000, PortMax: 23999, Loops: 2, Certificate: ours}), listenUDP}
			s, carrier, pbx := e.call()
			ext, in := s.Local(media.External), s.Local(media.Internal)
			far := e.dtlsParty(carrier.rtp, ext, theirs)
			e.protect(s, srtp.End{Mode: srtp.KeyedDTLS, Role: role, Association: 1, Fingerprints: []srtp.Fingerprint{theirs.Fingerprint()}}, srtp.End{})
			e.send(pbx.rtp, in, rtpPacket(2, 1, 20))
			e.eventually("held back", func() bool { return s.Stats()[1].Unprotected == 1 })
			far.Start(dtls.Association{Number: 1, Role: 1 - role, Fingerprints: []srtp.Fingerprint{ours.Fingerprint()}})
			var k dtls.Keys
			select {
			case k = <-far.keys:
			case err := <-far.failed:
				t.Fatal(err)
			}
			p := secureParty{t: t}
			var err error
			if p.out, err = srtp.NewProtector(k.Send); err != nil {
				t.Fatal(err)
			}
			if p.in, err = srtp.NewUnprotector(k.Receive, 0); err != nil {
				t.Fatal(err)
			}
			for seq := uint16(1); ; seq++ { // the relay's end of the handshake may come last
				e.send(carrier.rtp, ext, p.seal(rtpPacket(1, seq, 20)))
				if st := s.Stats()[0]; st.Forwarded > 0 {
					break
				}
				<-time.After(5 * time.Millisecond)
			}
			e.send(pbx.rtp, in, rtpPacket(2, 2, 20))
			wire := <-far.media
			if got, err := p.in.RTP(wire, wire, time.Now()); err != nil || !bytes.Equal(got, rtpPacket(2, 2, 20)) {
				t.Errorf("%v: got %x", err, got)
			}
			e.rtcpOverDTLS(s, carrier, pbx, role, ours, theirs)
			began := time.Now()
			if err := s.Close(); err != nil || time.Since(began) > time.Second {
				t.Errorf("closed in %s: %v", time.Since(began), err)
			}
		})
	}
	t.Run("another certificate", func(t *testing.T) {
		e := env{t, mustRelay(t, Config{PortMin: 23000, PortMax: 23999, Loops: 1, Certificate: ours}), listenUDP}
		s, carrier, pbx := e.call()
		far := e.dtlsParty(carrier.rtp, s.Local(media.External), theirs)
		e.protect(s, srtp.End{Mode: srtp.KeyedDTLS, Role: srtp.Passive, Association: 1, Fingerprints: []srtp.Fingerprint{ours.Fingerprint()}}, srtp.End{})
		far.Start(dtls.Association{Number: 1, Role: srtp.Active, Fingerprints: []srtp.Fingerprint{ours.Fingerprint()}})
		select {
		case <-far.failed:
		case <-far.keys:
		}
		e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, 1, 20))
		e.send(pbx.rtp, s.Local(media.Internal), rtpPacket(2, 1, 20))
		e.eventually("dropped", func() bool { st := s.Stats(); return st[0].Undecrypted == 1 && st[1].Unprotected == 1 })
		if st := s.Stats(); st[0].Forwarded+st[1].Forwarded != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// rtcpOverDTLS: without rtcp-mux RTCP has keys of its own, from a handshake on its port;
// the keys of RTP are not good for it.
func (e env) rtcpOverDTLS(s *Stream, carrier, pbx party, role srtp.Role, ours, theirs *dtls.Certificate) {
	e.Helper()
	ext, in := s.Local(media.External), s.Local(media.Internal)
	ext, in = netip.AddrPortFrom(ext.Addr(), ext.Port()+1), netip.AddrPortFrom(in.Addr(), in.Port()+1)
	far := e.dtlsParty(carrier.rtcp, ext, theirs)
	far.Start(dtls.Association{Number: 1, Role: 1 - role, Fingerprints: []srtp.Fingerprint{ours.Fingerprint()}})
	var k dtls.Keys
	select {
	case k = <-far.keys:
	case err := <-far.failed:
		e.Fatal(err)
	}
	out, err := srtp.NewProtector(k.Send)
	if err != nil {
		e.Fatal(err)
	}
	opens, err := srtp.NewUnprotector(k.Receive, 0)
	if err != nil {
		e.Fatal(err)
	}
	report := []byte{0x80, 201, 0, 1, 0, 0, 0, 1}
	before := s.Stats()[0].Forwarded
	for s.Stats()[0].Forwarded == before { // the relay's end of the handshake may come last
		wire, err := out.RTCP(make([]byte, 200), report)
		if err != nil {
			e.Fatal(err)
		}
		e.send(carrier.rtcp, ext, wire)
		<-time.After(5 * time.Millisecond)
	}
	e.send(pbx.rtcp, in, report)
	wire := <-far.media
	if got, err := opens.RTCP(wire, wire, time.Now()); err != nil || !bytes.Equal(got, report) {
		e.Errorf("%v: got %x", err, got)
	}
}
