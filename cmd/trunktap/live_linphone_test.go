package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLiveLinphone makes a call of two linphonec, each a host of its own, through the daemon:
// both hear each other and are recorded on their sides.
func TestLiveLinphone(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	hz := [2]float64{440, 1000}
	tc := liveTrunkConfig{Name: "hosts", Format: recorder.FormatOggOpus}
	cfg := liveConfig{}
	var ns [2]*siptest.Namespace
	for side := range ns {
		ns[side] = liveNamespace(ctx, t)
		tc.Sides[side] = liveSide{Peer: ns[side].Peer, NextHop: fmt.Sprintf("sip:%s:5060", ns[side].Peer), Media: ns[side].Host}
		cfg.Listen = append(cfg.Listen, fmt.Sprintf("udp://%s:5060", ns[side].Host))
	}
	cfg.Trunks = []liveTrunkConfig{tc}
	d := newLiveDaemon(t, cfg)
	d.start()
	var peers [2]*siptest.Linphone
	for side := range peers {
		dir := t.TempDir()
		source := filepath.Join(dir, "tone.wav")
		writeTone(t, source, hz[side])
		p, err := siptest.StartLinphone(ctx, siptest.LinphoneConfig{Net: ns[side], Dir: dir, User: "desk", Answer: side == 1, Source: source})
		skipWithout(t, err)
		peers[side] = p
		t.Cleanup(func() {
			if t.Failed() {
				t.Log("linphonec", side, p.Output())
			}
		})
	}
	if err := peers[0].Call(ctx, fmt.Sprintf("sip:desk@%s:5060", ns[0].Host)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second)
	if err := peers[0].Do("terminate"); err != nil {
		t.Fatal(err)
	}
	var m *recorder.Manifest
	for _, m = range d.recordings(1) {
		checkAccount(t, m)
	}
	pcm := d.export(m.ID)
	for side := range pcm {
		own, other := toneIn(pcm[side], hz[side], m.SampleRate), toneIn(pcm[side], hz[1-side], m.SampleRate)
		t.Logf("channel %d: %.0f Hz with energy %.0f, the other with %.0f; codec %s", side, hz[side], own, other, m.Streams[side].Codec)
		if own < 1e5 || other > own/100 {
			t.Errorf("channel %d does not have its party alone", side)
		}
	}
	if err := errors.Join(peers[0].Close(), peers[1].Close()); err != nil {
		t.Error(err)
	}
	for side, p := range peers {
		own, other := heardTone(t, []string{p.Heard()}, hz[1-side]), heardTone(t, []string{p.Heard()}, hz[side])
		t.Logf("linphonec %d heard the other with energy %.0f, itself with %.0f", side, own, other)
		if own < 1e5 || other > own/100 {
			t.Errorf("linphonec %d does not hear the other, or hears itself", side)
		}
	}
	d.stop()
}

// toneIn is the most energy that a tone has in a fifth of a second of the samples.
func toneIn(pcm []int16, hz float64, rate int) (most float64) {
	piece := rate / 5
	for ; len(pcm) >= piece; pcm = pcm[piece:] {
		most = max(most, mediatest.Energy(pcm[:piece], hz, rate))
	}
	return most
}
