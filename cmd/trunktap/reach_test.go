package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip"
)

// TestTrunkReachesSignalling: what a trunk's keys say of reaching its peers is what
// signalling is told.
func TestTrunkReachesSignalling(t *testing.T) {
	cfg, faults := config.Parse("t.yaml", []byte(`
media: {address: 192.0.2.1}
trunks:
  - name: carrier-a
    redirect: follow
    registrations: path
    limits: {calls_max: 5, calls_per_second_max: 6, in_dialog_per_second_max: 7}
    external:
      ice: lite
      next_hops: [{uri: "sip:192.0.2.7", priority: 2, weight: 3}, {uri: "sip:192.0.2.8:5061;transport=tcp", priority: 1}]
      ping: {interval: 30s, timeout: 2s, down_after: 4, up_after: 5}
      redirect_hosts: ["*.pbx.example.net"]
      tls: {peer_name: sbc.example.net}
    internal: {next_hops: ["sip:10.0.0.5"], media_address: 10.0.0.1}
`))
	if faults != nil {
		t.Fatal(faults)
	}
	all, err := sipTrunks(cfg, srtp.Fingerprint{}, &sipTLS{})
	if err != nil {
		t.Fatal(err)
	}
	got := all[0]
	if got.Name != "carrier-a" || !got.Follow || string(got.Registrations) != "path" || got.Limits != (sip.Limits{CallsMax: 5, CallsPerSecondMax: 6, InDialogPerSecondMax: 7}) {
		t.Errorf("%+v", got)
	}
	side := &got.Sides[0]
	hops := []sip.NextHop{{Host: "192.0.2.7", Transport: "udp", Priority: 2, Weight: 3}, {Host: "192.0.2.8", Port: 5061, Transport: "tcp", Priority: 1, Weight: 1}}
	for i := range side.NextHops {
		if side.NextHops[i].Port == 5060 {
			side.NextHops[i].Port = 0 // the same
		}
	}
	if d := cmp.Diff(hops, side.NextHops); d != "" {
		t.Error(d)
	}
	if side.Ping != (sip.Ping{Interval: 30 * time.Second, Timeout: 2 * time.Second, DownAfter: 4, UpAfter: 5}) {
		t.Errorf("%+v", side.Ping)
	}
	if !side.ICELite || got.Sides[1].ICELite || side.PeerName != "sbc.example.net" || cmp.Diff([]string{"*.pbx.example.net"}, side.RedirectHosts) != "" {
		t.Errorf("%+v", side)
	}
	if side.MediaAddr.String() != "192.0.2.1" || got.Sides[1].MediaAddr.String() != "10.0.0.1" {
		t.Errorf("media at %s and %s", side.MediaAddr, got.Sides[1].MediaAddr)
	}
}
