package b2bua

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
)

func withSRTP(ext, in srtp.Policy) func(*Config) {
	return func(c *Config) {
		c.Trunks[0].SRTP = &srtp.Config{Sides: [2]srtp.SideConfig{media.External: {Policy: ext}, media.Internal: {Policy: in}}}
	}
}

// securePeer is a party's own end of SDES.
type securePeer struct {
	t   *testing.T
	x   srtp.Exchange
	out *srtp.Protector
	in  *srtp.Unprotector
}

// offer writes the lines of an offer; fresh keys with renew.
func (s *securePeer) offer(renew bool) []string {
	s.t.Helper()
	lines, err := s.x.Offer(srtp.Terms{Renew: renew})
	if err != nil {
		s.t.Fatal(err)
	}
	return attributes(lines)
}

func attributes(lines []srtp.Crypto) (out []string) {
	for _, l := range (srtp.Media{Crypto: lines}).Attributes() {
		out = append(out, "a="+l)
	}
	return out
}

// said returns what a message says about its media's protection.
func said(t *testing.T, m *sip.Message) srtp.Media {
	t.Helper()
	return saidAt(t, m, 0)
}

func saidAt(t *testing.T, m *sip.Message, i int) srtp.Media {
	t.Helper()
	d, err := sdp.Parse(m.Body)
	if err != nil {
		t.Fatal(err)
	}
	session, own := d.Protection(i)
	got, faults := srtp.ReadMedia(d.Media()[i].Proto, session, own)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return got
}

// answered takes an answer, and the keys into use.
func (s *securePeer) answered(m *sip.Message) {
	s.t.Helper()
	if err := s.x.Answered(said(s.t, m).Crypto, srtp.Terms{}); err != nil {
		s.t.Fatal(err)
	}
	s.use()
}

func (s *securePeer) use() {
	s.t.Helper()
	receive, send, err := srtp.End{Mode: srtp.KeyedSDES, Receive: s.x.Receive(), Send: s.x.Send()}.Keys()
	if err == nil && s.out == nil {
		s.out, err = srtp.NewProtector(send)
	} else if err == nil {
		err = s.out.Rekey(send, false)
	}
	if err == nil && s.in == nil {
		s.in, err = srtp.NewUnprotector(receive, 0)
	} else if err == nil {
		err = s.in.Rekey(receive)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// exchange sends a packet each way between the protected carrier and the plain PBX.
func (w *bench) exchange(s *securePeer, m pair, seq int) {
	w.t.Helper()
	buf, plain := make([]byte, 2000), rtpPacket(seq, 0)
	wire, err := s.out.RTP(buf, plain)
	if err != nil {
		w.t.Fatal(err)
	}
	_, _ = m.a.WriteToUDPAddrPort(wire, netip.MustParseAddrPort("192.0.2.1:20000"))
	synctest.Wait()
	got := make([]byte, 2000)
	if n, _, err := m.p.ReadFromUDPAddrPort(got); err != nil || !bytes.Equal(got[:n], plain) {
		w.t.Fatalf("packet %d to the PBX: %v %x", seq, err, got[:n])
	}
	_, _ = m.p.WriteToUDPAddrPort(plain, netip.MustParseAddrPort("10.0.0.1:20000"))
	synctest.Wait()
	n, _, err := m.a.ReadFromUDPAddrPort(got)
	if err != nil || bytes.Equal(got[:n], plain) {
		w.t.Fatalf("packet %d to the carrier: %v, or in clear", seq, err)
	}
	if back, err := s.in.RTP(got[:n], got[:n], time.Now()); err != nil || !bytes.Equal(back, plain) {
		w.t.Fatalf("packet %d to the carrier: %v", seq, err)
	}
}

// A carrier with SRTP, a PBX without: hold, resume and new keys in mid-call; the
// recorder gets what it would get of a plain call.
func TestSecureCarrierPlainPBX(t *testing.T) {
	inBubble(t, withSRTP(srtp.Required, srtp.Off), func(w *bench) {
		s := &securePeer{t: t}
		body := func(extra ...string) string {
			return strings.Replace(sdpOf(carrier.Addr(), 7000, extra...), "RTP/AVP", "RTP/SAVP", 1)
		}
		a := begin(w.a, outside, "srtp", body(s.offer(false)...))
		w.a.want("100")
		p := w.p.take(inside)
		if got := string(p.invite.Body); strings.Contains(got, "crypto") || !strings.Contains(got, "m=audio 20000 RTP/AVP 0 101\r\n") {
			t.Fatalf("the PBX is offered\n%s", got)
		}
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		ok := w.a.want("200")
		if got := string(ok.Body); !strings.Contains(got, "m=audio 20000 RTP/SAVP 0 101\r\n") || strings.Count(got, "a=crypto:") != 1 {
			t.Fatalf("the carrier is answered\n%s", got)
		}
		s.answered(ok)
		w.acked(a, p, ok)
		m := w.mediaPair()
		w.exchange(s, m, 1)
		for i, change := range []struct {
			renew     bool
			direction string
		}{{false, "a=sendonly"}, {false, "a=sendrecv"}, {true, "a=sendrecv"}} {
			a.send("INVITE", []string{w.a.contact()}, body(append(s.offer(change.renew), change.direction)...))
			re := w.p.want("INVITE")
			w.a.want("100")
			w.p.reply(re, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
			ok := w.a.want("200")
			w.a.send(a.us, a.requestAt("ACK", a.cseq, nil, ""))
			w.p.want("ACK")
			s.answered(ok)
			w.exchange(s, m, 2+i)
		}
		w.hangUp(a)
		if w.obs.taps[0].packets != [2]int{4, 4} {
			t.Errorf("the recorder got %v", w.obs.taps[0].packets)
		}
	})
}

// What the policy forbids gets 488 with the reason, and nobody is left in a call.
func TestSecureRefusals(t *testing.T) {
	offer := func(t *testing.T) []string { return (&securePeer{t: t}).offer(false) }
	t.Run("plain offer to a required side", func(t *testing.T) {
		inBubble(t, withSRTP(srtp.Required, srtp.Off), func(w *bench) {
			begin(w.a, outside, "r1", sdpOf(carrier.Addr(), 7000))
			w.a.want("100")
			refused := w.a.want("488")
			if !strings.Contains(refused.Get("Warning"), "SRTP is required") {
				t.Errorf("Warning: %s", refused.Get("Warning"))
			}
			w.p.quiet(sip.T4)
		})
	})
	t.Run("answer without keys", func(t *testing.T) {
		inBubble(t, withSRTP(srtp.Off, srtp.Required), func(w *bench) {
			begin(w.a, outside, "r2", sdpOf(carrier.Addr(), 7000))
			w.a.want("100")
			p := w.p.take(inside)
			if got := said(t, p.invite); got.Profile != "RTP/SAVP" || len(got.Crypto) == 0 {
				t.Fatalf("the PBX is offered %s with %d keys", got.Profile, len(got.Crypto))
			}
			w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
			w.p.want("ACK")
			w.p.reply(w.p.want("BYE"), 200, "", nil, "")
			if refused := w.a.want("488"); !strings.Contains(refused.Get("Warning"), "no keys") {
				t.Errorf("Warning: %s", refused.Get("Warning"))
			}
		})
	})
	t.Run("re-INVITE without keys", func(t *testing.T) {
		inBubble(t, withSRTP(srtp.Required, srtp.Off), func(w *bench) {
			s := &securePeer{t: t}
			a := begin(w.a, outside, "r3", sdpOf(carrier.Addr(), 7000, s.offer(false)...))
			w.a.want("100")
			p := w.p.take(inside)
			w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
			ok := w.a.want("200")
			s.answered(ok)
			w.acked(a, p, ok)
			a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
			w.a.want("100")
			w.a.want("488")
			w.exchange(s, w.mediaPair(), 1) // what was agreed goes on
			w.hangUp(a)
		})
	})
	t.Run("secure offer to a plain side", func(t *testing.T) {
		inBubble(t, withSRTP(srtp.Off, srtp.Required), func(w *bench) {
			begin(w.a, outside, "r4", strings.Replace(sdpOf(carrier.Addr(), 7000, offer(t)...), "RTP/AVP", "RTP/SAVP", 1))
			w.a.want("100")
			w.a.want("488")
		})
	})
}

// An optional side is offered keys and may do without.
func TestSecureOptional(t *testing.T) {
	inBubble(t, withSRTP(srtp.Off, srtp.Optional), func(w *bench) {
		a := begin(w.a, outside, "opt", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		if got := said(t, p.invite); got.Profile != "RTP/AVP" || len(got.Crypto) == 0 {
			t.Fatalf("the PBX is offered %s with %d keys", got.Profile, len(got.Crypto))
		}
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		ok := w.a.want("200")
		if strings.Contains(string(ok.Body), "crypto") {
			t.Errorf("the carrier is answered\n%s", ok.Body)
		}
		w.acked(a, p, ok)
		m := w.mediaPair()
		if err := w.carries(m.a, m.p, "192.0.2.1:20000", 0, 3); err != nil {
			t.Error(err)
		}
		w.hangUp(a)
	})
}

// Without a policy, and with off, keys pass between the parties as they are.
func TestSecureUntouched(t *testing.T) {
	inBubble(t, withSRTP(srtp.Off, srtp.Off), func(w *bench) {
		s := &securePeer{t: t}
		lines := s.offer(false)
		begin(w.a, outside, "off", sdpOf(carrier.Addr(), 7000, lines...))
		w.a.want("100")
		p := w.p.take(inside)
		if got := string(p.invite.Body); !strings.Contains(got, strings.Join(lines, "\r\n")) {
			t.Errorf("the PBX is offered\n%s", got)
		}
		w.p.reply(p.invite, 404, "pbx", nil, "")
		w.p.want("ACK")
		w.a.want("404")
	})
}

// A plain side is not offered the profile with feedback of a secure one.
func TestSecureFeedbackStaysOutside(t *testing.T) {
	inBubble(t, withSRTP(srtp.Required, srtp.Off), func(w *bench) {
		lines := (&securePeer{t: t}).offer(false)
		begin(w.a, outside, "avpf", strings.Replace(sdpOf(carrier.Addr(), 7000, lines...), "RTP/AVP", "RTP/SAVPF", 1))
		w.a.want("100")
		p := w.p.take(inside)
		if got := said(t, p.invite); got.Profile != "RTP/AVP" {
			t.Errorf("the PBX is offered %s", got.Profile)
		}
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		ok := w.a.want("200")
		if got := said(t, ok); got.Profile != "RTP/SAVPF" {
			t.Errorf("the carrier is answered %s", got.Profile)
		}
		w.a.send(outside, begunAck(ok))
		w.p.want("ACK")
	})
}

// begunAck acknowledges the 200 of a call that the bench ends.
func begunAck(ok *sip.Message) string {
	return message("ACK sip:"+outside.String()+" SIP/2.0", []string{
		"Via: SIP/2.0/UDP " + carrier.String() + ";rport;branch=z9hG4bK-ack", "Max-Forwards: 70",
		"From: " + ok.Get("From"), "To: " + ok.Get("To"), "Call-ID: " + ok.CallID(), "CSeq: 1 ACK",
	}, "")
}
