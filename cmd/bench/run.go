//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// program is a program under test.
type program interface {
	// start runs it, with files in dir, until it takes calls.
	start(ctx context.Context, dir string) error
	// setUp makes calls and returns where either side of each sends its media.
	setUp(ctx context.Context, calls int) ([][2]netip.AddrPort, error)
	// finish ends the calls and tells what was recorded.
	finish(ctx context.Context, calls int) (recorded, error)
	process() *process
	stop()
}

// bench is what all runs share.
type bench struct {
	opt   options
	voice *voice
	work  string
	out   io.Writer // progress
}

// timings of a run.
type timings struct{ warmUp, measure time.Duration }

// newProgram returns the program of a subject.
func (b *bench) newProgram(s subject) program {
	if s.Program == rtpengineName {
		return &rtpengine{record: s.records()}
	}
	return &trunktap{binary: b.opt.trunktap, engine: s.Engine, format: s.Format, rate: b.opt.rate}
}

// run measures a subject with so many calls.
func (b *bench) run(ctx context.Context, s subject, calls, round int, t timings) (res *result, err error) {
	runtime.GC() // here, since none runs while it is measured
	res = &result{Subject: s, Calls: calls, Round: round}
	if s.direct() {
		return res, b.measure(ctx, res, directRoutes(), 0, t)
	}
	dir, err := os.MkdirTemp(b.work, "run-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir), os.RemoveAll(pinDir(dir))) }()
	p := b.newProgram(s)
	defer p.stop()
	if err := p.start(ctx, dir); err != nil {
		return nil, fmt.Errorf("start: %w%s", err, logTail(p))
	}
	if res.IdleBytes, err = residentBytes(p.process().pid()); err != nil {
		return nil, err
	}
	begun := time.Now()
	targets, err := p.setUp(ctx, calls)
	if err != nil {
		return nil, fmt.Errorf("set %d calls up: %w%s", calls, err, logTail(p))
	}
	res.SetUpSeconds = time.Since(begun).Seconds()
	if err := b.measure(ctx, res, relayRoutes(targets), p.process().pid(), t); err != nil {
		return nil, err
	}
	if err := p.process().running(); err != nil {
		return nil, err
	}
	if res.Behind, err = b.behind(ctx, p.process().pid()); err != nil {
		return nil, err
	}
	if res.Recorded, err = p.finish(ctx, calls); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		res.Fault = err.Error() + logTail(p)
	}
	return res, nil
}

func logTail(p program) string {
	if p.process() == nil {
		return ""
	}
	return "\n" + p.process().tail()
}

// measure lets the generator run over the routes, and takes the window out of it.
func (b *bench) measure(ctx context.Context, res *result, routes [2]route, pid int, t timings) error {
	g, err := newGenerator(res.Calls, routes, b.voice)
	if err != nil {
		return err
	}
	defer g.close()
	g.start()
	var from, until sample
	err = pause(ctx, rampOf(res.Calls)+t.warmUp)
	if err == nil {
		if from, err = takeSample(pid); err == nil {
			now := time.Since(epoch)
			g.window.until.Store(int64(now + t.measure))
			g.window.from.Store(int64(now))
			b.profile(res, t.measure)
			err = pause(ctx, t.measure)
		}
	}
	if err == nil {
		until, err = takeSample(pid)
	}
	if err == nil && pid != 0 {
		res.LoadBytes, err = residentBytes(pid)
	}
	seen, ferr := g.finish()
	if err = errors.Join(err, ferr); err != nil {
		return err
	}
	res.Traffic, res.Usage, res.Seconds = seen, usageBetween(from, until), until.at.Sub(from.at).Seconds()
	res.P50, res.P99, res.P999 = micros(seen.latency.quantile(0.5)), micros(seen.latency.quantile(0.99)), micros(seen.latency.quantile(0.999))
	return nil
}

// What is held back on purpose is through after a second.
const (
	behindAfter = time.Second
	behindFor   = 500 * time.Millisecond
)

// behind measures what the program still uses when no more packets come.
func (b *bench) behind(ctx context.Context, pid int) (cores float64, err error) {
	if err := pause(ctx, behindAfter); err != nil {
		return 0, err
	}
	from, err := takeSample(pid)
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, behindFor); err != nil {
		return 0, err
	}
	until, err := takeSample(pid)
	return usageBetween(from, until).Subject, err
}

// idle measures the machine with nothing going on.
func (b *bench) idle(ctx context.Context, d time.Duration) (usage, error) {
	from, err := takeSample(0)
	if err != nil {
		return usage{}, err
	}
	if err := pause(ctx, d); err != nil {
		return usage{}, err
	}
	until, err := takeSample(0)
	return usageBetween(from, until), err
}

// relayRoutes are those through the program under test.
func relayRoutes(targets [][2]netip.AddrPort) (out [2]route) {
	devices := [2]string{"ext0", "int0"}
	for side := range out {
		out[side] = route{
			device: devices[side], arrives: devices[1-side],
			link: func(call int) link {
				return link{srcMAC: mac(side, false), dstMAC: mac(side, true), src: partyMediaAddr(side, call), dst: targets[call][side]}
			},
			receiver: partyPort,
		}
	}
	return out
}

// directRoutes lead from party to party.
func directRoutes() (out [2]route) {
	devices := [2]string{"dir0", "dir1"}
	pair := len(pairs) - 1
	for side := range out {
		out[side] = route{
			device: devices[side], arrives: devices[1-side],
			link: func(call int) link {
				return link{
					srcMAC: mac(pair, side == 1), dstMAC: partyMAC,
					src: netip.AddrPortFrom(directAddr[side], partyPort(call)), dst: netip.AddrPortFrom(directAddr[1-side], partyPort(call)),
				}
			},
			receiver: partyPort,
		}
	}
	return out
}

// profile saves what the daemon does during the window, when that is wanted.
// It costs CPU time itself: such a run is for its profile alone.
func (b *bench) profile(res *result, d time.Duration) {
	if b.opt.profiles == "" || res.Subject.Program != "trunktap" {
		return
	}
	name := fmt.Sprintf("%s-%d-%d.pprof", strings.NewReplacer(" ", "-", ",", "", "+", "").Replace(res.Subject.String()), res.Calls, res.Round)
	go func() {
		t := &trunktap{}
		t.dialInside()
		defer t.client.CloseIdleConnections()
		resp, err := t.client.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", pprofAddr, max(1, int(d.Seconds())-1)))
		if err == nil {
			defer resp.Body.Close()
			err = b.saveProfile(name, resp)
		}
		if err != nil {
			fmt.Fprintf(b.out, "no profile %s: %v\n", name, err)
		}
	}()
}

func (b *bench) saveProfile(name string, resp *http.Response) error {
	f, err := os.Create(filepath.Join(b.opt.profiles, name))
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
