package relay

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media"
)

// fdSocket is a kernel socket, served by the loop of its stream.
type fdSocket struct {
	fd int

	// constant once attached
	stream *Stream
	side   media.Side
	kind   kind
	loop   *loop

	lost uint32 // datagrams that did not fit the receive buffer; the loop's
}

func (f *fdSocket) close() error { return os.NewSyscallError("close", unix.Close(f.fd)) }

func (f *fdSocket) send(b []byte, to netip.AddrPort) error {
	sa, err := sockaddr(to)
	if err != nil {
		return err
	}
	return os.NewSyscallError("sendto", unix.Sendto(f.fd, b, unix.MSG_DONTWAIT, sa))
}

// countOverrun takes the socket's total of lost datagrams, which wraps around.
func (f *fdSocket) countOverrun(lost uint32) {
	if lost == 0 || lost == f.lost {
		return
	}
	f.stream.stats[f.side].overrun.Add(uint64(lost - f.lost))
	f.lost = lost
}

// openUDP opens a bound, non-blocking socket with kernel time stamps and counts of loss.
func openUDP(at netip.AddrPort, cfg Config) (*fdSocket, error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := configure(fd, at, cfg); err != nil {
		_ = unix.Close(fd) // the first error is the one to tell
		return nil, fmt.Errorf("UDP %s: %w", at, err)
	}
	return &fdSocket{fd: fd}, nil
}

// openStamping opens an unbound socket that wants time stamps.
func openStamping() (*fdSocket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		_ = unix.Close(fd) // the first error is the one to tell
		return nil, os.NewSyscallError("setsockopt SO_TIMESTAMPNS", err)
	}
	return &fdSocket{fd: fd}, nil
}

func configure(fd int, at netip.AddrPort, cfg Config) error {
	type option struct {
		name              string
		level, opt, value int
	}
	options := []option{
		{"SO_TIMESTAMPNS", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1},
		{"SO_RXQ_OVFL", unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1},
		{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, cfg.ReceiveBufferBytes},
		{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, cfg.SendBufferBytes},
	}
	tos := cfg.DSCP << 2
	if at.Addr().Is6() {
		options = append(options, option{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1})
		if cfg.DSCP >= 0 {
			options = append(options, option{"IPV6_TCLASS", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos})
		}
	} else if cfg.DSCP >= 0 {
		options = append(options, option{"IP_TOS", unix.IPPROTO_IP, unix.IP_TOS, tos})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return os.NewSyscallError("setsockopt "+o.name, err)
		}
	}
	sa, err := sockaddr(at)
	if err != nil {
		return err
	}
	return os.NewSyscallError("bind", unix.Bind(fd, sa))
}

// sockaddr gives the address to bind, with the zone of a link-local one.
func sockaddr(at netip.AddrPort) (unix.Sockaddr, error) {
	if at.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	zone := at.Addr().Zone()
	if zone == "" {
		return sa, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		sa.ZoneId = uint32(n)
		return sa, nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return nil, fmt.Errorf("zone %q: %w", zone, err)
	}
	sa.ZoneId = uint32(ifi.Index)
	return sa, nil
}
