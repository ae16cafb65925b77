package siprec

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siptest"
)

// securing makes a source with SRTP, and a journal that may have keys.
func securing(j *memJournal, certificate int, sealed bool) func(*Config) {
	return func(c *Config) {
		c.Journal, c.JournalSealed = j, sealed
		c.Sources[0].SRTP = &srtp.Config{Fingerprint: certificates()[certificate].Fingerprint()}
		c.Sources[0].SRTP.Sides[media.External].Policy = srtp.Required
	}
}

func secureAgain(j *memJournal) func(*Config, map[string][]byte) {
	return func(c *Config, _ map[string][]byte) { securing(j, 1, true)(c) }
}

const clientKey = "1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"

func sdesDialog() siptest.DialectDialog {
	d := plainDialog()
	d.Body = strings.NewReplacer("RTP/AVP", "RTP/SAVP", "a=sendonly\r\n", "a=crypto:"+clientKey+"\r\na=sendonly\r\n").Replace(d.Body)
	return d
}

func protector(t *testing.T, line srtp.Crypto) *srtp.Protector {
	t.Helper()
	keys, err := srtp.NewKeys(line)
	if err != nil {
		t.Fatal(err)
	}
	p, err := srtp.NewProtector(keys)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// SRTP by SDES goes on with its keys: packets are read, and the next answer has them.
func TestSDESOverRestart(t *testing.T) {
	j := &memJournal{}
	inBubble(t, securing(j, 0, true), func(w *bench) {
		d := sdesDialog()
		c, res := w.dial("call", d)
		line, err := srtp.ParseCrypto(clientKey)
		if err != nil {
			t.Fatal(err)
		}
		p, stream := protector(t, line), &mediatest.RTPStream{SSRC: 7, Seq: 65530}
		send := func() {
			t.Helper()
			for range 10 {
				wire, err := p.RTP(make([]byte, 1500), stream.Audio(make([]int16, 160)))
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Send(0, wire); err != nil {
					t.Fatal(err)
				}
				if err := c.Send(1, stream.Audio(make([]int16, 160))); err != nil { // in clear
					t.Fatal(err)
				}
			}
			w.log()
			if got := w.obs.taps[0].packets; got[media.External] != 10 || got[media.Internal] != 0 {
				t.Errorf("packets %v", got)
			}
		}
		send()
		for range 2 {
			if _, restored := w.killed(j, secureAgain(j)); len(restored.Sessions) != 1 {
				t.Fatalf("restored %+v", restored)
			}
			send()
		}
		again, err := c.Invite(w.ctx, d.ContentType, []byte(c.Expand(d.Body)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if is, was := cryptoOf(t, again.Body), cryptoOf(t, res.Body); is != was || is == "" {
			t.Errorf("answered with other keys")
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

func cryptoOf(t *testing.T, body []byte) string {
	t.Helper()
	d, err := sdp.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := d.Attribute(0, "crypto")
	return v
}

// SRTP by DTLS goes on with the keys of the handshake, and without another one.
func TestDTLSOverRestart(t *testing.T) {
	j := &memJournal{}
	inBubble(t, securing(j, 0, true), func(w *bench) {
		certificate, err := dtls.NewCertificate(time.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := w.net.Listen(netip.MustParseAddrPort("10.0.0.66:7000"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := w.src.NewDialog("dtls", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		offer := "v=0\r\no=- 1 1 IN IP4 10.0.0.66\r\ns=-\r\nc=IN IP4 10.0.0.66\r\nt=0 0\r\nm=audio 7000 UDP/TLS/RTP/SAVP 0\r\na=sendonly\r\na=rtcp-mux\r\n" +
			fmt.Sprintf("a=setup:active\r\na=fingerprint:%s\r\n", certificate.Fingerprint())
		if _, err := c.Invite(w.ctx, "application/sdp", []byte(offer), nil); err != nil {
			t.Fatal(err)
		}
		answer, err := sdp.Parse(c.Answer())
		if err != nil {
			t.Fatal(err)
		}
		m := answer.Media()[0]
		to := netip.AddrPortFrom(m.Addr, m.Port)
		session, own := answer.Protection(0)
		theirs, faults := srtp.ReadMedia(m.Proto, session, own)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		got := make(chan dtls.Keys, 1)
		client, err := dtls.New(dtls.Config{
			Certificate: certificate, Established: func(k dtls.Keys) { got <- k }, Failed: func(err error) { t.Error(err); close(got) },
			Send: func(b []byte) error { _, err := conn.WriteToUDPAddrPort(b, to); return err },
		})
		if err != nil {
			t.Fatal(err)
		}
		shaken := make(chan struct{})
		handshakes := 0
		go func() {
			defer close(shaken)
			buf := make([]byte, 2000)
			for {
				n, _, err := conn.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				if dtls.IsDTLS(buf[:n]) {
					handshakes++
					client.Deliver(buf[:n])
				}
			}
		}()
		client.Start(dtls.Association{Number: 1, Role: srtp.Active, Fingerprints: theirs.Fingerprints})
		keys, ok := <-got
		if !ok {
			t.Fatal("no handshake")
		}
		p, err := srtp.NewProtector(keys.Send)
		if err != nil {
			t.Fatal(err)
		}
		w.settle()
		shaken1, stream := handshakes, &mediatest.RTPStream{SSRC: 9}
		for restarts := range 3 {
			if restarts > 0 {
				if _, restored := w.killed(j, secureAgain(j)); len(restored.Sessions) != 1 {
					t.Fatalf("restored %+v", restored)
				}
			}
			for range 10 {
				wire, err := p.RTP(make([]byte, 1500), stream.Audio(make([]int16, 160)))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := conn.WriteToUDPAddrPort(wire, to); err != nil {
					t.Fatal(err)
				}
			}
			w.log()
			if n := w.obs.taps[0].packets[media.External] + w.obs.taps[0].packets[media.Internal]; n != 10 {
				t.Errorf("%d packets after %d restarts", n, restarts)
			}
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		<-shaken
		if handshakes > shaken1+4 { // farewells
			t.Errorf("%d datagrams of handshakes, %d before the restarts", handshakes, shaken1)
		}
	})
}

// What cannot go on with its keys does not go on: without them, or where nobody wants
// SRTP any more, and the other way round. Keys get into sealed journals alone.
func TestSRTPIsNotRestored(t *testing.T) {
	t.Run("unsealed", func(t *testing.T) {
		j := &memJournal{}
		inBubble(t, securing(j, 0, false), func(w *bench) {
			c, _ := w.dial("call", sdesDialog())
			w.settle()
			if n := len(j.copied()); n != 0 || w.srv.counters.Unjournalled.Load() != 1 {
				t.Errorf("%d entries, %d counted", n, w.srv.counters.Unjournalled.Load())
			}
			if err := c.Bye(w.ctx); err != nil {
				t.Error(err)
			}
		})
	})
	for name, edit := range map[string]func(*memJournal) func(*Config, map[string][]byte){
		"SRTP is off now": func(*memJournal) func(*Config, map[string][]byte) { return nil },
		"without its keys": func(j *memJournal) func(*Config, map[string][]byte) {
			return func(c *Config, states map[string][]byte) {
				securing(j, 1, true)(c)
				for k, s := range states {
					at := strings.Index(string(s), `"Receive":"`)
					states[k] = []byte(string(s[:at]) + `"R":"` + string(s[at+11:]))
				}
			}
		},
		"the version of plain ones": func(j *memJournal) func(*Config, map[string][]byte) {
			return func(c *Config, states map[string][]byte) {
				securing(j, 1, true)(c)
				for k, s := range states {
					states[k] = []byte(strings.Replace(string(s), `"SIPREC":2`, `"SIPREC":1`, 1))
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := &memJournal{}
			inBubble(t, securing(j, 0, true), func(w *bench) {
				w.dial("call", sdesDialog())
				_, restored := w.killed(j, edit(j))
				if restored.Lost != 1 || len(restored.Sessions) != 0 {
					t.Errorf("restored %+v", restored)
				}
				time.Sleep(time.Minute)
				if n := len(j.copied()); n != 0 {
					t.Errorf("%d entries are left", n)
				}
			})
		})
	}
}
