package archive

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// sweepFile, in the spool, tells how far a sweep of the daemon has come.
const sweepFile = "sweep.json"

const (
	sweepMarkVersion = 1
	sweepMarkBytes   = 16 << 20
	sweepSaveEvery   = 10 * time.Second
	sweepMarkMax     = 7 * 24 * time.Hour // an older one tells of what is no more
	sweepGoOn        = time.Minute        // after the start, with one that was interrupted
)

// sweepMark is what stands in sweepFile.
type sweepMark struct {
	Version int         `json:"version"`
	Done    bool        `json:"done,omitempty"`
	Remove  bool        `json:"remove,omitempty"`
	Store   string      `json:"store,omitempty"` // that is being swept; those before it in order of name are done
	Day     string      `json:"day,omitempty"`   // in it: days before this one are done
	Report  SweepReport `json:"report"`
}

// mark reads how far a sweep has come; false: nothing is known of one.
func (a *Archive) sweepMark() (mk sweepMark, ok bool) {
	js, err := vfs.ReadFile(a.fsys, a.spool(sweepFile), sweepMarkBytes)
	if err != nil || json.Unmarshal(js, &mk) != nil || mk.Version != sweepMarkVersion || mk.Report.Counts == nil {
		return sweepMark{}, false
	}
	return mk, true
}

// SweepDue tells how long to wait for the next sweep, when there is to be one in
// every such time: one that was interrupted goes on soon.
func (a *Archive) SweepDue(every time.Duration, now time.Time) time.Duration {
	mk, ok := a.sweepMark()
	if !ok {
		w := sweeping{a: a, SweepReport: SweepReport{At: now.UTC(), Counts: map[string]int{}}}
		w.save(sweepMark{Done: true}) // the time runs from here on, whatever restarts
		return every
	}
	if !mk.Done {
		return min(sweepGoOn, every)
	}
	return min(max(mk.Report.At.Add(every).Sub(now), sweepGoOn), every)
}

// save writes how far the sweep has come. Without it the next one begins anew.
func (w *sweeping) save(mk sweepMark) {
	w.saved = time.Now()
	if w.a.cfg.ReadOnly {
		return
	}
	mk.Version, mk.Remove, mk.Report = sweepMarkVersion, w.remove, w.SweepReport
	mk.Report.TookMS = (w.took + time.Since(w.now)).Milliseconds()
	if mk.Done {
		mk.Report.Strays = nil
	}
	if js, err := json.Marshal(mk); err == nil && len(js) <= sweepMarkBytes {
		_ = vfs.WriteFile(w.a.fsys, w.a.spool(sweepFile), js) // as above
	}
}

// resume returns the stores that are to be swept; the first from where a run
// before this one stopped.
func (w *sweeping) resume() []*shelf {
	w.saved = time.Now()
	if w.a.cfg.ReadOnly {
		return w.a.shelves
	}
	mk, ok := w.a.sweepMark()
	from, err := time.Parse(dayLayout, mk.Day)
	if !ok || mk.Done || err != nil || mk.Remove != w.remove || w.now.Sub(mk.Report.At) > sweepMarkMax {
		return w.a.shelves
	}
	i := slices.IndexFunc(w.a.shelves, func(s *shelf) bool { return s.name == mk.Store })
	if i < 0 {
		return w.a.shelves
	}
	w.day, w.from, w.took = mk.Day, from, time.Duration(mk.Report.TookMS)*time.Millisecond
	counts := w.Counts
	w.SweepReport = mk.Report
	maps.Copy(counts, mk.Report.Counts)
	w.Counts, w.Strays = counts, append([]Stray{}, mk.Report.Strays...)
	return w.a.shelves[i:]
}

// list lists a store, from the day on that is not yet done.
func (w *sweeping) list(s *shelf, f func(recorder.BlobInfo) error) error {
	if w.day == "" {
		return s.store.List(w.ctx, "", f)
	}
	if l, ok := s.store.(store.FromLister); ok {
		return l.ListFrom(w.ctx, w.day, f)
	}
	day := w.day
	return s.store.List(w.ctx, "", func(i recorder.BlobInfo) error {
		if i.Name < day {
			return w.ctx.Err()
		}
		return f(i)
	})
}
