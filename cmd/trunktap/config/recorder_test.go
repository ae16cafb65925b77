package config

import (
	"strings"
	"testing"
)

func TestOtherRecorders(t *testing.T) {
	c := mustParse(t, recording(`fork_to: ["sip:record@10.0.0.9:5070;transport=tcp", "sip:srs.example.net"]`, "fork_mode: all", "fork_windows: true"))
	r := &c.Trunks[0].Recording
	want := []Recorder{
		{"sip:record@10.0.0.9:5070;transport=tcp", NextHop{Host: "10.0.0.9", Port: 5070, Transport: "tcp"}},
		{"sip:srs.example.net", NextHop{Host: "srs.example.net", Port: 5060, Transport: "udp"}},
	}
	if len(r.ForkTo) != 2 || r.ForkTo[0].URI != want[0].URI || r.ForkTo[0].Hop.String() != want[0].Hop.String() || r.ForkTo[1].Hop.String() != want[1].Hop.String() {
		t.Errorf("got %+v", r.ForkTo)
	}
	if r.ForkMode != "all" || !r.ForkWindows {
		t.Errorf("mode %s, windows %v", r.ForkMode, r.ForkWindows)
	}
	for text, said := range map[string]string{
		`fork_to: ["tel:+1"]`:                           "is no SIP URI of a recorder",
		`fork_to: ["sip:a b@c"]`:                        "is no SIP URI of a recorder",
		`fork_to: ["sip:a@0.0.0.0"]`:                    "cannot be sent to",
		`fork_to: ["sip:a@host;transport=ws"]`:          "WebSocket",
		`fork_to: ["sip:a@host:99999"]`:                 "is no port",
		`fork_to: []`:                                   "the list has 0 entries",
		"fork_to: [\"sip:a@host\"]\n      fork_mode: x": "fork_mode",
	} {
		if _, faults := Parse("t.yaml", []byte(recording(text))); len(faults) == 0 || !strings.Contains(faults[0].String(), said) {
			t.Errorf("%s: %v, want %s", text, faults, said)
		}
	}
}
