package b2bua

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
	"github.com/trunktap/trunktap/suppress"
)

// withDTLS lets the carrier's side do DTLS alone.
func withDTLS(t *testing.T, cert *dtls.Certificate, tap *wiretap) func(*Config) {
	return func(c *Config) {
		withSRTP(srtp.Required, srtp.Off)(c)
		c.Trunks[0].SRTP.Fingerprint, c.Trunks[0].SRTP.Sides[media.External].Method = cert.Fingerprint(), srtp.DTLS
		listen := c.Net.ListenPacket
		r, err := relay.New(relay.Config{
			PortMin: 20000, PortMax: 20099, Quarantine: -1, Certificate: cert,
			Open: func(a netip.AddrPort) (relay.Conn, error) {
				conn, err := listen("udp", a)
				if err != nil {
					return nil, err
				}
				return conn.(*mediatest.Conn), nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Relay, c.Observer = r, tap
	}
}

// TestSecureDTLS lets a carrier shake hands whose certificate is the one that it
// announced, or another: then the call goes on without its media, and the recording
// is told why.
func TestSecureDTLS(t *testing.T) {
	ours, theirs, other := testCertificate(t), testCertificate(t), testCertificate(t)
	for name, shown := range map[string]*dtls.Certificate{"announced": theirs, "another": other} {
		t.Run(name, func(t *testing.T) {
			tap := &wiretap{}
			inBubble(t, withDTLS(t, ours, tap), func(w *bench) {
				body := strings.Replace(sdpOf(carrier.Addr(), 7000, "a=setup:active", "a=rtcp-mux", "a=fingerprint:"+theirs.Fingerprint().String()),
					"RTP/AVP", "UDP/TLS/RTP/SAVP", 1)
				a := begin(w.a, outside, "dtls", body)
				w.a.want("100")
				p := w.p.take(inside)
				w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
				ok := w.a.want("200")
				if got := string(ok.Body); !strings.Contains(got, ours.Fingerprint().String()) || !strings.Contains(got, "a=setup:passive") {
					w.t.Errorf("the carrier is answered\n%s", got)
				}
				w.acked(a, p, ok)
				m := w.mediaPair()
				keys, failed := make(chan dtls.Keys, 1), make(chan error, 1)
				lost := 0
				e, err := dtls.New(dtls.Config{
					Certificate: shown,
					Send: func(b []byte) error {
						if lost++; lost == 1 {
							return nil // the first flight, or part of it
						}
						_, err := m.a.WriteToUDPAddrPort(b, netip.MustParseAddrPort("192.0.2.1:20000"))
						return err
					},
					Established: func(k dtls.Keys) { keys <- k },
					Failed:      func(err error) { failed <- err },
				})
				if err != nil {
					w.t.Fatal(err)
				}
				go func() {
					b := make([]byte, 4096)
					for {
						n, _, err := m.a.ReadFromUDPAddrPort(b)
						if err != nil {
							return
						}
						e.Deliver(b[:n])
					}
				}()
				e.Start(dtls.Association{Number: 1, Role: srtp.Active, Fingerprints: []srtp.Fingerprint{ours.Fingerprint()}})
				time.Sleep(20 * time.Second)
				synctest.Wait()
				tap.mu.Lock()
				signals := tap.signals
				tap.mu.Unlock()
				if shown == theirs {
					if len(keys) != 1 || len(signals) != 0 {
						w.t.Errorf("%d keys, the recorder is told %v", len(keys), signals)
					}
				} else if len(keys) != 0 || len(signals) != 1 || signals[0].Event != suppress.AttrsSet || !strings.Contains(signals[0].Attrs["srtp.external"], "does not match a=fingerprint") {
					w.t.Errorf("%d keys, the recorder is told %v", len(keys), signals)
				}
				if n := w.b.Calls(); n != 1 {
					w.t.Errorf("%d calls", n)
				}
				if err := e.Close(); err != nil {
					w.t.Error(err)
				}
				w.hangUp(a)
				_ = m.a.Close() // ends its reader
			})
		})
	}
}

func testCertificate(t *testing.T) *dtls.Certificate {
	t.Helper()
	c, err := dtls.NewCertificate(time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
