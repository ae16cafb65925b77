package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media/link"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/plain"
	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLivePassive listens to calls that two agents make with each other: that of
// the trunk is recorded, with its hold and its pause, as a replay of a capture of
// it is; that of others is not. No port of SIP is opened.
func TestLivePassive(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	if l, err := link.Open(link.Config{Interfaces: []string{"lo"}}); errors.Is(err, unix.EPERM) {
		t.Skip("left out: capturing needs CAP_NET_RAW")
	} else if err != nil {
		t.Fatal(err)
	} else {
		_ = l.Close() // nothing was read
	}
	d, agents := passiveDaemon(t, recorder.FormatWAVPCM16, ", ring_size: 16MiB")
	capture := newLiveCapture(t, "lo", fmt.Sprintf("udp and host %s", liveTrunk[0][0]))
	others := passiveCall(t, [2]*siptest.Agent{
		liveAgent(t, siptest.Config{Addr: netip.AddrPortFrom(liveTrunk[1][0], 0)}), liveAgent(t, siptest.Config{Addr: netip.AddrPortFrom(liveTrunk[1][1], 0)}),
	})
	c := passiveCall(t, agents)
	c.external.Media().Play(siptest.PCM(babble(1, 20)))
	c.internal.Media().Play(siptest.PCM(babble(2, 20)))
	signals := replayScript(t, d, c)
	if err := others.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	capture.stop()
	var live *recorder.Manifest
	for _, m := range d.recordings(1) {
		live = m
	}
	heard := d.export(live.ID)
	d.stop()

	again, pcm := replayed(t, d, capture.file, signals)
	checkAccount(t, live)
	if len(live.Windows) != 3 || len(again.Windows) != 3 || len(live.Gaps) != len(again.Gaps) {
		t.Fatalf("live: windows %+v, gaps %+v; replayed: windows %+v, gaps %+v", live.Windows, live.Gaps, again.Windows, again.Gaps)
	}
	if diff := live.RealMS - again.RealMS; max(diff, -diff) > 5 {
		t.Errorf("real time live %d ms, replayed %d ms", live.RealMS, again.RealMS)
	}
	compareRuns(t, live, again, heard, pcm)
	if live.Call.EndCause != "bye" || live.Trunk != "mirror" || live.Call.SIPCallID != c.external.ID() {
		t.Errorf("recording of trunk %s, call %s, ended by %s", live.Trunk, live.Call.SIPCallID, live.Call.EndCause)
	}
}

// passiveDaemon starts a daemon that listens to the calls of two agents. The port of
// one of them is what it would speak SIP on.
func passiveDaemon(t *testing.T, format, capture string) (d *liveDaemon, agents [2]*siptest.Agent) {
	t.Helper()
	c, agents := passiveConfig(t, format, capture)
	d = newLiveDaemon(t, c)
	d.start()
	return d, agents
}

func passiveConfig(t *testing.T, format, capture string) (c liveConfig, agents [2]*siptest.Agent) {
	t.Helper()
	tc := liveTrunkConfig{Name: "mirror", Passive: true, Format: format}
	for side, addr := range liveTrunk[0] {
		agents[side] = liveAgent(t, siptest.Config{Addr: netip.AddrPortFrom(addr, 0)})
		tc.Sides[side] = liveSide{Peer: addr, Media: addr}
	}
	return liveConfig{
		Lookback: liveLookback, Trunks: []liveTrunkConfig{tc}, Listen: []string{"udp://" + agents[0].Addr().String()}, More: "capture: {interfaces: [lo]" + capture + "}\n",
	}, agents
}

// passiveCall makes a call from one agent to the other, with no daemon between them.
func passiveCall(t *testing.T, agents [2]*siptest.Agent) *livePair {
	t.Helper()
	p := &livePair{hz: [2]float64{440, 1000}}
	agents[1].Speak(func() siptest.Source { return siptest.Tone(p.hz[1], 0.5) })
	p.external = must(agents[0].Call(t.Context(), "sip:desk@"+agents[1].Addr().String(), agents[1].Addr(), siptest.CallOptions{Play: siptest.Tone(p.hz[0], 0.5)}))(t)
	p.internal = must(agents[1].Accept(t.Context()))(t)
	return p
}

// replayed replays a capture of one call.
func replayed(t *testing.T, d *liveDaemon, capture string, signals []byte) (*recorder.Manifest, [2][]int16) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "signals.jsonl")
	if err := os.WriteFile(name, signals, 0o600); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	d.command("replay", "--signals", name, "--out", out, capture)
	files := must(filepath.Glob(filepath.Join(out, "*", plain.ManifestFile)))(t)
	if len(files) != 1 {
		t.Fatalf("%d recordings replayed", len(files))
	}
	m := &recorder.Manifest{}
	if err := json.Unmarshal(must(os.ReadFile(files[0]))(t), m); err != nil {
		t.Fatal(err)
	}
	return m, readPCM(t, filepath.Join(filepath.Dir(files[0]), m.Segments[0].File))
}

// TestLivePassiveEnds ends what is listened to when the daemon stops: the
// recording is whole up to there.
func TestLivePassiveEnds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("left out: capturing needs root here")
	}
	d, agents := passiveDaemon(t, recorder.FormatOggOpus, "")
	c := passiveCall(t, agents)
	time.Sleep(2 * time.Second)
	d.stop()
	if err := c.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.start()
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		checkVoices(t, m, d.export(m.ID), c.hz)
		if m.Call.EndCause != "shutdown" || m.AudioMS < 1000 {
			t.Errorf("%d ms of audio, ended by %s", m.AudioMS, m.Call.EndCause)
		}
	}
	d.stop()
}
