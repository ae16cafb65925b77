package archive

import (
	"context"
	"errors"
	"io/fs"
)

// RecoverAgain tries those once more that Recover has left where they are, because
// their key was not to be had.
func (a *Archive) RecoverAgain(ctx context.Context, ids []string) (out []Recovered) {
	for _, id := range ids {
		if ctx.Err() == nil && !a.isLive(id) {
			out = a.recoverOne(ctx, id, out)
		}
	}
	_, _ = a.CatchUp(ctx) // else rows wait for the next one
	return out
}

// recoverOne recovers a folder of the spool and appends what became of it, if it was
// anything.
func (a *Archive) recoverOne(ctx context.Context, id string, out []Recovered) []Recovered {
	if ok, err := a.requeue(id); ok || err != nil {
		if err != nil {
			out = append(out, Recovered{ID: id, Err: err, Error: err.Error()})
		}
		return out
	}
	r := &recovery{a: a, ctx: ctx, Recovered: Recovered{ID: id}}
	if r.Err = r.run(); r.Err != nil {
		if len(r.Aside) == 0 && a.gone(id, r.Err) {
			return out
		}
		r.Error = r.Err.Error()
	}
	if !r.empty || len(r.Aside) > 0 {
		out = append(out, r.Recovered)
	}
	return out
}

// gone tells whether err says no more than that the folder has left the spool since
// it was listed: a call that went on after the restart has ended, and its recording
// was published.
func (a *Archive) gone(id string, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err = a.fsys.Stat(a.spool(id))
	return errors.Is(err, fs.ErrNotExist)
}
