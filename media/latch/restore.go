package latch

import "net/netip"

// Restore makes the latch begin with a source that an earlier process had accepted,
// and the SSRC of its packets.
func (l *Latch) Restore(source netip.AddrPort, ssrc uint32) {
	l.source, l.ssrc = Unmap(source), ssrc
}
