package b2bua

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAlive: while one call has its turn the B2BUA is alive; when all hang it is not.
func TestAlive(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		w.b.Alive() // without calls
		a, _ := w.established("alive@x")
		w.b.Alive()
		free := make(chan struct{})
		for _, c := range w.b.byID {
			c.put(event{do: func() { <-free }})
		}
		done := make(chan struct{})
		go func() { w.b.Alive(); close(done) }()
		time.Sleep(10 * aliveAgain)
		synctest.Wait()
		select {
		case <-done:
			t.Error("it is alive while its only call hangs")
		default:
		}
		close(free)
		<-done
		w.hangUp(a)
	})
}
