package b2bua

import (
	"sync"

	"github.com/trunktap/trunktap/sip"
)

// event is something for the owner of a call: a message, or something to do.
type event struct {
	msg *sip.Message
	do  func()
}

// mailbox brings events to the owner of a call in order. Messages are dropped
// when it is full, for their senders repeat them; things to do are not.
type mailbox struct {
	ready chan struct{} // capacity 1

	mu     sync.Mutex
	events []event // guarded by mu
	shut   bool    // guarded by mu
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

func (b *mailbox) put(e event) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut || e.msg != nil && len(b.events) >= mailboxMax {
		return false
	}
	b.events = append(b.events, e)
	select {
	case b.ready <- struct{}{}:
	default:
	}
	return true
}

// take returns what has come. With last set nothing more is accepted if there was nothing.
func (b *mailbox) take(last bool) []event {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	if last && len(events) == 0 {
		b.shut = true
	}
	return events
}
