package archive

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// requeue gives what waits for its store in a folder of the spool back to the
// queue, by its marker alone: neither its key nor its store is needed. False: it
// is not finished, or not of that kind.
func (a *Archive) requeue(id string) (bool, error) {
	mk, err := a.marker(id)
	if err != nil || mk.Version < markerQueued {
		return false, nil //nolint:nilerr // recovery tells what is wrong with it
	}
	s, err := a.shelf(mk.Store)
	if err != nil {
		return true, err
	}
	p := place{s, mk.Prefix}
	if a.isSpooled(id) {
		return true, nil // by this process, just now
	}
	if mk.Discarded {
		if err := a.emptySpool(id); err != nil {
			return true, err
		}
		s.queue.change(p, time.Now(), func(it *pending) { it.erase, it.inherited = true, true })
		return true, nil
	}
	info, err := a.fsys.Stat(a.spool(id, segment.ManifestFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !s.queued() {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	if err := a.rowOf(id, p); err != nil {
		return true, err
	}
	bytes, err := a.bytesIn(id)
	if err != nil {
		return true, err
	}
	a.setSpooled(p)
	a.spoolBytes.Add(bytes)
	s.queue.change(p, since(info), func(it *pending) { it.bytes, it.inherited = bytes, true })
	s.queue.whole(p, a.deferred.waits(id), since(info))
	return true, nil
}

func since(info fs.FileInfo) time.Time {
	if t := info.ModTime(); !t.IsZero() {
		return t
	}
	return time.Now()
}

// rowOf sees to it that the catalogue gets to know a recording.
func (a *Archive) rowOf(id string, p place) error {
	c, err := a.catalogue.get(context.Background())
	if err == nil {
		_, err = c.Get(context.Background(), id)
	}
	if err == nil {
		return nil
	}
	return a.noteRow(id, p.prefix, p.name)
}

// bytesIn is the size of what is in a folder of the spool.
func (a *Archive) bytesIn(id string) (bytes int64, err error) {
	entries, err := a.fsys.ReadDir(a.spool(id))
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return 0, err
		}
		bytes += info.Size()
	}
	return bytes, nil
}

// behind tells whether what is recovered goes to its store by the queue. Content is
// its manifest; nil: the store has that, so it gets the rest now.
func (r *recovery) behind(content []byte) bool { return content != nil && r.at.queued() }

// publishBehind gives what was recovered to the queue.
func (r *recovery) publishBehind(m *recorder.Manifest, content []byte) error {
	if err := r.a.tidy(r.ID, m); err != nil {
		return err
	}
	if err := vfs.WriteFile(r.a.fsys, r.a.spool(r.ID, segment.ManifestFile), content); err != nil {
		return err
	}
	mk := r.marker
	mk.Version = markerQueued
	if err := r.a.writeMarker(mk); err != nil {
		return err
	}
	if err := r.a.saveRow(r.ctx, r.at.row(m, true)); err != nil {
		return err
	}
	bytes, err := r.a.bytesIn(r.ID)
	if err != nil {
		return err
	}
	r.a.spoolBytes.Add(bytes)
	r.at.queue.change(r.at, time.Now(), func(it *pending) { it.inherited = true })
	r.a.behind(r.at, bytes, r.a.noteJob(m, r.at))
	return nil
}

// letGo takes a recording that its store has out of the spool: in one step out of
// the way of recovery, then for good, but for segments that are kept a while.
func (a *Archive) letGo(p place) error {
	id, to := p.id(), a.spool(goneDir, p.id())
	if err := vfs.RemoveAll(a.fsys, to); err != nil {
		return err
	}
	if err := a.fsys.Rename(a.spool(id), to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	a.mu.Lock()
	delete(a.spooled, id)
	a.mu.Unlock()
	// From here on nothing can fail that matters: the next start clears it.
	if a.fsys.SyncDir(a.spool(goneDir)) != nil || a.fsys.SyncDir(a.cfg.SpoolDir) != nil {
		return nil //nolint:nilerr // as above
	}
	if a.cfg.Uploads.KeepLocal > 0 && a.keep(id) == nil {
		return nil
	}
	_ = vfs.RemoveAll(a.fsys, to)
	return nil
}

// clearGone removes what a process before had no time to remove.
func (a *Archive) clearGone() {
	entries, err := a.fsys.ReadDir(a.spool(goneDir))
	if err != nil {
		return
	}
	for _, e := range entries {
		_ = vfs.RemoveAll(a.fsys, a.spool(goneDir, e.Name())) // the next start tries again
	}
}

// clearTemps removes what probes and torn writes of a process before left. Later
// such files are those of this one, which recovery runs beside.
func (a *Archive) clearTemps() {
	entries, err := a.fsys.ReadDir(a.cfg.SpoolDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), vfs.TempPrefix) && !e.IsDir() {
			_ = a.fsys.Remove(a.spool(e.Name())) // the next start tries again
		}
	}
}

// keep keeps the segments of a recording that its store has; what can be
// replaced in the store (manifest, keys) is not kept.
func (a *Archive) keep(id string) error {
	entries, err := a.fsys.ReadDir(a.spool(goneDir, id))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if isSegment(e.Name()) {
			continue
		}
		if err := vfs.RemoveAll(a.fsys, a.spool(goneDir, id, e.Name())); err != nil {
			return err
		}
	}
	to := a.spool(keptDir, id)
	if err := vfs.RemoveAll(a.fsys, to); err != nil {
		return err
	}
	return a.fsys.Rename(a.spool(goneDir, id), to)
}

const keptPerLook = 64 // recordings: who looks at the disks has to come back

// expireKept removes some of what was kept for long enough, or of all of it.
func (a *Archive) expireKept(now time.Time, all bool) {
	entries, err := a.fsys.ReadDir(a.spool(keptDir))
	if err != nil || len(entries) == 0 {
		return
	}
	removed := 0
	for _, e := range entries {
		if removed == keptPerLook {
			return
		}
		if info, err := e.Info(); err != nil || all || now.Sub(info.ModTime()) > a.cfg.Uploads.KeepLocal {
			removed++
			_ = vfs.RemoveAll(a.fsys, a.spool(keptDir, e.Name())) // it is tried again
		}
	}
}

// openNear opens a segment for playing: that which was kept here, if it was.
func (a *Archive) openNear(ctx context.Context, p place, name string) (recorder.Blob, error) {
	if a.cfg.Uploads.KeepLocal > 0 && path.Base(name) == name && isSegment(name) && !a.isSpooled(p.id()) {
		if b, err := segment.OpenFile(a.fsys, a.spool(keptDir, p.id(), name)); err == nil {
			return b, nil
		}
	}
	return a.open(ctx, p, name)
}
