package main

import (
	"context"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

func liveKamailio(t *testing.T, cfg siptest.KamailioConfig) {
	t.Helper()
	cfg.Dir = t.TempDir()
	k, err := siptest.StartKamailio(context.Background(), cfg)
	skipWithout(t, err)
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log("kamailio", k.Output())
		}
	})
}

// TestLiveKamailioInFront: kamailio is the carrier's edge, stays on the path by
// Record-Route, and SIPp behind it calls SIPp.
func TestLiveKamailioInFront(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	at, edge := freeUDP(t, liveHost), freeUDP(t, liveTrunk[0][0])
	liveKamailio(t, siptest.KamailioConfig{Addr: edge, Next: at})
	r := &sippRun{via: edge, sippScene: &sippScene{
		name: "edge", caller: sippCalls + sippHeld + sippIsLeft, callee: sippAnswers + sippHolds + sippLeaves, recordings: 1, holds: 4,
	}}
	r.addr[0], r.addr[1] = freeUDP(t, liveAddr(9)), freeUDP(t, liveTrunk[0][1])
	d := newLiveDaemon(t, liveConfig{Listen: []string{"udp://" + at.String()}, Trunks: []liveTrunkConfig{{
		Name: "edge", Format: recorder.FormatWAVPCM16, Sides: [2]liveSide{
			{Peer: edge.Addr(), NextHop: "sip:" + edge.String(), Media: liveHost},
			{Peer: r.addr[1].Addr(), NextHop: "sip:" + r.addr[1].String(), Media: liveHost},
		},
	}}})
	d.start()
	r.start(t, 1)
	time.Sleep(500 * time.Millisecond) // it tells nobody that it listens
	r.start(t, 0)
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	checkScenes(t, d.recordings(1), []*sippScene{r.sippScene})
	d.stop()
}
