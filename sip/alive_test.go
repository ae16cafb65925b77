package sip

import (
	"net/netip"
	"testing"
	"time"
)

// TestAlive: an agent is alive while what its messages lead to comes to an end, and
// reads on after it was asked.
func TestAlive(t *testing.T) {
	took, free := make(chan *Message), make(chan struct{})
	a, err := New(Config{
		Listen: []Listen{loopback("udp")}, Allow: func(netip.AddrPort) bool { return true },
		Handle: func(m *Message) { took <- m; <-free },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		a.Alive()
	}
	from, _ := newAgent(t, nil, loopback("udp"))
	if err := from.Send(mustParse(t, plain), Flow{Network: "udp", Remote: a.Addrs()[0]}, nil); err != nil {
		t.Fatal(err)
	}
	<-took // it hangs
	done := make(chan struct{})
	go func() { a.Alive(); close(done) }()
	select {
	case <-done:
		t.Error("it is alive while a message is not done with")
	case <-time.After(100 * time.Millisecond):
	}
	close(free)
	<-done
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a.Alive()
}
