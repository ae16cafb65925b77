package main

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip"
)

// A flood of refused calls is counted whole and told in part, each trunk by itself.
func TestRefusalsAreBounded(t *testing.T) {
	var told []map[string]string
	r := newRefusals(func(e recorder.Event) { told = append(told, e.Data.(map[string]string)) })
	for range 1000 {
		r.take(sip.Refusal{Trunk: "a", Cause: sip.RefusedCalls, Status: 503, From: "sip:1@x", To: "sip:2@y"})
	}
	r.take(sip.Refusal{Trunk: "b", Cause: sip.RefusedMedia, Status: 488, To: "sip:2@y"})
	if n := testutil.ToFloat64(r.counted.WithLabelValues("a", sip.RefusedCalls)); n != 1000 {
		t.Errorf("%v are counted", n)
	}
	last := told[len(told)-1]
	if len(told) < refusalsBurst+1 || len(told) > refusalsBurst+1+100 || last["trunk"] != "b" || last["status"] != "488" {
		t.Errorf("%d events, the last %v", len(told), last)
	}
	if _, there := last["from"]; there {
		t.Error("who asked for privacy is named")
	}
	now := time.Now().Add(time.Hour)
	if missed, ok := r.room("a", now); !ok || missed < 800 {
		t.Errorf("missed %d, %v", missed, ok)
	}
}
