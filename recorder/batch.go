package recorder

import (
	"context"
	"fmt"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// Outcome is what became of one of many signals: what it did, or why it did
// nothing (see Runtime.Signal).
type Outcome struct {
	Applied Applied
	Err     error
}

// posted is a signal on its way to the calls that it names.
type posted struct {
	replies []chan effect
	err     error
}

// Signals implements Runtime. All are posted before the first effect is waited
// for, so that the last one acts hardly later than the first: what is sealed by
// then stays in the recording.
func (r *Recorder) Signals(ctx context.Context, sigs []suppress.Signal) []Outcome {
	all := make([]posted, len(sigs))
	for i, sig := range sigs {
		all[i] = r.ask(sig)
	}
	ctx, cancel := context.WithTimeout(ctx, signalWait)
	defer cancel()
	out := make([]Outcome, len(sigs))
	for i, p := range all {
		out[i].Applied, out[i].Err = p.outcome(ctx)
	}
	return out
}

// ask posts a signal that arrives now.
func (r *Recorder) ask(sig suppress.Signal) posted {
	var to []*session
	if sig.Call != "" || sig.SIPCall != "" {
		r.mu.Lock()
		to = r.meantBy(sig)
		r.mu.Unlock()
	}
	if len(to) == 0 {
		return posted{err: fmt.Errorf("live call %q: %w", sig.Call+sig.SIPCall, ErrNotFound)}
	}
	sig.Received = time.Now()
	var p posted
	for _, s := range to {
		reply := make(chan effect, 1)
		if s.post(sig, reply) {
			p.replies = append(p.replies, reply)
		}
	}
	return p
}

// outcome waits for the effect: that of the call which the signal reached latest.
func (p posted) outcome(ctx context.Context) (Applied, error) {
	if p.err != nil {
		return Applied{}, p.err
	}
	var worst *effect
	for _, reply := range p.replies {
		select {
		case e, ok := <-reply:
			if ok && (worst == nil || e.MissedMS > worst.MissedMS) {
				worst = &e
			}
		case <-ctx.Done():
			return Applied{}, fmt.Errorf("the signal is queued, its effect is not known yet: %w", ctx.Err())
		}
	}
	switch {
	case worst == nil:
		return Applied{}, ErrEnded
	case worst.refused != "":
		return Applied{}, &RefusedError{Why: worst.refused}
	}
	return applied(*worst), nil
}
