package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// restartCanary is a tone that is only spoken in secure pauses.
const (
	restartCanary = 2350.0                 // Hz
	restartMost   = 500 * time.Millisecond // from the kill, which a start follows at once, until media goes on through sockets
)

// TestLiveRestart kills the daemon in the middle of calls: they go on, and so do
// their recordings.
func TestLiveRestart(t *testing.T) {
	for _, engine := range []string{"user", "kernel"} {
		kills := 1
		if engine == "user" {
			kills = 2
		}
		t.Run(engine, func(t *testing.T) { liveRestart(t, engine, 8, kills) })
	}
}

// TestLiveRestartMany is TestLiveRestart with 100 calls; make restart runs it.
func TestLiveRestartMany(t *testing.T) {
	if os.Getenv("TRUNKTAP_MANY") == "" {
		t.Skip("TRUNKTAP_MANY is not set: make restart runs it")
	}
	for _, engine := range []string{"user", "kernel"} {
		t.Run(engine, func(t *testing.T) { liveRestart(t, engine, 100, 1) })
	}
}

func liveRestart(t *testing.T, engine string, n, kills int) {
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16, recorder.FormatOggOpus)
	trunks[1].Keys = []string{"identity: hide"}
	media := []string{"engine: " + engine}
	if engine == "kernel" {
		media = append(media, "kernel: {interfaces: [lo], pin: "+livePins(t)+"}")
	}
	d := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, Media: media, Ports: 4 * n})
	if engine == "kernel" && !canKernel(d) {
		t.Skip("the kernel engine cannot be had here")
	}
	liveRestartOf(d, engine, agents, n, slices.Repeat([]func(){d.kill}, kills))
}

// liveRestartOf ends a daemon by each of ends in the middle of n calls.
func liveRestartOf(d *liveDaemon, engine string, agents [][2]*siptest.Agent, n int, ends []func()) {
	t, kills := d.t, len(ends)
	t.Helper()
	d.start()
	watched := machine()
	calls := make([]*crashCall, n)
	for i := range calls {
		p := d.callAny(agents[i%2], [2]float64{400 + 10*float64(i%40), 1000 + 10*float64(i%40)})
		calls[i] = &crashCall{livePair: p, kind: i / 2 % restartKinds}
	}
	time.Sleep(1500 * time.Millisecond)
	if err := together(n, func(i int) error { return calls[i].beforeRestart(d) }); err != nil {
		t.Fatal(err)
	}
	var killed time.Time
	var ready time.Duration
	for _, end := range ends {
		time.Sleep(1500 * time.Millisecond)
		killed = time.Now()
		end()
		d.start()
		ready = time.Since(killed)
	}
	time.Sleep(1500 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := together(n, func(i int) error { return calls[i].afterRestart(ctx, d, i) }); err != nil {
		t.Error(err)
	}
	first := restartPackets(t, engine, calls, killed, ready)
	if stood := watched.stood(killed, killed.Add(first)); engine == "user" && d.unit == nil && first > restartMost+stood {
		t.Errorf("media goes on %s after the kill; the machine stood still for %s of it", first, stood)
	}
	recordings := d.recordings(n)
	for i, c := range calls {
		c.checkRestarted(d, recordings, i, kills)
	}
	if out := d.command("verify"); !strings.Contains(out, "0 findings") {
		t.Error(out)
	}
	d.stop()
}

// canKernel tells whether this machine lets the daemon have the kernel engine.
func canKernel(d *liveDaemon) bool {
	if os.Getuid() != 0 {
		return false
	}
	d.start()
	log, _ := os.ReadFile(d.log) // it is there: the daemon is ready
	d.stop()
	return strings.Contains(string(log), "kernel engine") && strings.Contains(string(log), "pinned=")
}

// restartPackets counts what the parties sent each other and did not get, and returns
// after what time media went on, in the median.
func restartPackets(t *testing.T, engine string, calls []*crashCall, killed time.Time, ready time.Duration) time.Duration {
	t.Helper()
	sent, missing, survived := 0, 0, 0
	var first []time.Duration
	for _, c := range calls {
		for _, way := range [][2]*siptest.Call{{c.external, c.internal}, {c.internal, c.external}} {
			out, in := way[0].Media().Sent(), way[1].Media().Received()
			sent += len(out)
			missing += len(out) - len(in)
			i := slices.IndexFunc(in, func(p siptest.Packet) bool { return p.At.After(killed.Add(20 * time.Millisecond)) })
			if i >= 0 {
				first = append(first, in[i].At.Sub(killed))
				survived++
			}
		}
	}
	slices.Sort(first)
	if len(first) == 0 {
		t.Fatal("nothing came after the restart")
	}
	t.Logf("engine %s, %d calls: %d of %d directions went on, first packet %d ms after the kill in the median, %d at most; ready after %d ms; %d of %d packets missing",
		engine, len(calls), survived, 2*len(calls), first[len(first)/2].Milliseconds(), first[len(first)-1].Milliseconds(), ready.Milliseconds(), missing, sent)
	if survived != 2*len(calls) {
		t.Errorf("%d of %d directions went on", survived, 2*len(calls))
	}
	if engine == "kernel" && missing > 0 {
		t.Errorf("%d packets are missing", missing)
	}
	return first[len(first)/2]
}

// States in which the daemon dies.
const (
	restartPlain = iota
	restartHeld
	restartPaused
	restartTagged // with attributes
	restartKinds
)

func (c *crashCall) beforeRestart(d *liveDaemon) (err error) {
	switch c.kind {
	case restartHeld:
		err = c.internal.Hold(d.t.Context(), siptest.HoldSendOnly)
	case restartPaused:
		_, err = d.signal(c.external.ID(), "pause.start")
		c.external.Media().Play(siptest.Tone(restartCanary, 0.5))
	}
	return err
}

// afterRestart is what the parties do then.
func (c *crashCall) afterRestart(ctx context.Context, d *liveDaemon, i int) (err error) {
	switch c.kind {
	case restartPlain:
		if err = c.external.Hold(ctx, siptest.HoldSendOnly); err == nil {
			err = c.external.Resume(ctx)
		}
	case restartHeld:
		err = c.internal.Resume(ctx)
	case restartPaused:
		c.external.Media().Play(siptest.Tone(c.hz[0], 0.5))
		time.Sleep(100 * time.Millisecond)
		_, err = d.signal(c.external.ID(), "pause.end")
	}
	if err != nil {
		return fmt.Errorf("call %d: %w", i, err)
	}
	for _, end := range []*siptest.Call{c.internal, c.external} {
		if err := end.Media().Await(ctx, len(end.Media().Received())+60); err != nil {
			return fmt.Errorf("call %d: %w", i, err)
		}
	}
	by := c.external
	if i%2 == 1 {
		by = c.internal
	}
	c.quiet()
	if err := by.Bye(ctx); err != nil {
		return fmt.Errorf("call %d: bye: %w", i, err)
	}
	return nil
}

func (c *crashCall) checkRestarted(d *liveDaemon, recordings map[string]*recorder.Manifest, i, kills int) {
	t := d.t
	t.Helper()
	m := recordings[c.external.ID()]
	if m == nil {
		t.Fatalf("call %d has no recording", i)
	}
	checkAccount(t, m)
	if m.Call.EndCause != "bye" {
		t.Errorf("call %d: end cause %q", i, m.Call.EndCause)
	}
	audio := int64(0)
	for _, s := range m.Segments {
		if s.AudioMS != audio {
			t.Errorf("call %d: segment %d begins at %d ms, want %d", i, s.N, s.AudioMS, audio)
		}
		audio += s.DurationMS
	}
	if len(m.Segments) < 2 || len(m.Segments) > 1+kills || audio != m.AudioMS {
		t.Errorf("call %d: %d segments of %d ms, the account has %d", i, len(m.Segments), audio, m.AudioMS)
	}
	for ch := range 2 {
		if c.kind == restartPlain && !slices.ContainsFunc(m.Gaps, func(g recorder.Gap) bool {
			return g.Channel == ch && g.Cause == recorder.GapRestart && g.DurationMS > 0
		}) {
			t.Errorf("call %d: no gap %q on channel %d: %+v", i, recorder.GapRestart, ch, m.Gaps)
		}
	}
	want := map[int]string{restartHeld: "hold", restartPaused: "pause"}[c.kind]
	windows := slices.DeleteFunc(slices.Clone(m.Windows), func(w recorder.Window) bool { // what an encoder held back is lost
		return w.Reason == "unknown" && w.EndRealMS-w.RealMS <= 40
	})
	if w := windows; want != "" && (len(w) != 1 || w[0].Reason != want || w[0].EndRealMS-w[0].RealMS < 2000) {
		t.Errorf("call %d: windows %+v, want one of %s over the restart", i, w, want)
	}
	pcm := d.export(m.ID)
	if c.kind == restartPaused {
		for at := 0; at+800 <= len(pcm[0]); at += 400 {
			if e := mediatest.Energy(pcm[0][at:at+800], restartCanary, 8000); e > 1e5 {
				t.Fatalf("call %d: what was said in the pause is at %d ms of the recording (%.0f)", i, at/8, e)
			}
		}
	}
	checkVoices(t, m, pcm, c.hz)
}

// TestLiveLeaveAndDrain leaves a call to the next process, which then waits for it.
func TestLiveLeaveAndDrain(t *testing.T) {
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16)
	d := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, Media: []string{"engine: user"}})
	d.start()
	c := d.call(agents[0], [2]float64{500, 1200})
	time.Sleep(1200 * time.Millisecond)
	d.end(syscall.SIGUSR2)
	d.start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, end := range []*siptest.Call{c.external, c.internal} {
		if err := end.Media().Await(ctx, len(end.Media().Received())+20); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	taken := 0
	d.within(liveReadyLimit, "new calls are refused", func() error {
		late, err := agents[0][0].Call(ctx, "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{})
		if err == nil { // the signal has not arrived yet
			taken++
			return errors.Join(errors.New("it was not"), late.Bye(ctx))
		}
		var refused *siptest.RejectedError
		if errors.As(err, &refused) && refused.Response.Code == 503 {
			return nil
		}
		return fmt.Errorf("it was not: %w", err)
	})
	if err := d.get("/readyz", nil); err == nil || !strings.Contains(err.Error(), `"failing":["sip"]`) {
		t.Errorf("ready while draining: %v", err)
	}
	if err := c.bye(ctx); err != nil {
		t.Fatal(err)
	}
	d.ended()
	d.start()
	defer d.stop()
	for _, m := range d.recordings(1 + taken) {
		if m.Call.SIPCallID != c.external.ID() {
			continue
		}
		checkAccount(t, m)
		if m.Call.EndCause != "bye" || len(m.Segments) != 2 {
			t.Errorf("end cause %q, %d segments", m.Call.EndCause, len(m.Segments))
		}
	}
}

// end sends a signal and waits until the daemon has ended.
func (d *liveDaemon) end(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
	d.ended()
}

// ended waits until the daemon has ended by itself.
func (d *liveDaemon) ended() {
	d.t.Helper()
	select {
	case err := <-d.exited:
		if err != nil {
			d.t.Errorf("the daemon ended: %v", err)
		}
		d.cmd = nil
	case <-time.After(livePublishLimit):
		d.t.Fatal("the daemon does not end")
	}
}
