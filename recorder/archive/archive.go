// Package archive is the offline side of a recorder: store, keys and catalogue
// put together. It takes recordings, finds, plays, exports and verifies them,
// and repairs after a crash what was being taken.
package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/catalog"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Names in the spool that are no recordings.
const (
	rowsDir       = "rows"
	quarantineDir = "quarantine"
	deferredDir   = "deferred"
	goneDir       = "gone" // what its store has, on its way out
	keptDir       = "kept" // segments that its store has, kept for a while
	shreddingDir  = "shredding"
	deletingDir   = "deleting"
	withdrawnDir  = "withdrawn" // manifests that are deleted, until it is certain that they may be
)

// reserved tells whether a name in the spool can be no recording's.
func reserved(name string) bool {
	return name == rowsDir || name == quarantineDir || name == deferredDir || name == goneDir || name == keptDir ||
		name == unlinkedDir || name == shreddingDir || name == deletingDir || name == withdrawnDir
}

// Config says where an archive lies.
type Config struct {
	StoreDir     string // directory of the store
	SpoolDir     string // what is being recorded; best on the store's file system
	CatalogPath  string // SQLite file
	CatalogURL   string // replaces the path; see catalog.OpenURL
	KeyFile      string // key-encryption keys; made at first start
	FreeBytesMin int64  // store and spool cannot take a recording with fewer bytes free; 0: no limit
	SyncEvery    int    // writes of a segment between syncs; 0: each is synced

	// SyncPeriod makes what all recordings wrote durable together, once a period;
	// SyncEvery, 0 is 4 then, bounds what a segment may have that is not. 0: each
	// segment is synced for itself.
	SyncPeriod time.Duration

	// Stores are further stores by name. A recording goes to the one that its
	// SinkInfo names, and only there.
	Stores  map[string]StoreConfig
	Uploads UploadConfig
	Space   SpaceConfig

	// Retention says what Expire deletes; without rules nothing.
	Retention RetentionConfig

	// Notify is told what an operator may have to mend: the events store.down,
	// store.up, upload.failed, upload.behind, storage.low, storage.recovered,
	// recording.shredded and recording.deleted. It
	// must not wait.
	Notify func(event string, data map[string]any)

	// RecoverAtOnce is how many recordings Hold and Recover work on at a time; 1 when it is 0.
	// They share what it takes to be durable.
	RecoverAtOnce int

	// Deferred is what is coded anew after it was published; see StartDeferred.
	Deferred DeferredConfig

	// ReadOnly makes nothing: no keys, no folders. NewSink and Recover fail.
	ReadOnly bool

	// Sealing opens the keys, in place of KeyFile. When mayMake returns an error no
	// keys may be made: the store has recordings that only lost ones can open.
	Sealing func(fsys vfs.FS, mayMake func() error) (recorder.Sealer, error)

	// FS is the file system of store, spool and keys; nil: the machine's.
	FS vfs.FS
	// Node names this node in its rows, LogNode in its links.
	Node, LogNode string
	// CatalogOptions complete the catalogue's URL.
	CatalogOptions catalog.Options
	// CatalogWait is how long is waited, once, for a catalogue that is brought up to date; it
	// counts as down then until that is done. Zero: as long as it takes.
	CatalogWait time.Duration

	openCatalog func(ctx context.Context, url string, o catalog.Options) (recorder.Catalog, error) // nil: catalog.OpenURL

	// Trace takes entries for the log of an archive that has none (SetProof), durably.
	// Nil: they are nowhere.
	Trace func(audit.Entry) error

	// Store, Sealer and Catalog replace those that the paths above name.
	Store   recorder.Store
	Sealer  recorder.Sealer
	Catalog recorder.Catalog
}

// Archive is safe for concurrent use.
type Archive struct {
	cfg     Config // constant after Open
	fsys    vfs.FS
	shelves []*shelf // in order of name: the first is the one that has none
	sealer  recorder.Sealer

	catalogue lazyCatalog
	files     fileCache
	syncer    *segment.Syncer // nil: segments are synced one by one
	deferred  deferral
	space     space
	proof     proof

	swept      atomic.Pointer[SweepReport]
	spoolBytes atomic.Int64 // of recordings in the spool, those that go on included

	keyLocks [64]sync.Mutex // of the files with keys, by recording; before mu

	expiring sync.Mutex // held by the one run of Expire that deletes; before shredding
	retained retained

	shredding sync.Mutex // held while an order to shred or to delete is carried out; before keyLocks
	notes     sync.Mutex // guards the notes of rows, and noted
	noted     int64      // Unix ns of the last of them

	shredded  atomic.Int64
	rewrapped atomic.Int64

	asides sync.Mutex // held while something in quarantine gets its name

	mu      sync.Mutex            // guards all following
	began   uint64                // recordings so far
	live    map[string]*liveSpool // recordings that have an open sink
	pins    map[string]int        // recordings that are being read, by how many
	spooled map[string]place      // finished recordings of which the spool has more than their stores
}

// Open opens an archive. A catalogue that cannot be opened is no error: it is
// tried again when it is needed, and Ready tells.
func Open(cfg Config) (*Archive, error) {
	a := &Archive{cfg: cfg, fsys: cfg.FS, sealer: cfg.Sealer, live: map[string]*liveSpool{}, pins: map[string]int{}, spooled: map[string]place{}}
	if a.fsys == nil {
		a.fsys = vfs.OS{}
	}
	if err := a.openParts(); err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	if a.cfg.openCatalog == nil {
		a.cfg.openCatalog = func(ctx context.Context, url string, o catalog.Options) (recorder.Catalog, error) {
			c, err := catalog.OpenURL(ctx, url, o)
			if err != nil {
				return nil, err
			}
			return c, nil
		}
	}
	a.catalogue.cfg, a.catalogue.open = &a.cfg, cfg.Catalog
	a.catalogue.owned = cfg.Catalog == nil
	_, _ = a.catalogue.get(context.Background()) // the next use reports what is wrong
	return a, nil
}

func (a *Archive) openParts() error {
	if err := a.openShelves(); err != nil {
		return err
	}
	if a.sealer == nil {
		if err := a.openKeys(); err != nil {
			return err
		}
	}
	if a.cfg.ReadOnly {
		return nil
	}
	for _, dir := range []string{a.cfg.SpoolDir, a.spool(rowsDir), a.spool(deferredDir), a.spool(goneDir), a.spool(keptDir)} {
		if err := vfs.MkdirAll(a.fsys, dir); err != nil {
			return &store.CheckError{Path: dir, Hint: "make the spool directory writable for the daemon's user", Err: err}
		}
	}
	a.lookApart()
	a.clearGone()
	a.clearTemps()
	a.keepBallast()
	if err := a.loadDeferred(); err != nil {
		return err
	}
	return a.startSyncer()
}

// syncEveryDefault is how many writes of 500 ms a segment may have that are
// not durable while the Syncer is late: 2 s.
const syncEveryDefault = 4

func (a *Archive) startSyncer() error {
	if a.cfg.SyncPeriod == 0 {
		return nil
	}
	s, err := segment.NewSyncer(a.fsys, a.cfg.SpoolDir)
	if err != nil {
		return err
	}
	a.cfg.SyncEvery = cmp.Or(a.cfg.SyncEvery, syncEveryDefault)
	a.syncer = s
	s.Start(a.cfg.SyncPeriod)
	return nil
}

// Close closes the catalogue, and keys that Sealing opened. Sinks must be closed and what is deferred stopped
// before.
func (a *Archive) Close() error {
	var err error
	if a.syncer != nil {
		err = a.syncer.Close()
	}
	if s, ok := a.sealer.(io.Closer); ok && a.cfg.Sealing != nil {
		err = errors.Join(err, s.Close())
	}
	return errors.Join(err, a.catalogue.close())
}

// durable makes a file of the spool's file system durable, if there is one, and
// the entries of directories, together with whoever else wants that now.
func (a *Archive) durable(f vfs.File, dirs ...string) error {
	if a.syncer != nil {
		return a.syncer.Await(f, dirs...)
	}
	return vfs.Durable(a.fsys, f, dirs...)
}

// spool returns a path below the spool.
func (a *Archive) spool(elem ...string) string {
	return filepath.Join(append([]string{a.cfg.SpoolDir}, elem...)...)
}

// NotReady tells what cannot take a recording now.
type NotReady struct {
	Store   error
	Spool   error
	Keys    error
	Catalog error
}

// Error implements error.
func (e *NotReady) Error() string {
	var parts []string
	for _, err := range []error{e.Store, e.Spool, e.Keys, e.Catalog} {
		if err != nil {
			parts = append(parts, err.Error())
		}
	}
	return strings.Join(parts, "; ")
}

// Unwrap returns the causes.
func (e *NotReady) Unwrap() []error {
	var out []error
	for _, err := range []error{e.Store, e.Spool, e.Keys, e.Catalog} {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}

// Fatal tells whether a recording cannot be taken. When only the catalogue
// fails it can: its row follows later.
func (e *NotReady) Fatal() bool { return e.Store != nil || e.Spool != nil || e.Keys != nil }

func (e *NotReady) orNil() error {
	if e.Fatal() || e.Catalog != nil {
		return e
	}
	return nil
}

// CanRecord tells whether a recording could be taken now: store, spool and
// keys. It costs a few system calls. Errors are *NotReady.
func (a *Archive) CanRecord(ctx context.Context) error { return a.canRecord(ctx).orNil() }

func (a *Archive) canRecord(ctx context.Context) *NotReady {
	r := &NotReady{Spool: store.CheckDir(a.fsys, a.cfg.SpoolDir, a.cfg.FreeBytesMin)}
	for _, s := range a.shelves {
		if !s.queued() { // else the spool takes all, as long as it has room
			r.Store = errors.Join(r.Store, s.store.Check(ctx))
		}
	}
	r.Keys = a.canSeal(ctx)
	return r
}

// Ready tells whether everything works: CanRecord and the catalogue, which may
// take two seconds when it is locked. Errors are *NotReady.
func (a *Archive) Ready(ctx context.Context) error {
	r := a.canRecord(ctx)
	c, err := a.catalogue.get(ctx)
	if err == nil {
		if err = c.Check(ctx); err == nil {
			a.catalogue.setDown(false)
		}
	}
	r.Catalog = err
	return r.orNil()
}

// Find lists recordings as the catalogue knows them; their manifests are not
// authenticated, see Get.
func (a *Archive) Find(ctx context.Context, q recorder.Query) (recorder.Page, error) {
	c, err := a.catalogue.get(ctx)
	if err != nil {
		return recorder.Page{}, err
	}
	return c.Find(ctx, q)
}

// Get returns the manifest of a recording from the store, authenticated.
// recorder.ErrNotFound, ErrTampered, ErrKey. It works without the catalogue, if
// slower.
func (a *Archive) Get(ctx context.Context, id string) (*recorder.Manifest, error) {
	m, _, err := a.load(ctx, id)
	return m, err
}

// load finds a recording and returns its manifest and place.
func (a *Archive) load(ctx context.Context, id string) (*recorder.Manifest, place, error) {
	p, err := a.locate(ctx, id)
	if err != nil {
		return nil, place{}, err
	}
	m, err := a.manifest(ctx, id, p)
	return m, p, err
}

// manifest reads the manifest in a place; id is whose it must be, empty: anyone's
// whose folder it is.
func (a *Archive) manifest(ctx context.Context, id string, p place) (*recorder.Manifest, error) {
	o, err := a.opened(ctx, id, p)
	return o.Manifest, err
}

// opened is manifest with what stands beside it.
func (a *Archive) opened(ctx context.Context, id string, p place) (segment.Opened, error) {
	b, err := a.open(ctx, p, segment.ManifestFile)
	if err != nil {
		return segment.Opened{}, fmt.Errorf("recording %s: %w", id, err)
	}
	defer func() { _ = b.Close() }() // only read
	o, err := segment.OpenLinked(ctx, b, a.keys(p))
	if err != nil {
		return segment.Opened{}, err
	}
	if m := o.Manifest; id != "" && m.ID != id || o.Header.Prefix != p.prefix {
		return segment.Opened{}, fmt.Errorf("recording %s: in %s lies the manifest of recording %s, folder %s: %w", id, p.prefix, m.ID, o.Header.Prefix, recorder.ErrTampered)
	}
	return o, nil
}

// pin keeps the segments of a recording from being replaced under a reader,
// until the function that it returns is called. Pin first, then read the manifest.
func (a *Archive) pin(id string) (release func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pins[id]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.pins[id]--; a.pins[id] == 0 {
			delete(a.pins, id)
		}
	}
}

func (a *Archive) pinned(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pins[id] > 0
}
