package media

import (
	"encoding/binary"
	"math"
	"sync/atomic"
	"time"
)

const (
	// recordHeaderBytes is what a record of a Ring needs beside the packet: length
	// (4), dropped before it (4) and arrival (8).
	recordHeaderBytes = 16
	recordAlign       = 8
	ringBytesMin      = 256

	// endMark in place of a length says that the rest up to the end of the
	// buffer is unused, because the next record did not fit there in one piece.
	endMark = math.MaxUint32
)

// Ring is a bounded queue of packets between one producer (the relay) and one
// consumer (the pipeline of a recording). It implements Tap: Put copies the
// packet, and neither side ever waits for the other.
//
// A packet is taken whenever what is queued plus twice the largest record fits
// the ring; a record is the packet and up to 23 bytes. A record larger than
// half the ring is always dropped.
type Ring struct {
	// constant after construction
	buf  []byte
	base time.Time

	// written by the producer
	_       [64]byte // the two sides must not share a cache line
	tail    atomic.Uint64
	put     atomic.Uint64 // records
	dropped atomic.Uint64
	unsaid  uint32 // dropped since the last record taken; producer alone
	headWas uint64 // head as last seen by the producer; producer alone

	// written by the consumer
	_       [64]byte
	head    atomic.Uint64
	taken   atomic.Uint64 // records
	next    uint64        // where the record after the current one begins; consumer alone
	tailWas uint64        // consumer alone
}

// NewRing returns a ring that holds at most bytesMax bytes, record headers
// included (at least 256, rounded down to a multiple of eight). Arrivals are
// kept as distances from base: when both have a monotonic reading it survives.
func NewRing(bytesMax int, base time.Time) *Ring {
	size := max(bytesMax, ringBytesMin) / recordAlign * recordAlign
	return &Ring{buf: make([]byte, size), base: base}
}

// Put appends a copy of wire, or counts it as dropped when there is no room.
// It is for the producer alone.
func (r *Ring) Put(arrival time.Time, wire []byte) {
	size := uint64(len(r.buf))
	need := recordBytes(len(wire))
	tail := r.tail.Load()
	at := tail % size
	skip := uint64(0)
	if rest := size - at; rest < need {
		skip, at = rest, 0
	}
	if need > size/2 || !r.room(tail+skip+need) {
		r.drop()
		return
	}
	if skip > 0 {
		binary.LittleEndian.PutUint32(r.buf[size-skip:], endMark)
	}
	rec := r.buf[at : at+need]
	binary.LittleEndian.PutUint32(rec, uint32(len(wire)))
	binary.LittleEndian.PutUint32(rec[4:], r.unsaid)
	binary.LittleEndian.PutUint64(rec[8:], uint64(arrival.Sub(r.base)))
	copy(rec[recordHeaderBytes:], wire)
	r.unsaid = 0
	r.put.Store(r.put.Load() + 1)
	r.tail.Store(tail + skip + need)
}

// recordBytes is the space that a packet of n bytes takes. Multiples of eight
// make sure that an end mark always fits.
func recordBytes(n int) uint64 {
	return (uint64(n) + recordHeaderBytes + recordAlign - 1) &^ (recordAlign - 1)
}

// room tells whether the ring may be filled up to end. The consumer's position
// is read only when the one last seen does not suffice.
func (r *Ring) room(end uint64) bool {
	if end-r.headWas <= uint64(len(r.buf)) {
		return true
	}
	r.headWas = r.head.Load()
	return end-r.headWas <= uint64(len(r.buf))
}

func (r *Ring) drop() { r.Drop(1) }

// Drop counts n packets as dropped that the producer could not even put. It is
// for the producer alone.
func (r *Ring) Drop(n uint32) {
	r.dropped.Add(uint64(n))
	r.unsaid += min(n, math.MaxUint32-r.unsaid)
}

// Next returns the oldest packet, the number of packets dropped between it and
// the one before, and whether there was one. wire lies in the ring and is valid
// until the following call of Next or Release. It is for the consumer alone.
func (r *Ring) Next() (arrival time.Time, wire []byte, dropped uint32, ok bool) {
	r.Release()
	if r.next == r.tailWas {
		if r.tailWas = r.tail.Load(); r.next == r.tailWas {
			return time.Time{}, nil, 0, false
		}
	}
	size := uint64(len(r.buf))
	at := r.next % size
	n := binary.LittleEndian.Uint32(r.buf[at:])
	if n == endMark {
		r.next += size - at
		at = 0
		n = binary.LittleEndian.Uint32(r.buf)
	}
	rec := r.buf[at : at+recordHeaderBytes+uint64(n)]
	r.next += recordBytes(int(n))
	r.taken.Store(r.taken.Load() + 1)
	since := time.Duration(binary.LittleEndian.Uint64(rec[8:]))
	return r.base.Add(since), rec[recordHeaderBytes:], binary.LittleEndian.Uint32(rec[4:]), true
}

// Release gives the space of the packet last returned by Next back to the
// producer, without asking for another one. It is for the consumer alone.
func (r *Ring) Release() {
	if r.head.Load() != r.next {
		r.head.Store(r.next)
	}
}

// Dropped returns how many packets were dropped so far, those not yet reported
// by Next included. Safe for concurrent use.
func (r *Ring) Dropped() uint64 { return r.dropped.Load() }

// Len returns the number of packets that wait. Safe for concurrent use.
func (r *Ring) Len() int {
	taken := r.taken.Load() // first: put never falls behind it
	return int(r.put.Load() - taken)
}
