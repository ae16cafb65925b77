package src

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// askErrors makes the system keep what hosts say of packets that they do not take
// (ICMP), which a socket of many destinations does not tell otherwise.
func askErrors(conn net.PacketConn) {
	if s, ok := conn.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { // without it nothing is told, as before
				_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1)
				_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
			})
		}
	}
}

// refusals reads what was kept: where packets went that their hosts did not take.
func refusals(conn net.PacketConn, take func(netip.AddrPort)) {
	s, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	oob := make([]byte, 512)
	_ = raw.Control(func(fd uintptr) { // of a closed socket there is nothing
		for {
			_, n, _, from, err := unix.Recvmsg(int(fd), nil, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			if to := destination(from); to.IsValid() && refusal(oob[:n]) {
				take(to)
			}
		}
	})
}

func destination(from unix.Sockaddr) netip.AddrPort {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// nobody is how systems say that nobody is there.
var nobody = []syscall.Errno{unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES}

// refusal tells whether an error says that nobody is there. The first field of a
// sock_extended_err is its errno.
func refusal(oob []byte) bool {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for _, m := range list {
		of := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR || m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !of || len(m.Data) < 4 {
			continue
		}
		if slices.Contains(nobody, syscall.Errno(binary.NativeEndian.Uint32(m.Data))) {
			return true
		}
	}
	return false
}

// ofAnother tells whether an error of a write is that of a packet before.
func ofAnother(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH)
}
