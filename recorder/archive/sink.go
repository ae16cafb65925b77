package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// folderStore is a store that takes a recording in one step, when spool and
// store lie on one file system; see store.Dir.
type folderStore interface {
	PublishFolder(ctx context.Context, name, localDir string, durable func(dirs ...string) error) error
}

// sink takes one recording.
type sink struct {
	a       *Archive
	id      string
	prefix  string
	dir     string // in the spool
	key     recorder.DataKey
	folder  folderStore   // takes dir when all is in it; nil: the store takes each file
	begun   bool          // dir is there
	untidy  bool          // dir may have files that are not the recording's
	writers []*sinkWriter // of all segments begun
	content []byte        // sealed manifest, once it is durable in the spool
	job     *job          // to be coded anew when it is published; nil: not
	done    bool          // published or discarded
}

// sinkWriter lets the sink know of an Abort.
type sinkWriter struct {
	*segment.Writer
	n       int
	aborted bool
}

// Abort implements recorder.SegmentWriter.
func (w *sinkWriter) Abort() error {
	if err := w.Writer.Abort(); err != nil {
		return err
	}
	w.aborted = true
	return nil
}

// NewSink begins a recording: it makes its data key and touches no file before
// the first segment. Prefix is its folder in the store, YYYY/MM/DD/<id>.
// recorder.ErrExists when a recording of that id is being taken or waits for
// Recover.
func (a *Archive) NewSink(ctx context.Context, recordingID, prefix string) (recorder.Sink, error) {
	if err := a.checkNew(recordingID, prefix); err != nil {
		return nil, fmt.Errorf("new recording: %w", err)
	}
	if err := a.claim(recordingID); err != nil {
		return nil, fmt.Errorf("new recording: %w", err)
	}
	key, err := a.sealer.NewKey(ctx, recordingID)
	if err != nil {
		a.release(recordingID)
		return nil, fmt.Errorf("new recording: %w", err)
	}
	s := &sink{a: a, id: recordingID, prefix: prefix, dir: a.spool(recordingID), key: key}
	if f, ok := a.store.(folderStore); ok && !a.apart.Load() {
		s.folder = f
	}
	return s, nil
}

func (a *Archive) checkNew(id, prefix string) error {
	switch {
	case a.cfg.ReadOnly:
		return errors.New("archive is read-only")
	case reserved(id):
		return fmt.Errorf("recording id %q is reserved", id)
	}
	if err := segment.CheckID(id); err != nil {
		return err
	}
	return store.CheckName(path.Join(prefix, segment.ManifestFile))
}

// claim marks a recording as being taken here.
func (a *Archive) claim(id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.live[id] {
		return fmt.Errorf("recording %s: %w", id, recorder.ErrExists)
	}
	if _, err := a.fsys.Stat(a.spool(id)); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = recorder.ErrExists
		}
		return fmt.Errorf("recording %s in the spool: %w", id, err)
	}
	a.live[id] = true
	return nil
}

func (a *Archive) release(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.live, id)
}

func (a *Archive) isLive(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.live[id]
}

// begin makes the recording's folder in the spool. It becomes durable with what
// is written into it.
func (s *sink) begin() error {
	if s.begun {
		return nil
	}
	if s.folder == nil {
		if err := s.mark(); err != nil {
			return err
		}
		s.begun = true
		return nil
	}
	err := s.a.fsys.Mkdir(s.dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		err = vfs.MkdirAll(s.a.fsys, s.dir) // somebody removed the spool
	}
	if err != nil && !errors.Is(err, fs.ErrExist) { // a call before may have failed behind it
		return err
	}
	s.begun = true
	return nil
}

// mark makes a durable folder with a marker: its segments leave it one by one,
// and a restart must know of what is in the store without a manifest.
func (s *sink) mark() error {
	if err := vfs.MkdirAll(s.a.fsys, s.dir); err != nil {
		return err
	}
	js, err := json.Marshal(marker{Version: 1, Recording: s.id, Prefix: s.prefix, Key: s.key.Wrapped()})
	if err != nil {
		return err
	}
	return vfs.WriteFile(s.a.fsys, path.Join(s.dir, markerFile), js)
}

// errDone is given to calls after Publish or Discard.
var errDone = errors.New("recording is finished")

// Begin implements recorder.Sink.
func (s *sink) Begin(i recorder.SegmentInfo) (recorder.SegmentWriter, error) {
	switch {
	case s.done:
		return nil, errDone
	case i.Recording != s.id || i.Prefix != s.prefix:
		return nil, fmt.Errorf("begin segment %d: recording %s in %s: this is the sink of %s in %s", i.N, i.Recording, i.Prefix, s.id, s.prefix)
	}
	for _, w := range s.writers {
		if w.n == i.N && !w.aborted {
			return nil, fmt.Errorf("begin segment %d: %w", i.N, recorder.ErrExists)
		}
	}
	if err := s.begin(); err != nil {
		return nil, fmt.Errorf("begin segment %d: %w", i.N, err)
	}
	cfg := segment.WriterConfig{
		FS: s.a.fsys, Key: s.key, Dir: s.dir, Info: i, Parents: []string{s.a.cfg.SpoolDir}, SyncEvery: s.a.cfg.SyncEvery, Syncer: s.a.syncer,
	}
	if s.folder == nil {
		cfg.Store = s.a.store
	}
	w, err := segment.Create(cfg)
	if err != nil {
		s.untidy = true
		return nil, err
	}
	sw := &sinkWriter{Writer: w, n: i.N}
	s.writers = append(s.writers, sw)
	return sw, nil
}

// Publish implements recorder.Sink. A failing catalogue is no error: the row
// is queued, see CatchUp.
func (s *sink) Publish(m *recorder.Manifest) error {
	if s.done {
		return nil
	}
	if m.ID != s.id {
		return fmt.Errorf("publish recording %s: this is the sink of %s", m.ID, s.id)
	}
	if err := s.publish(m); err != nil {
		return fmt.Errorf("publish recording %s: %w", s.id, err)
	}
	s.done = true
	return nil
}

func (s *sink) publish(m *recorder.Manifest) error {
	for _, w := range s.writers {
		if w.aborted && !w.Sealed() {
			continue // given up, and gone with the spool
		}
		if !w.Sealed() {
			return fmt.Errorf("segment %d is neither finished nor aborted", w.n)
		}
		if _, err := w.Finish(nil); err != nil { // does nothing when it is published
			return err
		}
	}
	if err := s.spoolManifest(m); err != nil {
		return err
	}
	if s.folder == nil {
		return s.publishFiles(m)
	}
	err := s.publishFolder(m)
	if errors.Is(err, syscall.EXDEV) {
		s.a.apart.Store(true) // recordings that begin from now on need not try
		s.folder = nil
		return s.publishFiles(m)
	}
	return err
}

// spoolManifest makes the manifest durable in the spool: from then on a restart
// publishes it instead of making one up.
func (s *sink) spoolManifest(m *recorder.Manifest) error {
	if s.content != nil {
		return nil
	}
	if err := s.begin(); err != nil {
		return err
	}
	content, err := segment.SealManifest(s.key, s.prefix, m)
	if err != nil {
		return err
	}
	// A crash that tears it leaves what recovery knows as such.
	f, err := s.a.fsys.OpenFile(path.Join(s.dir, segment.ManifestFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(content, 0); err == nil {
		err = s.a.durable(f, s.dir, s.a.cfg.SpoolDir)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		s.content = content
	}
	return err
}

// publishFolder moves the recording from spool to store in one step. The row
// goes before it: behind it nothing in the spool would tell that it is missing.
func (s *sink) publishFolder(m *recorder.Manifest) error {
	ctx := context.Background()
	if err := s.a.saveRow(ctx, recorder.Row{Manifest: *m, Prefix: s.prefix}); err != nil {
		return err
	}
	if s.job == nil {
		s.job = s.a.noteJob(m, s.prefix)
	}
	if s.untidy {
		if err := s.tidy(m); err != nil {
			return err
		}
	}
	err := s.folder.PublishFolder(ctx, s.prefix, s.dir, func(dirs ...string) error { return s.a.durable(nil, dirs...) })
	if err != nil {
		return err
	}
	s.a.deferred.add(s.job)
	return nil
}

// tidy removes from the folder what is not the recording's.
func (s *sink) tidy(m *recorder.Manifest) error {
	entries, err := s.a.fsys.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a call before moved it
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, ok := segment.NumberOf(e.Name())
		if e.Name() == segment.ManifestFile || ok && listed(m, n) {
			continue
		}
		if err := vfs.RemoveAll(s.a.fsys, path.Join(s.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// publishFiles publishes what the store does not have yet, the manifest last.
func (s *sink) publishFiles(m *recorder.Manifest) error {
	ctx := context.Background()
	for _, w := range s.writers {
		if !w.Sealed() || w.Published() {
			continue
		}
		if err := s.a.store.Publish(ctx, path.Join(s.prefix, segment.FileName(w.n)), w.Path()); err != nil {
			return err
		}
	}
	if err := s.a.store.Put(ctx, path.Join(s.prefix, segment.ManifestFile), s.content); err != nil {
		return err
	}
	if err := s.a.saveRow(ctx, recorder.Row{Manifest: *m, Prefix: s.prefix}); err != nil {
		return err
	}
	if s.job == nil {
		s.job = s.a.noteJob(m, s.prefix)
	}
	s.a.deferred.add(s.job)
	// What cannot be removed now is found done by the next Recover.
	_ = vfs.RemoveAll(s.a.fsys, s.dir)
	return nil
}

// dropSpool removes the folder of a recording from the spool.
func (a *Archive) dropSpool(id string) error {
	if err := vfs.RemoveAll(a.fsys, a.spool(id)); err != nil {
		return err
	}
	return a.fsys.SyncDir(a.cfg.SpoolDir)
}

// Discard implements recorder.Sink. Segments that were published already are
// deleted from the store.
func (s *sink) Discard() error {
	if s.done {
		return nil
	}
	var errs []error
	for _, w := range s.writers {
		errs = append(errs, w.Abort())
		if w.Published() {
			err := s.a.store.Delete(context.Background(), path.Join(s.prefix, segment.FileName(w.n)))
			if err != nil && !errors.Is(err, recorder.ErrNotFound) {
				errs = append(errs, err)
			}
		}
	}
	if s.begun {
		errs = append(errs, s.a.dropSpool(s.id))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("discard recording %s: %w", s.id, err)
	}
	s.done = true
	return nil
}

// Close implements recorder.Sink. What was neither published nor discarded
// stays in the spool for Recover.
func (s *sink) Close() error {
	for _, w := range s.writers {
		w.Release()
	}
	s.key.Close()
	s.a.release(s.id)
	return nil
}
