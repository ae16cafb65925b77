package relay

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay/kernel"
)

// adopter is an offload that may find flows of a process before.
type adopter interface {
	Left() []leftFlow
	// Start ends what was left and not adopted, and lets copies be fetched.
	Start()
}

// leftFlow is a flow that went on without an owner.
type leftFlow struct {
	kernel.Spec
	adopt func(kernel.Sink) (flow, error)
}

// restoring is what a Relay knows of a process before; see Config.Restore.
type restoring struct {
	left map[netip.AddrPort]leftFlow // by local address; guarded by Relay.mu
}

// findLeft takes note of what goes on in the kernel.
func (r *Relay) findLeft() {
	a, ok := r.offload.(adopter)
	if !ok || !r.cfg.Restore {
		return
	}
	r.held.Store(true)
	r.restoring.left = map[netip.AddrPort]leftFlow{}
	for _, l := range a.Left() {
		r.restoring.left[l.Local] = l
	}
}

// OpenAt is Open with given ports: those of a stream that another process had.
// What of it the kernel still forwards, goes on; see Restored.
func (r *Relay) OpenAt(local [2]netip.AddrPort, opt Options) (*Stream, error) {
	return r.open(opt, func(s *Stream, side media.Side) error {
		if opt.ReceiveOnly && side != media.External {
			return nil
		}
		at := netip.AddrPortFrom(canonical(local[side].Addr()), local[side].Port())
		if err := r.bindThis(s, side, at); err != nil {
			return err
		}
		r.mu.Lock()
		l, ok := r.restoring.left[at]
		r.mu.Unlock()
		if ok {
			e := &s.ends[side]
			e.latch.Restore(l.Source, l.SSRC)
			e.settled = settled{ssrc: l.SSRC, packets: settledPackets}
		}
		return nil
	})
}

// bindThis binds one pair of ports.
func (r *Relay) bindThis(s *Stream, side media.Side, at netip.AddrPort) error {
	r.mu.Lock()
	ok := r.pool(at.Addr()).takeThis(at.Port())
	r.mu.Unlock()
	if !ok {
		return fmt.Errorf("bind media port %s: it is in use, or not of the range", at)
	}
	socks, err := r.bindBoth(at)
	if err != nil {
		r.giveBack(at.Addr(), at.Port(), (*pool).unused)
		return fmt.Errorf("bind a media port: %w", err)
	}
	s.ends[side].socks, s.ends[side].local = socks, at
	return nil
}

// takeThis takes a pair by its even port, out of quarantine too.
func (p *pool) takeThis(port uint16) bool {
	if i := slices.Index(p.free, port); i >= 0 {
		p.free = slices.Delete(p.free, i, i+1)
		return true
	}
	i := slices.IndexFunc(p.resting, func(r rest) bool { return r.port == port })
	if i < 0 {
		return false
	}
	p.resting = slices.Delete(p.resting, i, i+1)
	return true
}

// adopted is a flow on its way to its stream.
type adopted struct {
	s    *Stream
	side media.Side
	m    moved
}

// Restored says that all streams of before are open again and have their taps. Flows
// in the kernel that belong to them go on, and their taps get what waited; all others
// end. It must be called once where Config.Restore is set: until then nothing new
// goes to the kernel.
func (r *Relay) Restored() (flows int) {
	a, ok := r.offload.(adopter)
	if !ok || !r.held.Load() {
		return 0
	}
	var list []adopted
	r.mu.Lock()
	for s := range r.streams {
		list = append(list, s.adopt(r.restoring.left)...)
	}
	r.restoring.left = nil
	r.mu.Unlock()
	a.Start() // before the streams know of them: what waits is of all, and all are known to the engine now
	for i := range list {
		s, side := list[i].s, list[i].side
		s.off.mu.Lock()
		if s.off.closed {
			list[i].m.flow.Remove()
		} else {
			s.off.moved[side].Store(&list[i].m)
			list[i].m.flow.Record(s.taps[side].Load() != nil)
		}
		s.off.mu.Unlock()
	}
	r.held.Store(false)
	for i := range list {
		list[i].m.flow.Drain()
	}
	return len(list)
}

// adopt takes over the flows that were the stream's.
func (s *Stream) adopt(left map[netip.AddrPort]leftFlow) (list []adopted) {
	for side := range s.ends {
		l, ok := left[s.ends[side].local]
		if !ok || l.OutSource != s.ends[1-side].local || s.sec.on.Load() || s.overlays[side].Load() != nil {
			continue
		}
		f, err := l.adopt(&flowSink{s, media.Side(side)})
		if err != nil {
			s.relay.declined(err)
			continue
		}
		list = append(list, adopted{s, media.Side(side), moved{flow: f, source: l.Source, dest: l.OutDest, ssrc: l.SSRC}})
	}
	return list
}
