package main

import (
	"bufio"
	"context"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip/siptest"
)

// A recording session that the daemon refuses is an event with its names, and counted by
// its source and cause.
func TestLiveRefusalIsTold(t *testing.T) {
	listen := freeUDP(t, liveHost)
	d := newLiveDaemon(t, siprecConfig(t, listen, []siptest.Dialect{{}}))
	d.start()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req := must(http.NewRequestWithContext(ctx, http.MethodGet, d.base+"/v1/events", nil))(t)
	req.Header.Set("Authorization", "Bearer "+d.token)
	res := must(http.DefaultClient.Do(req))(t)
	defer func() { _ = res.Body.Close() }() // only read
	c := must(siptest.NewSRC(siptest.SRCConfig{Addr: netip.AddrPortFrom(dialectAddr(0), 0), Remote: listen}))(t)
	t.Cleanup(func() { _ = c.Close() }) // nothing is left of it
	call := must(c.NewDialog("refused", "<sip:4711@pbx.example>", 0))(t)
	if _, err := call.Invite(ctx, "application/sdp", []byte("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 4000 RTP/AVP 96\r\n"), nil); err == nil {
		t.Fatal("video was taken")
	}
	for told := bufio.NewScanner(res.Body); ; {
		if !told.Scan() {
			t.Fatalf("nobody tells of it: %v", told.Err())
		}
		line := told.Text()
		if !strings.HasPrefix(line, "data:") || !strings.Contains(line, `"call.refused"`) {
			continue
		}
		for _, want := range []string{`"cause":"media"`, `"status":"488"`, `"from":"sip:4711@pbx.example"`, `"trunk":"source-0"`, `"sip_call_id":"refused"`} {
			if !strings.Contains(line, want) {
				t.Errorf("%s is not in %s", want, line)
			}
		}
		break
	}
	if n := d.metric(`trunktap_sip_refused_calls_total{cause="media",trunk="source-0"}`); n != 1 {
		t.Errorf("%v are counted", n)
	}
	d.stop()
}
