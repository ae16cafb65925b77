package b2bua

import "time"

// Limits of a look at whether calls are served.
const (
	aliveCallsMax = 8               // that are asked
	aliveAgain    = 2 * time.Second // until others are: they may have ended
)

// Alive returns when the sockets are read, and when of the calls that are going on at
// least one has had its turn. It never returns when nothing moves.
func (b *B2BUA) Alive() {
	b.mu.Lock()
	started := b.started
	b.mu.Unlock()
	if started {
		b.agent.Alive()
	}
	for turn := make(chan struct{}, aliveCallsMax); b.askCalls(turn); turn = make(chan struct{}, aliveCallsMax) {
		again := time.NewTimer(aliveAgain)
		select {
		case <-turn:
			again.Stop()
			return
		case <-again.C:
		}
	}
}

// askCalls lets some calls say that they have had their turn; false when there are none.
func (b *B2BUA) askCalls(turn chan<- struct{}) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, c := range b.byID { // in no order
		if c.put(event{do: func() { turn <- struct{}{} }}) {
			n++
		}
		if n == aliveCallsMax {
			break
		}
	}
	return n > 0
}
