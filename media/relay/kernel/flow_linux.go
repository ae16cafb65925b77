package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Flow is what the program forwards of one side of a stream. Safe for concurrent use.
type Flow struct {
	// what each copy needs, together
	sequence uint32 // of state; constant
	lost     uint32 // copies lost that the sink knows of; the ring's reader's
	sink     Sink   // constant

	// constant
	engine *Engine
	place  uint32
	state  *flowState // shared with the program
	out    [2]netip.AddrPort
	way    way

	gone  atomic.Bool
	mu    sync.Mutex
	ended Counts // once gone
}

// Left is a flow that an owner before has left, and that goes on.
type Left struct {
	Spec
	Counts

	place uint32
}

// Add makes a flow known to the program. Packets still come to the sockets until
// Handled has named one that nothing came after. ErrUnfit, ErrFull or an error of
// the route mean that the flow stays with the sockets.
func (e *Engine) Add(s Spec, sink Sink) (*Flow, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if e.secured.Load() {
		return nil, fmt.Errorf("%w: IPsec policies are in force", ErrUnfit)
	}
	w, err := e.way(s.OutSource, s.OutDest)
	if err != nil {
		return nil, fmt.Errorf("find the way to %s: %w", s.OutDest, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || !e.started || len(e.free) == 0 {
		return nil, fmt.Errorf("%w: at most %d", ErrFull, len(e.states))
	}
	place := e.free[len(e.free)-1]
	f := &Flow{
		engine: e, sink: sink, place: place, state: &e.states[place], way: w,
		out: [2]netip.AddrPort{s.OutSource, s.OutDest},
	}
	f.state.set(s, w, place%uint32(len(e.rings)))
	f.sequence = f.state.sequence
	e.live[place].Store(f)
	if err := e.obj.places.Update(keyOf(s.Local), place, ebpf.UpdateNoExist); err != nil {
		e.live[place].Store(nil)
		return nil, fmt.Errorf("enter the flow to %s: %w", s.Local, err)
	}
	e.free = e.free[:len(e.free)-1]
	e.activate()
	return f, nil
}

func (e *Engine) activate() {
	if e.active.Add(1) > 1 {
		return
	}
	for _, wake := range e.wake {
		select {
		case wake <- struct{}{}:
		default: // it is awake
		}
	}
}

func (s *Spec) check() error {
	v6 := s.Local.Addr().Is6()
	for _, a := range []netip.AddrPort{s.Local, s.Source, s.OutSource, s.OutDest} {
		if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Addr().Is4In6() {
			return fmt.Errorf("%w: the address %s", ErrUnfit, a)
		}
		if a.Addr().Is6() != v6 || a.Addr().Zone() != "" || v6 && a.Addr().IsLinkLocalUnicast() {
			return fmt.Errorf("%w: the address %s beside %s", ErrUnfit, a, s.Local)
		}
	}
	return nil
}

// set fills a place that no program looks at.
func (f *flowState) set(s Spec, w way, ring uint32) {
	*f = flowState{
		ring: ring, local: keyOf(s.Local), source: keyOf(s.Source),
		outSource: keyOf(s.OutSource), outDest: keyOf(s.OutDest),
		ssrc: s.SSRC, ifindex: w.ifindex, mtu: w.mtu, tos: uint32(max(s.DSCP, 0)) << 2,
		sequence: f.sequence + 1, cookie: s.Cookie, nextHopFamily: unix.AF_INET,
	}
	if s.Record {
		f.flags |= flagRecord
	}
	if w.local {
		f.flags |= flagLocal
	}
	if w.hop.Is6() {
		f.nextHopFamily = unix.AF_INET6
	}
	copy(f.nextHop[:], w.hop.AsSlice())
}

func (f *flowState) spec() Spec {
	return Spec{
		Local: f.local.addrPort(), Source: f.source.addrPort(),
		OutSource: f.outSource.addrPort(), OutDest: f.outDest.addrPort(),
		SSRC: f.ssrc, DSCP: int(f.tos >> 2), Record: f.flags&flagRecord != 0, Cookie: f.cookie,
	}
}

func (f *flowState) counts(e *Engine) Counts {
	c := Counts{
		Packets: atomic.LoadUint64(&f.packets), Bytes: atomic.LoadUint64(&f.bytes),
		Lost: atomic.LoadUint64(&f.lost), Unfit: uint64(atomic.LoadUint32(&f.unfit)),
	}
	if ns := atomic.LoadUint64(&f.lastN); ns != 0 {
		c.Last = e.base.Add(time.Duration(int64(ns) - e.baseNS))
	}
	return c
}

// Handled says that the packet of that Mark, and all of the flow that the
// sockets got before it, are forwarded and recorded.
func (f *Flow) Handled(mark uint64) {
	if !f.gone.Load() && atomic.LoadUint32(&f.state.taken) == 0 {
		atomic.StoreUint64(&f.state.handled, mark)
	}
}

// Taken tells whether the program forwards the flow.
func (f *Flow) Taken() bool { return !f.gone.Load() && atomic.LoadUint32(&f.state.taken) != 0 }

// Record says whether copies are left from now on.
func (f *Flow) Record(on bool) {
	if f.gone.Load() {
		return
	}
	if on {
		atomic.OrUint32(&f.state.flags, flagRecord)
	} else {
		atomic.AndUint32(&f.state.flags, ^uint32(flagRecord))
	}
}

// Drain hands over the copies of everything that the flow forwarded before.
func (f *Flow) Drain() { f.engine.drain(f.ring(), busyMax) }

func (f *Flow) ring() *ring { return f.engine.rings[f.place%uint32(len(f.engine.rings))] }

// Counts returns what was forwarded so far.
func (f *Flow) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone.Load() {
		return f.ended
	}
	return f.state.counts(f.engine)
}

// Remove gives the flow back to the sockets. When it returns the program
// forwards nothing more of it, everything forwarded has been put into the sink,
// and the sink is used no more.
func (f *Flow) Remove() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone.Load() {
		return f.ended
	}
	e := f.engine
	err := e.obj.places.Delete(f.state.local)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		e.cfg.Log.Error("a flow could not be taken out of the kernel", "local", f.state.local.addrPort(), "err", err)
	}
	e.quiesce()
	e.drain(f.ring(), lastBusyMax)
	f.ended = f.state.counts(e)
	if n := uint32(f.ended.Lost) - f.lost; n > 0 {
		f.sink.Lost(n)
	}
	f.gone.Store(true)
	e.live[f.place].Store(nil)
	e.mu.Lock()
	e.free = append(e.free, f.place)
	e.mu.Unlock()
	e.active.Add(-1)
	return f.ended
}

// deliver takes a record to its flow.
func (e *Engine) deliver(rec []byte, now time.Time, nowNS int64) {
	h := (*recordState)(unsafe.Pointer(&rec[0]))
	if int(h.place) >= len(e.live) {
		return
	}
	f := e.live[h.place].Load()
	if f == nil || h.sequence != f.sequence {
		return // of a flow that nobody adopted
	}
	if n := h.lost - f.lost; n > 0 {
		f.lost = h.lost
		atomic.StoreUint64(&f.state.told, uint64(h.lost))
		f.sink.Lost(n)
	}
	wire := rec[recordHeaderBytes : recordHeaderBytes+h.bytes]
	f.sink.Put(now.Add(time.Duration(int64(h.at)-nowNS)), wire)
}

// findLeft lists the flows that were pinned, and the free places.
func (e *Engine) findLeft() {
	used := map[uint32]bool{}
	var key keyState
	var place uint32
	for it := e.obj.places.Iterate(); it.Next(&key, &place); {
		if int(place) >= len(e.states) || used[place] {
			continue
		}
		used[place] = true
		s := &e.states[place]
		e.left = append(e.left, Left{Spec: s.spec(), Counts: s.counts(e), place: place})
	}
	for place := len(e.states) - 1; place >= 0; place-- {
		if !used[uint32(place)] {
			e.free = append(e.free, uint32(place))
		}
	}
}

// Left returns the flows of an owner before that go on. They end at Start unless
// they were adopted.
func (e *Engine) Left() []Left {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Left(nil), e.left...)
}

// Adopt takes a flow over as it is. From Start on its sink gets what waited in
// the ring.
func (e *Engine) Adopt(l Left, sink Sink) (*Flow, error) {
	w, err := e.way(l.OutSource, l.OutDest)
	if err != nil {
		return nil, fmt.Errorf("find the way to %s: %w", l.OutDest, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.left {
		if e.left[i].place != l.place || e.started || e.closed {
			continue
		}
		e.left = append(e.left[:i], e.left[i+1:]...)
		s := &e.states[l.place]
		f := &Flow{
			engine: e, sink: sink, place: l.place, state: s, sequence: s.sequence, way: w, lost: uint32(s.told),
			out: [2]netip.AddrPort{l.OutSource, l.OutDest},
		}
		e.live[l.place].Store(f)
		e.activate()
		return f, nil
	}
	return nil, errors.New("the flow was left by nobody, or was adopted before")
}

// way finds how packets get from here to there, complete with the size that
// goes through.
func (e *Engine) way(from, to netip.AddrPort) (way, error) {
	w, err := e.nl.find(from, to)
	if err != nil {
		return w, err
	}
	n, ok := (*e.present.Load())[int(w.ifindex)]
	switch {
	case !ok:
		return w, fmt.Errorf("interface %d: %w", w.ifindex, os.ErrNotExist)
	case w.local != n.loopback, !w.local && !n.ethernet:
		return w, fmt.Errorf("%w: the way through %s", ErrUnfit, n.name)
	case w.mtu == 0 || w.mtu > n.mtu:
		w.mtu = n.mtu
	}
	return w, nil
}
