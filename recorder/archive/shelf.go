package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// StoreConfig is a store: in a directory, or another one that is open already.
type StoreConfig struct {
	Dir   string
	Store recorder.Store
}

// folderStore is a store that takes a recording in one step, when spool and
// store lie on one file system; see store.Dir.
type folderStore interface {
	PublishFolder(ctx context.Context, name, localDir string, durable func(dirs ...string) error) error
	PrepareFolder(name string) (up string, made func())
}

// shelf is one of the archive's stores. Recordings go to the one that they are
// meant for and to no other.
type shelf struct {
	name   string // empty: the one that has no name
	dir    string // of a store in a directory
	store  recorder.Store
	folder folderStore // nil: it takes each file
	queue  *queue      // nil: the archive is read-only
	apart  atomic.Bool // spool and store lie on different file systems
}

// queued tells whether recordings come to it by way of its queue, behind the
// spool; else they are moved in one step.
func (s *shelf) queued() bool { return s.folder == nil || s.apart.Load() }

// place is where a recording lies.
type place struct {
	*shelf
	prefix string
}

func (p place) id() string                { return path.Base(p.prefix) }
func (p place) object(name string) string { return path.Join(p.prefix, name) }

func (p place) row(m *recorder.Manifest, spooled bool) recorder.Row {
	return recorder.Row{Manifest: *m, Prefix: p.prefix, Store: p.name, Spooled: spooled}
}

// openShelves opens the stores.
func (a *Archive) openShelves() error {
	all := map[string]StoreConfig{"": {Dir: a.cfg.StoreDir, Store: a.cfg.Store}}
	maps.Copy(all, a.cfg.Stores)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c := all[name]
		s := &shelf{name: name, dir: c.Dir, store: c.Store}
		if s.store == nil {
			st, err := store.OpenDir(store.DirConfig{Root: c.Dir, FS: a.fsys, FreeBytesMin: a.cfg.FreeBytesMin, ReadOnly: a.cfg.ReadOnly})
			if err != nil {
				return fmt.Errorf("%s: %w", storeName(name), err)
			}
			s.store = st
		}
		s.folder, _ = s.store.(folderStore)
		if !a.cfg.ReadOnly {
			s.queue = newQueue(a, s)
		}
		a.shelves = append(a.shelves, s)
	}
	return nil
}

// storeName names a store in errors.
func storeName(name string) string {
	if name == "" {
		return "the store"
	}
	return "store " + name
}

// shelf returns a store by its name.
func (a *Archive) shelf(name string) (*shelf, error) {
	for _, s := range a.shelves {
		if s.name == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s is not configured: give it in storage.regions", storeName(name))
}

// lookApart finds out whether the spool lies on another file system than a
// store: rename(2) says so of a name that is not there as well. Where it does
// not, the first recording finds out.
func (a *Archive) lookApart() {
	for _, s := range a.shelves {
		if s.folder == nil || s.dir == "" {
			continue
		}
		name, err := vfs.TempName(a.spool("apart"))
		if err != nil {
			continue
		}
		err = a.fsys.Rename(name, filepath.Join(s.dir, filepath.Base(name)))
		s.apart.Store(errors.Is(err, syscall.EXDEV))
	}
}

// storeOf returns where the objects of a recording are read and written: in the
// spool as long as its store has not all of them, else in the store.
func (a *Archive) storeOf(p place) recorder.Store {
	if a.isSpooled(p.id()) {
		return spoolStore{a, p}
	}
	return p.store
}

// open opens an object of a recording.
func (a *Archive) open(ctx context.Context, p place, name string) (recorder.Blob, error) {
	return a.storeOf(p).Open(ctx, p.object(name))
}

// objects lists the names in the folder of a recording.
func (a *Archive) objects(ctx context.Context, p place) ([]string, error) {
	var names []string
	err := a.storeOf(p).List(ctx, p.prefix+"/", func(i recorder.BlobInfo) error {
		if name := path.Base(i.Name); name != markerFile {
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// has tells whether a recording is in a place.
func (a *Archive) has(ctx context.Context, p place) bool {
	b, err := a.open(ctx, p, segment.ManifestFile)
	if err != nil {
		return false
	}
	_ = b.Close() // only opened
	return true
}

// spooledPlaces returns the recordings whose store has not all of them yet.
func (a *Archive) spooledPlaces() []place {
	if a.cfg.ReadOnly {
		return a.spooledOnDisk()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]place, 0, len(a.spooled))
	for _, id := range slices.Sorted(maps.Keys(a.spooled)) {
		out = append(out, a.spooled[id])
	}
	return out
}

// spooledOnDisk is spooledPlaces for whoever did not put them there.
func (a *Archive) spooledOnDisk() (out []place) {
	entries, err := a.fsys.ReadDir(a.cfg.SpoolDir)
	if err != nil {
		return nil // there is no spool, or it is not ours to read
	}
	for _, e := range entries {
		if p, ok := a.waiting(e.Name()); ok && e.IsDir() && !reserved(e.Name()) {
			out = append(out, p)
		}
	}
	return out
}

// waiting tells whether a folder of the spool holds a finished recording that
// waits for its store, by its marker. A manifest under its name is whole then.
func (a *Archive) waiting(id string) (place, bool) {
	mk, err := a.marker(id)
	if err != nil || mk.Version < markerQueued || mk.Discarded {
		return place{}, false
	}
	if _, err := a.fsys.Stat(a.spool(id, segment.ManifestFile)); err != nil {
		return place{}, false
	}
	s, err := a.shelf(mk.Store)
	return place{s, mk.Prefix}, err == nil
}

// isSpooled tells whether the objects of a recording are in the spool, finished,
// and not all of them in its store.
func (a *Archive) isSpooled(id string) bool {
	if a.cfg.ReadOnly {
		_, ok := a.waiting(id)
		return ok
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.spooled[id]
	return ok
}

func (a *Archive) setSpooled(p place) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spooled[p.id()] = p
}

// spooledPlace returns the place of a recording that is in the spool.
func (a *Archive) spooledPlace(id string) (place, bool) {
	if a.cfg.ReadOnly {
		return a.waiting(id)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := a.spooled[id]
	return p, ok
}

// spoolStore is the folder of one finished recording in the spool as a store.
// What is not there is asked of the recording's own store.
type spoolStore struct {
	a *Archive
	p place
}

var _ recorder.Store = spoolStore{}

func (s spoolStore) path(name string) string { return s.a.spool(s.p.id(), path.Base(name)) }

// Open implements recorder.Store.
func (s spoolStore) Open(ctx context.Context, name string) (recorder.Blob, error) {
	b, err := segment.OpenFile(s.a.fsys, s.path(name))
	if errors.Is(err, recorder.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return s.p.store.Open(ctx, name)
	}
	return b, err
}

// Publish implements recorder.Store.
func (s spoolStore) Publish(_ context.Context, name, localFile string) error {
	if err := s.a.fsys.Rename(localFile, s.path(name)); err != nil {
		if _, serr := s.a.fsys.Stat(s.path(name)); serr != nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.a.fsys.SyncDir(s.a.spool(s.p.id()))
}

// Put implements recorder.Store.
func (s spoolStore) Put(_ context.Context, name string, content []byte) error {
	return vfs.WriteFile(s.a.fsys, s.path(name), content)
}

// List implements recorder.Store.
func (s spoolStore) List(ctx context.Context, _ string, f func(recorder.BlobInfo) error) error {
	entries, err := s.a.fsys.ReadDir(s.a.spool(s.p.id()))
	if errors.Is(err, fs.ErrNotExist) {
		return s.p.store.List(ctx, s.p.prefix+"/", f) // it went there just now
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !isObject(e.Name()) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if err := f(recorder.BlobInfo{Name: s.p.object(e.Name()), Size: info.Size(), Modified: info.ModTime()}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// isObject tells whether a file in the spool is one that a store gets.
func isObject(name string) bool {
	return name != markerFile && name[0] != '.' && filepath.Ext(name) != overExt
}

// Delete implements recorder.Store.
func (s spoolStore) Delete(_ context.Context, name string) error {
	if err := s.a.fsys.Remove(s.path(name)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return recorder.ErrNotFound
		}
		return err
	}
	return s.a.fsys.SyncDir(s.a.spool(s.p.id()))
}

// Check implements recorder.Store.
func (s spoolStore) Check(context.Context) error { return nil }
