package archive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// making is a run of Expire that makes room on disks that are low. The look at the
// disks begins it, and does not wait for it.
type making struct {
	began time.Time
	done  chan struct{} // closed when it has ended
	r     ExpireReport  // written before
	err   error
	idle  bool // no room was wanted any more when it began
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
	var stores []string
	for _, r := range a.wanted(low) {
		stores = append(stores, r.Stores...)
	}
	if _, any := a.cfg.Retention.Policy.Least(true); !any || len(stores) == 0 {
		return false
	}
	m := &making{began: now, done: make(chan struct{})}
	sp.making = m
	sp.ended.Go(func() {
		defer close(m.done)
		m.r, m.err = a.Expire(ctx, ExpireQuery{Stores: stores, Room: func() []Room {
			rooms := a.wanted(a.again(low))
			m.idle = !wanting(rooms)
			return rooms
		}})
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
		if !m.idle {
			sp.barren = now
		}
		return false
	}
	sp.barren = time.Time{}
	a.notify("storage.made_room", map[string]any{"recordings": m.r.Deleted, "bytes": m.r.Bytes})
	return true
}

// again measures disks once more. What does not tell stays as it was.
func (a *Archive) again(disks []DiskState) []DiskState {
	out := slices.Clone(disks)
	for i := range out {
		if free, err := a.fsys.Free(out[i].Dir); err == nil {
			out[i].Free = free
		}
	}
	return out
}

// wanted tells in which stores room is wanted, and how much: until its disk is no longer
// low. A store shares the disk of the spool unless it is known to lie apart.
func (a *Archive) wanted(low []DiskState) (rooms []Room) {
	for _, d := range low {
		r := Room{Bytes: int64(math.Ceil(recoverFactor*float64(a.cfg.Space.Low.of(d.Total)))) - d.Free}
		for _, s := range a.shelves {
			if s.dir != "" && (s.dir == d.Dir || d.Dir == a.cfg.SpoolDir && !s.apart.Load()) {
				r.Stores = append(r.Stores, s.name)
			}
		}
		if len(r.Stores) > 0 {
			rooms = append(rooms, r)
		}
	}
	return rooms
}
