package b2bua

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
	"github.com/trunktap/trunktap/sip"
)

// dtlsFork is one of the phones that an INVITE reaches.
type dtlsFork struct {
	w    *bench
	tag  string
	cert *dtls.Certificate
	conn *mediatest.Conn
	far  *farDTLS
	role srtp.Role // its own
	seq  uint16
	port uint16
	in   *srtp.Unprotector
	out  *srtp.Protector
}

const forkedTo = "10.0.0.1:20000" // where the forks send

func (w *bench) dtlsFork(tag string, port uint16, role srtp.Role) *dtlsFork {
	w.t.Helper()
	f := &dtlsFork{w: w, tag: tag, cert: testCertificate(w.t), role: role, port: port}
	var err error
	if f.conn, err = w.net.Listen(netip.AddrPortFrom(pbx.Addr(), port)); err != nil {
		w.t.Fatal(err)
	}
	f.far = newFarDTLS(w.t, f.conn, netip.MustParseAddrPort(forkedTo), f.cert)
	return f
}

func (f *dtlsFork) body() string {
	setup := map[srtp.Role]string{srtp.Active: "active", srtp.Passive: "passive"}[f.role]
	return strings.Replace(sdpOf(pbx.Addr(), int(f.port), "a=setup:"+setup, "a=rtcp-mux", "a=fingerprint:"+f.cert.Fingerprint().String()),
		"RTP/AVP", "UDP/TLS/RTP/SAVP", 1)
}

// shake does the handshake, once, as a phone does whose dialog has one association.
func (f *dtlsFork) shake(ours *dtls.Certificate) {
	f.w.t.Helper()
	f.far.Start(dtls.Association{Number: 1, Role: f.role, Fingerprints: []srtp.Fingerprint{ours.Fingerprint()}})
	select {
	case k := <-f.far.keys:
		var err error
		if f.out, err = srtp.NewProtector(k.Send); err != nil {
			f.w.t.Fatal(err)
		}
		if f.in, err = srtp.NewUnprotector(k.Receive, 0); err != nil {
			f.w.t.Fatal(err)
		}
	case <-time.After(15 * time.Second):
		f.w.t.Fatalf("fork %s: no handshake", f.tag)
	}
	synctest.Wait()
}

// talks says whether a packet of the fork comes to the caller, and one of the caller to it.
func (f *dtlsFork) talks(caller *mediatest.Conn) error {
	f.w.t.Helper()
	f.seq++
	plain, wire := rtpOf(uint32(len(f.tag)), f.seq), make([]byte, 2000)
	sealed, err := f.out.RTP(wire, plain)
	if err != nil {
		return err
	}
	if _, err := f.conn.WriteToUDPAddrPort(sealed, netip.MustParseAddrPort(forkedTo)); err != nil {
		return err
	}
	got := make([]byte, 2000)
	synctest.Wait()
	_ = caller.SetReadDeadline(time.Now().Add(time.Second))
	n, _, err := caller.ReadFromUDPAddrPort(got)
	if err != nil || !bytes.Equal(got[:n], plain) {
		return fmt.Errorf("the caller does not hear it: %v", err)
	}
	back := rtpOf(99, f.seq)
	if _, err := caller.WriteToUDPAddrPort(back, netip.MustParseAddrPort("192.0.2.1:20000")); err != nil {
		return err
	}
	select {
	case b := <-f.far.in:
		if opened, err := f.in.RTP(b, b, time.Now()); err != nil || !bytes.Equal(opened, back) {
			return fmt.Errorf("it cannot decrypt: %v", err)
		}
	case <-time.After(time.Second):
		return fmt.Errorf("it does not hear the caller")
	}
	return nil
}

func withDTLSInside(t *testing.T, cert *dtls.Certificate) func(*Config) {
	return func(c *Config) {
		withDTLS(t, cert, &wiretap{})(c)
		c.Trunks[0].SRTP.Sides[media.External], c.Trunks[0].SRTP.Sides[media.Internal] = c.Trunks[0].SRTP.Sides[media.Internal], c.Trunks[0].SRTP.Sides[media.External]
	}
}

// TestSecureDTLSForks: an INVITE reaches two phones that answer early, each with a
// handshake of its own. Whichever takes the call has its media, with the keys that it
// agreed on, for it will make no other handshake; with a description in the 200 and
// without, in either role, and whether the handshakes come one after the other or
// when both have answered.
func TestSecureDTLSForks(t *testing.T) {
	ours := testCertificate(t)
	for _, role := range []srtp.Role{srtp.Active, srtp.Passive} {
		for k := range 8 {
			winner, repeats, together := k%2, k&2 != 0, k&4 != 0
			t.Run(fmt.Sprintf("phones %v, number %d answers, description repeated %v, both at once %v", role, winner+1, repeats, together), func(t *testing.T) {
				inBubble(t, withDTLSInside(t, ours), func(w *bench) { w.dtlsForks(ours, role, winner, repeats, together) })
			})
		}
	}
}

func (w *bench) dtlsForks(ours *dtls.Certificate, role srtp.Role, winner int, repeats, together bool) {
	w.t.Helper()
	a := begin(w.a, outside, "forked", sdpOf(carrier.Addr(), 7000))
	w.a.want("100")
	p := w.p.take(inside)
	caller, err := w.net.Listen(netip.MustParseAddrPort("192.0.2.66:7000"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = caller.Close() }()
	forks := []*dtlsFork{w.dtlsFork("one", 8000, role), w.dtlsFork("number-two", 8002, role)}
	for _, f := range forks {
		defer func() { _, _ = f.far.Close(), f.conn.Close() }()
		w.p.reply(p.invite, 183, f.tag, []string{w.p.contact()}, f.body())
		w.a.want("183")
		if together {
			continue
		}
		f.shake(ours)
		if err := f.talks(caller); err != nil {
			w.t.Errorf("early, fork %s: %v", f.tag, err)
		}
	}
	if together {
		for _, f := range forks {
			f.shake(ours)
		}
	}
	f, body := forks[winner], ""
	if repeats {
		body = f.body()
	}
	w.p.reply(p.invite, 200, f.tag, []string{w.p.contact()}, body)
	w.acked(a, p, w.a.want("200"))
	for range 3 {
		if err := f.talks(caller); err != nil {
			w.t.Errorf("fork %s has taken the call: %v", f.tag, err)
		}
	}
	time.Sleep(15 * time.Second) // a handshake that nobody answers would have failed
	if err := f.talks(caller); err != nil {
		w.t.Errorf("later: %v", err)
	}
	w.hangUp(a)
}

// TestSecureDTLSMoves: the PBX gives the call to another phone, which answers at another
// address with another certificate. Whoever has to begin the handshake, it is made
// with that phone.
func TestSecureDTLSMoves(t *testing.T) {
	ours := testCertificate(t)
	for _, roles := range [][2]srtp.Role{{srtp.Active, srtp.Active}, {srtp.Passive, srtp.Passive}, {srtp.Active, srtp.Passive}, {srtp.Passive, srtp.Active}} {
		t.Run(fmt.Sprintf("%v, then %v", roles[0], roles[1]), func(t *testing.T) {
			inBubble(t, withDTLSInside(t, ours), func(w *bench) {
				a := begin(w.a, outside, "moves", sdpOf(carrier.Addr(), 7000))
				w.a.want("100")
				p := w.p.take(inside)
				caller, err := w.net.Listen(netip.MustParseAddrPort("192.0.2.66:7000"))
				if err != nil {
					w.t.Fatal(err)
				}
				defer func() { _ = caller.Close() }()
				first, second := w.dtlsFork("pbx", 8000, roles[0]), w.dtlsFork("another", 8002, roles[1])
				for _, f := range []*dtlsFork{first, second} {
					defer func() { _, _ = f.far.Close(), f.conn.Close() }()
				}
				w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, first.body())
				w.acked(a, p, w.a.want("200"))
				first.shake(ours)
				if err := first.talks(caller); err != nil {
					w.t.Fatal(err)
				}
				p.send("INVITE", nil, second.body())
				in := w.a.want("INVITE")
				w.a.reply(in, 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
				w.p.want("100")
				ok := w.p.want("200")
				w.p.send(p.us, p.requestAt("ACK", ackSeq(ok), nil, ""))
				w.a.want("ACK")
				second.shake(ours)
				if err := second.talks(caller); err != nil {
					w.t.Error(err)
				}
				w.hangUp(a)
			})
		})
	}
}

func ackSeq(ok *sip.Message) int {
	seq, _ := ok.CSeq()
	return int(seq)
}

// TestSecureDTLSCallerOfForks: the caller does DTLS and what it calls does not, and forks.
// Each fork answers it with the same certificate at the same port: it makes one
// handshake, which is good for whichever takes the call.
func TestSecureDTLSCallerOfForks(t *testing.T) {
	ours, theirs := testCertificate(t), testCertificate(t)
	for winner := range 2 {
		for _, repeats := range []bool{true, false} {
			t.Run(fmt.Sprintf("number %d answers, description repeated %v", winner+1, repeats), func(t *testing.T) {
				inBubble(t, withDTLS(t, ours, &wiretap{}), func(w *bench) {
					m := w.mediaPair()
					far := newFarDTLS(w.t, m.a, netip.MustParseAddrPort("192.0.2.1:20000"), theirs)
					defer func() { _, _ = far.Close(), m.a.Close() }()
					body := strings.Replace(sdpOf(carrier.Addr(), 7000, "a=setup:actpass", "a=rtcp-mux", "a=fingerprint:"+theirs.Fingerprint().String()),
						"RTP/AVP", "UDP/TLS/RTP/SAVP", 1)
					a := begin(w.a, outside, "forked", body)
					w.a.want("100")
					p := w.p.take(inside)
					second, err := w.net.Listen(netip.AddrPortFrom(pbx.Addr(), 8002))
					if err != nil {
						w.t.Fatal(err)
					}
					defer func() { _ = second.Close() }()
					forks := []*mediatest.Conn{m.p, second}
					tags := []string{"one", "two"}
					var keys dtls.Keys
					for i := range forks {
						w.p.reply(p.invite, 183, tags[i], []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000+2*i))
						if got := string(w.a.want("183").Body); !strings.Contains(got, ours.Fingerprint().String()) || !strings.Contains(got, "a=setup:active") {
							w.t.Fatalf("the caller is answered\n%s", got)
						}
						if i > 0 {
							continue
						}
						far.Start(dtls.Association{Number: 1, Role: srtp.Passive, Fingerprints: []srtp.Fingerprint{ours.Fingerprint()}})
						keys = <-far.keys
						synctest.Wait()
					}
					answer := ""
					if repeats {
						answer = sdpOf(pbx.Addr(), 8000+2*winner)
					}
					w.p.reply(p.invite, 200, tags[winner], []string{w.p.contact()}, answer)
					w.acked(a, p, w.a.want("200"))
					time.Sleep(15 * time.Second)
					out, err := srtp.NewProtector(keys.Send)
					if err != nil {
						w.t.Fatal(err)
					}
					in, err := srtp.NewUnprotector(keys.Receive, 0)
					if err != nil {
						w.t.Fatal(err)
					}
					plain, buf := rtpOf(1, 1), make([]byte, 2000)
					wire, err := out.RTP(buf, plain)
					if err != nil {
						w.t.Fatal(err)
					}
					_, _ = m.a.WriteToUDPAddrPort(wire, netip.MustParseAddrPort("192.0.2.1:20000"))
					got := make([]byte, 2000)
					_ = forks[winner].SetReadDeadline(time.Now().Add(time.Second))
					if n, _, err := forks[winner].ReadFromUDPAddrPort(got); err != nil || !bytes.Equal(got[:n], plain) {
						w.t.Errorf("who took the call does not hear the caller: %v", err)
					}
					_, _ = forks[winner].WriteToUDPAddrPort(rtpOf(2, 1), netip.MustParseAddrPort(forkedTo))
					select {
					case b := <-far.in:
						if opened, err := in.RTP(b, b, time.Now()); err != nil || !bytes.Equal(opened, rtpOf(2, 1)) {
							w.t.Errorf("the caller cannot decrypt: %v", err)
						}
					case <-time.After(time.Second):
						w.t.Error("the caller does not hear who took the call")
					}
					w.hangUp(a)
				})
			})
		}
	}
}
