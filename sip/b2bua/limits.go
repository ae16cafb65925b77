package b2bua

import (
	"iter"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

// Refused counts what was answered with 503 by reason. Calls that could not be
// anchored or must be recorded and cannot be are in Counters.CallsRefused alone.
type Refused struct {
	Calls       atomic.Uint64 // as many as there may be, of a trunk or of all
	Rate        atomic.Uint64 // more calls a second than the trunk may begin
	InDialog    atomic.Uint64 // more requests a second inside of calls
	Delay       atomic.Uint64 // messages wait too long for their turn
	Memory      atomic.Uint64 // too much memory is in use
	Usages      atomic.Uint64 // as many transactions outside of calls as there may be
	Lingering   atomic.Uint64 // as many calls that are over and wait for what may still come of them
	Loops       atomic.Uint64 // requests that had passed us before, answered with 482
	Unauthentic atomic.Uint64 // requests without the credentials that their side wants, answered with 407
}

// bucket lets so many a second pass, a second's worth at once.
type bucket struct {
	tokens float64
	at     time.Time // zero: never asked
}

func (k *bucket) take(perSecond int, now time.Time) bool {
	most := float64(perSecond)
	if k.at.IsZero() {
		k.tokens = most
	} else if passed := now.Sub(k.at).Seconds(); passed > 0 {
		k.tokens = min(most, k.tokens+passed*most)
	}
	k.at = now
	if k.tokens < 1 {
		return false
	}
	k.tokens--
	return true
}

// rates are those of one trunk, across reloads.
type rates struct {
	calls bucket // guarded by B2BUA.mu

	mu       sync.Mutex
	inDialog bucket // guarded by mu
}

// rateOf returns the rates of a trunk. b.mu is held.
func (b *B2BUA) rateOf(trunk string) *rates {
	r := b.rates[trunk]
	if r == nil {
		r = &rates{}
		b.rates[trunk] = r
	}
	return r
}

// refuses says what stands against beginning a call, or what else begins with
// a request outside of a dialog; nil: nothing. b.mu is held.
func (b *B2BUA) refuses(m *sip.Message, trunk *sip.Trunk, now time.Time) *atomic.Uint64 {
	refused, limits := &b.counters.Refused, trunk.Limits
	if b.lingering() {
		return &refused.Lingering
	}
	if m.Method != sip.Invite {
		if b.usages >= b.cfg.CallsMax {
			return &refused.Usages
		}
		return nil
	}
	calls := b.perTrunk[trunk.Name]
	switch {
	case b.sessions >= b.cfg.CallsMax, calls >= b.cfg.CallsPerTrunkMax, limits.CallsMax > 0 && calls >= limits.CallsMax:
		return &refused.Calls
	case b.cfg.DelayMax > 0 && b.load.delay(now) > b.cfg.DelayMax:
		return &refused.Delay
	case b.cfg.MemoryBytesMax > 0 && b.load.memory(now) > b.cfg.MemoryBytesMax:
		return &refused.Memory
	case limits.CallsPerSecondMax > 0 && !b.rateOf(trunk.Name).calls.take(limits.CallsPerSecondMax, now):
		return &refused.Rate
	}
	return nil
}

// tooMany says whether the trunk has more requests inside of calls than it may. What
// ends or completes something is never refused.
func (c *call) tooMany(m *sip.Message, now time.Time) bool {
	most := c.trunk.Limits.InDialogPerSecondMax
	if most <= 0 || m.Method == sip.Bye || m.Method == sip.Prack {
		return false
	}
	c.b.mu.Lock()
	r := c.b.rateOf(c.trunk.Name)
	c.b.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inDialog.take(most, now) {
		return false
	}
	c.b.counters.Refused.InDialog.Add(1)
	return true
}

// Times of the measure of load.
const (
	loadWindow  = 500 * time.Millisecond
	loadSamples = 8 // messages in a window, without which it says nothing
	memoryEvery = 250 * time.Millisecond
)

// pressure measures how long messages wait for their turn. What counts is the shortest
// wait of a window (as in RFC 8289): a machine that stalls for a moment has some
// long ones, one that is overloaded has nothing else.
type pressure struct {
	mu       sync.Mutex
	begun    time.Time     // guarded by mu, as all of it: of the window
	samples  int           // of the window
	least    time.Duration // of the window
	last     time.Duration // least of the last full window
	lastAt   time.Time
	bytes    uint64 // in use
	bytesAt  time.Time
	readings []metrics.Sample
}

func (l *pressure) observe(waited time.Duration, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.begun) >= loadWindow {
		if l.last, l.lastAt = 0, now; l.samples >= loadSamples {
			l.last = l.least
		}
		l.begun, l.samples, l.least = now, 0, waited
	}
	l.samples++
	l.least = min(l.least, waited)
}

// delay is how long messages wait at least; 0 when not enough come to say.
func (l *pressure) delay(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.lastAt) > 2*loadWindow {
		return 0
	}
	return l.last
}

// memory is how much the process holds, as of a moment ago.
func (l *pressure) memory(now time.Time) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.bytesAt) < memoryEvery {
		return l.bytes
	}
	if l.readings == nil {
		l.readings = []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	}
	metrics.Read(l.readings)
	l.bytes, l.bytesAt = l.readings[0].Value.Uint64()-l.readings[1].Value.Uint64(), now
	return l.bytes
}

// passage tells a request that comes back from another one: by where it goes and
// from which side it came.
func passage(m *sip.Message, trunk string, side media.Side) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for _, s := range [...]string{m.URI, trunk, m.Method} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * prime
		}
		h *= prime
	}
	return h ^ uint64(side)
}

// loops says whether a request has passed us before, the same way and unchanged (RFC
// 3261 section 16.3 step 4): it bears a Via of a call that is still there. One that
// comes back elsewhere, or to go elsewhere, is a spiral and may. b.mu is held.
func (b *B2BUA) loops(m *sip.Message, peer sip.Peer) bool {
	for id := range ourVias(m) {
		if c := b.byID[id]; c != nil && c.passage == passage(m, peer.Trunk.Name, peer.Side) {
			return true
		}
	}
	return false
}

// spirals says whether a request bears a Via of the call below that of another: a
// proxy sent it back to us. What we sent to ourselves has none between.
func (c *call) spirals(m *sip.Message) bool {
	if via, _ := m.TopVia(); callOfBranch(via.Branch()) == c.id {
		return false
	}
	for id := range ourVias(m) {
		if id == c.id {
			return true
		}
	}
	return false
}

// ourVias are the numbers of calls in the Vias of a request that are of our form.
func ourVias(m *sip.Message) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for _, h := range m.Headers {
			if !h.Is("Via") {
				continue
			}
			for rest := h.Value; ; {
				i := strings.Index(rest, branchPrefix)
				if i < 0 {
					break
				}
				branch := rest[i:]
				rest = rest[i+len(branchPrefix):]
				if j := strings.IndexAny(branch, ";, \t"); j >= 0 {
					branch = branch[:j]
				}
				if !yield(callOfBranch(branch)) {
					return
				}
			}
		}
	}
}
