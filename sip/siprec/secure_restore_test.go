package siprec

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
	"github.com/trunktap/trunktap/sip/journal/journaltest"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siptest"
)

// securing makes a source with SRTP, and a journal that may have keys.
func securing(j *journaltest.Mem, certificate int, sealed bool) func(*Config) {
	return func(c *Config) {
		c.Journal, c.JournalSealed = j, sealed
		c.Sources[0].SRTP = &srtp.Config{Fingerprint: certificates()[certificate].Fingerprint()}
		c.Sources[0].SRTP.Sides[media.External].Policy = srtp.Required
	}
}

func secureAgain(j *journaltest.Mem) func(*Config, map[string][]byte) {
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

// sdes sends ten packets on each stream of such a dialog, those of the second in clear, and
// demands that the recorder has the others alone; what it returns sends more of them.
func (w *bench) sdes(c *siptest.SRCDialog, stream *mediatest.RTPStream) (again func()) {
	t := w.t
	t.Helper()
	line, err := srtp.ParseCrypto(clientKey)
	if err != nil {
		t.Fatal(err)
	}
	p := protector(t, line)
	again = func() {
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
	again()
	return again
}

// SRTP by SDES goes on with its keys: packets are read, and the next answer has them.
func TestSDESOverRestart(t *testing.T) {
	j := &journaltest.Mem{}
	inBubble(t, securing(j, 0, true), func(w *bench) {
		d := sdesDialog()
		c, res := w.dial("call", d)
		stream := &mediatest.RTPStream{SSRC: 7, Seq: 65530}
		send := w.sdes(c, stream)
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

// dtlsClient sends one stream that DTLS gives the keys for.
type dtlsClient struct {
	conn     *mediatest.Conn
	to       netip.AddrPort
	endpoint *dtls.Endpoint
	end      sync.WaitGroup
	shaken   atomic.Int64 // datagrams of handshakes
	p        *srtp.Protector
	stream   mediatest.RTPStream
}

// dtls begins a dialog with such a client, whose handshake is over.
func (w *bench) dtls(certificate *dtls.Certificate) (*siptest.SRCDialog, *dtlsClient) {
	t := w.t
	t.Helper()
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
	session, own := answer.Protection(0)
	theirs, faults := srtp.ReadMedia(m.Proto, session, own)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	d := &dtlsClient{conn: conn, to: netip.AddrPortFrom(m.Addr, m.Port), stream: mediatest.RTPStream{SSRC: 9}}
	keys := d.shake(t, certificate, theirs.Fingerprints)
	if d.p, err = srtp.NewProtector(keys.Send); err != nil {
		t.Fatal(err)
	}
	return c, d
}

// shake makes the handshake.
func (d *dtlsClient) shake(t *testing.T, certificate *dtls.Certificate, theirs []srtp.Fingerprint) dtls.Keys {
	t.Helper()
	got := make(chan dtls.Keys, 1)
	var err error
	d.endpoint, err = dtls.New(dtls.Config{
		Certificate: certificate, Established: func(k dtls.Keys) { got <- k }, Failed: func(err error) { t.Error(err); close(got) },
		Send: func(b []byte) error { _, err := d.conn.WriteToUDPAddrPort(b, d.to); return err },
	})
	if err != nil {
		t.Fatal(err)
	}
	d.end.Go(func() {
		buf := make([]byte, 2000)
		for {
			n, _, err := d.conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if dtls.IsDTLS(buf[:n]) {
				d.shaken.Add(1)
				d.endpoint.Deliver(buf[:n])
			}
		}
	})
	d.endpoint.Start(dtls.Association{Number: 1, Role: srtp.Active, Fingerprints: theirs})
	keys, ok := <-got
	if !ok {
		t.Fatal("no handshake")
	}
	return keys
}

func (d *dtlsClient) send(t *testing.T, n int) {
	t.Helper()
	for range n {
		wire, err := d.p.RTP(make([]byte, 1500), d.stream.Audio(make([]int16, 160)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.conn.WriteToUDPAddrPort(wire, d.to); err != nil {
			t.Fatal(err)
		}
	}
}

func (d *dtlsClient) close(t *testing.T) {
	t.Helper()
	if err := d.endpoint.Close(); err != nil {
		t.Error(err)
	}
	if err := d.conn.Close(); err != nil {
		t.Error(err)
	}
	d.end.Wait()
}

// SRTP by DTLS goes on with the keys of the handshake, and without another one.
func TestDTLSOverRestart(t *testing.T) {
	j := &journaltest.Mem{}
	inBubble(t, securing(j, 0, true), func(w *bench) {
		certificate, err := dtls.NewCertificate(time.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		c, client := w.dtls(certificate)
		w.settle()
		shaken := client.shaken.Load()
		for restarts := range 3 {
			if restarts > 0 {
				if _, restored := w.killed(j, secureAgain(j)); len(restored.Sessions) != 1 {
					t.Fatalf("restored %+v", restored)
				}
			}
			client.send(t, 10)
			w.log()
			if n := w.obs.taps[0].packets[media.External] + w.obs.taps[0].packets[media.Internal]; n != 10 {
				t.Errorf("%d packets after %d restarts", n, restarts)
			}
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
		client.close(t)
		if n := client.shaken.Load(); n > shaken+4 { // farewells
			t.Errorf("%d datagrams of handshakes, %d before the restarts", n, shaken)
		}
	})
}

// What cannot go on with its keys does not go on: without them, or where nobody wants
// SRTP any more, and the other way round. Keys get into sealed journals alone.
func TestSRTPIsNotRestored(t *testing.T) {
	t.Run("unsealed", func(t *testing.T) {
		j := &journaltest.Mem{}
		inBubble(t, securing(j, 0, false), func(w *bench) {
			c, _ := w.dial("call", sdesDialog())
			w.settle()
			if n := len(j.States()); n != 0 || w.srv.counters.Unjournalled.Load() != 1 {
				t.Errorf("%d entries, %d counted", n, w.srv.counters.Unjournalled.Load())
			}
			if err := c.Bye(w.ctx); err != nil {
				t.Error(err)
			}
		})
	})
	for name, edit := range map[string]func(*journaltest.Mem) func(*Config, map[string][]byte){
		"SRTP is off now": func(*journaltest.Mem) func(*Config, map[string][]byte) { return nil },
		"without its keys": func(j *journaltest.Mem) func(*Config, map[string][]byte) {
			return func(c *Config, states map[string][]byte) {
				securing(j, 1, true)(c)
				for k, s := range states {
					at := strings.Index(string(s), `"Receive":"`)
					states[k] = []byte(string(s[:at]) + `"R":"` + string(s[at+11:]))
				}
			}
		},
		"the version of plain ones": func(j *journaltest.Mem) func(*Config, map[string][]byte) {
			return func(c *Config, states map[string][]byte) {
				securing(j, 1, true)(c)
				for k, s := range states {
					states[k] = []byte(strings.Replace(string(s), `"SIPREC":2`, `"SIPREC":1`, 1))
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := &journaltest.Mem{}
			inBubble(t, securing(j, 0, true), func(w *bench) {
				w.dial("call", sdesDialog())
				_, restored := w.killed(j, edit(j))
				if restored.Lost != 1 || len(restored.Sessions) != 0 {
					t.Errorf("restored %+v", restored)
				}
				time.Sleep(time.Minute)
				if n := len(j.States()); n != 0 {
					t.Errorf("%d entries are left", n)
				}
			})
		})
	}
}
