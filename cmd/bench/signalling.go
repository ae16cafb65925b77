//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// signallingSeconds is how long calls are set up.
const signallingSeconds = 6

// signallingRates are calls a second: one at which nothing queues, one that loads
// the machine.
var signallingRates = []float64{100, 500}

// signalling measures setting calls up: through the daemon without and with
// recording, against the same parties without anybody between them. The calls
// have no media.
func (b *bench) signalling(ctx context.Context) (*signallingReport, error) {
	rep := &signallingReport{}
	for round := 1; round <= b.opt.rounds; round++ {
		for _, rate := range signallingRates {
			for _, s := range []subject{{Program: directName}, {Program: "trunktap"}, {Program: "trunktap", Format: "wav-pcmu"}} {
				r, err := b.signallingRun(ctx, s, rate)
				if err != nil {
					return rep, fmt.Errorf("%s, %g calls/s: %w", s, rate, err)
				}
				r.Round = round
				rep.Runs = append(rep.Runs, r)
				fmt.Fprintf(b.out, "%-34s %5.0f calls/s  round %d  %5.2f cores  INVITE p99 %6.0f µs  180 p99 %6.0f µs\n",
					"signalling, "+s.signallingName(), rate, round, r.SetUp.Busy, r.InviteP99, r.RingP99)
			}
		}
	}
	return rep, nil
}

func (b *bench) signallingRun(ctx context.Context, s subject, rate float64) (res *signallingResult, err error) {
	calls := int(rate * signallingSeconds)
	res = &signallingResult{Subject: s, Rate: rate, Calls: calls}
	pid := 0
	if !s.direct() {
		dir, err := os.MkdirTemp(b.work, "signalling-")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir), os.RemoveAll(pinDir(dir))) }()
		t := &trunktap{binary: b.opt.trunktap, engine: "user", format: s.Format}
		defer t.stop()
		if err := t.start(ctx, filepath.Clean(dir)); err != nil {
			return nil, fmt.Errorf("start: %w%s", err, logTail(t))
		}
		pid = t.process().pid()
		if res.IdleBytes, err = residentBytes(pid); err != nil {
			return nil, err
		}
	}
	p, err := newParties(newRunName(), calls, s.direct())
	if err != nil {
		return nil, err
	}
	defer p.close()
	measured := func(f func(context.Context, float64) error) (usage, error) {
		from, err := takeSample(pid)
		if err != nil {
			return usage{}, err
		}
		if err := f(ctx, rate); err != nil {
			return usage{}, err
		}
		until, err := takeSample(pid)
		// What matters is CPU time per call, not how long the last answers took.
		return usageBetween(from, until).times(until.at.Sub(from.at).Seconds() / (float64(calls) / rate)), err
	}
	if res.SetUp, err = measured(p.setUp); err != nil {
		return nil, err
	}
	if pid != 0 {
		if res.LoadBytes, err = residentBytes(pid); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, time.Second); err != nil {
		return nil, err
	}
	if res.HangUp, err = measured(p.hangUp); err != nil {
		return nil, err
	}
	p.delays(res)
	return res, nil
}

// delays computes how long INVITE and 180 were under way.
func (p *parties) delays(res *signallingResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var invite, ring []float64
	for i := range p.calls {
		c := &p.calls[i]
		if !c.inviteSeen.IsZero() && !c.ringSeen.IsZero() {
			invite = append(invite, micros(c.inviteSeen.Sub(c.inviteSent)))
			ring = append(ring, micros(c.ringSeen.Sub(c.ringSent)))
		}
	}
	res.Repeated = p.retried
	if len(invite) == 0 {
		return
	}
	slices.Sort(invite)
	slices.Sort(ring)
	at := func(v []float64, q float64) float64 { return v[min(len(v)-1, int(q*float64(len(v))))] }
	res.InviteP50, res.InviteP99 = at(invite, 0.5), at(invite, 0.99)
	res.RingP50, res.RingP99 = at(ring, 0.5), at(ring, 0.99)
}
