package main

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// crashCall is a call in which the daemon is killed.
type crashCall struct {
	*livePair
	kind   int
	heldAt time.Time // of a window that is open when the daemon dies; zero: none
}

// Kinds of calls in TestLiveCrash.
const (
	crashPlain    = iota // speaks all the time
	crashHold            // was on hold
	crashPause           // had a secure pause
	crashOnHold          // is on hold
	crashInPause         // is in a secure pause
	crashKinds           // how many there are
	crashLostMost = 2 * time.Second
)

// TestLiveCrash holds promise 6: the daemon is killed in the middle of 20 calls that
// it does not keep, and its next start publishes all of them, unaided.
func TestLiveCrash(t *testing.T) {
	const n = 20
	trunks, agents := twoTrunks(t, recorder.FormatOggOpus, recorder.FormatWAVPCM16)
	d := newLiveDaemon(t, liveConfig{
		Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, More: "restart: {calls: end}\n",
	})
	d.start()
	calls := make([]*crashCall, n)
	ended := make(chan error, n)
	for i := range calls {
		c := &crashCall{livePair: d.call(agents[i%2], [2]float64{400 + 20*float64(i), 1000 + 30*float64(i)}), kind: i / 2 % crashKinds}
		calls[i] = c
		go func() { ended <- c.live(d) }()
		time.Sleep(137 * time.Millisecond) // each is at another phase of its frames when the daemon dies
	}
	for range calls {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	machine := d.steady()
	time.Sleep(2200 * time.Millisecond)
	stood := machine.stood() // what is spoken meanwhile cannot be stored in time
	killed := time.Now()
	d.kill()
	dead := time.Now()

	before := time.Now()
	d.start()
	t.Logf("ready %d ms after the start", time.Since(before).Milliseconds())
	recordings := d.recordings(n)
	var audio, real []time.Duration
	for _, c := range calls {
		m := recordings[c.external.ID()]
		audio = append(audio, c.check(d, m, killed))
		real = append(real, killed.Sub(m.Origin)-time.Duration(m.RealMS)*time.Millisecond)
	}
	for what, lost := range map[string][]time.Duration{"audio": audio, "real time": real} {
		slices.Sort(lost)
		t.Logf("%s lost by the crash: %d ms at least, %d ms in the median, %d ms at most (allowed: %d, the machine stood still for %d)", what,
			lost[0].Milliseconds(), lost[n/2].Milliseconds(), lost[n-1].Milliseconds(), crashLostMost.Milliseconds(), stood.Milliseconds())
		if lost[n-1] > crashLostMost+stood || lost[0] < killed.Sub(dead)-100*time.Millisecond {
			t.Errorf("%s lost: %v", what, lost)
		}
	}
	t.Log(strings.TrimSpace(d.command("verify")))

	d.stop()
	already := crashRecovered(t, d)
	if already != n {
		t.Errorf("%d recordings were recovered, want %d", already, n)
	}
	d.start()
	if again := crashRecovered(t, d); again != already {
		t.Errorf("the second start recovered %d recordings", again-already)
	}
	for id, m := range d.recordings(n) {
		if was := recordings[id]; was.ID != m.ID || was.AudioMS != m.AudioMS || len(was.Segments) != len(m.Segments) {
			t.Errorf("recording %s is another after the second start", m.ID)
		}
	}
	d.stop()
}

// live is what happens in the call before the daemon dies.
func (c *crashCall) live(d *liveDaemon) error {
	time.Sleep(1200 * time.Millisecond)
	ctx := d.t.Context()
	var err error
	switch c.kind {
	case crashHold, crashOnHold:
		err = c.internal.Hold(ctx, siptest.HoldSendOnly)
		c.heldAt = time.Now() // it is agreed now, however long that took
	case crashPause, crashInPause:
		c.heldAt, err = d.signal(c.external.ID(), "pause.start")
	}
	time.Sleep(time.Second)
	switch c.kind {
	case crashHold:
		c.heldAt = time.Time{}
		err = errors.Join(err, c.internal.Resume(ctx))
	case crashPause:
		_, serr := d.signal(c.external.ID(), "pause.end")
		c.heldAt, err = time.Time{}, errors.Join(err, serr)
	}
	return err
}

// check looks at the recording and returns how much audio is not in it.
func (c *crashCall) check(d *liveDaemon, m *recorder.Manifest, killed time.Time) time.Duration {
	t := d.t
	t.Helper()
	if m == nil {
		t.Fatalf("call %s has no recording", c.external.ID())
	}
	checkAccount(t, m)
	if m.Call.EndCause != "crash" {
		t.Errorf("recording %s: end cause %q", m.ID, m.Call.EndCause)
	}
	for ch := range 2 {
		if !slices.ContainsFunc(m.Gaps, func(g recorder.Gap) bool {
			return g.Channel == ch && g.Cause == recorder.GapRestart && g.AudioMS+g.DurationMS == m.AudioMS
		}) {
			t.Errorf("recording %s: no gap %q at the end of channel %d: %+v", m.ID, recorder.GapRestart, ch, m.Gaps)
		}
	}
	c.checkWindow(t, m)
	checkVoices(t, m, d.export(m.ID), c.hz)
	// What is lost is what was spoken, outside windows, and is not in the recording.
	spoken := killed.Sub(m.Origin)
	if !c.heldAt.IsZero() {
		spoken = c.heldAt.Sub(m.Origin)
	} else {
		spoken -= time.Duration(windowsMS(m)) * time.Millisecond
	}
	return spoken - time.Duration(m.AudioMS)*time.Millisecond
}

// checkWindow looks for the window of the call. What an encoder held back when it
// began is lost and stands before it.
func (c *crashCall) checkWindow(t *testing.T, m *recorder.Manifest) {
	t.Helper()
	want := map[int]string{crashHold: "hold", crashOnHold: "hold", crashPause: "pause", crashInPause: "pause"}[c.kind]
	ws := m.Windows
	if len(ws) > 1 && ws[0].Reason == "unknown" && ws[0].EndRealMS-ws[0].RealMS <= 40 && ws[0].EndRealMS == ws[1].RealMS {
		ws = ws[1:]
	}
	if want == "" && len(ws) > 0 || want != "" && (len(ws) != 1 || ws[0].Reason != want) {
		t.Errorf("recording %s: windows %+v, want %q", m.ID, m.Windows, want)
	}
}

// crashRecovered counts the recoveries that the log of all runs tells of.
func crashRecovered(t *testing.T, d *liveDaemon) int {
	t.Helper()
	text := string(must(os.ReadFile(d.log))(t))
	if strings.Contains(text, "could not be recovered") {
		t.Error("a recording could not be recovered")
	}
	return strings.Count(text, "recovered a recording")
}
