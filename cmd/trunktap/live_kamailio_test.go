package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
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
	r.listens(t)
	r.start(t, 0)
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	checkScenes(t, d.recordings(1), []*sippScene{r.sippScene})
	d.stop()
}

// TestLiveKamailioRegistrar: two baresip register at kamailio through the daemon
// and one calls the other. The call passes the daemon twice.
func TestLiveKamailioRegistrar(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	pbx, at := freeUDP(t, liveTrunk[0][0]), freeUDP(t, liveHost)
	liveKamailio(t, siptest.KamailioConfig{Addr: pbx})
	var ns [2]*siptest.Namespace
	cfg := liveConfig{Listen: []string{"udp://" + at.String()}, More: "stations: [ann, bob]\n"}
	for i := range ns {
		ns[i] = liveNamespace(ctx, t)
		cfg.Listen = append(cfg.Listen, fmt.Sprintf("udp://%s:5060", ns[i].Host))
	}
	cfg.Trunks = []liveTrunkConfig{{
		Name: "phones", Role: "phones", Format: recorder.FormatOggOpus, Keys: []string{"registrations: contact"}, Sides: [2]liveSide{
			{Peer: pbx.Addr(), NextHop: "sip:" + pbx.String(), Media: liveHost},
			{Peer: ns[0].Peer, Also: ns[1].Peer, Media: ns[0].Host},
		},
	}}
	d := newLiveDaemon(t, cfg)
	d.start()
	var phones [2]*siptest.Baresip
	hz := [2]float64{440, 1000}
	for i, user := range []string{"ann", "bob"} {
		dir := t.TempDir()
		source := filepath.Join(dir, "tone.wav")
		writeTone(t, source, hz[i])
		p, err := siptest.StartBaresip(ctx, siptest.BaresipConfig{
			Net: ns[i], Dir: dir, User: user, Answer: i == 1, Source: source, Domain: "pbx.example", Outbound: netip.AddrPortFrom(ns[i].Host, 5060),
		})
		skipWithout(t, err)
		phones[i] = p
		t.Cleanup(func() {
			if t.Failed() {
				t.Log("baresip", user, p.Output())
			}
		})
	}
	for _, p := range phones {
		d.within(20*time.Second, "the phone is registered", func() error {
			if !strings.Contains(p.Output(), "200 OK") {
				return errors.New("not yet")
			}
			return nil
		})
	}
	if err := phones[0].Dial(ctx, "sip:bob@pbx.example"); err != nil {
		t.Fatal(err)
	}
	d.within(20*time.Second, "the call is answered, seen from both phones", func() error { return d.ongoing(2) })
	time.Sleep(2 * time.Second)
	if err := phones[0].Hangup(ctx); err != nil {
		t.Fatal(err)
	}
	d.within(20*time.Second, "the call is over for both phones", func() error { return d.ongoing(0) })
	if err := errors.Join(phones[0].Close(), phones[1].Close()); err != nil {
		t.Fatal(err)
	}
	for i, p := range phones {
		own, other := heardTone(t, must(p.Heard())(t), hz[1-i]), heardTone(t, must(p.Heard())(t), hz[i])
		t.Logf("baresip %d heard the other with energy %.0f, itself with %.0f", i, own, other)
		if own < 1e6 || other > own/1000 {
			t.Errorf("baresip %d does not hear the other, or hears itself", i)
		}
	}
	var page listing
	d.within(livePublishLimit, "both phones are recorded", func() error {
		if err := d.get("/v1/recordings?limit=10", &page); err != nil {
			return err
		}
		if len(page.Recordings) != 2 {
			return fmt.Errorf("%d recordings", len(page.Recordings))
		}
		return nil
	})
	for _, m := range page.Recordings {
		checkAccount(t, &m)
		t.Logf("recorded %s of %s: %d ms", m.Kind, m.User, m.AudioMS)
		if m.Kind != recorder.KindStation || m.AudioMS < 1500 {
			t.Errorf("recording %+v", m)
		}
	}
	d.stop()
}

// ongoing says whether so many calls go on, and are answered.
func (d *liveDaemon) ongoing(n int) error {
	var live struct{ Calls []recorder.LiveCall }
	if err := d.get("/v1/calls", &live); err != nil {
		return err
	}
	for _, c := range live.Calls {
		if c.Answer.IsZero() {
			return fmt.Errorf("call %+v", c)
		}
	}
	if len(live.Calls) != n {
		return fmt.Errorf("%d calls", len(live.Calls))
	}
	return nil
}
