package relay

import (
	"testing"
	"time"
)

// TestAlive: a relay is alive while all its loops are, and after its end.
func TestAlive(t *testing.T) {
	r, err := New(Config{PortMin: 20000, PortMax: 20099, Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	r.Alive()
	busy, free := make(chan struct{}), make(chan struct{})
	l := r.engine.(*userEngine).loops[1]
	go l.ask(&errand{do: func() { close(busy); <-free }, done: make(chan struct{})})
	<-busy
	done := make(chan struct{})
	go func() { r.Alive(); close(done) }()
	select {
	case <-done:
		t.Error("it is alive while a loop hangs")
	case <-time.After(100 * time.Millisecond):
	}
	close(free)
	<-done
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.Alive()
}
