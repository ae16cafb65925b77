package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Classes of what Sweep finds.
const (
	StrayNoManifest = "no-manifest" // audio of a recording that no manifest tells of; never deleted
	StrayMissing    = "missing"     // a segment that a recording has by the catalogue is not in its folder
	StrayNoRow      = "no-row"      // the catalogue does not list it: rebuild it
	StrayNoObject   = "no-object"   // the catalogue lists it and its store has not got it
	StrayUnnamed    = "unnamed"     // the recording's authentic manifest does not name it
	StrayTemp       = "temp"        // torn by a crash, promised to nobody
	StrayUploads    = "uploads"     // uploads in parts that nobody completes
	StraySpool      = "spool"       // a folder of the spool that recovery could not publish
	StrayQuarantine = "quarantine"  // what recovery moved aside
	StrayStore      = "store"       // a store or the catalogue could not be read
)

// StrayClasses are all of them.
var StrayClasses = []string{
	StrayNoManifest, StrayMissing, StrayNoRow, StrayNoObject, StrayUnnamed, StrayTemp, StrayUploads, StraySpool, StrayQuarantine, StrayStore,
}

// strayAgeLeast is how old something must be to be a stray: whoever writes a
// recording or completes an upload is done by then.
const strayAgeLeast = 24 * time.Hour

// Stray is one thing that lies where nothing should, or is not where it should be.
type Stray struct {
	Class   string `json:"class"`
	Store   string `json:"store,omitempty"`
	Name    string `json:"name"` // object or path
	Bytes   int64  `json:"bytes,omitempty"`
	AgeS    int64  `json:"age_seconds,omitempty"` // 0: not known
	Detail  string `json:"detail,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
}

// SweepReport is what Sweep found.
type SweepReport struct {
	At         time.Time      `json:"at"`
	TookMS     int64          `json:"took_ms"`
	Recordings int            `json:"recordings"` // folders with a manifest
	Objects    int            `json:"objects"`
	Other      int            `json:"other"`   // objects that are no recording's: backups, logs
	Strays     []Stray        `json:"strays"`  // never nil
	Dropped    int            `json:"dropped"` // beyond the limit of 10,000
	Counts     map[string]int `json:"counts"`  // by class, those dropped included
	Bytes      int64          `json:"bytes"`   // of strays
	Deleted    int            `json:"deleted"`
	Freed      int64          `json:"freed_bytes"`
}

// sweeping is one run of Sweep.
type sweeping struct {
	a      *Archive
	ctx    context.Context
	now    time.Time
	remove bool
	SweepReport
	took time.Duration // by runs before this one, which it goes on with

	// Of the store that is being swept. What is kept of recordings is that of two days.
	day              string    // of the folders that come now
	from             time.Time // its beginning: rows before it are compared
	today, yesterday []uint64  // hashes of the ids of recordings with a manifest
	blind            bool      // the catalogue does not answer
	saved            time.Time // when the mark was written
}

// Sweep looks through stores, catalogue and spool for what nobody owns and what
// is not there. With remove it deletes what is older than a day and provably no
// recording's: torn files, uploads that were given up, and segments that the
// authentic manifest beside them does not name. It goes day by day, holds in memory
// what two days have, and goes on where a run before it, of a process that ended,
// has stopped. The error tells that it could not go on.
func (a *Archive) Sweep(ctx context.Context, remove bool) (SweepReport, error) {
	w := &sweeping{a: a, ctx: ctx, now: time.Now(), remove: remove}
	w.SweepReport = SweepReport{At: w.now.UTC(), Strays: []Stray{}, Counts: map[string]int{}}
	for _, s := range w.resume() {
		if err := w.shelf(s); err != nil {
			if ctx.Err() != nil {
				return w.SweepReport, fmt.Errorf("sweep: %w", err)
			}
			w.found(Stray{Class: StrayStore, Store: s.name, Detail: err.Error()})
		}
		w.day, w.from = "", time.Time{}
	}
	w.spool()
	w.TookMS = (w.took + time.Since(w.now)).Milliseconds()
	if err := ctx.Err(); err != nil {
		return w.SweepReport, fmt.Errorf("sweep: %w", err)
	}
	w.save(sweepMark{Done: true})
	a.swept.Store(&w.SweepReport)
	return w.SweepReport, nil
}

// Swept returns the report of the last sweep of this process; nil: none.
func (a *Archive) Swept() *SweepReport { return a.swept.Load() }

func (w *sweeping) found(s Stray) {
	w.Counts[s.Class]++
	w.Bytes += s.Bytes
	if s.Deleted {
		w.Deleted++
		w.Freed += s.Bytes
	}
	if len(w.Strays) >= findingsMax {
		w.Dropped++
		return
	}
	w.Strays = append(w.Strays, s)
}

// age is how old something is; 0: that is not known.
func (w *sweeping) age(modified time.Time) time.Duration {
	if modified.IsZero() {
		return 0
	}
	return max(w.now.Sub(modified), 0)
}

func (w *sweeping) old(modified time.Time) bool { return w.age(modified) > strayAgeLeast }

// folderShape is a folder of a recording, of this version or an earlier one.
var folderShape = regexp.MustCompile(`^[0-9]{4}/[0-9]{2}/[0-9]{2}/([0-9a-f]{24}/)?[^/]+$`)

// segmentShape is the name of a segment.
var segmentShape = regexp.MustCompile(`^[0-9]{4,}(-opus)?\.seg$`)

// shelf goes through one store, folder by folder.
func (w *sweeping) shelf(s *shelf) error {
	at := place{shelf: s}
	var objects []recorder.BlobInfo
	w.today, w.yesterday = w.today[:0], w.yesterday[:0]
	err := w.list(s, func(i recorder.BlobInfo) error {
		dir := path.Dir(i.Name)
		if !folderShape.MatchString(dir) {
			w.Objects++
			w.Other++
			return nil
		}
		if dir != at.prefix {
			w.folder(at, objects)
			at.prefix, objects = dir, objects[:0]
			w.dayOver(s, dir[:len(dayLayout)])
		}
		w.Objects++
		objects = append(objects, i)
		return w.ctx.Err()
	})
	if err != nil {
		return err
	}
	w.folder(at, objects)
	w.dayOver(s, "")
	if s.dir != "" {
		w.temps(s, s.dir)
	}
	return w.uploads(s)
}

// folder looks at what lies in the folder of one recording.
func (w *sweeping) folder(p place, objects []recorder.BlobInfo) {
	if len(objects) == 0 || w.beingTaken(p.id()) || w.a.deleting(p.id()) {
		return
	}
	has := map[string]bool{}
	for _, o := range objects {
		has[path.Base(o.Name)] = true
	}
	if !has[segment.ManifestFile] {
		for _, o := range objects {
			if w.old(o.Modified) || o.Modified.IsZero() {
				w.found(w.stray(StrayNoManifest, p, o, "its recording has no manifest here"))
			}
		}
		return
	}
	w.Recordings++
	w.today = append(w.today, hashOf(p.id()))
	c, err := w.a.catalogue.get(w.ctx)
	var row recorder.Row
	if err == nil {
		row, err = c.Get(w.ctx, p.id())
	}
	switch {
	case errors.Is(err, recorder.ErrNotFound):
		if _, serr := w.a.fsys.Stat(w.a.spool(rowsDir, p.id()+".json")); serr != nil {
			w.found(Stray{Class: StrayNoRow, Store: p.name, Name: p.prefix, Detail: "the catalogue does not list it: trunktap rebuild"})
		}
		return
	case err != nil:
		return // told by rows
	}
	w.compare(p, &row.Manifest, objects, has)
}

// compare looks for objects that are missing and for those that are too many.
func (w *sweeping) compare(p place, m *recorder.Manifest, objects []recorder.BlobInfo, has map[string]bool) {
	named := map[string]bool{}
	for _, s := range m.Segments {
		named[s.File] = true
		if !has[s.File] && !w.a.replacing(p.id()) {
			w.found(Stray{Class: StrayMissing, Store: p.name, Name: p.object(s.File), Bytes: 0, Detail: "the catalogue knows it as part of the recording"})
		}
	}
	for _, o := range objects {
		name := path.Base(o.Name)
		if named[name] || !segmentShape.MatchString(name) || !w.old(o.Modified) || w.a.replacing(p.id()) {
			continue
		}
		w.unnamed(p, o)
	}
}

// unnamed deals with a segment that the catalogue does not know: the manifest
// itself has the last word.
func (w *sweeping) unnamed(p place, o recorder.BlobInfo) {
	defer w.a.pin(p.id())()
	m, err := w.a.manifest(w.ctx, p.id(), p)
	if errors.Is(err, recorder.ErrShredded) {
		return // what is left of it stays, its key is gone
	}
	if err != nil {
		w.found(w.stray(StrayUnnamed, p, o, "the manifest cannot be read: "+err.Error()))
		return
	}
	name := path.Base(o.Name)
	if slices.ContainsFunc(m.Segments, func(s recorder.Segment) bool { return s.File == name }) {
		return
	}
	s := w.stray(StrayUnnamed, p, o, "the manifest does not name it")
	if w.remove {
		if err := p.store.Delete(w.ctx, o.Name); err != nil {
			s.Detail = err.Error()
		} else {
			s.Deleted = true
		}
	}
	w.found(s)
}

func (w *sweeping) stray(class string, p place, o recorder.BlobInfo, detail string) Stray {
	return Stray{Class: class, Store: p.name, Name: o.Name, Bytes: o.Size, AgeS: int64(w.age(o.Modified) / time.Second), Detail: detail}
}

// beingTaken tells whether the spool has a recording, so that more of it comes.
func (w *sweeping) beingTaken(id string) bool {
	if w.a.isLive(id) || w.a.isSpooled(id) {
		return true
	}
	_, err := w.a.fsys.Stat(w.a.spool(id))
	return err == nil
}

// replacing tells whether the segments of a recording are being coded anew.
func (a *Archive) replacing(id string) bool {
	j, err := a.readJob(id)
	return err != nil || j != nil
}

func hashOf(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails
	return h.Sum64()
}

// dayLayout is how the day stands at the beginning of a folder's name.
const dayLayout = "2006/01/02"

// dayOver compares the day that is over, and those without objects behind it, with
// the catalogue; next is the one that comes now, empty: none.
func (w *sweeping) dayOver(s *shelf, next string) {
	var to time.Time
	if next != "" {
		t, err := time.Parse(dayLayout, next)
		if next == w.day || err != nil || !t.After(w.from) {
			return // what is out of order was not seen, and is asked for
		}
		to = t
	}
	w.rows(s, w.from, to)
	w.day, w.from = next, to
	w.today, w.yesterday = w.yesterday[:0], w.today
	if next != "" && time.Since(w.saved) > sweepSaveEvery {
		w.save(sweepMark{Store: s.name, Day: next})
	}
}

// rows looks for recordings of a time that the catalogue alone knows, by the time
// of their answer: those that began the day before were seen then.
func (w *sweeping) rows(s *shelf, from, to time.Time) {
	if w.blind || w.ctx.Err() != nil {
		return
	}
	slices.Sort(w.today)
	c, err := w.a.catalogue.get(w.ctx)
	if err == nil {
		err = eachRowOf(w.ctx, c, recorder.Query{From: from, To: to, Store: s.name}, func(r recorder.Row) { w.row(s, r) })
	}
	if err != nil && w.ctx.Err() == nil {
		w.blind = true
		w.found(Stray{Class: StrayStore, Name: "catalogue", Detail: err.Error()})
	}
}

// row looks whether the store has what the catalogue lists.
func (w *sweeping) row(s *shelf, r recorder.Row) {
	if r.Store != s.name {
		if _, err := w.a.shelf(r.Store); err == nil || s.name != "" {
			return // that store's turn
		}
	}
	id := r.Manifest.ID
	for _, day := range [][]uint64{w.today, w.yesterday} {
		if _, ok := slices.BinarySearch(day, hashOf(id)); ok {
			return
		}
	}
	if w.beingTaken(id) || w.a.deleting(id) {
		return
	}
	if r.Store == s.name && w.a.has(w.ctx, place{s, r.Prefix}) {
		return // it came meanwhile, or was answered long after it began
	}
	w.found(Stray{Class: StrayNoObject, Store: r.Store, Name: r.Prefix, Detail: "the catalogue lists it, the store has no manifest"})
}

// uploads gives up what others began to upload and never completed.
func (w *sweeping) uploads(s *shelf) error {
	u, ok := s.store.(store.Uploader)
	if !ok || !w.remove {
		return nil
	}
	n, err := u.Sweep(w.ctx, "", w.now.Add(-strayAgeLeast))
	for range n {
		w.found(Stray{Class: StrayUploads, Store: s.name, Name: "(upload in parts)", Deleted: true})
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// temps looks for torn files in a directory.
func (w *sweeping) temps(s *shelf, dir string) {
	entries, err := w.a.fsys.ReadDir(dir)
	if err != nil || w.ctx.Err() != nil {
		return
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), vfs.TempPrefix) && !e.IsDir():
			w.file(StrayTemp, s.name, name, e, "torn by a crash", true)
		case e.IsDir():
			w.temps(s, name)
		}
	}
}

// file notes a file or folder of this machine, and removes it when it may go.
func (w *sweeping) file(class, storeName, name string, e fs.DirEntry, detail string, mayGo bool) {
	info, err := e.Info()
	if err != nil || !w.old(info.ModTime()) {
		return
	}
	s := Stray{Class: class, Store: storeName, Name: name, AgeS: int64(w.age(info.ModTime()) / time.Second), Detail: detail}
	if !e.IsDir() {
		s.Bytes = info.Size()
	}
	if w.remove && mayGo {
		if err := w.a.fsys.Remove(name); err != nil {
			s.Detail = err.Error()
		} else {
			s.Deleted = true
		}
	}
	w.found(s)
}

// spool looks for what recovery left.
func (w *sweeping) spool() {
	entries, err := w.a.fsys.ReadDir(w.a.cfg.SpoolDir)
	if err != nil {
		return // there is none
	}
	for _, e := range entries {
		id := e.Name()
		switch {
		case strings.HasPrefix(id, vfs.TempPrefix) && !e.IsDir():
			w.file(StrayTemp, "", w.a.spool(id), e, "torn by a crash", true)
		case id == quarantineDir:
			w.quarantine()
		case reserved(id), !e.IsDir(), w.a.isLive(id), w.a.isSpooled(id):
		default:
			if mk, err := w.a.marker(id); err == nil && mk.Discarded {
				continue // its store is still to be cleared
			}
			w.file(StraySpool, "", w.a.spool(id), e, "a recording that recovery did not publish: see the log", false)
		}
	}
}

func (w *sweeping) quarantine() {
	entries, err := w.a.fsys.ReadDir(w.a.spool(quarantineDir))
	if err != nil {
		return
	}
	for _, e := range entries {
		w.file(StrayQuarantine, "", w.a.spool(quarantineDir, e.Name()), e, "recovery could not read it", false)
	}
}

// Summary tells the counts in one line.
func (r SweepReport) Summary() string {
	var parts []string
	for _, c := range StrayClasses {
		if n := r.Counts[c]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", c, n))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "nothing")
}
