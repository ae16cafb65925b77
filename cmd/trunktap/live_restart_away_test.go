package main

import (
	"context"
	"crypto/tls"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLiveRestartSIPRECAway kills the daemon under recording clients whose SIP is on a
// connection: it has gone, and they do not come again before they have something to say.
// Media goes on meanwhile, is recorded, and the next request, on a new connection, is one
// of the session.
func TestLiveRestartSIPRECAway(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	i := slices.IndexFunc(siptest.Dialects(), func(x siptest.Dialect) bool { return x.Name == "Webex" })
	dialect := siptest.Dialects()[i]
	for name, secure := range map[string]bool{"TCP": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listen := freeTCP(t, liveHost)
			cfg, client := siprecConfig(t, listen, []siptest.Dialect{dialect}), siptest.SRCConfig{Addr: netip.AddrPortFrom(dialectAddr(0), 0), Remote: listen, TCP: true}
			if secure {
				ca := newAuthority(t)
				cert, key := ca.sign("tap.example", 2)
				cfg = siprecTLSConfig(t, listen, cert, key, ca.file)
				pair := must(tls.LoadX509KeyPair(ca.sign("sbc.example", 3)))(t)
				client.TLS = &tls.Config{RootCAs: ca.pool, ServerName: "tap.example", Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
			}
			away(t, newLiveDaemon(t, cfg), client, dialect)
		})
	}
}

func away(t *testing.T, d *liveDaemon, client siptest.SRCConfig, dialect siptest.Dialect) {
	t.Helper()
	d.start()
	ctx, cancel := context.WithTimeout(t.Context(), siprecLimit)
	defer cancel()
	c := &siprecLive{kind: siprecMetadata, dialect: dialect, tcp: true, src: must(siptest.NewSRC(client))(t)}
	t.Cleanup(func() { _ = c.src.Close() }) // one of its connections was killed
	if err := c.begin(ctx, 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(siprecTalk)
	d.kill()
	d.start()
	if n := d.metric("trunktap_siprec_dialogs"); n != 1 {
		t.Errorf("%v dialogs after the restart", n)
	}
	time.Sleep(2 * siprecTalk) // away
	if err := c.src.Reconnect(); err != nil {
		t.Fatal(err)
	}
	if err := c.after(ctx); err != nil {
		t.Fatal(err)
	}
	for _, m := range d.recordings(1) {
		c.check(t, m, 1)
		c.checkTones(t, m, d.export(m.ID))
		for ch := range 2 {
			if talked := 4 * siprecTalk.Milliseconds(); m.RealMS < talked || gapsOf(m, ch) > m.RealMS-talked*3/4 {
				t.Errorf("channel %d: %d ms of gaps in %d ms", ch, gapsOf(m, ch), m.RealMS)
			}
		}
	}
	if n := d.metric("trunktap_siprec_lost_total"); n != 0 {
		t.Errorf("%v sessions are lost", n)
	}
	d.stop()
}

// gapsOf is how much of a channel is missing, in ms.
func gapsOf(m *recorder.Manifest, ch int) (ms int64) {
	for _, g := range m.Gaps {
		if g.Channel == ch {
			ms += g.DurationMS
		}
	}
	return ms
}
