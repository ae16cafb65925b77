package kernel

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Bits of a record's header, and its size (linux/bpf.h, BPF_RINGBUF_*).
const (
	ringBusy        = 1 << 31
	ringDiscard     = 1 << 30
	ringHeaderBytes = 8

	// releaseRecords is how many records are read before their room is given back.
	releaseRecords = 32

	// busyMax is how long a record may be in the making, which is the time of a
	// copy unless the hypervisor takes the CPU away; lastBusyMax is for whoever
	// does not come back.
	busyMax     = 20 * time.Millisecond
	lastBusyMax = 500 * time.Millisecond
)

// ring is the reader's side of a BPF ring buffer.
type ring struct {
	m        *ebpf.Map
	head     []byte // the reader's page
	rest     []byte // the writer's page and, twice in a row, the data
	consumer *uint64
	producer *uint64
	data     []byte
	mask     uint64

	mu     sync.Mutex // held while records are read
	closed bool
}

func newRing(m *ebpf.Map) (*ring, error) {
	page, size := os.Getpagesize(), int(m.MaxEntries())
	r := &ring{m: m, mask: uint64(size - 1)}
	var err error
	if r.head, err = unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the ring: %w", err)
	}
	if r.rest, err = unix.Mmap(m.FD(), int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		_ = unix.Munmap(r.head) // the first error is the one to tell
		return nil, fmt.Errorf("map the ring: %w", err)
	}
	r.consumer = (*uint64)(unsafe.Pointer(&r.head[0]))
	r.producer = (*uint64)(unsafe.Pointer(&r.rest[0]))
	r.data = r.rest[page:]
	return r, nil
}

// drain gives everything that the ring held at the time of the call to each.
// What it gives is valid until each returns. It stops at a record that is in the
// making for longer than patience.
func (r *ring) drain(patience time.Duration, each func(record []byte)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	at, end := atomic.LoadUint64(r.consumer), atomic.LoadUint64(r.producer)
	for n := 1; at < end; n++ {
		header, ok := r.header(at&r.mask, patience)
		if !ok {
			break
		}
		size := uint64(header &^ (ringBusy | ringDiscard))
		if header&ringDiscard == 0 {
			from := at&r.mask + ringHeaderBytes
			each(r.data[from : from+size : from+size])
		}
		at += (size + ringHeaderBytes + 7) &^ 7
		if n%releaseRecords == 0 {
			atomic.StoreUint64(r.consumer, at)
		}
	}
	atomic.StoreUint64(r.consumer, at)
}

// header waits for a record that is being written.
func (r *ring) header(at uint64, patience time.Duration) (uint32, bool) {
	p := (*uint32)(unsafe.Pointer(&r.data[at]))
	header := atomic.LoadUint32(p)
	if header&ringBusy == 0 {
		return header, true
	}
	ok := within(patience, func() bool {
		header = atomic.LoadUint32(p)
		return header&ringBusy == 0
	})
	return header, ok
}

func (r *ring) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	err := unix.Munmap(r.head)
	if e := unix.Munmap(r.rest); err == nil {
		err = e
	}
	if e := r.m.Close(); err == nil {
		err = e
	}
	return err
}

// within waits, for what other CPUs do in moments, until ok or the time is over.
func within(d time.Duration, ok func() bool) bool {
	for range 200 {
		if ok() {
			return true
		}
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		if ok() {
			return true
		}
		time.Sleep(20 * time.Microsecond)
	}
	return ok()
}
