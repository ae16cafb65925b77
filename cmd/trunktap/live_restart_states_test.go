package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// stateCall is a call of TestLiveRestartStates: what is under way in it when the daemon
// dies, and what has to come of that.
type stateCall struct {
	*livePair
	what  string
	begin func(ctx context.Context, c *stateCall) error // in a goroutine; ends when it has its answer
	ended chan error
}

// restartStates are what calls are in the middle of.
var restartStates = []struct {
	what  string
	begin func(ctx context.Context, c *stateCall) error
}{
	{"re-INVITE inwards", func(ctx context.Context, c *stateCall) error { return c.external.Hold(ctx, siptest.HoldSendOnly) }},
	{"re-INVITE outwards", func(ctx context.Context, c *stateCall) error { return c.internal.Hold(ctx, siptest.HoldSendOnly) }},
	{"UPDATE", func(ctx context.Context, c *stateCall) error { return c.external.Update(ctx, siptest.Offer{}) }},
	{"INFO", func(ctx context.Context, c *stateCall) error { return c.internal.Info(ctx, "text/plain", []byte("x")) }},
	{"REFER", func(ctx context.Context, c *stateCall) error { return c.internal.Refer(ctx, "sip:other@example.com") }},
}

// TestLiveRestartStates kills the daemon while calls ring and while requests wait for
// their answers; then again as soon as it is ready, and again and again before it is.
// Who rang is cancelled, who called gets 503; all others go on, and what was asked for
// is answered.
func TestLiveRestartStates(t *testing.T) {
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16, recorder.FormatWAVPCM16)
	trunks[0].Keys = []string{"identity: hide"}
	d := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, Media: []string{"engine: user"}})
	d.start()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ready := make(chan struct{})
	var calls []*stateCall
	for i, s := range restartStates {
		for _, pair := range agents {
			c := &stateCall{livePair: d.callAny(pair, [2]float64{400 + 30*float64(i), 1000 + 30*float64(i)}), what: s.what, begin: s.begin, ended: make(chan error, 1)}
			calls = append(calls, c)
		}
	}
	d.hasWritten(len(calls))
	for _, c := range calls {
		for _, end := range []*siptest.Call{c.external, c.internal} {
			end.AnswerWhen(ready)
		}
		go func() { c.ended <- c.begin(ctx, c) }()
	}
	caller, callee := d.ringing(ctx, agents[1])
	for _, c := range calls { // the request has arrived
		for len(c.external.Requests())+len(c.internal.Requests()) == 0 {
			time.Sleep(livePollEvery)
		}
	}
	d.kill()
	d.start()
	d.kill() // nothing that was restored has had the time to be written anew
	for _, after := range []time.Duration{10, 40, 80, 160} {
		d.startAndKill(after * time.Millisecond)
	}
	d.start()
	close(ready)

	var rejected *siptest.RejectedError
	if err := caller.Wait(ctx); !errors.As(err, &rejected) || rejected.Response.Code != 503 {
		t.Errorf("the caller of a call that rang has %v, want 503", err)
	}
	select {
	case <-callee.Done():
	case <-ctx.Done():
		t.Error("the callee rings on")
	}
	if err := together(len(calls), func(i int) error { return calls[i].goesOn(ctx) }); err != nil {
		t.Error(err)
	}
	for id, m := range d.recordings(len(calls)) {
		checkAccount(t, m)
		if m.Call.EndCause != "bye" || len(m.Segments) < 2 {
			t.Errorf("call %s: end cause %q, %d segments", id, m.Call.EndCause, len(m.Segments))
		}
	}
	if out := d.command("verify"); !strings.Contains(out, "0 findings") {
		t.Error(out)
	}
	d.stop()
}

// ringing begins a call that nobody answers.
func (d *liveDaemon) ringing(ctx context.Context, agents [2]*siptest.Agent) (caller, callee *siptest.Call) {
	d.t.Helper()
	rings := make(chan *siptest.Call, 1)
	agents[1].Script(func(in *siptest.Incoming) {
		rings <- in.Call()
		in.Run(siptest.Answer{Ring: 5 * time.Minute})
	})
	caller = must(agents[0].Start(ctx, "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{}))(d.t)
	callee = <-rings
	d.within(liveReadyLimit, "the caller hears that it rings", func() error {
		for _, r := range caller.Responses() {
			if r.Code == 180 {
				return nil
			}
		}
		return errors.New("it does not")
	})
	return caller, callee
}

// startAndKill starts the daemon and kills it, ready or not.
func (d *liveDaemon) startAndKill(after time.Duration) {
	d.t.Helper()
	log := must(os.OpenFile(d.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600))(d.t)
	defer func() { _ = log.Close() }() // the daemon has its own descriptor of it
	cmd := exec.Command(d.binary, "serve", "--config", d.config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	time.Sleep(after)
	_ = cmd.Process.Kill() // it may have ended by itself
	_ = cmd.Wait()         // it was killed
}

// goesOn waits for the answer that was due, and ends the call.
func (c *stateCall) goesOn(ctx context.Context) error {
	if err := <-c.ended; err != nil {
		return fmt.Errorf("%s: %w", c.what, err)
	}
	for _, end := range []*siptest.Call{c.external, c.internal} {
		if strings.HasPrefix(c.what, "re-INVITE") { // who holds hears nothing
			break
		}
		if err := end.Media().Await(ctx, len(end.Media().Received())+20); err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
	}
	if strings.HasPrefix(c.what, "re-INVITE") {
		holder := c.external
		if strings.HasSuffix(c.what, "outwards") {
			holder = c.internal
		}
		if err := holder.Resume(ctx); err != nil {
			return fmt.Errorf("%s: resume: %w", c.what, err)
		}
	}
	c.quiet()
	if err := c.external.Bye(ctx); err != nil {
		return fmt.Errorf("%s: BYE: %w", c.what, err)
	}
	return nil
}

// hasWritten waits until so many recordings that go on have written audio, which a process that
// comes behind finds.
func (d *liveDaemon) hasWritten(recordings int) {
	d.t.Helper()
	const frame = 500 * 8 // bytes: more than a header has, and less than half a second of plain audio
	d.within(time.Minute, "written", func() error {
		n := 0
		for _, f := range must(filepath.Glob(filepath.Join(d.cfg.Spool, "*", "0001.seg")))(d.t) {
			if info, err := os.Stat(f); err == nil && info.Size() > frame {
				n++
			}
		}
		if n < recordings {
			return fmt.Errorf("%d of %d recordings", n, recordings)
		}
		return nil
	})
}
