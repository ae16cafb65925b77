package main

import (
	"context"
	"fmt"
	"time"

	"github.com/trunktap/trunktap/sip/siptest"
)

const (
	breath    = 250 * time.Millisecond // between two who speak
	holdLasts = 2 * time.Second
	secret    = "4111" // dialled in the secure pause
)

// call is what the demonstration knows of the call that it placed.
type call struct {
	id            string // of the daemon
	caller, agent *siptest.Media
	answer        time.Time
	hold, pause   span
	bye           time.Time // the BYE was sent
}

type span struct{ from, to time.Time }

// placeCall lets the two talk. The agent answers after half a second; it puts
// the caller on hold; while the card number is told the recording is paused.
func placeCall(ctx context.Context, s *site, d *daemon, v voices) (*call, error) {
	s.agent.Script(func(in *siptest.Incoming) { in.Run(siptest.Answer{Ring: time.Second / 2}) })
	fmt.Printf("caller (%s) calls the agent (%s) through trunktap (%s)\n", s.External, s.Internal, s.SIP)
	out, err := s.caller.Call(ctx, "sip:agent@"+s.SIP.String(), s.SIP, siptest.CallOptions{})
	if err != nil {
		return nil, fmt.Errorf("call: %w", err)
	}
	in, err := s.agent.Accept(ctx)
	if err != nil {
		return nil, err
	}
	c := &call{caller: out.Media(), agent: in.Media(), answer: time.Now()}
	if c.id, err = d.liveCall(ctx, out.ID()); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"the agent greets", func() error { return say(ctx, c.agent, v.greeting) }},
		{"the caller answers", func() error { return say(ctx, c.caller, v.wish) }},
		{"the agent puts the caller on hold, music plays", func() error { return c.holdFor(ctx, in, v.music) }},
		{"the agent is back", func() error { return say(ctx, c.agent, v.announcement) }},
		{"secure pause: the caller tells the card number and dials digits", func() error { return c.secretly(ctx, d, v.card) }},
		{"the agent takes leave", func() error { return say(ctx, c.agent, v.farewell) }},
		{"the caller takes leave", func() error { return say(ctx, c.caller, v.thanks) }},
		{"the caller hangs up", func() error { c.bye = time.Now(); return out.Bye(ctx) }},
	} {
		fmt.Printf("  %5.1f s  %s\n", time.Since(c.answer).Seconds(), step.what)
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	<-in.Done()
	return c, nil
}

// say speaks pcm and takes a breath.
func say(ctx context.Context, m *siptest.Media, pcm []int16) error {
	m.Play(siptest.PCM(pcm))
	return wait(ctx, lasts(pcm)+breath)
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *call) holdFor(ctx context.Context, agent *siptest.Call, music []int16) error {
	if err := agent.Hold(ctx, siptest.HoldSendOnly); err != nil {
		return err
	}
	c.hold.from = time.Now()
	c.agent.Play(siptest.PCM(music))
	if err := wait(ctx, holdLasts); err != nil {
		return err
	}
	c.agent.Play(nil)
	if err := agent.Resume(ctx); err != nil {
		return err
	}
	c.hold.to = time.Now()
	return nil
}

func (c *call) secretly(ctx context.Context, d *daemon, card []int16) error {
	c.pause.from = time.Now()
	if err := d.signal(ctx, c.id, "pause.start"); err != nil {
		return err
	}
	if err := say(ctx, c.caller, card); err != nil {
		return err
	}
	if err := c.caller.SendDigits(ctx, secret); err != nil {
		return err
	}
	c.pause.to = time.Now()
	return d.signal(ctx, c.id, "pause.end")
}
