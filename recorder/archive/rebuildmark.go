package archive

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// rebuildFile, in the spool, tells how far a rebuild has come.
const rebuildFile = "rebuild.json"

const (
	rebuildMarkVersion  = 1
	rebuildMarkBytes    = 16 << 20
	rebuildSaveRows     = 4096
	rebuildSaveEvery    = 5 * time.Second
	rebuildMarkMax      = 7 * 24 * time.Hour // an older one tells of what is no more
	rebuildWitnessesMax = 64
)

// rebuildMark is what stands in rebuildFile.
type rebuildMark struct {
	Version int       `json:"version"`
	Began   time.Time `json:"began"`
	Stores  []string  `json:"stores"` // that it is about: names and directories

	Done    int64     `json:"done"`            // recordings of the stores
	Total   int64     `json:"total,omitempty"` // of spool and stores; 0: not known
	Store   string    `json:"store,omitempty"` // in which it is; those before it in order of name are done
	Behind  string    `json:"behind,omitempty"`
	Seen    []placeID `json:"seen"`  // some of the recordings that have rows
	Last    placeID   `json:"last"`  // of those
	Every   int64     `json:"every"` // batches from one of those to the next
	Batches int64     `json:"batches"`

	Damaged []damaged `json:"damaged"`
	Dropped int       `json:"dropped,omitempty"` // damaged ones beyond those

	Dropping bool   `json:"dropping,omitempty"` // all rows are made, and those are dropped that are no more
	Cursor   string `json:"cursor,omitempty"`   // in it: of the catalogue
}

// placeID is a place in a file.
type placeID struct {
	Store  string `json:"store,omitempty"`
	Prefix string `json:"prefix"`
}

// damaged is a recording without a row of its own.
type damaged struct {
	placeID
	Fault  string `json:"fault"`
	Detail string `json:"detail"`
}

func (m *rebuildMark) findings() []Finding {
	out := make([]Finding, 0, len(m.Damaged))
	for _, d := range m.Damaged {
		out = append(out, Finding{place{nil, d.Prefix}.id(), segment.ManifestFile, d.Fault, d.Detail})
	}
	return out
}

func (m *rebuildMark) damage(p place, err error) {
	if len(m.Damaged) >= findingsMax {
		m.Dropped++
		return
	}
	at := placeID{p.name, p.prefix}
	if slices.ContainsFunc(m.Damaged, func(d damaged) bool { return d.placeID == at }) {
		return // in the spool, and looked at by each run
	}
	m.Damaged = append(m.Damaged, damaged{at, faultOf(err), err.Error()})
}

// witness remembers some recordings, the same distance apart, by which the next run
// tells whether store and catalogue are those of this one.
func (m *rebuildMark) witness(p placeID) {
	m.Every, m.Last = max(m.Every, 1), p
	if m.Batches++; m.Batches%m.Every != 0 {
		return
	}
	if len(m.Seen) >= rebuildWitnessesMax {
		for i := range rebuildWitnessesMax / 2 {
			m.Seen[i] = m.Seen[2*i+1]
		}
		m.Seen, m.Every = m.Seen[:rebuildWitnessesMax/2], 2*m.Every
	}
	m.Seen = append(m.Seen, p)
}

// begin goes on with a run before this one, or begins anew.
func (r *rebuild) begin(ctx context.Context, fromStart bool) error {
	fresh := rebuildMark{Version: rebuildMarkVersion, Began: time.Now().UTC().Round(0), Stores: r.a.storeIDs(), Every: 1}
	if r.a.cfg.ReadOnly {
		r.mark = fresh
		return nil
	}
	mk, ok := r.a.rebuildMark()
	if !fromStart && ok && slices.Equal(mk.Stores, fresh.Stores) && !fresh.Began.Before(mk.Began) && fresh.Began.Sub(mk.Began) < rebuildMarkMax {
		ok, err := r.fits(ctx, mk)
		if err != nil {
			return err
		}
		if ok {
			r.mark, r.again, r.resumed = mk, mk.Damaged, mk.Done
			r.mark.Damaged = nil
			return nil
		}
	}
	r.mark = fresh
	return r.a.forgetRebuild()
}

// fits tells whether store and catalogue are those that a mark is about: what it has
// seen is in both, or was deleted from both since.
func (r *rebuild) fits(ctx context.Context, mk rebuildMark) (bool, error) {
	there := 0
	for _, w := range append(mk.Seen, mk.Last) {
		s, err := r.a.shelf(w.Store)
		if err != nil {
			return false, nil //nolint:nilerr // a store that is not configured any more: the mark is about others
		}
		p := place{s, w.Prefix}
		row, err := r.c.Get(ctx, p.id())
		if err != nil && !errors.Is(err, recorder.ErrNotFound) {
			return false, err
		}
		known := err == nil && row.Store == w.Store && row.Prefix == w.Prefix
		if known != r.a.has(ctx, p) {
			return false, nil
		}
		if known {
			there++
		}
	}
	return there > 0, nil
}

// storeIDs names the stores.
func (a *Archive) storeIDs() (out []string) {
	for _, s := range a.shelves {
		out = append(out, s.name+" "+s.dir)
	}
	return out
}

// rebuildMark reads how far a rebuild has come; false: nothing is known of one.
func (a *Archive) rebuildMark() (mk rebuildMark, ok bool) {
	js, err := vfs.ReadFile(a.fsys, a.spool(rebuildFile), rebuildMarkBytes)
	if err != nil || json.Unmarshal(js, &mk) != nil || mk.Version != rebuildMarkVersion {
		return rebuildMark{}, false
	}
	return mk, mk.Done >= 0 && mk.Total >= 0 && mk.Dropped >= 0 && len(mk.Seen) <= rebuildWitnessesMax && len(mk.Damaged) <= findingsMax
}

// save writes how far the rebuild has come, now or when it is time. Without it the
// next run begins anew, or does more again.
func (r *rebuild) save(now bool) {
	r.unsaved += r.size
	if r.a.cfg.ReadOnly || !now && r.unsaved < r.saveRows && time.Since(r.saved) < rebuildSaveEvery {
		return
	}
	r.saved, r.unsaved = time.Now(), 0
	mk := r.mark
	mk.Total = r.total.Load()
	mk.Damaged = append(slices.Clone(r.again), r.mark.Damaged...)
	js, err := json.Marshal(mk)
	if err == nil && len(js) <= rebuildMarkBytes {
		_ = vfs.WriteFile(r.a.fsys, r.a.spool(rebuildFile), js) // as above
	}
}

func (a *Archive) forgetRebuild() error {
	if a.cfg.ReadOnly {
		return nil
	}
	err := a.fsys.Remove(a.spool(rebuildFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.fsys.SyncDir(a.cfg.SpoolDir)
}
