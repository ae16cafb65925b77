package relay

import (
	"net/netip"
	"time"
)

// pool holds the pairs of ports of one local address, each named by its even
// port. It does no I/O and asks no clock.
type pool struct {
	free    []uint16 // least recently used first
	resting []rest   // in quarantine, earliest end first
	total   int
}

type rest struct {
	port  uint16
	until time.Time
}

// newPool returns a pool of the pairs that lie in the range entirely.
func newPool(portMin, portMax uint16) *pool {
	p := &pool{}
	for even := int(portMin) + int(portMin)%2; even+1 <= int(portMax); even += 2 {
		p.free = append(p.free, uint16(even))
	}
	p.total = len(p.free)
	return p
}

// wake frees the pairs whose quarantine has ended.
func (p *pool) wake(now time.Time) {
	n := 0
	for n < len(p.resting) && !p.resting[n].until.After(now) {
		p.free = append(p.free, p.resting[n].port)
		n++
	}
	p.resting = p.resting[n:]
}

// take gives the pair that was not used for the longest time.
func (p *pool) take() (uint16, bool) {
	if len(p.free) == 0 {
		return 0, false
	}
	port := p.free[0]
	p.free = p.free[1:]
	return port, true
}

// rest puts a pair that was in use into quarantine.
func (p *pool) rest(port uint16, until time.Time) {
	p.resting = append(p.resting, rest{port, until})
}

// later gives back a pair that somebody else has bound: it is tried again when
// all others were.
func (p *pool) later(port uint16) { p.free = append(p.free, port) }

// unused gives back a pair that was taken and never served.
func (p *pool) unused(port uint16) { p.free = append([]uint16{port}, p.free...) }

// canonical is the key of a local address's pool.
func canonical(a netip.Addr) netip.Addr { return a.Unmap() }
