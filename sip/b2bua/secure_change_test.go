package b2bua

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip/siptest"
)

// TestSecureChangeRefused offers new keys that the far end refuses: those of before
// go on, in both directions.
func TestSecureChangeRefused(t *testing.T) {
	for _, name := range []string{"SDES to plain", "SDES, other suites", "passed"} {
		tc := secureCases[name]
		t.Run(name, func(t *testing.T) {
			inSecureBubble(t, tc.cfg, func(ctx context.Context, w *secureCalls) {
				a, p := w.call(ctx, tc.from, tc.to)
				p.OnRequest(func(m *siptest.Message) *siptest.Message {
					if m.Method == "INVITE" || m.Method == "UPDATE" {
						return &siptest.Message{Code: 488, Reason: "Not Acceptable Here"}
					}
					return nil
				})
				var refused *siptest.RejectedError
				if err := a.Reinvite(ctx, w.renew(a)); !errors.As(err, &refused) || refused.Response.Code != 488 {
					w.t.Errorf("re-INVITE: %v", err)
				}
				time.Sleep(300 * time.Millisecond)
				if err := a.Update(ctx, w.renew(a)); !errors.As(err, &refused) {
					w.t.Errorf("UPDATE: %v", err)
				}
				time.Sleep(300 * time.Millisecond)
				p.OnRequest(nil)
				if err := a.Reinvite(ctx, w.renew(a)); err != nil {
					w.t.Errorf("re-INVITE that is taken: %v", err)
				}
				w.wantWhole(ctx, a, p)
			})
		})
	}
}

// TestSecureLateOffer leaves the offer of the first INVITE to the far end.
func TestSecureLateOffer(t *testing.T) {
	for name, tc := range secureCases {
		if name == "passed" { // the carrier takes the PBX's choice then
			tc.from = sdesOf(cm80)
		}
		t.Run(name, func(t *testing.T) {
			inSecureBubble(t, tc.cfg, func(ctx context.Context, w *secureCalls) {
				from := tc.from
				from.NoSDP = true
				a, p := w.call(ctx, from, tc.to)
				if err := a.Reinvite(ctx, w.renew(a)); err != nil {
					w.t.Error(err)
				}
				if got := sharedKeys(a, p); got != tc.passed {
					w.t.Errorf("the parties share keys: %v", got)
				}
				w.wantWhole(ctx, a, p)
			})
		})
	}
}

// TestSecureForks lets two branches answer early with keys of their own, each of
// which speaks; the first of them takes the call.
func TestSecureForks(t *testing.T) {
	for name, repeats := range map[string]bool{"the answer repeats the description": true, "the answer has none": false} {
		t.Run(name, func(t *testing.T) { secureForks(t, repeats) })
	}
}

func secureForks(t *testing.T, repeats bool) {
	inBubble(t, withSRTP(srtp.Off, srtp.Required), func(w *bench) {
		a := begin(w.a, outside, "forked", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		offered := said(w.t, p.invite)
		branch := func(port int) (*securePeer, string) {
			s := &securePeer{t: w.t}
			line, err := s.x.Accept(offered.Crypto, srtp.Terms{})
			if err != nil {
				w.t.Fatal(err)
			}
			s.use()
			body := sdpOf(pbx.Addr(), port, attributes([]srtp.Crypto{line})...)
			return s, strings.Replace(body, "RTP/AVP", "RTP/SAVP", 1)
		}
		speak := func(s *securePeer, from interface {
			WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
		}, to interface {
			ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
		}, seq int,
		) {
			w.t.Helper()
			plain, buf := rtpPacket(seq, 0), make([]byte, 2000)
			wire, err := s.out.RTP(buf, plain)
			if err != nil {
				w.t.Fatal(err)
			}
			_, _ = from.WriteToUDPAddrPort(wire, netip.MustParseAddrPort("10.0.0.1:20000"))
			synctest.Wait()
			got := make([]byte, 2000)
			if n, _, err := to.ReadFromUDPAddrPort(got); err != nil || !bytes.Equal(got[:n], plain) {
				w.t.Fatalf("packet %d: %v", seq, err)
			}
		}
		m := w.mediaPair()
		m2, err := w.net.Listen(netip.MustParseAddrPort("10.0.0.66:8002"))
		if err != nil {
			w.t.Fatal(err)
		}
		defer func() { _ = m2.Close() }()
		first, body1 := branch(8000)
		second, body2 := branch(8002)
		w.p.reply(p.invite, 183, "one", []string{w.p.contact()}, body1)
		w.a.want("183")
		speak(first, m.p, m.a, 1)
		w.p.reply(p.invite, 183, "two", []string{w.p.contact()}, body2)
		w.a.want("183")
		speak(second, m2, m.a, 2)
		if !repeats {
			body1 = ""
		}
		w.p.reply(p.invite, 200, "one", []string{w.p.contact()}, body1)
		ok := w.a.want("200")
		w.acked(a, p, ok)
		plain := rtpPacket(9, 0) // before anything of it comes: the address is that of its description
		_, _ = m.a.WriteToUDPAddrPort(plain, netip.MustParseAddrPort("192.0.2.1:20000"))
		synctest.Wait()
		got := make([]byte, 2000)
		n, _, err := m.p.ReadFromUDPAddrPort(got)
		if err != nil {
			w.t.Fatal(err)
		}
		if back, err := first.in.RTP(got[:n], got[:n], time.Now()); err != nil || !bytes.Equal(back, plain) {
			w.t.Errorf("the branch that took the call cannot decrypt: %v", err)
		}
		speak(first, m.p, m.a, 3)
		w.hangUp(a)
	})
}

// TestSecureChoice offers the PBX's side the choice between two lines of audio, one
// with keys and one without, as endpoints did before RFC 8643.
func TestSecureChoice(t *testing.T) {
	for name, tc := range map[string]struct {
		ext, in srtp.Policy
		want    [2]string // the m= lines that the PBX is offered
	}{
		"required outside": {srtp.Required, srtp.Off, [2]string{"m=audio 20000 RTP/AVP", "m=audio 0 RTP/AVP"}},
		"off outside":      {srtp.Off, srtp.Required, [2]string{"m=audio 0 RTP/SAVP", "m=audio 20002 RTP/SAVP"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, withSRTP(tc.ext, tc.in), func(w *bench) {
				lines := (&securePeer{t: w.t}).offer(false)
				body := strings.Replace(sdpOf(carrier.Addr(), 7000, lines...), "RTP/AVP", "RTP/SAVP", 1) +
					"m=audio 7002 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
				begin(w.a, outside, "choice", body)
				w.a.want("100")
				p := w.p.take(inside)
				got := string(p.invite.Body)
				for _, m := range tc.want {
					if !strings.Contains(got, m+" 0 101\r\n") {
						w.t.Errorf("%q is missing, the PBX is offered\n%s", m, got)
					}
				}
				if strings.Contains(got, lines[0]) {
					w.t.Error("the carrier's keys went to the PBX")
				}
				// It takes what is left.
				answer := strings.NewReplacer("m=audio 20000", "m=audio 8000", "m=audio 20002", "m=audio 8000").Replace(got)
				if tc.in == srtp.Required {
					var x srtp.Exchange
					_, own := splitAt(answer, 1)
					line, err := x.Accept(saidAt(w.t, p.invite, 1).Crypto, srtp.Terms{})
					if err != nil {
						w.t.Fatal(err)
					}
					answer = strings.Replace(answer, own, withoutCrypto(own)+strings.Join(attributes([]srtp.Crypto{line}), "\r\n")+"\r\n", 1)
				}
				w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, strings.ReplaceAll(answer, "10.0.0.1", pbx.Addr().String()))
				ok := w.a.want("200")
				want := [2]string{"m=audio 20000 RTP/SAVP", "m=audio 0 RTP/AVP"}
				if tc.ext == srtp.Off {
					want = [2]string{"m=audio 0 RTP/SAVP", "m=audio 20002 RTP/AVP"}
				}
				for _, m := range want {
					if !strings.Contains(string(ok.Body), m+" 0 101\r\n") {
						w.t.Errorf("%q is missing, the carrier is answered\n%s", m, ok.Body)
					}
				}
				w.a.send(outside, begunAck(ok))
				w.p.want("ACK")
			})
		})
	}
}

// splitAt returns what is before the n-th m= section, from 0, and the section.
func splitAt(body string, n int) (before, own string) {
	parts := strings.Split(body, "m=audio ")
	return strings.Join(parts[:n+1], "m=audio "), "m=audio " + parts[n+1]
}

func withoutCrypto(section string) string {
	var out strings.Builder
	for l := range strings.Lines(section) {
		if !strings.HasPrefix(l, "a=crypto") {
			out.WriteString(l)
		}
	}
	return out.String()
}

// TestSecureCapabilities holds what becomes of capability negotiation (RFC 5939): it
// is the parties' where SRTP is, and has no say where that is ended here.
func TestSecureCapabilities(t *testing.T) {
	caps := []string{
		"a=tcap:1 RTP/SAVP", "a=acap:1 crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
		"a=pcfg:1 t=1 a=1",
	}
	for name, tc := range map[string]struct {
		ext, in srtp.Policy
		whole   bool
	}{"off on both sides": {srtp.Off, srtp.Off, true}, "optional outside": {srtp.Optional, srtp.Off, false}, "required inside": {srtp.Off, srtp.Required, false}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, withSRTP(tc.ext, tc.in), func(w *bench) {
				begin(w.a, outside, "caps", sdpOf(carrier.Addr(), 7000, caps...))
				w.a.want("100")
				p := w.p.take(inside)
				if got := strings.Contains(string(p.invite.Body), strings.Join(caps, "\r\n")); got != tc.whole {
					w.t.Errorf("the PBX is offered\n%s", p.invite.Body)
				}
				if !tc.whole && strings.Contains(string(p.invite.Body), "cfg:") { // keys may have the letters
					w.t.Errorf("the PBX is offered\n%s", p.invite.Body)
				}
				w.p.reply(p.invite, 404, "pbx", nil, "")
				w.p.want("ACK")
				w.a.want("404")
			})
		})
	}
}

// TestSecureForged sends what nobody with the keys has sent: it reaches nobody, moves
// no source, and is counted; the recorder is told of what was no repetition.
func TestSecureForged(t *testing.T) {
	for _, name := range []string{"SDES to plain", "passed"} {
		tc := secureCases[name]
		t.Run(name, func(t *testing.T) {
			inSecureBubble(t, tc.cfg, func(ctx context.Context, w *secureCalls) {
				a, p := w.call(ctx, tc.from, tc.to)
				to, sent := netip.MustParseAddrPort("192.0.2.1:20000"), a.Media().Sent()
				forged := rtpPacket(77, 0)
				// It has the number of one that came: that is seen before it is authenticated.
				garbled := append([]byte{}, sent[len(sent)-1].Secure...)
				garbled[len(garbled)-1] ^= 1
				again := sent[len(sent)-2].Secure
				before, came := w.relay.Totals(), len(p.Media().Received())
				for _, wire := range [][]byte{forged, garbled, again} {
					if err := a.Media().Send(wire, to); err != nil {
						w.t.Fatal(err)
					}
				}
				stray, err := w.net.Listen(netip.MustParseAddrPort("192.0.2.70:9000"))
				if err != nil {
					w.t.Fatal(err)
				}
				defer func() { _ = stray.Close() }()
				for range 20 {
					_, _ = stray.WriteToUDPAddrPort(forged, to)
					time.Sleep(20 * time.Millisecond)
				}
				got := w.relay.Totals()
				passed := got.RejectedSource - before.RejectedSource // of a line that is passed the source is known first
				if n := got.Undecrypted - before.Undecrypted + passed; n != 23 || got.Replayed-before.Replayed != 2 || got.Keyless != before.Keyless {
					w.t.Errorf("%d refused, %d of them repeated, %d without keys", n, got.Replayed-before.Replayed, got.Keyless-before.Keyless)
				}
				w.tap.mu.Lock()
				if n := w.tap.refused[media.External]; n < 1 || n > 21 {
					w.t.Errorf("the recorder is told of %d", n)
				}
				for _, wire := range w.tap.packets[media.External] {
					if bytes.Equal(wire, forged) || bytes.Equal(wire, garbled) {
						w.t.Error("the recorder got what nobody sent")
					}
				}
				w.tap.mu.Unlock()
				if !tc.passed {
					for _, r := range p.Media().Received()[came:] {
						if bytes.Equal(r.Wire, forged) {
							w.t.Error("the PBX got what nobody sent")
						}
					}
				}
				if err := a.Bye(ctx); err != nil {
					w.t.Error(err)
				}
			})
		})
	}
}

// TestSecureSenderRestarts lets the plain party set its sequence numbers back under the
// same SSRC, as PBXs do when another source of theirs takes over.
func TestSecureSenderRestarts(t *testing.T) {
	tc := secureCases["SDES to plain"]
	inSecureBubble(t, tc.cfg, func(ctx context.Context, w *secureCalls) {
		a, p := w.call(ctx, tc.from, tc.to)
		p.Media().Jump(40_000, 0) // more than half of the numbers ahead is back
		time.Sleep(2 * time.Second)
		sent, came := len(p.Media().Sent()), len(a.Media().Received())
		if missing := sent - came; missing > 8 || a.Media().Undecrypted() != 0 {
			w.t.Errorf("%d of %d packets did not come, %d could not be decrypted", missing, sent, a.Media().Undecrypted())
		}
		w.tap.mu.Lock()
		if n := len(w.tap.packets[media.Internal]); n < sent-1 {
			w.t.Errorf("the recorder got %d of %d", n, sent)
		}
		w.tap.mu.Unlock()
		if err := a.Bye(ctx); err != nil {
			w.t.Error(err)
		}
	})
}

// TestSecureUpdateRefusedEarly: an UPDATE that is refused before the answer leaves the
// keys of the early one, which the answer repeats.
func TestSecureUpdateRefusedEarly(t *testing.T) {
	for name, repeats := range map[string]bool{"the answer repeats the description": true, "the answer has none": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, withSRTP(srtp.Off, srtp.Required), func(w *bench) {
				a := begin(w.a, outside, "refused", sdpOf(carrier.Addr(), 7000))
				w.a.want("100")
				p := w.p.take(inside)
				s := &securePeer{t: w.t}
				line, err := s.x.Accept(said(w.t, p.invite).Crypto, srtp.Terms{})
				if err != nil {
					w.t.Fatal(err)
				}
				s.use()
				body := strings.Replace(sdpOf(pbx.Addr(), 8000, attributes([]srtp.Crypto{line})...), "RTP/AVP", "RTP/SAVP", 1)
				w.p.reply(p.invite, 183, "one", []string{w.p.contact()}, body)
				f := forkOf(w.t, a, w.a.want("183"))
				f.send("UPDATE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7300))
				w.p.reply(w.p.want("UPDATE"), 491, "", nil, "")
				w.a.want("491 UPDATE")
				if !repeats {
					body = ""
				}
				w.p.reply(p.invite, 200, "one", []string{w.p.contact()}, body)
				w.acked(f, p, w.a.want("200 INVITE"))
				m, plain, buf := w.mediaPair(), rtpPacket(1, 0), make([]byte, 2000)
				wire, err := s.out.RTP(buf, plain)
				if err != nil {
					w.t.Fatal(err)
				}
				_, _ = m.p.WriteToUDPAddrPort(wire, netip.MustParseAddrPort("10.0.0.1:20000"))
				synctest.Wait()
				got := make([]byte, 2000)
				if n, _, err := m.a.ReadFromUDPAddrPort(got); err != nil || !bytes.Equal(got[:n], plain) {
					w.t.Errorf("not decrypted: %v", err)
				}
				f.cseq = 50
				w.hangUp(f)
			})
		})
	}
}
