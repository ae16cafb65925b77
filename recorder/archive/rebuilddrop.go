package archive

import (
	"context"
	"errors"
	"path"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
)

const (
	rebuildDays    = 4       // whose ids are in memory: rows come in order of time, calls cross midnight
	rebuildIDsMax  = 500_000 // of a day; of one with more, each row is asked for by itself
	rebuildRowsMax = 1000    // of a page
)

// dayIDs are the recordings of a day, in all stores.
type dayIDs struct {
	day string
	ids map[string]bool
}

// dropOthers deletes the rows of recordings that no store has. Those of other nodes
// stay: their stores may be none of ours. Rows come in order of time, and so do the
// days that they are compared with.
func (r *rebuild) dropOthers(ctx context.Context) error {
	q := recorder.Query{Limit: rebuildRowsMax, Order: recorder.OrderOldest, Cursor: r.mark.Cursor}
	resumed := q.Cursor != ""
	for {
		page, err := r.c.Find(ctx, q)
		if err != nil && resumed && ctx.Err() == nil {
			q.Cursor, resumed = "", false // of another version, perhaps
			continue
		}
		if err != nil {
			return err
		}
		for _, row := range page.Rows {
			if err := r.drop(ctx, row); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		q.Cursor, r.mark.Cursor, resumed = page.Next, page.Next, false
		r.save(false)
	}
}

// drop deletes a row of this node of which nothing is stored.
func (r *rebuild) drop(ctx context.Context, row recorder.Row) error {
	id := row.Manifest.ID
	if row.Node != "" && row.Node != r.a.cfg.Node {
		return nil
	}
	if there, err := r.stored(ctx, row); err != nil || there {
		return err
	}
	// Between listing and now it may have been recorded.
	if r.a.isLive(id) || r.a.isSpooled(id) {
		return nil
	}
	_, err := r.a.locateIn(ctx, id)
	if errors.Is(err, recorder.ErrNotFound) {
		if err = r.c.Delete(ctx, id); err == nil {
			r.gone++
		}
	}
	if errors.Is(err, recorder.ErrNotFound) { // somebody else deleted it
		err = nil
	}
	return err
}

// stored tells whether a store has a manifest of a row's recording on its day. A row
// is kept whose recording cannot be read: it may be all that is left of it.
func (r *rebuild) stored(ctx context.Context, row recorder.Row) (bool, error) {
	day := dayIn(row.Prefix)
	if _, err := time.Parse(dayLayout, day); err != nil {
		return false, nil //nolint:nilerr // no folder of a day: nothing lies there
	}
	for i, d := range r.days {
		if d.day == day {
			copy(r.days[1:i+1], r.days[:i])
			r.days[0] = d
			return d.ids[row.Manifest.ID], nil
		}
	}
	d := dayIDs{day: day, ids: map[string]bool{}}
	copy(r.days[1:], r.days[:])
	r.days[0] = dayIDs{} // what it held may go
	for _, s := range r.a.shelves {
		err := s.store.List(ctx, day+"/", func(i recorder.BlobInfo) error {
			dir, base := path.Split(i.Name)
			if base != segment.ManifestFile {
				return nil
			}
			if len(d.ids) < rebuildIDsMax {
				d.ids[path.Base(path.Clean(dir))] = true
			}
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	r.days[0] = d
	return d.ids[row.Manifest.ID], nil
}
