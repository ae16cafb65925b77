// Package jitter puts the packets of one source back into the order of their
// sequence numbers: Push and Pop, no goroutine, no clock.
package jitter

import (
	"math"

	"github.com/trunktap/trunktap/media/source"
)

// Result says what Push did with a packet.
type Result uint8

// Results of Push.
const (
	Accepted  Result = iota
	Duplicate        // its sequence number waits already
	Late             // its place was popped already
	TooLong          // payload longer than PayloadBytesMax
)

// Limits.
const (
	PayloadBytesMax = 2048 // of one packet
	PacketsMax      = 4096 // the most that New grants
)

// earlyNS bounds how much earlier than by its own window a packet is let go
// because the hole before it began long before it came.
const earlyNS = 60_000_000

// Flush as now of Pop empties the buffer without waiting: the end of a stream.
const Flush = math.MaxInt64

// Buffer is the reorder window of one source, by extended sequence number. It
// holds a packet back only behind a hole, until the window is over since the
// hole began or the buffer is full: it can never stall. Not safe for concurrent use.
type Buffer struct {
	window  int64
	most    int     // packets that may wait
	slots   []slot  // storage; grows up to one more than most, the one lent out by Pop
	free    []int32 // indices of unused slots
	order   []int32 // waiting slots by rising sequence number, order[head:]
	head    int
	next    int64 // sequence number that continues what was popped
	last    int64 // arrival of what was popped last
	started bool
	popped  int32 // slot lent to the caller by the last Pop, -1: none
}

type slot struct {
	packet source.Packet
	buf    []byte
}

// New returns a buffer that waits at most window ns (by arrivals) for a
// missing packet and holds at most packetsMax packets.
//
// The window does not adapt: waiting costs a recorder nothing until the place
// of a packet is sealed, so the longest window that ends before that is the
// best for little jitter and for much. What comes later than the window and
// before the sealing is for the timeline to fill in.
func New(window int64, packetsMax int) *Buffer {
	return &Buffer{window: max(window, 0), most: min(max(packetsMax, 1), PacketsMax), popped: -1}
}

// Len is the number of packets that wait.
func (b *Buffer) Len() int { return len(b.order) - b.head }

// full tells that no more may wait.
func (b *Buffer) full() bool { return b.Len() >= b.most }

// Room tells whether Push has room without giving up on a hole. Pop until it is
// true before the next Push.
func (b *Buffer) Room() bool { return !b.full() }

// Push takes a packet and copies its payload. Packets may be popped in any
// rhythm, but a full buffer must be popped before the next Push: otherwise the
// packet is refused as Late, because its place could not be kept.
func (b *Buffer) Push(p source.Packet) Result {
	if len(p.Payload) > PayloadBytesMax {
		return TooLong
	}
	if b.started && p.Seq < b.next {
		return Late
	}
	at := len(b.order) // insert before order[at]
	for at > b.head {
		seq := b.slots[b.order[at-1]].packet.Seq
		if seq == p.Seq {
			return Duplicate
		}
		if seq < p.Seq {
			break
		}
		at--
	}
	if b.full() {
		return Late
	}
	b.insert(at, p)
	return Accepted
}

func (b *Buffer) insert(at int, p source.Packet) {
	if len(b.free) == 0 {
		b.slots = append(b.slots, slot{})
		b.free = append(b.free, int32(len(b.slots)-1))
	}
	i := b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	s := &b.slots[i]
	s.buf = append(s.buf[:0], p.Payload...)
	s.packet = p
	s.packet.Payload = s.buf
	if len(b.order) == cap(b.order) && b.head > cap(b.order)/2 {
		at -= b.head
		b.order = b.order[:copy(b.order, b.order[b.head:])]
		b.head = 0
	}
	b.order = append(b.order, 0)
	copy(b.order[at+1:], b.order[at:])
	b.order[at] = i
}

// Pop returns the next packet in sequence: at once while it continues what was
// popped, and behind a hole when the window is over at now since the hole began,
// but no more than earlyNS and a quarter of it earlier than the packet's own, or
// the buffer is full. So a longer loss is known not much later than a short one,
// and what makes up for it has its whole place. lostBefore is the number of packets given up before it.
// The payload is good until the next call of Push or Pop.
//
// The very first packet is held back for the window as well, because an
// earlier one may still come.
func (b *Buffer) Pop(now int64) (p source.Packet, lostBefore int64, ok bool) {
	b.giveBack()
	if b.Len() == 0 {
		return source.Packet{}, 0, false
	}
	i := b.order[b.head]
	s := &b.slots[i]
	if !b.ready(s.packet.Seq) {
		deadline, _ := b.Deadline()
		if now < deadline {
			return source.Packet{}, 0, false
		}
	}
	if b.started {
		lostBefore = s.packet.Seq - b.next
	}
	b.started, b.next, b.last = true, s.packet.Seq+1, s.packet.Arrival
	b.head++
	if b.head == len(b.order) {
		b.order, b.head = b.order[:0], 0
		i = b.shrink(i)
	}
	b.popped = i
	return b.slots[i].packet, lostBefore, true
}

// slotsIdle is how many slots are kept while nothing waits: what a long hole and
// the beginning of a source took is given back.
const slotsIdle = 4

// shrink gives back the slots of an empty buffer but for that of the packet that
// is lent out, and a few. It returns where that lies now.
func (b *Buffer) shrink(lent int32) int32 {
	if len(b.slots) <= 2*slotsIdle {
		return lent
	}
	few := make([]slot, slotsIdle)
	few[0] = b.slots[lent]
	b.slots, b.order = few, nil
	b.free = append(make([]int32, 0, slotsIdle), 1, 2, 3)
	return 0
}

// ready tells whether a packet need not wait.
func (b *Buffer) ready(seq int64) bool {
	return b.started && seq == b.next || b.full()
}

func (b *Buffer) giveBack() {
	if b.popped >= 0 {
		b.free = append(b.free, b.popped)
		b.popped = -1
	}
}

// Deadline returns the time (ns, of arrivals) at which Pop will give something
// without another Push. ok is false when nothing waits; a time in the past
// means at once.
func (b *Buffer) Deadline() (at int64, ok bool) {
	if b.Len() == 0 {
		return 0, false
	}
	if b.ready(b.slots[b.order[b.head]].packet.Seq) {
		return math.MinInt64, true
	}
	oldest := int64(math.MaxInt64)
	for _, i := range b.order[b.head:] {
		oldest = min(oldest, b.slots[i].packet.Arrival)
	}
	if oldest > math.MaxInt64-b.window {
		return math.MaxInt64, true
	}
	wait := b.window
	if b.started {
		wait -= min(max(oldest-b.last, 0), earlyNS, b.window/4)
	}
	return oldest + wait, true
}
