package b2bua

import (
	"sync"

	"github.com/trunktap/trunktap/sip"
)

// event is something for the owner of a call: a message, or something to do. The
// zero event only makes it look at the time.
type event struct {
	msg  *sip.Message
	do   func()
	rang bool // the call's timer went off
}

// mailbox brings events to the owner of a call in order. Messages are dropped
// when it is full, for their senders repeat them; things to do are not.
//
// It also says who the owner is: a call has none while nothing is to be done, so
// that those that wait cost no goroutine. Whoever puts the first event in has to
// find it one.
type mailbox struct {
	mu     sync.Mutex
	events []event // guarded by mu
	spare  []event // guarded by mu: the memory of events taken before
	owned  bool    // guarded by mu
	shut   bool    // guarded by mu
}

// put adds an event; false when it is not taken. orphan: the call has no owner and
// the caller must see to it that it gets one.
func (b *mailbox) put(e event) (ok, orphan bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut || e.msg != nil && len(b.events) >= mailboxMax {
		return false, false
	}
	b.events = append(b.events, e)
	orphan = !b.owned
	b.owned = true
	return true, orphan
}

// take returns what has come, valid until the next take. With last set nothing
// more is accepted if there was nothing.
func (b *mailbox) take(last bool) []event {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	clear(b.spare)
	b.events, b.spare = b.spare[:0], events
	if last && len(events) == 0 {
		b.shut = true
	}
	return events
}

// release ends the ownership; false when something has come meanwhile.
func (b *mailbox) release() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.events) > 0 {
		return false
	}
	if b.owned = false; cap(b.spare) > eventsKept {
		b.events, b.spare = nil, nil // of a burst
	}
	clear(b.spare)
	return true
}

// shutDown lets nothing in any more.
func (b *mailbox) shutDown() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shut, b.events, b.spare = true, nil, nil
}
