package relay

import (
	"errors"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/srtp"
)

// The keys of an association come back with it, those of forks that did not take the
// call are wiped, and there are no more of them than may wait.
func TestKeysOfForks(t *testing.T) {
	keys := func(n byte) (*srtp.Keys, *srtp.Keys) {
		a, err1 := srtp.NewKeys(sdes(n))
		b, err2 := srtp.NewKeys(sdes(n + 100))
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		return a, b
	}
	sec := &secured{}
	become := func(association uint32) {
		sec.take(&change{mode: srtp.KeyedDTLS, association: association, forked: true})
	}
	agree := func(association uint32) {
		receive, send := keys(byte(association))
		sec.take(&change{established: true, association: association, receive: receive, send: send, restart: true, forked: true})
	}
	become(1)
	agree(1)
	first, firstOut := sec.in.Load(), sec.out.Load()
	become(2)
	if first == nil || sec.in.Load() != nil || sec.out.Load() != nil {
		t.Fatal("a fork has the keys of another")
	}
	agree(3) // told before it is named
	sec.take(&change{mode: srtp.Clear, forked: true})
	become(3)
	third := sec.in.Load()
	if third == nil {
		t.Error("the keys of a handshake are lost")
	}
	become(1)
	if sec.in.Load() != first || sec.out.Load() != firstOut {
		t.Error("the association that comes back has not its keys")
	}
	for n := uint32(10); n < 30; n++ {
		agree(n)
	}
	if n := len(sec.parked); n > forksMax {
		t.Errorf("keys of %d forks wait", n)
	}
	sec.take(&change{decided: true})
	if len(sec.parked) != 0 || sec.in.Load() != first {
		t.Errorf("%d forks are left", len(sec.parked))
	}
	packet := make([]byte, 200)
	copy(packet, rtpPacket(1, 1, 20))
	if _, err := third.RTP(packet, packet, time.Now()); !errors.Is(err, srtp.ErrNoKeys) {
		t.Errorf("keys of a fork that is over: %v", err)
	}
	agree(3)
	sec.take(&change{mode: srtp.KeyedDTLS, association: 4}) // a new handshake in the dialog: what was agreed holds until it is through
	if sec.in.Load() != first {
		t.Error("the keys of before are gone")
	}
}
