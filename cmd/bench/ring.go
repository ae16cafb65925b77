//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring of blocks that the kernel fills with frames and their time stamps, and
// that is read without a system call and without anybody being woken: what the
// receiver costs does not depend on how packets arrive.
const (
	ringBlockBytes = 1 << 20
	ringBlocks     = 64
	ringFrameBytes = 2048 // only a unit of the interface's in version 3
	retireAfter    = 20   // ms after which the kernel hands over a block that is not full
	drainEvery     = 10 * time.Millisecond
	checkEvery     = 64 // one packet in so many has its checksum verified
)

// ring receives what arrives on one interface.
type ring struct {
	fd     int
	memory []byte
	block  int // the next to be read
	window *window

	side    int // of the party that receives
	calls   int
	port    func(call int) uint16
	streams []order

	received, damaged, packets uint64
	latency                    histogram
}

// openRing opens the receiver of the packets that side sends.
func openRing(device string, side, calls int, w *window, port func(int) uint16) (*ring, error) {
	r := &ring{side: side, calls: calls, window: w, port: port, streams: make([]order, calls)}
	var err error
	if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	if err := r.setUp(device); err != nil {
		r.close()
		return nil, fmt.Errorf("receive ring on %s: %w", device, err)
	}
	return r, nil
}

func (r *ring) setUp(device string) error {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return err
	}
	req := unix.TpacketReq3{
		Block_size: ringBlockBytes, Block_nr: ringBlocks, Frame_size: ringFrameBytes,
		Frame_nr: ringBlockBytes / ringFrameBytes * ringBlocks, Retire_blk_tov: retireAfter,
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return err
	}
	r.memory, err = unix.Mmap(r.fd, 0, ringBlockBytes*ringBlocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	// All protocols: such sockets are served before the hook that drops the packets.
	all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
	return unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index})
}

func (r *ring) close() {
	if r.memory != nil {
		_ = unix.Munmap(r.memory) // our own mapping
		r.memory = nil
	}
	_ = unix.Close(r.fd) // only read
}

// drainUntil reads blocks until stop, and once more.
func (r *ring) drainUntil(stop chan struct{}) {
	t := time.NewTicker(drainEvery)
	defer t.Stop()
	for {
		select {
		case <-stop:
			r.drain()
			return
		case <-t.C:
			r.drain()
		}
	}
}

// drain reads all blocks that the kernel has handed over.
func (r *ring) drain() {
	for {
		start := unsafe.Pointer(&r.memory[r.block*ringBlockBytes])
		status := (*uint32)(unsafe.Add(start, 8)) // after version and offset of private data
		if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
			return
		}
		h := (*unix.TpacketHdrV1)(unsafe.Add(start, 8))
		at := h.Offset_to_first_pkt
		block := r.memory[r.block*ringBlockBytes : (r.block+1)*ringBlockBytes]
		for range h.Num_pkts {
			p := (*unix.Tpacket3Hdr)(unsafe.Pointer(&block[at]))
			first := at + uint32(p.Mac)
			r.take(block[first:first+p.Snaplen], p.Status, time.Unix(int64(p.Sec), int64(p.Nsec)))
			at += p.Next_offset
		}
		atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
		r.block = (r.block + 1) % ringBlocks
	}
}

// take accounts for one frame.
func (r *ring) take(frame []byte, status uint32, arrival time.Time) {
	p, ok := parseFrame(frame)
	if !ok || p.stream%2 != r.side || p.stream/2 >= r.calls {
		return
	}
	call := p.stream / 2
	fresh := r.streams[call].take(p.seq)
	if !r.window.holds(p.stamp) {
		return
	}
	r.packets++
	// The sum of a packet from a local socket is left to the card, which veth is not.
	summed := status&unix.TP_STATUS_CSUMNOTREADY == 0
	if p.port != r.port(call) || r.packets%checkEvery == 0 && summed && !checksumRight(frame) {
		r.damaged++
	}
	if !fresh {
		return
	}
	r.received++
	r.latency.add(arrival.Sub(epoch.Round(0)) - time.Duration(p.stamp))
}

// addTo adds what was received to the counts of the run.
func (r *ring) addTo(t *traffic) {
	t.Received += r.received
	t.Damaged += r.damaged
	t.latency.merge(&r.latency)
	for i := range r.streams {
		t.Duplicate += r.streams[i].duplicate
		t.Reordered += r.streams[i].reordered
	}
	if drops, err := r.kernelDrops(); err == nil {
		t.RingDrops += drops
	}
}

// kernelDrops is how many packets did not fit the ring.
func (r *ring) kernelDrops() (uint64, error) {
	stats, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, errors.Join(errors.New("statistics of the ring"), err)
	}
	return uint64(stats.Drops), nil
}
