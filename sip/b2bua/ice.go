package b2bua

import (
	"fmt"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/ice"
	"github.com/trunktap/trunktap/sip/sdp"
)

// checks are the two ends of ICE of one m= line. Where media is relayed each side's
// ICE ends here: the sides' candidates never pass.
type checks struct {
	heard [2]bool   // a description of that side has the line
	ufrag [2]string // of the side's latest description; empty: it does not speak ICE
	ours  [2]*ice.Lite
}

// hearICE notes what a side's description says of ICE. New credentials of a side
// restart its checks, so ours are new as well (RFC 8839 section 4.4.1.1).
func (a *anchor) hearICE(from media.Side, d *sdp.Description) {
	if !a.trunk.Sides[from].ICELite {
		return
	}
	for _, m := range d.Media() {
		for len(a.lines) <= m.Index {
			a.lines = append(a.lines, line{})
		}
		c := &a.lines[m.Index].ice
		if c.heard[from] && c.ufrag[from] != m.ICE {
			c.ours[from] = nil
		}
		c.heard[from], c.ufrag[from] = true, m.ICE
	}
}

// offerICE returns the attributes by which a side reaches an m= line of the other.
func (a *anchor) offerICE(to media.Side, m sdp.Media, target sdp.Target) []string {
	s := a.at(m)
	if !a.trunk.Sides[to].ICELite || s == nil {
		return nil
	}
	c := &a.lines[m.Index].ice
	if c.heard[to] && c.ufrag[to] == "" {
		s.SetICE(to, nil)
		return nil
	}
	if c.ours[to] == nil {
		c.ours[to] = ice.New()
	}
	s.SetICE(to, c.ours[to])
	out := []string{
		"ice-ufrag:" + c.ours[to].Ufrag, "ice-pwd:" + c.ours[to].Pwd,
		fmt.Sprintf("candidate:1 1 UDP 2130706431 %s %d typ host", target.Addr, target.Port),
	}
	if isRTP(m) && !m.RTCPMux {
		out = append(out, fmt.Sprintf("candidate:1 2 UDP 2130706430 %s %d typ host", target.Addr, target.Port+1))
	}
	return out
}
