package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// markerFile tells a restart whose folder of the spool it lies in.
const markerFile = "sink.json"

const markerBytesMax = 64 << 10

// marker is the content of markerFile.
type marker struct {
	Version   int                 `json:"version"` // 1
	Recording string              `json:"recording"`
	Prefix    string              `json:"prefix"`
	Key       recorder.WrappedKey `json:"key"`
}

// sink takes one recording.
type sink struct {
	a       *Archive
	id      string
	prefix  string
	dir     string // in the spool
	key     recorder.DataKey
	begun   bool          // dir and marker are durable
	writers []*sinkWriter // of all segments begun
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
	return &sink{a: a, id: recordingID, prefix: prefix, dir: a.spool(recordingID), key: key}, nil
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

// begin makes the recording's folder in the spool.
func (s *sink) begin() error {
	if s.begun {
		return nil
	}
	if err := vfs.MkdirAll(s.a.fsys, s.dir); err != nil {
		return err
	}
	js, err := json.Marshal(marker{Version: 1, Recording: s.id, Prefix: s.prefix, Key: s.key.Wrapped()})
	if err != nil {
		return err
	}
	if err := vfs.WriteFile(s.a.fsys, path.Join(s.dir, markerFile), js); err != nil {
		return err
	}
	s.begun = true
	return nil
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
	w, err := segment.Create(segment.WriterConfig{
		FS: s.a.fsys, Store: s.a.store, Key: s.key, Dir: s.dir, Info: i, SyncEvery: s.a.cfg.SyncEvery, Syncer: s.a.syncer,
	})
	if err != nil {
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
	if err := s.begin(); err != nil {
		return err
	}
	content, err := segment.SealManifest(s.key, s.prefix, m)
	if err != nil {
		return err
	}
	// From here on a restart publishes this manifest instead of making one up.
	if err := vfs.WriteFile(s.a.fsys, path.Join(s.dir, segment.ManifestFile), content); err != nil {
		return err
	}
	ctx := context.Background()
	if err := s.a.store.Put(ctx, path.Join(s.prefix, segment.ManifestFile), content); err != nil {
		return err
	}
	if err := s.a.saveRow(ctx, recorder.Row{Manifest: *m, Prefix: s.prefix}); err != nil {
		return err
	}
	s.a.deferEncoding(m, s.prefix)
	// What cannot be removed now is found done by the next Recover.
	_ = s.a.dropSpool(s.id)
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
