package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/sip/siptest"
)

// metrics returns what /metrics says.
func (d *liveDaemon) metrics() string {
	d.t.Helper()
	req := must(http.NewRequest(http.MethodGet, d.base+"/metrics", nil))(d.t)
	req.Header.Set("Authorization", "Bearer "+d.token)
	resp := must(http.DefaultClient.Do(req))(d.t)
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
	d := newLiveDaemon(t, liveConfig{Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, Trunks: trunks})
	d.start()
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
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
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
	d.stop()
	if log := must(os.ReadFile(d.log))(t); bytes.Contains(log, []byte("very-secret")) {
		t.Error("the password is in the log")
	}
}
