// Package journaltest has a journal in memory, for the tests of those whose states are in one.
package journaltest

import (
	"maps"
	"slices"
	"sync"
)

// Mem is a journal.Store in memory. The zero value is empty and takes everything.
type Mem struct {
	mu     sync.Mutex // guards all following
	states map[string][]byte
	most   int  // bytes of a state; 0: any, below: none is taken
	slow   bool // After waits for Settle
	after  []func()
}

// Put implements journal.Store.
func (m *Mem) Put(name string, state []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.most < 0 || m.most > 0 && len(state) > m.most {
		return false
	}
	if m.states == nil {
		m.states = map[string][]byte{}
	}
	m.states[name] = slices.Clone(state)
	return true
}

// Drop implements journal.Store.
func (m *Mem) Drop(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.states, name)
}

// After implements journal.Store.
func (m *Mem) After(f func()) {
	m.mu.Lock()
	slow := m.slow
	if slow {
		m.after = append(m.after, f)
	}
	m.mu.Unlock()
	if !slow {
		f()
	}
}

// Limit bounds the bytes of a state from now on; 0: not at all, below: none is taken.
func (m *Mem) Limit(bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.most = bytes
}

// Slow says whether After waits for Settle from now on.
func (m *Mem) Slow(slow bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slow = slow
}

// Waiting is how many calls of After wait.
func (m *Mem) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.after)
}

// Settle does what waits.
func (m *Mem) Settle() {
	m.mu.Lock()
	after := m.after
	m.after = nil
	m.mu.Unlock()
	for _, f := range after {
		f()
	}
}

// States returns what a process after this one would find.
func (m *Mem) States() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.states)
}

// Set puts states in the place of all that there are.
func (m *Mem) Set(states map[string][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states = maps.Clone(states)
}
