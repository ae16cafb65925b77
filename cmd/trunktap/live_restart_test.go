package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLiveRestart kills the daemon in the middle of calls: they go on, and so do
// their recordings.
func TestLiveRestart(t *testing.T) {
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16, recorder.FormatOggOpus)
	trunks[1].Keys = []string{"identity: hide"}
	d := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}})
	d.start()
	calls := make([]*crashCall, 8)
	for i := range calls {
		p := d.callAny(agents[i%2], [2]float64{400 + 20*float64(i), 1000 + 30*float64(i)})
		calls[i] = &crashCall{livePair: p, kind: i / 2}
	}
	time.Sleep(1500 * time.Millisecond)
	d.signalAll(calls)
	time.Sleep(time.Second)
	d.kill()
	killed := time.Now()
	d.start()
	t.Logf("ready %d ms after the kill", time.Since(killed).Milliseconds())
	time.Sleep(1500 * time.Millisecond)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i, c := range calls {
		if err := c.afterRestart(ctx, d, i); err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	for _, m := range d.recordings(len(calls)) {
		t.Logf("%s: real %d audio %d, windows %+v, gaps %+v, segments %d", m.ID, m.RealMS, m.AudioMS, m.Windows, m.Gaps, len(m.Segments))
		for i, c := range calls {
			if c.external.ID() == m.Call.SIPCallID {
				c.checkRestarted(d, m, i)
			}
		}
	}
	t.Log(strings.TrimSpace(d.command("verify")))
	d.stop()
}

// callAny is call on a trunk that may hide identities.
func (d *liveDaemon) callAny(agents [2]*siptest.Agent, hz [2]float64) *livePair {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	p := &livePair{hz: hz}
	p.external = must(agents[0].Call(ctx, "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{}))(d.t)
	p.internal = must(agents[1].Accept(ctx))(d.t)
	p.external.Media().Play(siptest.Tone(hz[0], 0.5))
	p.internal.Media().Play(siptest.Tone(hz[1], 0.5))
	return p
}

// signalAll brings calls into the states in which the daemon is to die: speaking, on
// hold, in a secure pause, with attributes.
func (d *liveDaemon) signalAll(calls []*crashCall) {
	d.t.Helper()
	for _, c := range calls {
		var err error
		switch c.kind {
		case 1:
			err = c.internal.Hold(d.t.Context(), siptest.HoldSendOnly)
		case 2:
			_, err = d.signal(c.external.ID(), "pause.start")
		}
		if err != nil {
			d.t.Fatal(err)
		}
	}
}

// afterRestart is what the parties do then.
func (c *crashCall) afterRestart(ctx context.Context, d *liveDaemon, i int) error {
	before := len(c.internal.Media().Received())
	switch c.kind {
	case 0, 3:
		if err := c.external.Hold(ctx, siptest.HoldSendOnly); err != nil {
			return err
		}
		if err := c.external.Resume(ctx); err != nil {
			return err
		}
	case 1:
		if err := c.internal.Resume(ctx); err != nil {
			return err
		}
	case 2:
		if _, err := d.signal(c.external.ID(), "pause.end"); err != nil {
			return err
		}
	}
	if err := c.internal.Media().Await(ctx, before+40); err != nil {
		return err
	}
	if err := c.external.Media().Await(ctx, len(c.external.Media().Received())+40); err != nil {
		return err
	}
	if i%2 == 0 {
		return c.external.Bye(ctx)
	}
	return c.internal.Bye(ctx)
}

func (c *crashCall) checkRestarted(d *liveDaemon, m *recorder.Manifest, i int) {
	t := d.t
	t.Helper()
	checkAccount(t, m)
	if m.Call.EndCause != "bye" {
		t.Errorf("call %d: end cause %q", i, m.Call.EndCause)
	}
	if len(m.Segments) < 2 && c.kind != 2 {
		t.Errorf("call %d: %d segments", i, len(m.Segments))
	}
	for ch := range 2 {
		if c.kind == 0 && !slices.ContainsFunc(m.Gaps, func(g recorder.Gap) bool {
			return g.Channel == ch && g.Cause == recorder.GapRestart && g.DurationMS > 0
		}) {
			t.Errorf("call %d: no gap %q on channel %d: %+v", i, recorder.GapRestart, ch, m.Gaps)
		}
	}
	checkVoices(t, m, d.export(m.ID), c.hz)
}
