package pcap

import (
	"container/list"
	"net/netip"
	"slices"
	"time"
)

// Why no gopacket/reassembly here: it waits for a hole to fill until pages run
// out or somebody flushes all connections (in the order of a map), though the
// receiver's acknowledgements tell at once that the capture lost a segment; it
// has no bound on connections; and it registers a flag in the process.

// holeWait is how long an acknowledged hole may still fill: captures of several
// queues or interfaces swap neighbouring packets.
const holeWait = 100 * time.Millisecond

// segment is one TCP segment.
type segment struct {
	at                  time.Time
	src, dst            netip.AddrPort
	seq, ack            uint32
	syn, fin, rst, acks bool
	data                []byte
}

// direction names one direction of a connection.
type direction struct{ src, dst netip.AddrPort }

// stream is one direction of a connection.
type stream struct {
	dir     direction
	begun   bool   // next is known
	ended   bool   // everything up to the FIN was delivered
	gap     bool   // bytes are missing before the next ones delivered
	next    uint32 // sequence number of the next byte due
	acked   uint32 // highest acknowledgement of the other direction
	isAcked bool   // acked is known
	finSeq  uint32 // sequence number behind the last byte
	isFin   bool   // finSeq is known
	queue   []ahead
	held    int // bytes in queue
}

// ahead is a run of bytes that came before its turn.
type ahead struct {
	at   time.Time
	seq  uint32
	data []byte
}

// streams tracks the directions of all connections, the longest silent first.
type streams struct {
	stats *Stats
	byDir map[direction]*list.Element
	order list.List // of *stream
	held  int       // bytes in all queues
	chunk []byte    // reused for runs made of several segments
}

func (t *streams) init(s *Stats) {
	t.stats = s
	t.byDir = map[direction]*list.Element{}
}

// before compares sequence numbers (RFC 9293 section 3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }

// push takes a segment and appends what it lets out.
func (t *streams) push(out []Packet, g segment) []Packet {
	t.chunk = t.chunk[:0]
	if el, ok := t.byDir[direction{g.dst, g.src}]; ok && g.acks {
		s := el.Value.(*stream)
		if !s.isAcked || before(s.acked, g.ack) {
			s.acked, s.isAcked = g.ack, true
		}
		out = t.skipHoles(out, s, g.at)
	}
	s := t.stream(direction{g.src, g.dst})
	if g.syn {
		s.open(t, g)
		g.seq++
	}
	if g.rst {
		return t.reset(out, s, g)
	}
	if g.fin {
		s.finSeq, s.isFin = g.seq+uint32(len(g.data)), true
	}
	if !s.begun && len(g.data) > 0 {
		s.begun, s.gap, s.next = true, true, g.seq
	}
	if s.ended || !s.begun {
		return out
	}
	out = t.take(out, s, g)
	return t.skipHoles(out, s, g.at)
}

// stream finds or makes the state of a direction and marks it as used.
func (t *streams) stream(d direction) *stream {
	if el, ok := t.byDir[d]; ok {
		t.order.MoveToBack(el)
		return el.Value.(*stream)
	}
	if t.order.Len() >= streamsMax {
		front := t.order.Front()
		s := front.Value.(*stream)
		t.order.Remove(front)
		delete(t.byDir, s.dir)
		t.held -= s.held
		if !s.ended {
			t.stats.StreamsDropped++
		}
	}
	s := &stream{dir: d}
	t.byDir[d] = t.order.PushBack(s)
	return s
}

// open begins a direction at its SYN; a repeated SYN changes nothing.
func (s *stream) open(t *streams, g segment) {
	if s.begun && !s.ended && (g.seq+1 == s.next || before(g.seq, s.next) && s.next-g.seq < streamQueueBytesMax) {
		return
	}
	t.held -= s.held
	*s = stream{dir: s.dir, begun: true, next: g.seq + 1, gap: s.begun && !s.ended}
}

func (t *streams) reset(out []Packet, s *stream, g segment) []Packet {
	if s.ended || !s.begun {
		return out
	}
	if ahead := g.seq - s.next; ahead > streamQueueBytesMax { // outside any window (RFC 9293 section 3.5.3)
		return out
	}
	return t.end(out, s, g.at)
}

// end closes a direction and drops what still waits in it.
func (t *streams) end(out []Packet, s *stream, at time.Time) []Packet {
	t.held -= s.held
	s.queue, s.held, s.ended = nil, 0, true
	return append(out, Packet{At: at, Proto: TCP, Src: s.dir.src, Dst: s.dir.dst, Gap: s.gap, End: true})
}

// take delivers the segment when it is its turn, keeps it when it is early, and
// drops what came before.
func (t *streams) take(out []Packet, s *stream, g segment) []Packet {
	if before(s.next, g.seq) {
		if len(g.data) > 0 {
			t.keep(s, g)
		}
		return out
	}
	if old := s.next - g.seq; old < uint32(len(g.data)) {
		data := g.data[old:]
		s.next += uint32(len(data))
		out = t.deliver(out, s, g.at, data)
	}
	if s.isFin && s.next == s.finSeq {
		out = t.end(out, s, g.at)
	}
	return out
}

// deliver appends a run: data and what was waiting for it.
func (t *streams) deliver(out []Packet, s *stream, at time.Time, data []byte) []Packet {
	if s.followed() {
		begin := len(t.chunk)
		t.chunk = append(t.chunk, data...)
		for s.followed() {
			a := s.pop(t)
			if skip := s.next - a.seq; skip < uint32(len(a.data)) {
				t.chunk = append(t.chunk, a.data[skip:]...)
				s.next = a.seq + uint32(len(a.data))
			}
		}
		data = t.chunk[begin:]
	}
	p := Packet{At: at, Proto: TCP, Src: s.dir.src, Dst: s.dir.dst, Payload: data, Gap: s.gap}
	s.gap = false
	return append(out, p)
}

// followed tells whether the first run that waits is due.
func (s *stream) followed() bool {
	return len(s.queue) > 0 && !before(s.next, s.queue[0].seq)
}

func (s *stream) pop(t *streams) ahead {
	a := s.queue[0]
	s.queue = slices.Delete(s.queue, 0, 1)
	s.held -= len(a.data)
	t.held -= len(a.data)
	return a
}

// keep holds a segment that is early. Of two runs that begin alike the longer
// one stays.
func (t *streams) keep(s *stream, g segment) {
	i, same := slices.BinarySearchFunc(s.queue, g.seq, func(a ahead, seq uint32) int { return int(int32(a.seq - seq)) })
	if same {
		if len(s.queue[i].data) >= len(g.data) {
			return
		}
		t.held -= len(s.queue[i].data)
		s.held -= len(s.queue[i].data)
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	s.queue = slices.Insert(s.queue, i, ahead{at: g.at, seq: g.seq, data: slices.Clone(g.data)})
	s.held += len(g.data)
	t.held += len(g.data)
}

// skipHoles gives up waiting for bytes that the capture does not have: the
// receiver acknowledged them, or too much waits behind them.
func (t *streams) skipHoles(out []Packet, s *stream, at time.Time) []Packet {
	for len(s.queue) > 0 {
		acked := s.isAcked && before(s.next, s.acked) && at.Sub(s.queue[0].at) >= holeWait
		if !acked && s.held <= streamQueueBytesMax && t.held <= queueBytesMax {
			return out
		}
		out = t.skip(out, s, at)
	}
	return out
}

// skip jumps over the hole before the first run that waits.
func (t *streams) skip(out []Packet, s *stream, at time.Time) []Packet {
	t.stats.StreamGaps++
	s.gap = true
	a := s.pop(t)
	s.next = a.seq + uint32(len(a.data))
	out = t.deliver(out, s, at, a.data)
	if s.isFin && s.next == s.finSeq {
		out = t.end(out, s, at)
	}
	return out
}

// drain lets out everything that waits, at the capture's end.
func (t *streams) drain(out []Packet, at time.Time) []Packet {
	t.chunk = t.chunk[:0]
	for el := t.order.Front(); el != nil; el = el.Next() {
		for s := el.Value.(*stream); len(s.queue) > 0; {
			out = t.skip(out, s, at)
		}
	}
	return out
}
