package main

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLiveHide makes a call on a trunk that hides identities: each side sees another
// Call-ID, and the call and its recording are found by both.
func TestLiveHide(t *testing.T) {
	trunks, agents := twoTrunks(t, "wav-pcmu")
	trunks[0].Keys = []string{"identity: hide"}
	d := newLiveDaemon(t, liveConfig{Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, Trunks: trunks})
	d.start()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	caller := must(agents[0][0].Call(ctx, "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{}))(t)
	callee := must(agents[0][1].Accept(ctx))(t)
	if caller.ID() == callee.ID() {
		t.Fatal("both sides see one Call-ID")
	}
	for _, m := range agents[0][1].Traces() {
		if text := string(m.Raw); strings.Contains(text, caller.ID()) || strings.Contains(text, agents[0][0].Addr().String()) {
			t.Errorf("the callee sees who calls:\n%s", text)
		}
	}
	caller.Media().Play(siptest.Tone(440, 0.5))
	callee.Media().Play(siptest.Tone(880, 0.5))
	for i, id := range []string{caller.ID(), callee.ID()} {
		event := []string{"pause.start", "pause.end"}[i]
		if _, err := d.signal(url.PathEscape(id), event); err != nil {
			t.Errorf("%s by the id of leg %d: %v", event, i, err)
		}
	}
	time.Sleep(300 * time.Millisecond) // of sound
	(&livePair{external: caller, internal: callee}).quiet()
	if err := callee.Bye(ctx); err != nil {
		t.Fatal(err)
	}
	m := d.recordings(1)[caller.ID()]
	if m == nil || m.Call.OtherSIPCallID != callee.ID() {
		t.Fatalf("manifest %+v", m)
	}
	for _, id := range []string{caller.ID(), callee.ID()} {
		var page listing
		if err := d.get("/v1/recordings?sip_call_id="+url.QueryEscape(id), &page); err != nil || len(page.Recordings) != 1 {
			t.Errorf("recordings by %s: %d, %v", id, len(page.Recordings), err)
		}
	}
	livePackets(t, "inwards", caller, callee)
	d.stop()
}
