package config

import (
	"net/netip"
	"strings"
	"testing"
)

const passive = `capture: {interfaces: [eth1]}
trunks:
  - name: mirror
    passive: true
    external: {peers: [192.0.2.0/24]}
    internal: {peers: [10.0.0.0/24]}
`

func TestPassiveTrunk(t *testing.T) {
	c := mustParse(t, passive)
	trunk := &c.Trunks[0]
	if !trunk.Passive || len(trunk.External.NextHops) != 0 || trunk.Internal.Peers[0] != netip.MustParsePrefix("10.0.0.0/24") {
		t.Errorf("got %+v", trunk)
	}
	if !c.Capture.Promiscuous || c.Capture.RingSize != 64<<20 || c.Capture.Interfaces[0] != "eth1" || c.Relays() {
		t.Errorf("got %+v, relays %v", c.Capture, c.Relays())
	}
	if c := mustParse(t, minimal); !c.Relays() {
		t.Error("a trunk that is not passive is not relayed")
	}
	one := strings.Replace(passive, "external: {peers: [192.0.2.0/24]}", "external: {media_address: 192.0.2.1}", 1)
	mustParse(t, one)
}

func TestPassiveFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"no interface", strings.Replace(passive, "capture: {interfaces: [eth1]}\n", "", 1), "3:14: trunks[0].passive: capture.interfaces names no interface"},
		{"no peers", strings.NewReplacer("{peers: [192.0.2.0/24]}", "{srtp: off}", "{peers: [10.0.0.0/24]}", "{srtp: off}").Replace(passive), "5:15: trunks[0].external.peers: the key is missing, and nothing else"},
		{"next hops", strings.Replace(passive, "{peers: [10.0.0.0/24]}", `{peers: [10.0.0.0/24], next_hops: ["sip:10.0.0.1"]}`, 1), "6:49: trunks[0].internal.next_hops: calls of a passive trunk are sent nowhere"},
		{"refuse", passive + "    recording: {on_failure: refuse}\n", "7:29: trunks[0].recording.on_failure: calls of a passive trunk cannot be refused; allowed: allow"},
		{"beep", passive + "    recording: {beep: {enabled: true}}\n", "7:23: trunks[0].recording.beep: nothing can be mixed into"},
		{"announcement", passive + "    recording: {announce: {file: /x.wav}}\n", "7:27: trunks[0].recording.announce: nothing can be played into"},
		{"not passive", strings.Replace(passive, "passive: true", "passive: false", 1), "5:15: trunks[0].external.next_hops: the key is missing; allowed: a list, each sip:host"},
		{"interface", strings.Replace(passive, "eth1", `"eth 1"`, 1), "is no name of an interface"},
		{"ring", strings.Replace(passive, "[eth1]", "[eth1], ring_size: 1KiB", 1), "capture.ring_size: 1KiB is out of range"},
	} {
		_, faults := Parse("t.yaml", []byte(c.text))
		if len(faults) == 0 || !strings.Contains(faults[0].String(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, faults, c.want)
		}
	}
}
