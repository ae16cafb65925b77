package replay

import (
	"net/netip"
	"slices"

	"github.com/trunktap/trunktap/media"
)

// place is where a call belongs.
type place struct {
	trunk  string
	caller media.Side // of the INVITE's sender
}

func (p place) direction() media.Direction {
	if p.caller == media.External {
		return media.Inbound
	}
	return media.Outbound
}

// locate decides trunk and sides from the addresses of the INVITE, and tells
// whether one of them is a peer of a trunk.
func (c *Config) locate(src, dst netip.AddrPort) (_ place, known bool) {
	from, to := src.Addr().Unmap(), dst.Addr().Unmap()
	p := place{caller: media.External}
	if len(c.Trunks) > 0 {
		p.trunk = c.Trunks[0].Name
	}
	for _, end := range []struct {
		addr netip.Addr
		side media.Side // of the caller, when addr is external
	}{{from, media.External}, {to, media.Internal}} {
		if i := slices.IndexFunc(c.Trunks, func(t Trunk) bool { return within(t.External, end.addr) || within(t.Internal, end.addr) }); i >= 0 {
			p.trunk, p.caller, known = c.Trunks[i].Name, end.side, true
			if !within(c.Trunks[i].External, end.addr) {
				p.caller = end.side.Other()
			}
			break
		}
	}
	if len(c.External) > 0 {
		p.caller = media.External
		if !within(c.External, from) && within(c.External, to) {
			p.caller = media.Internal
		}
	}
	return p, known
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
