package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Ports of the parties: two a call, the even one for RTP.
const partyPortBase = 10000

func partyPort(call int) uint16 { return uint16(partyPortBase + 2*call) }

// partyMediaAddr is where a party of a call sends from and receives at.
func partyMediaAddr(side, call int) netip.AddrPort {
	return netip.AddrPortFrom(partyMedia[side], partyPort(call))
}

// sdpOf describes a party's one stream of G.711 mu-law (RFC 8866).
func sdpOf(at netip.AddrPort) string {
	return fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\n"+
		"m=audio %[2]d RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n", at.Addr(), at.Port())
}

// mediaOf finds where the audio of a description is to be sent to.
func mediaOf(sdp string) (netip.AddrPort, error) {
	var addr netip.Addr
	var port uint16
	for line := range strings.Lines(sdp) {
		f := strings.Fields(line)
		switch {
		case len(f) == 3 && f[0] == "c=IN" && f[1] == "IP4":
			a, err := netip.ParseAddr(f[2])
			if err != nil {
				return netip.AddrPort{}, fmt.Errorf("SDP: %q: %w", strings.TrimSpace(line), err)
			}
			addr = a
		case len(f) >= 4 && f[0] == "m=audio":
			n, err := strconv.ParseUint(f[1], 10, 16)
			if err != nil {
				return netip.AddrPort{}, fmt.Errorf("SDP: %q: %w", strings.TrimSpace(line), err)
			}
			port = uint16(n)
		}
	}
	if !addr.IsValid() || port == 0 {
		return netip.AddrPort{}, fmt.Errorf("SDP: no address for audio")
	}
	return netip.AddrPortFrom(addr, port), nil
}
