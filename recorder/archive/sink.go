package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// sink takes one recording.
type sink struct {
	a       *Archive
	id      string
	at      place
	dir     string // in the spool
	key     recorder.DataKey
	live    *liveSpool
	folder  folderStore   // takes dir when all is in it; nil: the store gets each file by its queue
	begun   bool          // dir is there
	keyed   bool          // the file with its key is durable
	keySize int64         // bytes of it, when it was written here
	created time.Time     // of its key
	marked  bool          // and has a marker
	resumed bool          // it was begun by a process before
	untidy  bool          // dir may have files that are not the recording's
	writers []*sinkWriter // of all segments begun
	linked  []byte        // sealed manifest with its link
	content []byte        // the same, once it is durable in the spool
	job     *job          // to be coded anew when it is published; nil: not
	early   early
	done    bool // published or discarded
}

// early tells whether segments go to the store while the recording goes on: not
// those that are to be coded anew first.
type early uint8

const (
	earlyUnknown early = iota
	earlyYes
	earlyNo
)

// sinkWriter lets the sink know of what becomes of a segment.
type sinkWriter struct {
	*segment.Writer
	s       *sink
	n       int
	bytes   int64 // that it takes up in the spool, as far as is known
	part    int64 // bytes of a part, when it may go to its store while it grows; else 0
	told    int64 // durable bytes that the queue knows of
	growth  *growth
	queued  bool
	aborted bool
}

// Write implements recorder.SegmentWriter.
func (w *sinkWriter) Write(a recorder.Audio, account *recorder.Manifest) error {
	err := w.Writer.Write(a, account)
	if err == nil {
		w.takes(w.bytes + int64(len(a.Data)) + frameOverheadBytes)
		w.grows(account)
	}
	return err
}

// frameOverheadBytes is about what a frame takes beside its audio.
const frameOverheadBytes = 64

func (w *sinkWriter) takes(bytes int64) {
	w.s.live.bytes.Add(bytes - w.bytes)
	w.s.a.spoolBytes.Add(bytes - w.bytes)
	w.bytes = bytes
}

// Finish implements recorder.SegmentWriter. The segment is durable in the spool
// then; its store gets it by and by.
func (w *sinkWriter) Finish(account *recorder.Manifest) (recorder.Segment, error) {
	seg, err := w.Writer.Finish(account)
	if err != nil || w.queued {
		return seg, err
	}
	w.queued = true
	w.takes(seg.Bytes)
	w.finished(seg)
	if w.s.folder == nil && w.s.marked && w.s.goesEarly(account) {
		w.s.at.queue.segment(w.s.at, segment.KeyFile, time.Now()) // else the audio could not be read
		w.s.at.queue.segment(w.s.at, segment.FileName(w.n), time.Now())
	}
	return seg, nil
}

func (s *sink) goesEarly(account *recorder.Manifest) bool {
	if s.early == earlyUnknown && account != nil {
		s.early = earlyYes
		if options := s.a.cfg.Deferred.Options; options != nil && isLossless(account.Format) {
			if _, anew := options(account); anew {
				s.early = earlyNo
			}
		}
	}
	return s.early == earlyYes
}

// Abort implements recorder.SegmentWriter.
func (w *sinkWriter) Abort() error {
	if err := w.Writer.Abort(); err != nil {
		return err
	}
	w.aborted = true
	w.dropped()
	w.takes(0)
	return nil
}

// NewSink begins a recording in the store that has no name; see OpenSink.
func (a *Archive) NewSink(ctx context.Context, recordingID, prefix string) (recorder.Sink, error) {
	return a.OpenSink(ctx, recorder.SinkInfo{Recording: recordingID, Prefix: prefix})
}

// OpenSink begins a recording: it makes its data key and touches no file before
// the first segment. Prefix is its folder in the store, see recorder.Prefix.
// recorder.ErrExists when a recording of that id is being taken or waits for
// Recover.
func (a *Archive) OpenSink(ctx context.Context, i recorder.SinkInfo) (recorder.Sink, error) {
	at, err := a.checkNew(i.Recording, i.Prefix, i.Storage)
	if err != nil {
		return nil, fmt.Errorf("new recording: %w", err)
	}
	live, err := a.claim(i)
	if err != nil {
		return nil, fmt.Errorf("new recording: %w", err)
	}
	key, err := a.sealer.NewKey(ctx, i.Recording)
	if err != nil {
		a.release(i.Recording)
		return nil, fmt.Errorf("new recording: %w", err)
	}
	a.keyMade(live, key.Wrapped().KEK)
	s := &sink{a: a, id: i.Recording, at: at, dir: a.spool(i.Recording), key: key, created: time.Now(), live: live}
	if !at.queued() {
		s.folder = at.folder
	}
	return s, nil
}

func (a *Archive) checkNew(id, prefix, storage string) (place, error) {
	if a.cfg.ReadOnly {
		return place{}, errors.New("archive is read-only")
	}
	if err := a.checkName(id, prefix); err != nil {
		return place{}, err
	}
	s, err := a.shelf(storage)
	return place{s, prefix}, err
}

// checkName tells whether a recording can have an id and a folder.
func (a *Archive) checkName(id, prefix string) error {
	if reserved(id) {
		return fmt.Errorf("recording id %q is reserved", id)
	}
	if err := segment.CheckID(id); err != nil {
		return err
	}
	if path.Base(prefix) != id {
		return fmt.Errorf("recording %s in folder %s: want a folder of its own, of its name", id, prefix)
	}
	return store.CheckName(path.Join(prefix, segment.ManifestFile))
}

// claim marks a recording as being taken here.
func (a *Archive) claim(i recorder.SinkInfo) (*liveSpool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := i.Recording
	if a.live[id] != nil {
		return nil, fmt.Errorf("recording %s: %w", id, recorder.ErrExists)
	}
	if _, err := a.fsys.Stat(a.spool(id)); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = recorder.ErrExists
		}
		return nil, fmt.Errorf("recording %s in the spool: %w", id, err)
	}
	a.began++
	a.live[id] = &liveSpool{priority: i.Priority, since: a.began, key: liveKey{making: true}}
	return a.live[id], nil
}

// liveOf returns what is known of a recording that is claimed.
func (a *Archive) liveOf(id string) *liveSpool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.live[id] == nil {
		a.live[id] = &liveSpool{}
	}
	return a.live[id]
}

func (a *Archive) release(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.live, id)
}

func (a *Archive) isLive(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.live[id] != nil
}

// begin makes the recording's folder in the spool. It becomes durable with what
// is written into it.
func (s *sink) begin() error {
	if s.begun {
		return nil
	}
	if s.folder == nil || s.at.name != "" {
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

// mark makes a durable folder with a marker: it tells a restart which store the
// recording is for, and that the spool has all of it.
func (s *sink) mark() error {
	if err := vfs.MkdirAll(s.a.fsys, s.dir); err != nil {
		return err
	}
	err := s.a.writeMarker(marker{Version: markerQueued, Recording: s.id, Prefix: s.at.prefix, Store: s.at.name})
	s.marked = s.marked || err == nil
	return err
}

// errDone is given to calls after Publish or Discard.
var errDone = errors.New("recording is finished")

// Begin implements recorder.Sink.
func (s *sink) Begin(i recorder.SegmentInfo) (recorder.SegmentWriter, error) {
	switch {
	case s.done:
		return nil, errDone
	case i.Recording != s.id:
		return nil, fmt.Errorf("begin segment %d: recording %s: this is the sink of %s", i.N, i.Recording, s.id)
	}
	i.Prefix = s.at.prefix // of one that goes on: that which it began with
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
	var err error
	if cfg.Beside, err = s.keyBeside(); err != nil {
		return nil, fmt.Errorf("begin segment %d: %w", i.N, err)
	}
	w, err := segment.Create(cfg)
	if err != nil {
		s.untidy = true
		return nil, err
	}
	sw := &sinkWriter{Writer: w, s: s, n: i.N}
	if s.folder == nil && s.marked {
		sw.part = s.at.queue.partSize()
	}
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
	if seal.Unsealed(s.key.Wrapped()) {
		c := *m // others may be reading the account
		c.Unsealed, m = true, &c
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
	}
	if s.folder == nil {
		return s.publishBehind(m)
	}
	if err := s.spoolManifest(m); err != nil {
		return err
	}
	err := s.publishFolder(m)
	if errors.Is(err, syscall.EXDEV) {
		s.at.apart.Store(true) // recordings that begin from now on need not try
		s.folder = nil
		return s.publishBehind(m)
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
	if err := s.keyDurable(); err != nil {
		return err
	}
	if s.linked == nil { // one link, however often this is tried
		content, err := s.a.sealManifest(context.Background(), s.key, s.at, m, linkReason(m), "")
		if err != nil {
			return err
		}
		s.linked = content
	}
	content := s.linked
	if s.folder == nil {
		if err := vfs.WriteFile(s.a.fsys, path.Join(s.dir, segment.ManifestFile), content); err != nil {
			return err
		}
		s.content = content
		return nil
	}
	// A crash that tears it leaves what recovery knows as such.
	f, err := s.a.fsys.OpenFile(path.Join(s.dir, segment.ManifestFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(content, 0); err == nil {
		err = s.withParent(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		s.content = content
	}
	return err
}

// linkReason tells why the manifest of a call that ended is linked.
func linkReason(m *recorder.Manifest) string {
	if m.Call.EndCause == string(media.CauseCrash) {
		return audit.ReasonRecovered
	}
	return audit.ReasonRecorded
}

// behind gives a finished recording of the spool to the queue of its store, when it
// was coded anew if it has a job.
func (a *Archive) behind(p place, bytes int64, j *job) {
	a.setSpooled(p)
	p.queue.change(p, time.Now(), func(it *pending) { it.bytes = bytes })
	p.queue.whole(p, j != nil, time.Now())
	a.deferred.add(j)
}

// tidy removes from a folder of the spool what is not the recording's, and gives
// its segments the names that they have in the store.
func (a *Archive) tidy(id string, m *recorder.Manifest) error {
	entries, err := a.fsys.ReadDir(a.spool(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a call before moved it
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, ok := segment.NumberOf(e.Name())
		name := a.spool(id, e.Name())
		switch {
		case e.Name() == segment.ManifestFile, e.Name() == segment.KeyFile, e.Name() == markerFile:
		case ok && listed(m, n) && e.Name() != segment.FileName(n):
			err = a.fsys.Rename(name, a.spool(id, segment.FileName(n)))
		case !ok || !listed(m, n):
			err = vfs.RemoveAll(a.fsys, name)
		}
		if err != nil {
			return err
		}
	}
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
