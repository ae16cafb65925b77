package relay

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batchPackets = 64

	// bufferStride keeps the buffers of a batch from falling into the same cache
	// sets. Only the pages that packets touch become resident.
	bufferStride = datagramBytesMax + 192

	// ageMax bounds how far before the read a kernel time stamp may put a packet:
	// more means that the wall clock was stepped in between.
	ageMax = time.Second

	// receiveTries bounds how many errors in a row a read tries to get past: an
	// error that a socket has pending is told once.
	receiveTries = 3
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// inbound receives batches. Owned by one loop.
type inbound struct {
	msgs  [batchPackets]mmsghdr
	iovs  [batchPackets]unix.Iovec
	names [batchPackets]unix.RawSockaddrInet6 // holds an IPv4 one as well
	ctrl  [batchPackets][8]uint64             // aligned room for a time stamp and a count
	bufs  []byte
}

func newInbound() *inbound {
	in := &inbound{bufs: make([]byte, batchPackets*bufferStride)}
	for i := range in.msgs {
		in.iovs[i].Base = &in.bufs[i*bufferStride]
		in.iovs[i].SetLen(datagramBytesMax)
		h := &in.msgs[i].hdr
		h.Iov = &in.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&in.names[i]))
		h.Control = (*byte)(unsafe.Pointer(&in.ctrl[i]))
		in.arm(i)
	}
	return in
}

// arm makes message i ready to be received into: the kernel overwrote the sizes.
func (in *inbound) arm(i int) {
	h := &in.msgs[i].hdr
	h.Namelen = unix.SizeofSockaddrInet6
	h.SetControllen(int(unsafe.Sizeof(in.ctrl[i])))
}

// receive reads what is there, at most one batch, without waiting. When it
// returns less than a batch, the socket was empty.
func (in *inbound) receive(fd int) int {
	for range receiveTries {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&in.msgs[0])),
			batchPackets, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case unix.EAGAIN:
			return 0
		default: // an error that the socket had noted, or a signal: the next try tells
		}
	}
	return 0
}

func (in *inbound) wire(i int) []byte {
	at := i * bufferStride
	return in.bufs[at : at+int(in.msgs[i].len) : at+datagramBytesMax]
}

// shorten leaves the first bytes of message i.
func (in *inbound) shorten(i, size int) { in.msgs[i].len = uint32(size) }

// replace puts another packet in the place of message i.
func (in *inbound) replace(i int, wire []byte) {
	at := i * bufferStride
	in.msgs[i].len = uint32(copy(in.bufs[at:at+datagramBytesMax], wire))
}

func (in *inbound) from(i int) netip.AddrPort {
	sa := &in.names[i]
	if sa.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), ntohs(v4.Port))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), ntohs(sa.Port))
}

// plausible is an age that a packet can have.
func plausible(age time.Duration) time.Duration { return min(max(0, age), ageMax) }

// control reads what the kernel says about message i: how long before the wall
// time now it came, by a clock that may have been stepped since, and how many
// datagrams the socket had lost by then because its buffer was full (zero when it
// does not say).
func (in *inbound) control(i int, now int64) (age time.Duration, lost uint32) {
	h := &in.msgs[i].hdr
	ctrl := (*[unsafe.Sizeof(in.ctrl[0])]byte)(unsafe.Pointer(&in.ctrl[i]))[:h.Controllen]
	for len(ctrl) >= unix.SizeofCmsghdr {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&ctrl[0]))
		end := int(c.Len)
		if end < unix.SizeofCmsghdr || end > len(ctrl) {
			break
		}
		data := ctrl[unix.CmsgLen(0):end]
		switch {
		case c.Level != unix.SOL_SOCKET:
		case c.Type == unix.SCM_TIMESTAMPNS && len(data) >= int(unsafe.Sizeof(unix.Timespec{})):
			stamp := (*unix.Timespec)(unsafe.Pointer(&data[0]))
			age = time.Duration(now - stamp.Nano())
		case c.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			lost = binary.NativeEndian.Uint32(data)
		}
		ctrl = ctrl[min(unix.CmsgSpace(len(data)), len(ctrl)):]
	}
	return age, lost
}

// outbound sends a batch of messages to one destination. Owned by one loop.
type outbound struct {
	msgs [batchPackets]mmsghdr
	iovs [batchPackets]unix.Iovec
	name unix.RawSockaddrInet6 // of the destination, or an IPv4 one
	n    int
}

func newOutbound() *outbound {
	out := &outbound{}
	for i := range out.msgs {
		h := &out.msgs[i].hdr
		h.Iov = &out.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&out.name))
	}
	return out
}

// add appends a message; its bytes must stay until flush.
func (out *outbound) add(wire []byte) {
	iov := &out.iovs[out.n]
	iov.Base = unsafe.SliceData(wire)
	iov.SetLen(len(wire))
	out.n++
}

// flush sends what was added, without waiting, and returns how many messages
// the kernel took. A full send buffer ends it; a message that is refused for another
// reason does not keep back those after it.
func (out *outbound) flush(fd int, to netip.AddrPort) (sent int) {
	size := out.address(to)
	if out.n == 1 {
		out.n = 0
		return out.single(fd, size)
	}
	for i := range out.n {
		out.msgs[i].hdr.Namelen = size
	}
	for at := 0; at < out.n; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&out.msgs[at])),
			uintptr(out.n-at), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			at += int(n)
			sent += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			at = out.n
		default:
			at++
		}
	}
	out.n = 0
	return sent
}

// single sends the first message. It is the usual one, and sendto has the least
// to copy and to check.
func (out *outbound) single(fd int, size uint32) (sent int) {
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(out.iovs[0].Base)), uintptr(out.iovs[0].Len),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&out.name)), uintptr(size))
		switch errno {
		case 0:
			return 1
		case unix.EINTR:
		default:
			return 0
		}
	}
}

// address puts the destination into name and returns its size.
func (out *outbound) address(to netip.AddrPort) uint32 {
	if to.Addr().Is4() {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&out.name)) = unix.RawSockaddrInet4{
			Family: unix.AF_INET, Port: htons(to.Port()), Addr: to.Addr().As4(),
		}
		return unix.SizeofSockaddrInet4
	}
	out.name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: htons(to.Port()), Addr: to.Addr().As16()}
	return unix.SizeofSockaddrInet6
}

// htons gives a port as the kernel keeps it in memory.
func htons(p uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return binary.NativeEndian.Uint16(b[:])
}

func ntohs(p uint16) uint16 { return htons(p) }
