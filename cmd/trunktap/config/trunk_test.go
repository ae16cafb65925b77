package config

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestTrunkReach: every key about how peers are reached.
func TestTrunkReach(t *testing.T) {
	c := mustParse(t, `
sip:
  listen: ["udp://0.0.0.0:5060", "tls://0.0.0.0:5061", "wss://[::]:443"]
  tls: {cert: /c.pem, key: /c.key, client_ca: /ca.pem}
  keep_alive: 0s
  dns: {servers: [192.0.2.53, "[2001:db8::53]:5353"]}
  udp_bytes_max: 0
limits: {calls_max: 10, delay_max: 0s, memory_max: 1GiB}
trunks:
  - name: a
    redirect: follow
    limits: {calls_max: 5, calls_per_second_max: 6, in_dialog_per_second_max: 7}
    external:
      next_hops:
        - "sip:192.0.2.1"
        - {priority: 3, uri: "sip:192.0.2.2;transport=TLS", weight: 40}
        - {uri: "sip:[2001:db8::1];transport=wss"}
        - sip:sbc.example.net
        - sip:sbc.example.net;transport=tls
        - sip:sbc.example.net:5070
      peers: [192.0.2.0/24, "2001:db8::/32"]
      ping: {interval: 30s, timeout: 2s, down_after: 5, up_after: 1}
      redirect_hosts: ["*.Example.net", b.example.net.]
      auth: {username: u, password_file: /p, realm: r}
      challenge: true
      register: {server: "sip:192.0.2.3", contact: "4711", expires: 2h}
      tls: {cert: /d.pem, key: /d.key, ca: /dca.pem, peer_name: sbc.example.net}
    internal: {next_hops: ["sip:10.0.0.5"]}
`)
	wantSIP := SIP{
		Listen: c.SIP.Listen, TLS: ListenTLS{Cert: "/c.pem", Key: "/c.key", ClientCA: "/ca.pem"},
		DNS: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:5353")},
	}
	wantSide := Side{
		Peers: c.Trunks[0].External.Peers, ICE: "strip", SRTP: "off", SRTPMethod: "sdes",
		NextHops: []NextHop{
			{Host: "192.0.2.1", Port: 5060, Transport: "udp", Weight: 1},
			{Host: "192.0.2.2", Port: 5061, Transport: "tls", Priority: 3, Weight: 40},
			{Host: "2001:db8::1", Port: 443, Transport: "wss", Weight: 1},
			{Host: "sbc.example.net", Weight: 1},
			{Host: "sbc.example.net", Transport: "tls", Weight: 1},
			{Host: "sbc.example.net", Port: 5070, Transport: "udp", Weight: 1},
		},
		TLS:  SideTLS{Cert: "/d.pem", Key: "/d.key", CA: "/dca.pem", PeerName: "sbc.example.net"},
		Auth: Auth{Username: "u", PasswordFile: "/p", Realm: "r"}, Challenge: true,
		Register:      Register{Server: NextHop{Host: "192.0.2.3", Port: 5060, Transport: "udp"}, Contact: "4711", Expires: 2 * time.Hour},
		Ping:          Ping{Interval: 30 * time.Second, Timeout: 2 * time.Second, DownAfter: 5, UpAfter: 1},
		RedirectHosts: []string{"*.example.net", "b.example.net"},
	}
	for _, d := range []string{
		cmp.Diff(wantSIP, c.SIP, cmpNet), cmp.Diff(wantSide, c.Trunks[0].External, cmpNet),
		cmp.Diff(TrunkLimits{CallsMax: 5, CallsPerSecondMax: 6, InDialogPerSecondMax: 7}, c.Trunks[0].Limits),
		cmp.Diff(Limits{CallsMax: 10, MemoryMax: 1 << 30, AnswersMax: 32 << 20}, c.Limits),
	} {
		if d != "" {
			t.Error(d)
		}
	}
	if len(c.Trunks[0].External.Peers) != 2 || c.Trunks[0].Redirect != "follow" {
		t.Errorf("%+v", c.Trunks[0])
	}
}
