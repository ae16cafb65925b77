package b2bua

import "sync"

// ownersIdleMax bounds the goroutines that wait for a call to own.
const ownersIdleMax = 64

// owners are goroutines that own one call after the other. They are kept because
// the stack of a new one would have to grow with each message again.
type owners struct {
	mu     sync.Mutex
	idle   []chan *call // guarded by mu; each of capacity 1
	closed bool         // guarded by mu
}

// employ finds an owner for a call that has none.
func (o *owners) employ(c *call) {
	o.mu.Lock()
	if n := len(o.idle); n > 0 {
		work := o.idle[n-1]
		o.idle = o.idle[:n-1]
		o.mu.Unlock()
		work <- c
		return
	}
	o.mu.Unlock()
	go o.work(c)
}

func (o *owners) work(c *call) {
	next := make(chan *call, 1)
	for ok := true; ok; c, ok = <-next {
		c.own()
		if !o.rest(next) {
			return
		}
	}
}

// rest lets an owner wait; false when it is not needed.
func (o *owners) rest(next chan *call) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || len(o.idle) >= ownersIdleMax {
		return false
	}
	o.idle = append(o.idle, next)
	return true
}

// close lets the owners go when they are done. They are not waited for: one of
// them may still be asking an observer that hangs.
func (o *owners) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, next := range o.idle {
		close(next)
	}
	o.idle = nil
}
