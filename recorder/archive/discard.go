package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// dropSpool removes the folder of a recording from the spool: in one step out of
// the way, since what a crash left of it without its key would look like damage.
func (a *Archive) dropSpool(id string) error {
	to := a.spool(goneDir, id)
	if err := vfs.RemoveAll(a.fsys, to); err != nil {
		return err
	}
	if err := a.fsys.Rename(a.spool(id), to); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := errors.Join(a.fsys.SyncDir(a.spool(goneDir)), a.fsys.SyncDir(a.cfg.SpoolDir)); err != nil {
		return err
	}
	return vfs.RemoveAll(a.fsys, to)
}

// Discard implements recorder.Sink. Segments that were published already are
// deleted from the store.
func (s *sink) Discard() error {
	if s.done {
		return nil
	}
	if err := s.discard(); err != nil {
		return fmt.Errorf("discard recording %s: %w", s.id, err)
	}
	s.a.spoolBytes.Add(-s.live.bytes.Swap(0))
	s.done = true
	return nil
}

func (s *sink) discard() error {
	var errs []error
	for _, w := range s.writers {
		errs = append(errs, w.Writer.Abort())
	}
	if !s.begun {
		return errors.Join(errs...)
	}
	if s.folder != nil || !s.resumed && s.at.queue.forget(s.id) {
		return errors.Join(append(errs, s.a.dropSpool(s.id))...)
	}
	// The store has something of it, or is getting it just now.
	mk := marker{Version: markerQueued, Recording: s.id, Prefix: s.at.prefix, Store: s.at.name, Discarded: true}
	if err := s.a.writeMarker(mk); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if err := s.a.emptySpool(s.id); err != nil { // but for the marker
		return errors.Join(append(errs, err)...)
	}
	s.at.queue.change(s.at, time.Now(), func(it *pending) { it.erase, it.files = true, nil })
	return errors.Join(errs...)
}

// emptySpool removes all of a recording from the spool but its marker.
func (a *Archive) emptySpool(id string) error {
	entries, err := a.fsys.ReadDir(a.spool(id))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == markerFile {
			continue
		}
		if err := vfs.RemoveAll(a.fsys, a.spool(id, e.Name())); err != nil {
			return err
		}
	}
	return a.fsys.SyncDir(a.spool(id))
}
