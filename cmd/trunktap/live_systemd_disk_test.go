package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLiveSystemdPassive: the unit as shipped may listen at an interface.
func TestLiveSystemdPassive(t *testing.T) {
	u, dir := newLiveUnit(t)
	c, agents := passiveConfig(t, recorder.FormatOggOpus, "")
	c.Dir = dir
	d := newLiveDaemon(t, c)
	u.adopt(d, dir)
	d.start()
	p := passiveCall(t, agents)
	time.Sleep(2 * time.Second)
	if err := p.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		checkVoices(t, m, d.export(m.ID), p.hz)
		if m.Trunk != "mirror" || m.Call.EndCause != "bye" || m.AudioMS < 1500 {
			t.Errorf("trunk %s, ended by %s, %d ms of audio", m.Trunk, m.Call.EndCause, m.AudioMS)
		}
	}
	d.stop()
}

// TestLiveSystemdDiskFull: a disk that is full to the last byte takes audio from the
// recordings, and neither the daemon nor a packet of a call; with room it goes on.
func TestLiveSystemdDiskFull(t *testing.T) {
	u, dir := newLiveUnit(t)
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16)
	disk := dir + "/disk"
	d := newLiveDaemon(t, liveConfig{
		Dir: dir, Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, Ports: 32, WriteBudget: "128KiB",
		Store: disk + "/store", Spool: disk + "/spool", Media: []string{"engine: user"},
	})
	u.adopt(d, dir)
	run := func(script string) {
		t.Helper()
		if out, err := u.command("sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
	}
	run(fmt.Sprintf("mkdir -p %[1]s && mount -t tmpfs -o size=200m,mode=0700,uid=%[2]s,gid=%[2]s tmpfs %[1]s", disk, unitUser))
	d.start()
	pid := u.show("MainPID")
	long := d.call(agents[0], [2]float64{440, 1000})
	time.Sleep(time.Second)
	run(fmt.Sprintf("dd if=/dev/zero of=%s/filler bs=1M 2>/dev/null || true", disk))
	d.waitMetric("trunktap_recordings_admitted", func(v float64) bool { return v == 0 })
	unrecorded := d.call(agents[0], [2]float64{500, 800})
	time.Sleep(6 * time.Second) // the write budget is 4 s
	for _, p := range []*livePair{long, unrecorded} {
		n := len(p.internal.Media().Received())
		if err := p.internal.Media().Await(t.Context(), n+50); err != nil {
			t.Errorf("media does not go on: %v", err)
		}
	}
	if err := unrecorded.bye(t.Context()); err != nil {
		t.Error(err)
	}
	run("rm " + disk + "/filler")
	d.waitMetric("trunktap_recordings_admitted", func(v float64) bool { return v == 1 })
	time.Sleep(2 * time.Second)
	if err := long.bye(t.Context()); err != nil {
		t.Error(err)
	}
	d.logged("event=storage.low")
	d.logged("event=storage.recovered")
	m := d.recordings(1)[long.external.ID()]
	if m == nil {
		t.Fatal("the call is not recorded")
	}
	checkAccount(t, m)
	gone := func(g recorder.Gap) bool { return g.Cause == recorder.GapOverrun || g.Cause == recorder.GapDisk }
	if t.Logf("gaps %+v", m.Gaps); !slices.ContainsFunc(m.Gaps, gone) || m.Call.EndCause != "bye" {
		t.Errorf("ended by %s, gaps %+v", m.Call.EndCause, m.Gaps)
	}
	wantPackets(t, long)
	if after := d.brief(agents[0], 2); after == nil || slices.ContainsFunc(after.Gaps, gone) {
		t.Errorf("with room: %+v", after)
	}
	if now := u.show("MainPID"); now != pid || u.show("NRestarts") != "0" {
		t.Errorf("process %s became %s", pid, now)
	}
	d.stop()
}

// wantPackets demands that all that either side sent came to the other.
func wantPackets(t *testing.T, p *livePair) {
	t.Helper()
	for _, x := range [][2]*siptest.Media{{p.external.Media(), p.internal.Media()}, {p.internal.Media(), p.external.Media()}} {
		if sent, got := len(x[0].Sent()), len(x[1].Received()); sent-got > 1 || got > sent { // one may be under way when a side hangs up
			t.Errorf("%d packets sent, %d arrived", sent, got)
		}
	}
}
