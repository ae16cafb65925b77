package pcap

import (
	"container/list"
	"net/netip"
	"slices"
	"time"
)

// Why no ip4defrag or ip6defrag here: neither bounds what it holds, and the
// latter dates fragments by the wall clock.

// fragmentKey names the datagram that a fragment belongs to (RFC 791 section
// 2.3, RFC 8200 section 4.5; proto is zero for IPv6).
type fragmentKey struct {
	src, dst netip.Addr
	id       uint32
	proto    uint8
}

// fragment is one piece of a datagram; its bytes are in the datagram it came in.
type fragment struct {
	key   fragmentKey
	start int // bytes from the datagram's begin
	more  bool
	proto uint8 // of what is fragmented, as this piece says
}

// piece is a span of bytes that arrived.
type piece struct {
	start int
	data  []byte
}

// partial is a datagram under reassembly.
type partial struct {
	key    fragmentKey
	first  time.Time // when its first piece came
	pieces []piece   // in order, without overlap
	held   int       // bytes in them
	count  int64     // fragments seen of it
	end    int       // where the datagram ends; -1: not known
	proto  uint8     // as the first piece of the datagram says
}

// fragments holds the datagrams under reassembly, oldest first.
type fragments struct {
	stats *Stats
	byKey map[fragmentKey]*list.Element
	order list.List // of *partial
	held  int       // bytes in all
}

func (f *fragments) init(s *Stats) {
	f.stats = s
	f.byKey = map[fragmentKey]*list.Element{}
}

// reassemble takes the fragment in d. When it is the last one missing, d is the
// whole datagram after it.
func (r *Reader) reassemble(d *datagram, f fragment, at time.Time) verdict {
	r.stats.Fragments++
	if d.cut || len(d.body) == 0 || f.start+len(d.body) > 65535 || f.more && len(d.body)%8 != 0 {
		r.stats.FragmentsDropped++
		return undecodable
	}
	whole, proto, v := r.frags.add(f, d.body, at)
	if v == decoded {
		d.body, d.proto = whole, proto
	}
	return v
}

func (f *fragments) add(in fragment, data []byte, at time.Time) ([]byte, uint8, verdict) {
	f.expire(at)
	el, known := f.byKey[in.key]
	if !known {
		el = f.order.PushBack(&partial{key: in.key, first: at, end: -1})
		f.byKey[in.key] = el
	}
	p := el.Value.(*partial)
	p.count++
	added, ok := p.insert(in, data)
	f.held += added
	if !ok {
		f.drop(el)
		return nil, 0, undecodable
	}
	if p.held == p.end {
		f.remove(el)
		return p.build(), p.proto, decoded
	}
	for f.held > fragmentBytesMax || f.order.Len() > fragmentedMax {
		f.drop(f.order.Front())
	}
	return nil, 0, waiting
}

// expire drops what waited too long.
func (f *fragments) expire(at time.Time) {
	for el := f.order.Front(); el != nil; el = f.order.Front() {
		if at.Sub(el.Value.(*partial).first) <= fragmentAge {
			return
		}
		f.drop(el)
	}
}

func (f *fragments) drop(el *list.Element) {
	f.stats.FragmentsDropped += el.Value.(*partial).count
	f.remove(el)
}

func (f *fragments) remove(el *list.Element) {
	p := el.Value.(*partial)
	f.held -= p.held
	f.order.Remove(el)
	delete(f.byKey, p.key)
}

// drain counts what will never be whole.
func (f *fragments) drain() {
	for el := f.order.Front(); el != nil; el = f.order.Front() {
		f.drop(el)
	}
}

// insert keeps a copy of data. It says how many bytes were added, and false
// when the pieces contradict each other: an overlap that is no repetition, two
// ends (RFC 5722: the datagram is given up).
func (p *partial) insert(in fragment, data []byte) (added int, ok bool) {
	end := in.start + len(data)
	if !in.more {
		if p.end >= 0 && p.end != end {
			return 0, false
		}
		p.end = end
	}
	if in.start == 0 {
		p.proto = in.proto
	}
	i, same := slices.BinarySearchFunc(p.pieces, in.start, func(x piece, start int) int { return x.start - start })
	if same {
		return 0, len(p.pieces[i].data) == len(data)
	}
	if i > 0 && p.pieces[i-1].start+len(p.pieces[i-1].data) > in.start ||
		i < len(p.pieces) && end > p.pieces[i].start {
		return 0, false
	}
	p.pieces = slices.Insert(p.pieces, i, piece{start: in.start, data: slices.Clone(data)})
	p.held += len(data)
	last := p.pieces[len(p.pieces)-1]
	return len(data), p.end < 0 || last.start+len(last.data) <= p.end
}

func (p *partial) build() []byte {
	whole := make([]byte, 0, p.end)
	for _, x := range p.pieces {
		whole = append(whole, x.data...)
	}
	return whole
}
