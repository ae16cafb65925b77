package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/sip/siptest"
)

// metrics returns what /metrics says.
func (d *liveDaemon) metrics() string {
	d.t.Helper()
	req := must(http.NewRequest(http.MethodGet, d.base+"/metrics", nil))(d.t)
	req.Header.Set("Authorization", "Bearer "+d.token)
	resp := must(liveClient.Do(req))(d.t)
	defer func() { _ = resp.Body.Close() }() // only read
	return string(must(io.ReadAll(resp.Body))(d.t))
}

// TestLiveTrunks: a PBX with two next hops, of which the first is not there: pings
// find that out, calls go to the second at once, and the API tells. A trunk that is
// full refuses.
func TestLiveTrunks(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16)
	dead := freeUDP(t, liveTrunk[0][1])
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("very-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	side := &trunks[0].Sides[1]
	good := side.NextHop
	side.NextHop = "sip:" + dead.String()
	trunks[0].Keys = []string{"limits: {calls_max: 1}"}
	side.SRTP = []string{
		fmt.Sprintf(`next_hops: [{uri: "sip:%s", priority: 1}, {uri: "%s", priority: 2}]`, dead, good),
		"ping: {interval: 1s, timeout: 500ms, down_after: 2, up_after: 1}",
		fmt.Sprintf("auth: {username: tap, password_file: %s}", password),
	}
	agents[0][1].Script(func(in *siptest.Incoming) {
		if in.Request().Get("Authorization") == "" {
			in.Reject(401, "Unauthorized", siptest.Header{Name: "WWW-Authenticate", Value: `Digest realm="pbx", nonce="n", algorithm=SHA-256, qop="auth"`})
			return
		}
		in.Run(siptest.Answer{})
	})
	side.NextHop = ""
	web := freeTCP(t, liveHost)
	d := newLiveDaemon(t, liveConfig{Listen: []string{"udp://" + freeUDP(t, liveHost).String(), "ws://" + web.String()}, Trunks: trunks})
	d.start()
	overWebSocket(t, web, liveTrunk[0][1])
	d.within(20*time.Second, "the next hop that is not there is down", func() error {
		var got api.Trunks
		if err := d.get("/v1/trunks", &got); err != nil {
			return err
		}
		if len(got.NextHops) != 3 || got.NextHops[1].URI != "sip:"+dead.String()+";transport=udp" {
			return fmt.Errorf("%+v", got)
		}
		if got.NextHops[1].Up || got.NextHops[1].Since == nil || !got.NextHops[2].Up || got.NextHops[2].Pings == 0 {
			return fmt.Errorf("%+v", got.NextHops)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := d.call(agents[0], [2]float64{440, 1000})
	_, err := agents[0][0].Call(ctx, "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{})
	var rejected *siptest.RejectedError
	if !errors.As(err, &rejected) || rejected.Response.Code != 503 || rejected.Response.Get("Retry-After") == "" {
		t.Errorf("a call beyond the limit: %v", err)
	}
	if err := p.bye(ctx); err != nil {
		t.Error(err)
	}
	text := d.metrics()
	for _, want := range []string{
		fmt.Sprintf(`trunktap_next_hop_up{next_hop="sip:%s;transport=udp",side="internal",trunk="trunk-0"} 0`, dead),
		fmt.Sprintf(`trunktap_next_hop_requests_total{next_hop="%s;transport=udp",side="internal",trunk="trunk-0"} 1`, good),
		"trunktap_sip_authorized_total 1\n",
		`trunktap_sip_limited_total{reason="calls"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no line %s", want)
		}
	}
	d.recordings(1)
	comesUp(t, d, dead)
	d.stop()
	if log := must(os.ReadFile(d.log))(t); bytes.Contains(log, []byte("very-secret")) {
		t.Error("the password is in the log")
	}
}

// comesUp lets somebody answer where nobody did, and waits to be told of it.
func comesUp(t *testing.T, d *liveDaemon, at netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req := must(http.NewRequestWithContext(ctx, http.MethodGet, d.base+"/v1/events", nil))(t)
	req.Header.Set("Authorization", "Bearer "+d.token)
	res := must(http.DefaultClient.Do(req))(t)
	defer func() { _ = res.Body.Close() }() // only read
	liveAgent(t, siptest.Config{Addr: at})
	told := bufio.NewScanner(res.Body)
	for told.Scan() {
		if line := told.Text(); strings.HasPrefix(line, "data:") && strings.Contains(line, `"next_hop.up"`) {
			if !strings.Contains(line, fmt.Sprintf(`"next_hop":"sip:%s;transport=udp"`, at)) || !strings.Contains(line, `"side":"internal","trunk":"trunk-0"`) {
				t.Errorf("told %s", line)
			}
			return
		}
	}
	t.Errorf("nobody tells that the next hop is up: %v", told.Err())
}

// overWebSocket asks the daemon whether it is there, as a browser does.
func overWebSocket(t *testing.T, to netip.AddrPort, from netip.Addr) {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 10 * time.Second}
	conn, _, _, err := ws.Dialer{Protocols: []string{"sip"}, NetDial: dialer.DialContext}.Dial(context.Background(), "ws://"+to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // what was wanted is there
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	ask := "OPTIONS sip:tap SIP/2.0\r\nVia: SIP/2.0/WS x.invalid;branch=z9hG4bKws\r\nFrom: <sip:a@x.invalid>;tag=1\r\nTo: <sip:tap>\r\n" +
		"Call-ID: ws\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n\r\n"
	if err := ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte(ask)))); err != nil {
		t.Fatal(err)
	}
	f, err := ws.ReadFrame(conn)
	if err != nil || !bytes.HasPrefix(f.Payload, []byte("SIP/2.0 200 OK\r\n")) {
		t.Errorf("%v %s", err, f.Payload)
	}
}
