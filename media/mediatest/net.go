// Package mediatest is what tests of media need: an in-memory packet network
// and generators of RTP.
package mediatest

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// queuePackets is how many packets a Conn holds before it drops.
const queuePackets = 1024

// Impairment is what a link does to packets. The zero value is a perfect link.
type Impairment struct {
	Delay  time.Duration // of every packet
	Jitter time.Duration // and up to this much more, evenly distributed; never changes the order

	Loss      float64       // probability in 0..1 that a packet is lost
	Duplicate float64       // probability in 0..1 that a packet comes twice
	Reorder   float64       // probability in 0..1 that a packet is held back for ReorderBy while others pass
	ReorderBy time.Duration // 30 ms when zero
}

// Net is a network of Conns in memory. A packet on an unimpaired link is in the
// receiver's queue when the write returns; a full queue drops. In a synctest
// bubble all delays take bubble time. Safe for concurrent use.
//
// Every pair of sender and receiver has a random source of its own, derived
// from the seed and the two addresses: what one flow sends changes nothing for
// another.
type Net struct {
	seed    uint64
	dropped atomic.Uint64

	hookMu    sync.Mutex // held while a hook runs; taken before mu, never after
	onPacket  Hook
	onDeliver Hook

	mu       sync.Mutex // guards all following
	conns    map[netip.AddrPort]*Conn
	impaired map[hosts]Impairment
	links    map[link]*linkState
	queue    deliveries
	order    uint64
	nextPort uint16
}

// Hook sees a packet. It must not use the Net and must not keep payload.
type Hook func(at time.Time, src, dst netip.AddrPort, payload []byte)

type hosts struct{ src, dst netip.Addr }

type link struct{ src, dst netip.AddrPort }

type linkState struct {
	rng  *rand.Rand
	last time.Time // when the latest packet in order arrives
}

// NewNet returns an empty network.
func NewNet(seed uint64) *Net {
	return &Net{
		seed:     seed,
		conns:    map[netip.AddrPort]*Conn{},
		impaired: map[hosts]Impairment{},
		links:    map[link]*linkState{},
		nextPort: 49152,
	}
}

// Impair sets what happens to packets from host src to host dst from now on. An
// invalid address stands for every host; the more exact setting wins, src
// before dst.
func (n *Net) Impair(src, dst netip.Addr, i Impairment) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.impaired[hosts{src, dst}] = i
}

// OnPacket sets the hook that sees every packet at the time it is sent, before
// the network may lose it.
func (n *Net) OnPacket(h Hook) {
	n.hookMu.Lock()
	defer n.hookMu.Unlock()
	n.onPacket = h
}

// OnDeliver sets the hook that sees every packet at the time it is put into a
// receiver's queue: what a capture beside the receiver holds.
func (n *Net) OnDeliver(h Hook) {
	n.hookMu.Lock()
	defer n.hookMu.Unlock()
	n.onDeliver = h
}

// Dropped returns how many packets met a full queue or an address where nobody
// listens; packets lost by an Impairment are not among them.
func (n *Net) Dropped() uint64 { return n.dropped.Load() }

// Listen opens a Conn at an address; port 0 takes a free one. An address in use
// gives an error that wraps syscall.EADDRINUSE.
func (n *Net) Listen(at netip.AddrPort) (*Conn, error) {
	if !at.Addr().IsValid() || at.Addr().IsUnspecified() {
		return nil, fmt.Errorf("listen at %s: needs the address of one host", at)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for at.Port() == 0 || n.conns[at] != nil {
		if at.Port() != 0 {
			return nil, fmt.Errorf("listen at %s: %w", at, syscall.EADDRINUSE)
		}
		n.nextPort = max(n.nextPort+1, 49152)
		if free := netip.AddrPortFrom(at.Addr(), n.nextPort); n.conns[free] == nil {
			at = free
		}
	}
	c := newConn(n, at)
	n.conns[at] = c
	return c, nil
}

func (n *Net) close(c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c.at)
}

// send takes a packet from a Conn.
func (n *Net) send(src, dst netip.AddrPort, payload []byte) {
	now := time.Now()
	n.hookMu.Lock()
	defer n.hookMu.Unlock()
	if n.onPacket != nil {
		n.onPacket(now, src, dst, payload)
	}
	p := &delivery{src: src, dst: dst, payload: append([]byte(nil), payload...)}
	n.mu.Lock()
	defer n.mu.Unlock()
	i := n.impairment(src.Addr(), dst.Addr())
	if i == (Impairment{}) {
		n.deliver(now, p)
		return
	}
	l := n.link(link{src, dst})
	// All numbers are drawn for every packet, so that one setting does not
	// change the fate that another one deals out.
	loss, duplicate, reorder, jitter := l.rng.Float64(), l.rng.Float64(), l.rng.Float64(), l.rng.Float64()
	if loss < i.Loss {
		return
	}
	at := now.Add(i.Delay + time.Duration(jitter*float64(i.Jitter)))
	if at.Before(l.last) {
		at = l.last
	}
	if reorder < i.Reorder {
		by := i.ReorderBy
		if by == 0 {
			by = 30 * time.Millisecond
		}
		at = at.Add(by)
	} else {
		l.last = at
	}
	n.schedule(now, at, p)
	if duplicate < i.Duplicate {
		twin := *p
		n.schedule(now, at, &twin)
	}
}

func (n *Net) impairment(src, dst netip.Addr) Impairment {
	for _, h := range []hosts{{src, dst}, {src: src}, {dst: dst}, {}} {
		if i, ok := n.impaired[h]; ok {
			return i
		}
	}
	return Impairment{}
}

func (n *Net) link(k link) *linkState {
	l := n.links[k]
	if l == nil {
		h := fnv.New64a()
		_, _ = fmt.Fprintf(h, "%s>%s", k.src, k.dst) // a hash never fails
		l = &linkState{rng: rand.New(rand.NewPCG(n.seed, h.Sum64()))}
		n.links[k] = l
	}
	return l
}

// schedule delivers a packet at a time. Packets of one time are delivered in
// the order in which they were sent, whichever timer fires first.
func (n *Net) schedule(now, at time.Time, p *delivery) {
	if !at.After(now) {
		n.deliver(now, p)
		return
	}
	n.order++
	p.at, p.order = at, n.order
	heap.Push(&n.queue, p)
	time.AfterFunc(at.Sub(now), n.deliverDue)
}

func (n *Net) deliverDue() {
	now := time.Now()
	n.hookMu.Lock()
	defer n.hookMu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.queue) > 0 && !n.queue[0].at.After(now) {
		n.deliver(now, heap.Pop(&n.queue).(*delivery))
	}
}

// deliver puts a packet into the receiver's queue. Both locks are held.
func (n *Net) deliver(now time.Time, p *delivery) {
	c := n.conns[p.dst]
	if c == nil {
		n.dropped.Add(1)
		return
	}
	select {
	case c.in <- packet{p.src, p.payload}:
		if n.onDeliver != nil {
			n.onDeliver(now, p.src, p.dst, p.payload)
		}
	default:
		n.dropped.Add(1)
	}
}

type delivery struct {
	at       time.Time
	order    uint64
	src, dst netip.AddrPort
	payload  []byte
}

// deliveries is a heap, earliest first.
type deliveries []*delivery

func (d deliveries) Len() int      { return len(d) }
func (d deliveries) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d deliveries) Less(i, j int) bool {
	if !d[i].at.Equal(d[j].at) {
		return d[i].at.Before(d[j].at)
	}
	return d[i].order < d[j].order
}
func (d *deliveries) Push(x any) { *d = append(*d, x.(*delivery)) }
func (d *deliveries) Pop() any {
	last := len(*d) - 1
	p := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return p
}
