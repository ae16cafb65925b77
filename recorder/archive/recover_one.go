package archive

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
)

// RecoverAgain tries those once more that Recover has left where they are, because
// their key was not to be had.
func (a *Archive) RecoverAgain(ctx context.Context, ids []string) []Recovered {
	out := a.recoverAll(ctx, ids)
	_, _ = a.CatchUp(ctx) // else rows wait for the next one
	return out
}

// recoverAll recovers folders of the spool, some at a time, until ctx is done, and
// tells in their order what became of those that were anything.
func (a *Archive) recoverAll(ctx context.Context, ids []string) (out []Recovered) {
	results := make([]*Recovered, len(ids))
	a.atOnce(ctx, len(ids), func(i int) {
		if !a.isLive(ids[i]) {
			results[i] = a.recoverOne(ctx, ids[i])
		}
	})
	for _, r := range results {
		if r != nil {
			out = append(out, *r)
		}
	}
	return out
}

// atOnce does f for 0 to n, RecoverAtOnce at a time, until ctx is done.
func (a *Archive) atOnce(ctx context.Context, n int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(max(a.cfg.RecoverAtOnce, 1), n) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
}

// recoverOne recovers a folder of the spool; nil when it was none.
func (a *Archive) recoverOne(ctx context.Context, id string) *Recovered {
	if ok, err := a.requeue(id); err != nil {
		return &Recovered{ID: id, Err: err, Error: err.Error()}
	} else if ok {
		return nil
	}
	r := &recovery{a: a, ctx: ctx, Recovered: Recovered{ID: id}}
	if r.Err = r.run(); r.Err != nil {
		if len(r.Aside) == 0 && a.gone(id, r.Err) {
			return nil
		}
		r.Error = r.Err.Error()
	}
	if r.empty && len(r.Aside) == 0 {
		return nil
	}
	return &r.Recovered
}

// gone tells whether err says no more than that the folder has left the spool since
// it was listed: a call that went on after the restart has ended, and its recording
// was published.
func (a *Archive) gone(id string, err error) bool {
	return errors.Is(err, fs.ErrNotExist) && !a.inSpool(id)
}
