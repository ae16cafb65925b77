package b2bua

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
)

// farDTLS is the carrier's end of DTLS-SRTP.
type farDTLS struct {
	*dtls.Endpoint
	keys chan dtls.Keys
	in   chan []byte // that is no DTLS
}

func newFarDTLS(t *testing.T, c *mediatest.Conn, to netip.AddrPort, cert *dtls.Certificate) *farDTLS {
	t.Helper()
	f := &farDTLS{keys: make(chan dtls.Keys, 1), in: make(chan []byte, 100)}
	var err error
	if f.Endpoint, err = dtls.New(dtls.Config{
		Certificate: cert, Established: func(k dtls.Keys) { f.keys <- k }, Failed: func(err error) { t.Error(err) },
		Send: func(b []byte) error { _, err := c.WriteToUDPAddrPort(b, to); return err },
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, _, err := c.ReadFromUDPAddrPort(b)
			switch {
			case err != nil:
				return
			case dtls.IsDTLS(b[:n]):
				f.Deliver(b[:n])
			default:
				f.in <- bytes.Clone(b[:n])
			}
		}
	}()
	return f
}

func rtpOf(ssrc uint32, seq uint16) []byte {
	b := make([]byte, 12+160)
	b[0], b[1] = 0x80, 8
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	binary.BigEndian.PutUint16(b[12:], seq)
	return b
}

// TestSecureDTLSRestored: the keys of a handshake outlive the process that made it; the
// next exchange of descriptions leads to another handshake, for the certificate is
// another one.
func TestSecureDTLSRestored(t *testing.T) {
	ours, theirs := testCertificate(t), testCertificate(t)
	tap := &wiretap{}
	edit := withDTLS(t, ours, tap)
	inRestart(t, func(c *Config) { edit(c); c.JournalSealed = true }, func(w *bench, restart func() *Restored) {
		offer := strings.Replace(sdpOf(carrier.Addr(), 7000, "a=setup:active", "a=rtcp-mux", "a=fingerprint:"+theirs.Fingerprint().String()),
			"RTP/AVP", "UDP/TLS/RTP/SAVP", 1)
		a := begin(w.a, outside, "dtls", offer)
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.acked(a, p, w.a.want("200"))
		m := w.mediaPair()
		relayed := netip.MustParseAddrPort("192.0.2.1:20000")
		far := newFarDTLS(t, m.a, relayed, theirs)
		far.Start(dtls.Association{Number: 1, Role: srtp.Active, Fingerprints: []srtp.Fingerprint{ours.Fingerprint()}})
		keys := <-far.keys
		synctest.Wait() // the other end has them, too
		in, err := srtp.NewUnprotector(keys.Receive, 0)
		if err != nil {
			t.Fatal(err)
		}
		out, err := srtp.NewProtector(keys.Send)
		if err != nil {
			t.Fatal(err)
		}
		seq := uint16(65_500)
		names := map[uint32]bool{}
		speak := func(when string) {
			t.Helper()
			for range 60 { // over the wrap
				seq++
				wire, err := out.RTP(make([]byte, 400), rtpOf(1, seq))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := m.a.WriteToUDPAddrPort(wire, relayed); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 400)
				if n, _, err := m.p.ReadFromUDPAddrPort(b); err != nil || !bytes.Equal(b[:n], rtpOf(1, seq)) {
					t.Fatalf("%s: the PBX gets %x, %v", when, b[:n], err)
				}
				if _, err := m.p.WriteToUDPAddrPort(rtpOf(2, seq), netip.MustParseAddrPort("10.0.0.1:20000")); err != nil {
					t.Fatal(err)
				}
				wire = <-far.in
				got, err := in.RTP(wire, wire, time.Now())
				if err != nil || !bytes.Equal(got[12:], rtpOf(2, seq)[12:]) {
					t.Fatalf("%s: the carrier gets %x, %v", when, got, err)
				}
				names[binary.BigEndian.Uint32(got[8:])] = true
			}
		}
		speak("before")
		for i := range 2 {
			if r := restart(); len(r.Sessions) != 1 || r.Lost != 0 {
				t.Fatalf("%+v", r)
			}
			speak("restored")
			if len(names) != i+2 {
				t.Errorf("the carrier heard %d sources of %d processes", len(names), i+2)
			}
		}
		a.send("INVITE", []string{w.a.contact()}, offer)
		w.a.want("100")
		re := w.p.want("INVITE")
		w.p.reply(re, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		ok := w.a.want("200")
		if !strings.Contains(string(ok.Body), "a=fingerprint:"+ours.Fingerprint().String()) {
			t.Errorf("answered\n%s", ok.Body)
		}
		w.a.send(outside, a.requestAt("ACK", a.cseq, nil, ""))
		w.p.want("ACK")
		far.Start(dtls.Association{Number: 2, Role: srtp.Active, Fingerprints: []srtp.Fingerprint{ours.Fingerprint()}})
		keys = <-far.keys
		if err := in.Rekey(keys.Receive); err != nil {
			t.Fatal(err)
		}
		if err := out.Rekey(keys.Send, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		speak("after another handshake")
		tap.mu.Lock()
		if n := len(tap.packets[media.External]); n < 180 {
			t.Errorf("the recorder got %d packets", n)
		}
		tap.mu.Unlock()
		if err := far.Close(); err != nil {
			t.Error(err)
		}
		w.hangUp(a)
		_ = m.a.Close() // ends its reader
		synctest.Wait()
	})
}
