package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// netlink asks the kernel one thing at a time.
type netlink struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf [16 << 10]byte
}

func openNetlink(family int) (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, os.NewSyscallError("socket AF_NETLINK", err)
	}
	return &netlink{fd: fd}, nil
}

func (n *netlink) close() error { return unix.Close(n.fd) }

// ask sends one request and gives the answer, without its header, to use.
func (n *netlink) ask(kind uint16, body []byte, use func(kind uint16, answer []byte) error) error {
	return n.talk(kind, 0, body, func(kind uint16, answer []byte) (bool, error) { return true, use(kind, answer) })
}

// change asks for something to be done.
func (n *netlink) change(kind, flags uint16, body []byte) error {
	return n.talk(kind, flags|unix.NLM_F_ACK, body, func(uint16, []byte) (bool, error) { return false, nil })
}

// list gives all answers to each, without their headers. They are valid until it returns.
func (n *netlink) list(kind uint16, body []byte, each func(answer []byte)) error {
	return n.talk(kind, unix.NLM_F_DUMP, body, func(_ uint16, answer []byte) (bool, error) {
		each(answer)
		return false, nil
	})
}

// talk sends a request and gives answers to use until that has what it wants, or
// there are no more.
func (n *netlink) talk(kind, flags uint16, body []byte, use func(kind uint16, answer []byte) (done bool, err error)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seq++
	msg := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	h := (*unix.NlMsghdr)(unsafe.Pointer(&msg[0]))
	*h = unix.NlMsghdr{Len: uint32(cap(msg)), Type: kind, Flags: unix.NLM_F_REQUEST | flags, Seq: n.seq}
	if err := unix.Sendto(n.fd, append(msg, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	for {
		size, _, err := unix.Recvfrom(n.fd, n.buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(n.buf[:size])
		if err != nil {
			return fmt.Errorf("netlink answer: %w", err)
		}
		for _, m := range msgs {
			if m.Header.Seq != n.seq {
				continue // of a request that was given up
			}
			if done, err := answer(m, use); done || err != nil {
				return err
			}
		}
	}
}

// answer takes one message; done: no more comes, or is wanted.
func answer(m syscall.NetlinkMessage, use func(kind uint16, answer []byte) (done bool, err error)) (done bool, err error) {
	switch m.Header.Type {
	case unix.NLMSG_DONE:
		return true, nil
	case unix.NLMSG_ERROR:
		if len(m.Data) < 4 {
			return true, errors.New("netlink answer: an error without a number")
		}
		if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
			return true, syscall.Errno(errno)
		}
		return true, nil
	}
	return use(m.Header.Type, m.Data)
}

// attrs calls each for the attributes of a message.
func attrs(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[unix.SizeofRtAttr:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

func attr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// way is how packets get somewhere.
type way struct {
	local   bool // to this host itself
	ifindex uint32
	hop     netip.Addr // neighbour to send to
	mtu     uint32     // of the route; 0: the interface's
}

// rtaDport is RTA_DPORT of linux/rtnetlink.h.
const rtaDport = 0x1d

// find asks for the way of a datagram, as the kernel would choose it for a
// socket bound to from.
func (n *netlink) find(from, to netip.AddrPort) (w way, err error) {
	dst, src := to.Addr().AsSlice(), from.Addr().AsSlice()
	body := make([]byte, unix.SizeofRtMsg, 96)
	body[0] = unix.AF_INET
	if to.Addr().Is6() {
		body[0] = unix.AF_INET6
	}
	body[1], body[2] = byte(len(dst)*8), byte(len(src)*8)
	body = attr(body, unix.RTA_DST, dst)
	body = attr(body, unix.RTA_SRC, src)
	body = attr(body, unix.RTA_IP_PROTO, []byte{unix.IPPROTO_UDP})
	body = attr(body, unix.RTA_SPORT, binary.BigEndian.AppendUint16(nil, from.Port()))
	body = attr(body, rtaDport, binary.BigEndian.AppendUint16(nil, to.Port()))
	err = n.ask(unix.RTM_GETROUTE, body, func(kind uint16, answer []byte) error {
		if kind != unix.RTM_NEWROUTE || len(answer) < unix.SizeofRtMsg {
			return fmt.Errorf("netlink answer of type %d", kind)
		}
		w, err = parseRoute(answer, to.Addr())
		return err
	})
	return w, err
}

func parseRoute(answer []byte, to netip.Addr) (way, error) {
	w := way{hop: to}
	switch kind := answer[7]; kind {
	case unix.RTN_UNICAST:
	case unix.RTN_LOCAL:
		w.local = true
	default:
		return w, fmt.Errorf("%w: a route of type %d", ErrUnfit, kind)
	}
	var err error
	attrs(answer[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.RTA_OIF:
			if len(v) >= 4 {
				w.ifindex = binary.NativeEndian.Uint32(v)
			}
		case unix.RTA_GATEWAY:
			w.hop, _ = netip.AddrFromSlice(v)
		case unix.RTA_VIA:
			w.hop, _ = netip.AddrFromSlice(v[min(2, len(v)):])
		case unix.RTA_METRICS:
			attrs(v, func(kind uint16, v []byte) {
				if kind == unix.RTAX_MTU && len(v) >= 4 {
					w.mtu = binary.NativeEndian.Uint32(v)
				}
			})
		case unix.RTA_ENCAP:
			err = fmt.Errorf("%w: a route with encapsulation", ErrUnfit)
		}
	})
	if err == nil && (w.ifindex == 0 || !w.hop.IsValid()) {
		err = errors.New("a route that leads nowhere")
	}
	return w, err
}

// Of linux/xfrm.h.
const (
	xfrmGetSPDInfo = 0x25
	xfrmSPDInfo    = 1
)

// policies returns how many IPsec policies there are for what is sent, 0 when
// the kernel knows no IPsec. The program's packets would pass them by.
func policies() (uint32, error) {
	n, err := openNetlink(unix.NETLINK_XFRM)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = n.close() }() // it was only asked
	var count uint32
	err = n.ask(xfrmGetSPDInfo, make([]byte, 4), func(_ uint16, answer []byte) error {
		attrs(answer[min(4, len(answer)):], func(kind uint16, v []byte) {
			if kind == xfrmSPDInfo && len(v) >= 8 {
				count = binary.NativeEndian.Uint32(v[4:])
			}
		})
		return nil
	})
	return count, err
}

// network is a network interface.
type network struct {
	index    int
	name     string
	mtu      uint32
	up       bool
	loopback bool
	ethernet bool
}

func links() (map[int]network, error) {
	rib, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return nil, os.NewSyscallError("netlink RTM_GETLINK", err)
	}
	msgs, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return nil, fmt.Errorf("netlink answer: %w", err)
	}
	found := map[int]network{}
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		info := (*unix.IfInfomsg)(unsafe.Pointer(&m.Data[0]))
		l := network{
			index: int(info.Index), up: info.Flags&unix.IFF_UP != 0,
			loopback: info.Type == unix.ARPHRD_LOOPBACK, ethernet: info.Type == unix.ARPHRD_ETHER,
		}
		attrs(m.Data[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
			switch {
			case kind == unix.IFLA_IFNAME:
				l.name = unix.ByteSliceToString(v)
			case kind == unix.IFLA_MTU && len(v) >= 4:
				l.mtu = binary.NativeEndian.Uint32(v)
			}
		})
		found[l.index] = l
	}
	return found, nil
}

// openNews returns a socket that becomes readable when links, addresses, routes
// or rules change.
func openNews() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket AF_NETLINK", err)
	}
	var groups uint32
	for _, g := range []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
		unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
	} {
		groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd) // the first error is the one to tell
		return nil, os.NewSyscallError("bind AF_NETLINK", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}
