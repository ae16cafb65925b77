package b2bua

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

const (
	tailBytesMaxDefault = 32 << 20
	lingeringMin        = 1 << 15 // calls that are over but not forgotten, whatever CallsMax is
	hiddenKept          = 1024    // calls below which the names of those that were refused stay known
)

// tails are what calls that came to nothing leave behind.
type tails struct {
	send func(*sip.Message, sip.Flow)

	any atomic.Bool // there may be some

	mu     sync.Mutex
	of     *dialog.Tails // guarded by mu
	timer  *time.Timer   // guarded by mu
	alarm  time.Time     // guarded by mu: when it goes off; zero: not
	closed bool          // guarded by mu
}

// Tails says how many transactions that have their answer are kept, what they
// take, and how many were forgotten before their time.
type Tails struct {
	Transactions, Bytes int
	Evicted             uint64
}

// Tails returns what is kept of requests that were refused.
func (b *B2BUA) Tails() Tails {
	b.tails.mu.Lock()
	defer b.tails.mu.Unlock()
	t := b.tails.of
	return Tails{Transactions: t.Len(), Bytes: t.Bytes(), Evicted: t.Evicted()}
}

// keep takes over what has to be kept of exchanges that have their answers.
func (t *tails) keep(exchanges []*exchange, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, ex := range exchanges {
		if ex.server != nil && !ex.dropped {
			t.of.KeepServer(ex.server, now)
		}
		for _, cl := range ex.clients {
			t.of.KeepClient(cl, now)
		}
	}
	t.any.Store(t.of.Len() > 0)
	t.wake(now)
}

// request takes a request; false when it is of nothing that is kept.
func (t *tails) request(m *sip.Message) bool {
	if !t.any.Load() {
		return false
	}
	t.mu.Lock()
	again, flow, known := t.of.Request(m, m.Arrival)
	t.mu.Unlock()
	if again != nil {
		t.send(again, flow)
	}
	return known
}

// response takes a response; false when it is of nothing that is kept.
func (t *tails) response(m *sip.Message) bool {
	if !t.any.Load() {
		return false
	}
	t.mu.Lock()
	ack, flow := t.of.Response(m)
	t.mu.Unlock()
	if ack != nil {
		t.send(ack, flow)
	}
	return ack != nil
}

// cancels says whether a CANCEL comes too late for what is kept.
func (t *tails) cancels(m *sip.Message) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of.Cancels(m)
}

// ring is what the timer does.
func (t *tails) ring() {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.alarm = time.Time{}
	t.of.Due(now, t.send)
	t.any.Store(t.of.Len() > 0)
	t.wake(now)
}

// wake sets the timer. mu is held.
func (t *tails) wake(now time.Time) {
	at := t.of.Deadline()
	if t.closed || at.IsZero() || !t.alarm.IsZero() && !at.Before(t.alarm) {
		return // one that goes off too early finds nothing to do
	}
	t.alarm = at
	if t.timer == nil {
		t.timer = time.AfterFunc(at.Sub(now), t.ring)
		return
	}
	t.timer.Reset(at.Sub(now))
}

// close forgets everything.
func (t *tails) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed = true; t.timer != nil {
		t.timer.Stop()
	}
}

// spent says whether the call came to nothing and all of its requests have their
// answers, so that nothing but their texts has to be kept.
func (c *call) spent(now time.Time) bool {
	if !c.ended || c.answered != nil || c.pending > 0 || c.closing || len(c.dismissed) > 0 || !idle(c.usage) || !idle(c.transfer) {
		return false
	}
	for _, ex := range c.exchanges {
		if !ex.spent(now) {
			return false
		}
	}
	if c.alias == nil {
		return true
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return len(c.b.byID) > hiddenKept // else its names stay known as long as its transactions
}

func idle(a *alarm) bool { return a == nil || a.at.IsZero() }

// spent says whether both sides of the exchange have a final response which is no
// 2xx to INVITE.
func (ex *exchange) spent(now time.Time) bool {
	if !ex.answered() || ex.server != nil && ex.method == sip.Invite && !ex.dropped && ex.server.Final() < 300 {
		return false
	}
	for _, cl := range ex.clients {
		if cl.Done(now) {
			continue
		}
		if cl.Final() == 0 || ex.method == sip.Invite && cl.Final() < 300 {
			return false
		}
	}
	return true
}

// lingering says whether so many calls are over and not forgotten that no more are
// begun. b.mu is held.
func (b *B2BUA) lingering() bool {
	return len(b.byID)-b.sessions-b.usages >= max(lingeringMin, 4*b.cfg.CallsMax)
}
