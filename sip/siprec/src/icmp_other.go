//go:build !linux

package src

import (
	"net"
	"net/netip"
)

func askErrors(net.PacketConn) {}

func refusals(net.PacketConn, func(netip.AddrPort)) {}

func ofAnother(error) bool { return false }
