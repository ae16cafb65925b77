package siprec

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/journal/journaltest"
	"github.com/trunktap/trunktap/sip/siptest"
)

// silentListener is one that nobody connects to.
type silentListener struct{ closed chan struct{} }

func (l silentListener) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l silentListener) Close() error              { close(l.closed); return nil }
func (l silentListener) Addr() net.Addr            { return net.TCPAddrFromAddrPort(serverAddr) }

// killedOverTCP is killed; the connections of the clients have gone with the process, and
// nobody listens at the ports that they were from.
func (w *bench) killedOverTCP(j *journaltest.Mem) {
	w.t.Helper()
	w.killed(j, func(c *Config, states map[string][]byte) {
		for k, s := range states {
			states[k] = []byte(strings.ReplaceAll(string(s), `"Network":"udp"`, `"Network":"tcp"`))
		}
		c.Listen = append(c.Listen, sip.Listen{Network: "tcp", Addr: serverAddr})
		c.Net.Listen = func(string, netip.AddrPort) (net.Listener, error) { return silentListener{make(chan struct{})}, nil }
		c.Net.Dial = func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			return nil, errors.New("connection refused")
		}
	})
}

// A client whose connection has gone with the process, and that cannot be called, is not
// taken for gone: it has until its session expires to come again, by whatever way.
func TestRefreshWithoutConnection(t *testing.T) {
	for name, returns := range map[string]bool{"it comes again": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			j := &journaltest.Mem{}
			inBubble(t, journalling(j), func(w *bench) {
				d := timed("100;refresher=uas", siptest.Header{Name: "Allow", Value: "INVITE, ACK, BYE, UPDATE"})
				c, _ := w.dial("call", d)
				if err := c.Play(d.Tones...); err != nil {
					t.Fatal(err)
				}
				w.killedOverTCP(j)
				time.Sleep(95 * time.Second) // a refresh was due after 50 s
				if log := w.log(); strings.Contains(log, "ended") {
					t.Fatalf("told\n%s", log)
				}
				if !returns {
					time.Sleep(40 * time.Second)
					if log := w.log(); !strings.HasSuffix(log, "ended timeout") || w.srv.counters.Expired.Load() != 1 {
						t.Errorf("nobody refreshed it, told\n%s", log)
					}
					_ = c.Bye(w.ctx) // to end its media: there is no session any more
					return
				}
				if _, err := c.Do(w.ctx, "UPDATE", "", nil, d.Headers...); err != nil {
					t.Fatal(err)
				}
				time.Sleep(90 * time.Second)
				if n := len(c.Requests()); n == 0 || strings.Contains(w.log(), "ended") {
					t.Errorf("%d refreshes on the new way, told\n%s", n, w.log())
				}
				if err := c.Bye(w.ctx); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// An ACK that was lost with the process and its connection ends no session whose media
// goes on; it ends one that nobody sends to.
func TestACKLostInRestart(t *testing.T) {
	for name, sends := range map[string]bool{"media comes": true, "nothing comes": false} {
		t.Run(name, func(t *testing.T) {
			j := &journaltest.Mem{}
			inBubble(t, journalling(j), func(w *bench) {
				r := w.raw("10.0.0.70:5060")
				media := w.raw("10.0.0.70:4000")
				r.send("INVITE", "1", 1, "", rawSDP)
				tag := r.want(100, 200)
				w.killedOverTCP(j)
				for range 45 {
					if sends {
						packet := append([]byte{0x80, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7}, make([]byte, 160)...)
						if _, err := media.conn.WriteToUDPAddrPort(packet, netip.MustParseAddrPort("10.0.0.1:20000")); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(time.Second)
				}
				if ended := strings.Contains(w.log(), "ended"); ended == sends {
					t.Errorf("told\n%s", w.log())
				}
				r.send("BYE", "2", 2, tag, "")
			})
		})
	}
}
