//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	opusCallsMax  = 1000 // encoding is what costs there: more only lengthens the queue
	failuresLimit = 3    // of a subject; then it is left out
)

// all measures everything that is wanted.
func (b *bench) all(ctx context.Context) (*report, error) {
	rep := &report{When: time.Now().UTC(), Rounds: b.opt.rounds, WarmUp: b.opt.warmUp.String(), Measure: b.opt.measure.String()}
	var err error
	if rep.Machine, err = describeMachine(ctx, b.opt.trunktap); err != nil {
		return nil, err
	}
	engines, err := b.engines(ctx, rep)
	if err != nil {
		return nil, err
	}
	if rep.Idle, err = b.idle(ctx, min(b.opt.measure, 5*time.Second)); err != nil {
		return nil, err
	}
	if b.opt.parts["media"] {
		if err := b.media(ctx, rep, engines); err != nil {
			return rep, err
		}
	}
	if b.opt.parts["signalling"] {
		if rep.Signalling, err = b.signalling(ctx); err != nil {
			return rep, fmt.Errorf("signalling: %w", err)
		}
	}
	if b.opt.parts["pipeline"] {
		if rep.Pipeline, err = goBenchmarks(ctx, b.out); err != nil {
			return rep, fmt.Errorf("pipeline: %w", err)
		}
	}
	return rep, nil
}

// engines returns those that the daemon has.
func (b *bench) engines(ctx context.Context, rep *report) ([]string, error) {
	wanted := []string{b.opt.engine}
	if b.opt.engine == "all" {
		wanted = []string{"user", "kernel"}
	}
	var out []string
	for _, e := range wanted {
		t := &trunktap{binary: b.opt.trunktap, engine: e}
		if err := t.check(ctx, b.work); err != nil {
			rep.note("The engine %s was not measured, the daemon refuses it: %s", e, refusal(err.Error()))
			fmt.Fprintln(b.out, rep.Notes[len(rep.Notes)-1])
			continue
		}
		out = append(out, e)
	}
	if len(out) == 0 {
		return nil, errors.New("no engine to measure: " + strings.Join(rep.Notes, " "))
	}
	return out, nil
}

// refusal is what check says of the engine, without file and line.
func refusal(s string) string {
	if _, after, ok := strings.Cut(s, "media.engine: "); ok {
		s = after
	}
	return lastLine(s)
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// media runs the rounds, and the scale curve.
func (b *bench) media(ctx context.Context, rep *report, engines []string) error {
	failures := map[string]int{}
	for round := 1; round <= b.opt.rounds; round++ {
		for _, n := range b.opt.calls {
			if err := b.round(ctx, rep, b.subjects(engines), n, round, failures); err != nil {
				return err
			}
		}
	}
	if !b.opt.full {
		return nil
	}
	left := b.subjects(engines)
	for _, n := range scaleCalls {
		if slices.Contains(b.opt.calls, n) {
			left = slices.DeleteFunc(left, func(s subject) bool { return !rep.carried(s, n) })
			continue
		}
		if err := b.round(ctx, rep, left, n, b.opt.rounds, failures); err != nil {
			return err
		}
		left = slices.DeleteFunc(left, func(s subject) bool { return !rep.carried(s, n) })
		if len(left) == 0 {
			return nil
		}
	}
	return nil
}

func (b *bench) subjects(engines []string) []subject {
	return slices.DeleteFunc(subjects(engines), func(s subject) bool { return !strings.Contains(s.String(), b.opt.only) })
}

// round measures the direct path and each subject once, each round beginning
// with another subject.
func (b *bench) round(ctx context.Context, rep *report, list []subject, calls, round int, failures map[string]int) error {
	turned := append(slices.Clone(list[(round-1)%len(list):]), list[:(round-1)%len(list)]...)
	for _, s := range append([]subject{{Program: directName}}, turned...) {
		if s.Format == "ogg-opus" && calls > opusCallsMax || failures[s.String()] >= failuresLimit {
			continue
		}
		res, err := b.quietly(ctx, s, calls, round)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			failures[s.String()]++
			first, _, _ := strings.Cut(err.Error(), "\n")
			rep.note("%s, %d calls, round %d: %s", s, calls, round, first)
			fmt.Fprintf(b.out, "%-34s %5d calls  round %d  FAILED: %v\n", s, calls, round, err)
			if s.direct() {
				return fmt.Errorf("the direct path: %w", err)
			}
			continue
		}
		rep.Runs = append(rep.Runs, res)
		if loss := res.loss(); loss > collapsedFrom {
			rep.note("%s, %d calls, round %d: it collapsed, %.0f %% of the packets did not arrive.", s, calls, round, 100*loss)
		}
		fmt.Fprintf(b.out, "%-34s %5d calls  round %d  %5.2f cores  p50 %7.0f  p99 %8.0f µs  loss %.3f %%  %s\n",
			s, calls, round, res.Usage.Busy, res.P50, res.P99, 100*res.loss(), res.remark())
	}
	return nil
}

// quietly measures, and again when somebody else kept the machine busy; the
// quietest run counts.
func (b *bench) quietly(ctx context.Context, s subject, calls, round int) (best *result, err error) {
	for range 1 + b.opt.repeats {
		res, err := b.run(ctx, s, calls, round, timings{b.opt.warmUp, b.opt.measure})
		if err != nil {
			return best, err
		}
		if best == nil || res.Usage.Foreign < best.Usage.Foreign {
			best = res
		}
		if best.Usage.Foreign <= foreignMax {
			break
		}
		fmt.Fprintf(b.out, "%s, %d calls: other processes used %.2f cores\n", s, calls, res.Usage.Foreign)
	}
	return best, nil
}

// remark names what makes a run doubtful.
func (r *result) remark() string {
	var out []string
	if r.Usage.Foreign > foreignMax {
		out = append(out, fmt.Sprintf("others used %.2f cores", r.Usage.Foreign))
	}
	if r.Traffic.Late99 > lateFrom {
		out = append(out, fmt.Sprintf("generator late: p99 %.0f µs", r.Traffic.Late99))
	}
	if r.Behind > behindFrom {
		out = append(out, fmt.Sprintf("behind: still %.2f cores", r.Behind))
	}
	if n := r.Traffic.RingDrops; n > 0 {
		out = append(out, fmt.Sprintf("%d dropped by the receiver", n))
	}
	if n := r.Traffic.Damaged; n > 0 {
		out = append(out, fmt.Sprintf("%d damaged", n))
	}
	if n := r.Recorded.OverrunMS; n > 0 {
		out = append(out, fmt.Sprintf("%d ms not recorded", n))
	}
	if r.Fault != "" {
		out = append(out, r.Fault)
	}
	return strings.Join(out, ", ")
}
