package service

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/trunktap/trunktap/recorder/seal"
)

// Bounds of Attempts.
const (
	TimeoutDefault = 5 * time.Second
	timeoutMax     = 2 * time.Minute
	triesDefault   = 3
	triesMax       = 10
	pauseFirst     = 100 * time.Millisecond
	pauseMax       = 2 * time.Second
)

// Attempts bounds calls to a service.
type Attempts struct {
	Timeout time.Duration // of one attempt; 0: 5 s, at most 2 min
	Tries   int           // in all, for what may pass; 0: 3, at most 10
}

// Check notes what is wrong with the bounds.
func (a Attempts) Check(f *Faults) {
	f.Add(a.Timeout < 0 || a.Timeout > timeoutMax, "timeout", "%s, must be more than 0 and at most %s", a.Timeout, timeoutMax)
	f.Add(a.Tries < 0 || a.Tries > triesMax, "tries", "%d, must be 1 to %d", a.Tries, triesMax)
}

// Each returns the bound of one attempt.
func (a Attempts) Each() time.Duration {
	if a.Timeout <= 0 {
		return TimeoutDefault
	}
	return a.Timeout
}

// Do calls op until it succeeds, fails for good, the tries are used up or ctx
// ends. Only seal.ErrUnreachable may pass; pauses between attempts double, with
// jitter. An attempt that ran out of its time is seal.ErrUnreachable.
func (a Attempts) Do(ctx context.Context, what string, op func(context.Context) error) error {
	tries := a.Tries
	if tries <= 0 {
		tries = triesDefault
	}
	pause := pauseFirst
	for n := 1; ; n++ {
		err := a.one(ctx, op)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w: %w", what, seal.ErrUnreachable, context.Cause(ctx))
		case !errors.Is(err, seal.ErrUnreachable) || n >= tries:
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", what, err, context.Cause(ctx))
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, pauseMax)
	}
}

func (a Attempts) one(ctx context.Context, op func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.Each())
	defer cancel()
	err := op(ctx)
	if err != nil && ctx.Err() != nil && !errors.Is(err, seal.ErrUnreachable) {
		err = fmt.Errorf("%w: no answer within %s", seal.ErrUnreachable, a.Each())
	}
	return err
}

// Door counts the calls that are inside a service, so that Close can wait for
// them and end them. The zero value is open.
type Door struct {
	mu     sync.Mutex
	closed bool
	inside sync.WaitGroup
	leave  []context.CancelFunc // by slot; nil: free
}

// Enter returns a context that ends with ctx or when the door closes, and what
// to call when done. ErrClosed.
func (d *Door) Enter(ctx context.Context) (context.Context, func(), error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, nil, ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	slot := d.slot(func() { cancel(ErrClosed) })
	d.inside.Add(1)
	return ctx, func() {
		cancel(nil)
		d.mu.Lock()
		d.leave[slot] = nil
		d.mu.Unlock()
		d.inside.Done()
	}, nil
}

func (d *Door) slot(cancel context.CancelFunc) int {
	for i, c := range d.leave {
		if c == nil {
			d.leave[i] = cancel
			return i
		}
	}
	d.leave = append(d.leave, cancel)
	return len(d.leave) - 1
}

// Close ends the calls inside and waits for them. True the first time.
func (d *Door) Close() bool {
	d.mu.Lock()
	first := !d.closed
	d.closed = true
	for _, c := range d.leave {
		if c != nil {
			c()
		}
	}
	d.mu.Unlock()
	d.inside.Wait()
	return first
}
