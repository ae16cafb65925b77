package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/latch"
	"github.com/trunktap/trunktap/media/relay/kernel"
)

// Engine says what moves the packets.
type Engine string

// Engines. Auto takes Kernel where that can be had, else User.
const (
	EngineUser   Engine = "user"
	EngineKernel Engine = "kernel"
	EngineAuto   Engine = "auto"
)

const (
	// settledPackets is how many packets of one source and SSRC go through the
	// sockets before the kernel is asked to forward the rest.
	settledPackets = 3

	// retryPackets is how many more go when it declined: 10 s of 20 ms packets.
	retryPackets = 500
)

// offload forwards flows that are settled, so that their packets do not come to
// the sockets. *kernel.Engine is one.
type offload interface {
	Add(kernel.Spec, kernel.Sink) (flow, error)
	Close() error
}

// flow is what an offload forwards; see kernel.Flow.
type flow interface {
	Handled(mark uint64)
	Taken() bool
	Record(on bool)
	Drain()
	Counts() kernel.Counts
	Remove() kernel.Counts
}

// moved is a side's flow and what it was made from. Never changed.
type moved struct {
	flow         flow
	source, dest netip.AddrPort
	ssrc         uint32
}

// offloading is what a stream keeps about its flows.
//
// Locks are taken in the order Stream.mu, mu, an offload's own, taps. The packet
// path takes mu when the flows it sees are not those that it would make, which
// is after a change of source alone.
type offloading struct {
	taps [2]sync.Mutex // held around the Puts of a side: they come from the sockets and from the kernel

	mu     sync.Mutex
	closed bool
	moved  [2]atomic.Pointer[moved] // changed under mu
}

// settled is what the packet path knows about the RTP that comes from a side.
type settled struct {
	ssrc    uint32
	mark    uint64 // of the latest packet of the source
	packets int    // of that SSRC from the source, one after the other; negative: the kernel declined
}

// note takes an accepted packet of RTP into account.
func (e *end) note(from netip.AddrPort, wire []byte) {
	source, _ := e.latch.Source()
	if from != source {
		e.settled.packets = 0
		return
	}
	ssrc := latch.SSRC(wire)
	if ssrc != e.settled.ssrc {
		e.settled = settled{ssrc: ssrc}
	}
	e.settled.mark = kernel.Mark(wire)
	e.settled.packets++
}

// recheck is called by the packet path when it has accepted a batch from a side,
// before it forwards it: whoever answers a packet from a new source must find
// the new way.
func (s *Stream) recheck(r *route, side media.Side) {
	if s.relay.offload != nil && s.rtp {
		s.reconsider(r, side)
		s.reconsider(r, side.Other())
	}
}

// tapBegin is called by the packet path before the Puts of a batch, tapEnd after
// it. What the kernel forwarded before the batch is put first.
func (s *Stream) tapBegin(side media.Side) {
	if s.relay.offload == nil {
		return
	}
	if m := s.off.moved[side].Load(); m != nil && m.flow.Taken() {
		m.flow.Drain()
	}
	s.off.taps[side].Lock()
}

// tapEnd also lets the kernel have the flow when everything is right for it.
func (s *Stream) tapEnd(r *route, side media.Side) {
	if s.relay.offload == nil {
		return
	}
	s.off.taps[side].Unlock()
	if !s.rtp {
		return
	}
	if m := s.off.moved[side].Load(); m != nil {
		m.flow.Handled(s.ends[side].settled.mark)
	} else if s.ends[side].settled.packets >= settledPackets {
		s.move(r, side)
	}
}

// wanted is the flow that the packet path would make for a side.
func (s *Stream) wanted(r *route, side media.Side) (m moved, ok bool) {
	source, latched := s.ends[side].latch.Source()
	_, dest, sendable := s.destination(r, side.Other(), false)
	return moved{source: source, dest: dest, ssrc: s.ends[side].settled.ssrc}, latched && sendable
}

// reconsider removes a side's flow when it is another than the packet path would make.
func (s *Stream) reconsider(r *route, side media.Side) {
	m := s.off.moved[side].Load()
	if m == nil {
		return
	}
	want, ok := s.wanted(r, side)
	if want.flow = m.flow; !ok || want != *m {
		s.withdraw(side)
	}
}

// move asks the kernel to forward what comes from a side. Control that is at
// work may be about to change everything: then the next packet will do.
func (s *Stream) move(r *route, side media.Side) {
	if s.relay.held.Load() || !s.off.mu.TryLock() {
		return
	}
	defer s.off.mu.Unlock()
	m, ok := s.wanted(r, side)
	if r.crossed[side.Other()] {
		ok = false // the other stream's socket takes it
	}
	if !ok || s.off.closed || s.sec.on.Load() || s.route.Load() != r || s.overlays[side].Load() != nil || s.off.moved[side].Load() != nil {
		return
	}
	var err error
	m.flow, err = s.relay.offload.Add(kernel.Spec{
		Local: s.ends[side].local, Source: m.source, SSRC: m.ssrc,
		OutSource: s.ends[side.Other()].local, OutDest: m.dest,
		DSCP: s.relay.cfg.DSCP, Record: s.taps[side].Load() != nil,
	}, &flowSink{s, side})
	if err != nil {
		s.ends[side].settled.packets = -retryPackets
		s.relay.declined(err)
		return
	}
	s.off.moved[side].Store(&m)
}

// withdraw gives what comes from a side back to the sockets.
func (s *Stream) withdraw(sides ...media.Side) {
	if s.relay.offload == nil {
		return
	}
	s.off.mu.Lock()
	defer s.off.mu.Unlock()
	for _, side := range sides {
		if m := s.off.moved[side].Load(); m != nil {
			s.stats[side].addFlow(m.flow.Remove(), s.relay.base)
			s.off.moved[side].Store(nil)
		}
	}
}

// endOffload withdraws both sides for good.
func (s *Stream) endOffload() {
	s.off.mu.Lock()
	s.off.closed = true
	s.off.mu.Unlock()
	s.withdraw(media.External, media.Internal)
}

// drainFlow hands over to the tap in force what the kernel forwarded before.
func (s *Stream) drainFlow(side media.Side) {
	if m := s.off.moved[side].Load(); m != nil {
		m.flow.Drain()
	}
}

// tapChanged makes the kernel leave copies as the tap in force wants it, and
// returns when none is put into the one before.
func (s *Stream) tapChanged(side media.Side) {
	s.off.mu.Lock()
	defer s.off.mu.Unlock()
	if m := s.off.moved[side].Load(); m != nil {
		m.flow.Record(s.taps[side].Load() != nil)
	}
	s.off.taps[side].Lock()
	defer s.off.taps[side].Unlock() //nolint:gocritic // it is taken only to wait for who holds it
}

// addFlow adds what a flow has counted that is no more.
func (c *counters) addFlow(n kernel.Counts, base time.Time) {
	c.packets.Add(n.Packets)
	c.bytes.Add(n.Bytes)
	c.forwarded.Add(n.Packets)
	c.kernel.Add(n.Packets)
	if n.Last.IsZero() {
		return
	}
	last := max(1, int64(n.Last.Sub(base)))
	for was := c.lastRTP.Load(); was < last && !c.lastRTP.CompareAndSwap(was, last); {
		was = c.lastRTP.Load()
	}
}

// addFlow adds what a flow has counted so far.
func (t *SideStats) addFlow(n kernel.Counts) {
	t.Packets += n.Packets
	t.Bytes += n.Bytes
	t.Forwarded += n.Packets
	t.Kernel += n.Packets
	if n.Last.After(t.LastRTP) {
		t.LastRTP = n.Last
	}
}

// flowSink puts the copies of what the kernel forwards into a side's tap.
type flowSink struct {
	s    *Stream
	side media.Side
}

// Dropper is implemented by a Tap that can account for packets that it should
// have got: n of them were forwarded before the next Put and could not be copied.
// It is called as Put is.
type Dropper interface{ Drop(n uint32) }

func (k *flowSink) Put(arrival time.Time, wire []byte) {
	k.s.off.taps[k.side].Lock()
	defer k.s.off.taps[k.side].Unlock()
	if slot := k.s.taps[k.side].Load(); slot != nil {
		defer k.s.tapFailed(k.side, slot)
		slot.tap.Put(arrival, wire)
	}
}

func (k *flowSink) Lost(n uint32) {
	k.s.stats[k.side].untapped.Add(uint64(n))
	k.s.off.taps[k.side].Lock()
	defer k.s.off.taps[k.side].Unlock()
	if slot := k.s.taps[k.side].Load(); slot != nil {
		defer k.s.tapFailed(k.side, slot)
		if d, ok := slot.tap.(Dropper); ok {
			d.Drop(n)
		}
	}
}

func (k *flowSink) Withdraw() { k.s.withdraw(k.side) }

// declined takes note of a flow that stays with the sockets. A reason is logged
// once: every call may have it.
func (r *Relay) declined(err error) {
	r.declines.Add(1)
	what := err
	for _, known := range []error{kernel.ErrUnfit, kernel.ErrFull} {
		if errors.Is(err, known) {
			what = known
		}
	}
	if _, known := r.declineReasons.LoadOrStore(what.Error(), nil); !known {
		r.cfg.Log.Warn("a stream stays with the user engine", "err", err)
	}
}

// startOffload takes the configured engine, and says which it took and why.
func (r *Relay) startOffload() error {
	switch r.cfg.Engine {
	case EngineUser, "":
		return nil
	case EngineKernel, EngineAuto:
	default:
		return fmt.Errorf("media engine %q: it is auto, kernel or user", r.cfg.Engine)
	}
	if r.cfg.Open != nil {
		return errors.New("the kernel engine needs sockets of its own")
	}
	o, attrs, err := openOffload(r.cfg)
	switch {
	case err == nil:
		r.offload = o
		r.findLeft()
		r.cfg.Log.Info("media goes through the kernel engine", attrs...)
	case r.cfg.Engine == EngineAuto:
		r.cfg.Log.Warn("media goes through the user engine: the kernel engine cannot be had", "why", err)
	default:
		return fmt.Errorf("the kernel engine: %w", err)
	}
	return nil
}

// Engine returns the engine in use: EngineUser or EngineKernel. With the latter,
// what the kernel does not take goes through the former.
func (r *Relay) Engine() Engine {
	if r.offload != nil {
		return EngineKernel
	}
	return EngineUser
}
