package archive

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
)

const (
	rebuildBatch   = 256 // rows
	rebuildReaders = 16  // manifests that are read at a time: a store far away takes its time for each
	rebuildStuck   = 32  // manifests in one batch of which none can be read: the store is away
)

// RebuildQuery says how Rebuild works.
type RebuildQuery struct {
	FromStart bool // forget what a run before has done
	Readers   int  // manifests read at a time; 0: 16

	batch    int // rows; 0: rebuildBatch
	saveRows int // from mark to mark; 0: rebuildSaveRows
}

// RebuildReport is what came of a rebuild.
type RebuildReport struct {
	Recordings int64     // in the store and in the spool
	Resumed    int64     // of those, what runs before had done
	Began      time.Time // of the first of these runs
	Gone       int64     // rows that were dropped by this run, for nothing is stored of them
}

// Rebuild is RebuildWith, going on with what a run before has begun.
func (a *Archive) Rebuild(ctx context.Context, progress Progress) error {
	_, err := a.RebuildWith(ctx, RebuildQuery{}, progress)
	return err
}

// RebuildWith makes the catalogue anew from the store: a row for every manifest that
// authenticates, and no others. It goes on behind a manifest that does not and names
// it in a *DamageError at the end. It may be ended anywhere: how far it is lies in
// the spool, and the next run goes on from there. In memory it has the ids of some
// days, and no more.
func (a *Archive) RebuildWith(ctx context.Context, q RebuildQuery, progress Progress) (RebuildReport, error) {
	c, err := a.catalogue.get(ctx)
	if err != nil {
		return RebuildReport{}, fmt.Errorf("rebuild catalogue: %w", err)
	}
	r := rebuild{a: a, c: c, progress: progress, readers: cmpOr(q.Readers, rebuildReaders), size: cmpOr(q.batch, rebuildBatch), saveRows: cmpOr(q.saveRows, rebuildSaveRows), saved: time.Now()}
	err = r.begin(ctx, q.FromStart)
	if err == nil {
		err = r.run(ctx)
	}
	out := RebuildReport{Recordings: r.mark.Done + r.spooled, Resumed: r.resumed, Began: r.mark.Began, Gone: r.gone}
	if err != nil {
		return out, fmt.Errorf("rebuild catalogue: %w", err)
	}
	if n := len(r.mark.Damaged) + r.mark.Dropped; n > 0 {
		return out, &DamageError{Findings: r.mark.findings(), Dropped: r.mark.Dropped}
	}
	return out, nil
}

// rebuild is one run of RebuildWith.
type rebuild struct {
	a              *Archive
	c              recorder.Catalog
	progress       Progress
	readers        int
	size, saveRows int

	mark    rebuildMark // how far it is
	again   []damaged   // what runs before found damaged, to be looked at again
	resumed int64
	spooled int64
	gone    int64
	total   atomic.Int64
	batch   []place
	inStore bool // the batch is of the stores, not of the spool
	saved   time.Time
	unsaved int
	days    [rebuildDays]dayIDs
}

// run does what is left.
func (r *rebuild) run(ctx context.Context) error {
	stop := r.count(ctx)
	err := r.takeAll(ctx)
	stop()
	if err == nil {
		r.mark.Dropping = true
		r.save(true)
		err = r.dropOthers(ctx)
	}
	if err != nil {
		r.save(true) // else more is done again
		return err
	}
	return r.a.forgetRebuild()
}

// count finds out beside the work how much there is: what is told is an estimate.
func (r *rebuild) count(ctx context.Context) (stop func()) {
	if r.total.Store(r.mark.Total); r.mark.Total > 0 || r.mark.Dropping {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if n, err := r.a.countManifests(ctx); err == nil {
			r.total.Store(n)
		}
	}()
	return func() { cancel(); <-done }
}

// takeAll makes the rows of the spool, of the stores behind the mark and of what was
// damaged before, in this order.
func (r *rebuild) takeAll(ctx context.Context) error {
	waiting := map[string]bool{}
	for _, p := range r.a.spooledPlaces() {
		waiting[p.id()] = true
		if err := r.take(ctx, p); err != nil {
			return err
		}
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	r.spooled = int64(len(waiting))
	if !r.mark.Dropping {
		if err := r.stores(ctx, waiting); err != nil {
			return err
		}
	}
	for len(r.again) > 0 {
		d := r.again[0]
		if s, err := r.a.shelf(d.Store); err == nil {
			r.batch = append(r.batch, place{s, d.Prefix})
		}
		if err := r.flushAgain(ctx); err != nil {
			return err
		}
		r.again = r.again[1:]
	}
	return nil
}

// stores takes what the stores have behind the mark, in order of name.
func (r *rebuild) stores(ctx context.Context, waiting map[string]bool) error {
	r.inStore = true
	store, behind := r.mark.Store, r.mark.Behind
	for _, s := range r.a.shelves {
		if s.name < store {
			continue
		}
		from := ""
		if s.name == store {
			from = behind
		}
		err := listFrom(ctx, s.store, from, func(i recorder.BlobInfo) error {
			dir, base := path.Split(i.Name)
			p := place{s, path.Clean(dir)}
			if base != segment.ManifestFile || i.Name <= from || waiting[p.id()] {
				return nil
			}
			return r.take(ctx, p)
		})
		if err != nil {
			return err
		}
	}
	return r.flush(ctx)
}

// listFrom lists a store from a name on.
func listFrom(ctx context.Context, st recorder.Store, from string, f func(recorder.BlobInfo) error) error {
	if l, ok := st.(store.FromLister); ok && from != "" {
		return l.ListFrom(ctx, from, f)
	}
	return st.List(ctx, "", f)
}

func (r *rebuild) take(ctx context.Context, p place) error {
	r.batch = append(r.batch, p)
	if len(r.batch) < r.size {
		return nil
	}
	return r.flush(ctx)
}

// flush makes the rows of a batch durable, and then the mark behind them.
func (r *rebuild) flush(ctx context.Context) error {
	batch := r.batch
	r.batch = nil
	if len(batch) == 0 {
		return ctx.Err()
	}
	rows, faults, err := r.read(ctx, batch)
	if err == nil {
		err = keysAway(rows, faults)
	}
	if err != nil {
		return err
	}
	if err := r.put(ctx, rows); err != nil {
		return err
	}
	for i, p := range batch {
		if faults[i] != nil {
			r.mark.damage(p, faults[i])
		}
	}
	if r.inStore {
		last := batch[len(batch)-1]
		r.mark.Store, r.mark.Behind = last.name, last.object(segment.ManifestFile)
		r.mark.Done += int64(len(batch))
		if len(rows) > 0 {
			good := rows[len(rows)-1]
			r.mark.witness(placeID{good.Store, good.Prefix})
		}
		r.save(false)
	} else {
		r.spooled += int64(len(batch))
	}
	done := r.mark.Done + r.spooled
	total := r.total.Load()
	if total > 0 {
		total = max(total, done)
	}
	r.progress.tell(done, total)
	return nil
}

// flushAgain looks again at one that was damaged in a run before.
func (r *rebuild) flushAgain(ctx context.Context) error {
	batch := r.batch
	r.batch = nil
	if len(batch) == 0 {
		return ctx.Err() // its store is configured no more
	}
	rows, faults, err := r.read(ctx, batch)
	if err != nil {
		return err
	}
	if err := faults[0]; err != nil && (!errors.Is(err, recorder.ErrNotFound) || r.a.has(ctx, batch[0])) {
		r.mark.damage(batch[0], err)
	}
	return r.put(ctx, rows)
}

// read reads manifests, some at a time. The rows stand in the order of the places; a
// fault is of one recording, an error meets them all.
func (r *rebuild) read(ctx context.Context, places []place) ([]recorder.Row, []error, error) {
	rows, faults := make([]recorder.Row, len(places)), make([]error, len(places))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(r.readers, len(places)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(places)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				rows[i], faults[i] = r.rowOf(ctx, places[i])
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	good, away := rows[:0], 0
	for i, err := range faults {
		var w *weighError
		switch {
		case errors.As(err, &w):
			return nil, nil, w.err
		case err == nil:
			good = append(good, rows[i])
		case faultOf(err) == FaultUnreadable:
			away++
		}
	}
	if away == len(places) && away >= rebuildStuck {
		return nil, nil, fmt.Errorf("none of %d manifests can be read: %w", away, faults[0])
	}
	return good, faults, nil
}

// keysAway is the error of a batch of which nothing could be opened because a key service
// does not answer. What comes behind would be found to be wrong as well, and none of it is.
func keysAway(rows []recorder.Row, faults []error) error {
	i := slices.IndexFunc(faults, func(err error) bool { return errors.Is(err, recorder.ErrKeyUnreachable) })
	if len(rows) > 0 || i < 0 {
		return nil
	}
	return fmt.Errorf("the keys of recordings cannot be had; run it again when their service answers, or without it in keys.former when it is gone for good: %w", faults[i])
}

// weighError says that the store failed, and not one recording.
type weighError struct{ err error }

func (e *weighError) Error() string { return e.err.Error() }

func (r *rebuild) rowOf(ctx context.Context, p place) (recorder.Row, error) {
	m, node, err := r.a.known(ctx, "", p)
	if err != nil {
		return recorder.Row{}, err
	}
	row := p.row(m, r.a.isSpooled(p.id()))
	row.Node = node
	if old, err := r.c.Get(ctx, m.ID); err == nil {
		row.Node = old.Node // who signed it may have adopted it
	}
	if err := r.a.weigh(ctx, &row); err != nil {
		return row, &weighError{err}
	}
	return row, nil
}

func (r *rebuild) put(ctx context.Context, rows []recorder.Row) error {
	if len(rows) == 0 {
		return nil
	}
	if b, ok := r.c.(batchSaver); ok {
		return b.SaveAll(ctx, rows)
	}
	for _, row := range rows {
		if err := r.c.Save(ctx, row); err != nil {
			return err
		}
	}
	return nil
}
