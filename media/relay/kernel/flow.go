// Package kernel moves the RTP of settled streams inside the Linux kernel: an
// eBPF program at the ingress of the interfaces rewrites a packet's header, sends
// the packet on and leaves a copy in a ring.
//
// The owner of the sockets keeps them. Whatever the program does not take (RTCP,
// other sources, other SSRCs, anything unusual) reaches them as if there were no
// program. A flow goes over to the program between two packets, when everything
// that was left to the sockets before is through, and comes back by Remove; no
// packet is lost, doubled or overtaken by that.
//
// With a directory of the BPF file system to pin to, flows outlive the process:
// packets go on, and copies wait in the ring for the next owner.
package kernel

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"time"
)

// Errors that callers branch on.
var (
	// ErrUnsupported says that this machine, or this process on it, cannot run the program.
	ErrUnsupported = errors.New("the kernel engine cannot run here")
	// ErrUnfit says that a flow is left to the sockets, for a reason that lies in it.
	ErrUnfit = errors.New("not a flow for the kernel engine")
	// ErrFull says that FlowsMax flows are there.
	ErrFull = errors.New("too many flows")
)

// Config of an Engine. The zero value of every field but the ports is usable.
type Config struct {
	// PortMin and PortMax bound the local ports of all flows, both included. Set
	// by the relay.
	PortMin, PortMax uint16

	// Interfaces are the names of those whose arriving packets are looked at, lo
	// among them when parties live on this host. Empty: lo and all that are
	// up and speak Ethernet (VLANs, bonds, bridges, veth), also those that come later.
	Interfaces []string

	// RingBytes is the room for copies in all rings together, rounded up to what
	// the kernel takes; 32 MiB when zero. A 20 ms packet of G.711 takes 208
	// bytes, so a call needs 21 KB for each second that it shall bridge.
	RingBytes int

	// Rings is their number; one per four CPUs when zero. A flow keeps to one ring.
	Rings int

	// FlowsMax bounds the flows, two per call; 16384 when zero. A flow takes 256
	// bytes of kernel memory, used or not.
	FlowsMax int

	// Hook is how the program is attached to interfaces.
	Hook Hook

	// DrainInterval is how often copies are fetched; 10 ms when zero.
	DrainInterval time.Duration

	// PinDir is a directory of the BPF file system in which everything is kept
	// beyond the end of the process; made when it is absent. Empty: nothing is kept.
	PinDir string

	// Log is told what went wrong with interfaces and routes later on; nil: nobody is.
	Log *slog.Logger
}

// Hook is a place of the kernel for programs at the ingress of an interface.
type Hook string

// Hooks. Auto is TCX, or Clsact where the kernel is too old for that.
const (
	HookAuto   Hook = ""
	HookTCX    Hook = "tcx"    // a link: Linux 6.6 or newer
	HookClsact Hook = "clsact" // a filter of the queueing discipline of that name
)

const (
	ringBytesDefault = 32 << 20
	flowsMaxDefault  = 16384
	drainDefault     = 10 * time.Millisecond
	cpusPerRing      = 4
)

func (c Config) withDefaults(cpus int) Config {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&c.RingBytes, ringBytesDefault)
	set(&c.FlowsMax, flowsMaxDefault)
	set(&c.Rings, (cpus+cpusPerRing-1)/cpusPerRing)
	if c.DrainInterval <= 0 {
		c.DrainInterval = drainDefault
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Spec says what a flow is: RTP version 2 of one SSRC, from one source.
type Spec struct {
	Local  netip.AddrPort // where it arrives: an address of a socket of the owner, not unspecified
	Source netip.AddrPort // where it comes from

	OutSource netip.AddrPort // what it is sent from: a local address, of the same family
	OutDest   netip.AddrPort // where it is sent to

	SSRC   uint32
	DSCP   int  // negative: unmarked
	Record bool // leave copies

	// Cookie is the owner's; it comes back with a flow that is found later.
	Cookie [6]uint64
}

// Sink takes what comes of a flow. Its calls come from one goroutine at a time.
type Sink interface {
	// Put takes a packet that was forwarded, without the right to keep wire.
	Put(arrival time.Time, wire []byte)
	// Lost says that n packets were forwarded of which no copy was left, because
	// the ring was full. It comes before the Put of the packet after them.
	Lost(n uint32)
	// Withdraw asks to remove the flow, since the way out is not what it was. It
	// comes from a goroutine of the engine, which waits for it; nothing is locked.
	Withdraw()
}

// Counts of a flow.
type Counts struct {
	Packets uint64 // forwarded
	Bytes   uint64 // of their UDP payloads
	Lost    uint64 // of Packets, those that were to be copied and did not fit the ring
	Unfit   uint64 // packets of the source that were left to the sockets, other than before it was taken

	Last time.Time // arrival of the latest; zero: none
}

// Mark names an RTP packet towards Flow.Handled. The packet has at least the
// eight bytes that hold sequence number and timestamp.
func Mark(wire []byte) uint64 {
	return 1<<48 | uint64(binary.BigEndian.Uint16(wire[2:]))<<32 | uint64(binary.BigEndian.Uint32(wire[4:]))
}
