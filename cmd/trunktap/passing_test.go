package main

import (
	"net/netip"
	"testing"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/sip"
)

// TestStructuralHeaders holds what the configuration refuses to what signalling does.
func TestStructuralHeaders(t *testing.T) {
	for _, name := range config.StructuralHeaders {
		if sip.EditableHeader(name) == nil {
			t.Errorf("%s may be edited, the configuration says it may not", name)
		}
	}
	for _, name := range config.SingleHeaders {
		if !sip.SingleHeader(name) {
			t.Errorf("%s may be added to another one, the configuration says it may not", name)
		}
	}
	for _, name := range []string{"User-Agent", "Server", "X-Y", "Supported", "k", "Subject", "s", "P-Asserted-Identity"} {
		if err := sip.EditableHeader(name); err != nil {
			t.Errorf("%s %v", name, err)
		}
	}
}

func TestSIPAddressOfEachFamily(t *testing.T) {
	four, six, own := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.9")
	cfg := &config.Config{SIP: config.SIP{Address: four}}
	for _, test := range []struct{ side, media, want netip.Addr }{
		{netip.Addr{}, own, four}, {netip.Addr{}, six, netip.Addr{}}, {own, four, own}, {six, six, six},
	} {
		if got := sipAddress(cfg, &config.Side{SIPAddress: test.side}, test.media); got != test.want {
			t.Errorf("side %s, media %s: %s, want %s", test.side, test.media, got, test.want)
		}
	}
}
