package archive

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
)

// locate returns where a recording lies: in the spool, as the catalogue knows it, or
// as its id tells, by looking through its day: id and folder are of the same time. No
// store is looked through in whole: whoever may ask could keep it busy with ids that
// nothing has.
func (a *Archive) locate(ctx context.Context, id string) (place, error) {
	if err := segment.CheckID(id); err != nil {
		return place{}, fmt.Errorf("%w: %w", recorder.ErrNotFound, err)
	}
	day, dated := dateOf(id)
	var old []string
	if dated {
		old = append(old, path.Join(day.Format(dayLayout), id))
	}
	if p, ok := a.guess(ctx, id, old...); ok {
		return p, nil
	}
	if !dated {
		return place{}, fmt.Errorf("recording %s, which the catalogue does not know and whose id tells no day: %w", id, recorder.ErrNotFound)
	}
	return a.search(ctx, day.Format(dayLayout)+"/", id)
}

// dateOf is the day of a recording, if its id tells (media.SessionID).
func dateOf(id string) (time.Time, bool) {
	const layout = "20060102T150405Z"
	if len(id) <= len(layout) || id[len(layout)] != '-' {
		return time.Time{}, false
	}
	day, err := time.Parse(layout, id[:len(layout)])
	return day, err == nil
}

// guess returns where a recording lies that is in the spool or in the catalogue,
// or the first of some other folders that has a manifest.
func (a *Archive) guess(ctx context.Context, id string, others ...string) (place, bool) {
	if p, ok := a.spooledPlace(id); ok {
		return p, true
	}
	if c, err := a.catalogue.get(ctx); err == nil {
		if r, err := c.Get(ctx, id); err == nil {
			if s, err := a.shelf(r.Store); err == nil && a.has(ctx, place{s, r.Prefix}) {
				return place{s, r.Prefix}, true
			}
		}
	}
	for _, prefix := range others {
		for _, s := range a.shelves {
			if p := (place{s, prefix}); a.has(ctx, p) {
				return p, true
			}
		}
	}
	return place{}, false
}

// errFound ends a listing.
var errFound = errors.New("found")

// search looks for the manifest of a recording in all stores, below a folder.
func (a *Archive) search(ctx context.Context, below, id string) (place, error) {
	var failed error
	for _, s := range a.shelves {
		var prefix string
		err := s.store.List(ctx, below, func(i recorder.BlobInfo) error {
			if dir, base := path.Split(i.Name); base == segment.ManifestFile && path.Base(dir) == id {
				prefix = path.Clean(dir)
				return errFound
			}
			return nil
		})
		switch {
		case errors.Is(err, errFound):
			return place{s, prefix}, nil
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("look for recording %s in %s: %w", id, storeName(s.name), err))
		}
	}
	if failed != nil {
		return place{}, failed
	}
	return place{}, fmt.Errorf("recording %s: %w", id, recorder.ErrNotFound)
}

// eachObject calls f for every object of every store.
func (a *Archive) eachObject(ctx context.Context, f func(*shelf, recorder.BlobInfo) error) error {
	for _, s := range a.shelves {
		if err := s.store.List(ctx, "", func(i recorder.BlobInfo) error { return f(s, i) }); err != nil {
			return err
		}
	}
	return nil
}

// eachManifest calls f for the place of every recording that has a manifest: those
// in the spool first, then those in the stores that are not in the spool.
func (a *Archive) eachManifest(ctx context.Context, f func(place) error) error {
	waiting := map[string]bool{}
	for _, p := range a.spooledPlaces() {
		waiting[p.id()] = true
		if err := f(p); err != nil {
			return err
		}
	}
	return a.eachObject(ctx, func(s *shelf, i recorder.BlobInfo) error {
		dir, base := path.Split(i.Name)
		if p := (place{s, path.Clean(dir)}); base == segment.ManifestFile && !waiting[p.id()] {
			return f(p)
		}
		return nil
	})
}
