package main

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

// passing tells signalling what changes on the way through a trunk.
func passing(t *config.Trunk, to *sip.Trunk) {
	to.Hide = t.Identity == "hide"
	to.Timers = sip.SessionTimers{Expires: t.SessionExpires, MinSE: t.MinSE}
	switch t.SessionTimer {
	case "keep":
		to.Timers.Mode = sip.TimersKeep
	case "off":
		to.Timers.Mode = sip.TimersOff
	}
	for side, r := range map[media.Side]*config.HeaderRules{media.External: &t.ToExternal, media.Internal: &t.ToInternal} {
		to.Headers[side] = sip.HeaderRules{Requests: headerEdit(&r.Requests), Responses: headerEdit(&r.Responses)}
	}
}

// sipAddress is what a side sees in Via and Contact; zero: what the routing table gives.
func sipAddress(cfg *config.Config, s *config.Side, mediaAddr netip.Addr) netip.Addr {
	if s.SIPAddress.IsValid() || cfg.SIP.Address.Is4() != mediaAddr.Is4() {
		return s.SIPAddress
	}
	return cfg.SIP.Address
}

func headerEdit(e *config.HeaderEdit) sip.HeaderEdit {
	return sip.HeaderEdit{PassOnly: e.PassOnly, Remove: e.Remove, Set: headers(e.Set), Add: headers(e.Add)}
}

// headers are in the order of their names, for a mapping has none.
func headers(m map[string]string) (out []sip.Header) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, sip.Header{Name: name, Value: m[name]})
	}
	return out
}
