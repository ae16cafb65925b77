// Package locked is memory for secrets: outside the Go heap, never swapped out,
// left out of crash dumps, wiped when it is given back.
package locked

import (
	"errors"
	"fmt"
	"sync"
)

// ErrFull says that a Pool has no slot left.
var ErrFull = errors.New("locked memory: every slot is taken")

// pageBytes is what a Pool asks the system for at a time.
const pageBytes = 4096

// Pool gives out slots of one size. Its memory is never given back to the
// system. Safe for concurrent use.
type Pool struct {
	slotBytes, slotsMax int // constant

	mu   sync.Mutex // guards all following
	free [][]byte   // wiped
	used int
	made int
}

// NewPool returns a Pool of at most slotsMax slots, each of slotBytes, at most 4096.
func NewPool(slotBytes, slotsMax int) *Pool {
	return &Pool{slotBytes: slotBytes, slotsMax: slotsMax}
}

// Take returns a slot full of zeros. ErrFull, or what keeps the system from
// locking memory.
func (p *Pool) Take() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used >= p.slotsMax {
		return nil, fmt.Errorf("%w: %d", ErrFull, p.slotsMax)
	}
	if len(p.free) == 0 {
		page, err := lock(pageBytes)
		if err != nil {
			return nil, err
		}
		for at := 0; at+p.slotBytes <= len(page); at += p.slotBytes {
			p.free = append(p.free, page[at:at+p.slotBytes:at+p.slotBytes])
			p.made++
		}
	}
	last := len(p.free) - 1
	slot := p.free[last]
	p.free = p.free[:last]
	p.used++
	return slot, nil
}

// Give wipes a slot of Take and takes it back; nil is no slot.
func (p *Pool) Give(slot []byte) {
	if slot == nil {
		return
	}
	clear(slot)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, slot)
	p.used--
}

// Used returns how many slots are taken, and how many there may be.
func (p *Pool) Used() (slots, slotsMax int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used, p.slotsMax
}
