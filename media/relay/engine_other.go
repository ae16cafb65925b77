//go:build !linux

package relay

import (
	"net"
	"net/netip"
)

// newEngine returns the portable engine over ordinary sockets. It sets neither
// buffer sizes nor DSCP.
func newEngine(Config) (engine, error) {
	return connEngine{func(at netip.AddrPort) (Conn, error) {
		return net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	}}, nil
}
