package main

import (
	"context"
	"path"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
)

// lockable tells which objects a store's lock is for: audio and manifests, and
// not what is destroyed or replaced by right.
func lockable(name string) bool {
	base := path.Base(name)
	return path.Ext(base) == ".seg" || base == segment.ManifestFile
}

// Periods of the look at stores that are no directories.
const (
	prepareRetry = time.Minute      // after an answer that may pass
	prepareAgain = 10 * time.Minute // after one that somebody must mend
	sweepPeriod  = 6 * time.Hour
	uploadAge    = 24 * time.Hour // an upload that was begun before and not completed is nobody's
)

// watchStores looks whether the stores can do what the configuration wants of
// them, and from time to time for uploads that nobody completes. Calls do not
// wait for it: recordings wait in the spool.
func (d *daemon) watchStores() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		waits := map[string]time.Time{}
		for {
			next := d.lookAtStores(ctx, waits, time.Now())
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(next)):
			}
		}
	}()
	d.closers = append(d.closers, func() error { cancel(); <-ended; return nil })
}

// lookAtStores looks at those that are due and returns when the next one is.
// waits has when each is due.
func (d *daemon) lookAtStores(ctx context.Context, waits map[string]time.Time, now time.Time) time.Time {
	next := now.Add(sweepPeriod)
	for name, s := range d.archive.Stores() {
		if due := waits[name]; now.Before(due) {
			next = earlier(next, due)
			continue
		}
		wait := sweepPeriod
		if err := d.lookAtStore(ctx, name, s); err != nil {
			if wait = prepareAgain; store.Temporary(err) {
				wait = prepareRetry
			}
		}
		waits[name] = now.Add(wait)
		next = earlier(next, waits[name])
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (d *daemon) lookAtStore(ctx context.Context, name string, s recorder.Store) error {
	if p, ok := s.(store.Preparer); ok {
		if err := p.Prepare(ctx); err != nil {
			if ctx.Err() == nil && !store.Temporary(err) { // else store.down tells
				d.storageEvent("store.unfit", map[string]any{"store": name, "error": err.Error()})
			}
			return err
		}
	}
	u, ok := s.(store.Uploader)
	if !ok {
		return nil
	}
	n, err := u.Sweep(ctx, "", time.Now().Add(-uploadAge))
	if n > 0 {
		d.log.Info("gave up uploads that nobody completed", "store", name, "uploads", n)
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("uploads that nobody completed could not be looked for", "store", name, "error", err)
	}
	return nil // recordings do not suffer by it
}
