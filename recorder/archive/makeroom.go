package archive

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// making is a run of Expire that makes room on disks that are low. The look at the
// disks begins it, and does not wait for it.
type making struct {
	began time.Time
	done  chan struct{} // closed when it has ended
	r     ExpireReport  // written before
	err   error
}

// makeRoom begins to delete what may give way on disks that are low, and tells whether
// room is being made.
func (a *Archive) makeRoom(ctx context.Context, low []DiskState, now time.Time) bool {
	sp := &a.space
	switch {
	case sp.making != nil:
		// One that follows a barren one, or takes long, has to show that it is none.
		return sp.barren.IsZero() && now.Sub(sp.making.began) < expireEvery
	case !sp.barren.IsZero() && now.Sub(sp.barren) < expireEvery:
		return false
	}
	stores, bytes := a.wanted(low)
	if _, any := a.cfg.Retention.Policy.Least(true); !any || len(stores) == 0 {
		return false
	}
	m := &making{began: now, done: make(chan struct{})}
	sp.making = m
	sp.ended.Go(func() {
		defer close(m.done)
		m.r, m.err = a.Expire(ctx, ExpireQuery{Stores: stores, Bytes: bytes})
	})
	return sp.barren.IsZero()
}

// madeRoom looks whether a run has ended, and tells whether it made room just now.
func (a *Archive) madeRoom(now time.Time) bool {
	sp := &a.space
	if sp.making == nil {
		return false
	}
	select {
	case <-sp.making.done:
	default:
		return false
	}
	m := sp.making
	sp.making = nil
	if m.err != nil && !errors.Is(m.err, context.Canceled) {
		a.notify("storage.low", map[string]any{"level": LevelLow.String(), "error": fmt.Sprintf("make room: %v", m.err)})
	}
	if m.r.Deleted == 0 {
		sp.barren = now
		return false
	}
	sp.barren = time.Time{}
	a.notify("storage.made_room", map[string]any{"recordings": m.r.Deleted, "bytes": m.r.Bytes})
	return true
}

// wanted tells in which stores room is wanted, and how much: until it is no longer low
// wherever it is. A store shares the disk of the spool unless it is known to lie apart.
func (a *Archive) wanted(low []DiskState) (stores []string, bytes int64) {
	for _, d := range low {
		n := len(stores)
		for _, s := range a.shelves {
			if s.dir != "" && (s.dir == d.Dir || d.Dir == a.cfg.SpoolDir && !s.apart.Load()) {
				stores = append(stores, s.name)
			}
		}
		if len(stores) > n {
			bytes += max(int64(recoverFactor*float64(a.cfg.Space.Low.of(d.Total)))-d.Free, 1)
		}
	}
	return stores, bytes
}
