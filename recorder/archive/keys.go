package archive

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path"
	"sync"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// openKeys opens the keys. Missing ones are made, but not beside recordings that
// were sealed with lost ones.
func (a *Archive) openKeys() error {
	open := a.cfg.Sealing
	if open == nil {
		open = a.localKeys
	}
	s, err := open(a.fsys, a.mayMakeKeys)
	if err != nil {
		return err
	}
	a.sealer = s
	return nil
}

func (a *Archive) mayMakeKeys() error {
	err := a.eachObject(context.Background(), func(_ *shelf, i recorder.BlobInfo) error {
		if audit.Owned(i.Name) {
			return nil
		}
		return errFound
	})
	if errors.Is(err, errFound) {
		return fmt.Errorf("%w: the file is missing, but the store has recordings that only its keys can open", recorder.ErrKey)
	}
	return err
}

func (a *Archive) localKeys(fsys vfs.FS, mayMake func() error) (recorder.Sealer, error) {
	return seal.OpenLocal(seal.LocalConfig{Path: a.cfg.KeyFile, FS: fsys, ReadOnly: a.cfg.ReadOnly, MayMake: mayMake})
}

// canSeal tells whether a data key could be made now, without asking a key service.
func (a *Archive) canSeal(ctx context.Context) error {
	if s, ok := a.sealer.(interface{ Check() error }); ok {
		return s.Check()
	}
	k, err := a.sealer.NewKey(ctx, "check")
	if err == nil {
		k.Close()
	}
	return err
}

// lockKey keeps the file with a recording's key as it is, until the function that
// it returns is called.
func (a *Archive) lockKey(id string) (unlock func()) {
	mu := a.keyLock(id)
	mu.Lock()
	return mu.Unlock
}

// tryLockKey is lockKey for whoever can come again.
func (a *Archive) tryLockKey(id string) (unlock func(), ok bool) {
	mu := a.keyLock(id)
	return mu.Unlock, mu.TryLock()
}

func (a *Archive) keyLock(id string) *sync.Mutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return &a.keyLocks[h.Sum32()%uint32(len(a.keyLocks))]
}

// keyring opens the files of one recording, whose key lies in a file beside them
// or, in version 1, in each of them. A file beside has precedence: it is what
// rewrapping and shredding write.
type keyring struct {
	a    *Archive
	read func(context.Context) ([]byte, error) // the file; recorder.ErrNotFound

	mu  sync.Mutex // guards all following
	rec *segment.KeyRecord
}

// keys returns what opens the files of a recording in its place.
func (a *Archive) keys(p place) *keyring {
	return &keyring{a: a, read: func(ctx context.Context) ([]byte, error) {
		return a.readSmall(ctx, p, segment.KeyFile)
	}}
}

// readSmall reads a small object of a recording.
func (a *Archive) readSmall(ctx context.Context, p place, name string) ([]byte, error) {
	b, err := a.open(ctx, p, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // only read
	if b.Size() > segment.KeyFileBytesMax {
		return nil, fmt.Errorf("%s has %d bytes: %w", name, b.Size(), segment.ErrKeyFile)
	}
	content := make([]byte, b.Size())
	if n, err := b.ReadAt(content, 0); n < len(content) {
		return nil, fmt.Errorf("read %s: %w", p.object(name), err)
	}
	return content, nil
}

// spoolKeys returns what opens the files of a recording in the spool.
func (a *Archive) spoolKeys(id string) *keyring {
	return &keyring{a: a, read: func(context.Context) ([]byte, error) {
		b, err := vfs.ReadFile(a.fsys, a.spool(id, segment.KeyFile), segment.KeyFileBytesMax)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: %w", segment.KeyFile, recorder.ErrNotFound)
		}
		return b, err
	}}
}

// record returns the content of the file. recorder.ErrNotFound, segment.ErrKeyFile.
func (k *keyring) record(ctx context.Context, id string) (segment.KeyRecord, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.rec != nil {
		return *k.rec, nil
	}
	content, err := k.read(ctx)
	if err != nil {
		return segment.KeyRecord{}, err
	}
	rec, err := segment.ParseKeyRecord(content)
	if err == nil && rec.Recording != id {
		err = fmt.Errorf("%w: it is that of recording %s", segment.ErrKeyFile, rec.Recording)
	}
	if err != nil {
		return rec, err
	}
	k.rec = &rec
	return rec, nil
}

// errKeyLost says that a recording has no wrapped key.
var errKeyLost = fmt.Errorf("%w: its %s is missing, restore it from a backup", recorder.ErrKey, segment.KeyFile)

// OpenKey implements segment.Opener. *recorder.ShreddedError when the key was destroyed.
func (k *keyring) OpenKey(ctx context.Context, id string, inside recorder.WrappedKey) (recorder.DataKey, error) {
	rec, err := k.record(ctx, id)
	switch {
	case err == nil && rec.Shredded != nil:
		return nil, &recorder.ShreddedError{Recording: id, Shredded: *rec.Shredded}
	case err == nil:
		return k.a.sealer.OpenKey(ctx, id, rec.Key)
	case !errors.Is(err, recorder.ErrNotFound):
		return nil, err
	case inside.IsZero():
		return nil, errKeyLost
	}
	return k.a.sealer.OpenKey(ctx, id, inside)
}

// keyRecord is what the file with the recording's key says.
func (s *sink) keyRecord() segment.KeyRecord {
	at := s.created.UTC().Round(0)
	return segment.KeyRecord{Recording: s.id, Prefix: s.at.prefix, Key: s.key.Wrapped(), Created: at, Wrapped: at}
}

// keyBeside writes the file with the recording's key, to be made durable with the
// first frame: so no audio is ever promised that could not be read. Nil: it is
// durable already.
func (s *sink) keyBeside() (vfs.File, error) {
	for _, w := range s.writers {
		s.keyed = s.keyed || w.Entered()
	}
	if s.keyed {
		return nil, nil
	}
	content, err := s.keyRecord().Encode()
	if err != nil {
		return nil, err
	}
	f, err := s.a.fsys.OpenFile(path.Join(s.dir, segment.KeyFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(content, 0); err != nil {
		_ = f.Close() // it is written anew
		return nil, err
	}
	s.keySize = int64(len(content))
	return f, nil
}

// keyDurable makes the file with the recording's key durable, if no segment has.
func (s *sink) keyDurable() error {
	f, err := s.keyBeside()
	if err != nil || f == nil {
		return err
	}
	err = s.a.durable(f, s.dir, s.a.cfg.SpoolDir)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	s.keyed = err == nil
	return err
}

// keys opens the recording's files in the spool.
func (r *recovery) keys() *keyring {
	if r.ring == nil {
		r.ring = r.a.spoolKeys(r.ID)
	}
	return r.ring
}

// ensureKey gives a recording of version 1 a file with its key: what is written of
// it from now on does not have it.
func (r *recovery) ensureKey() error {
	_, err := r.keys().record(r.ctx, r.ID)
	if !errors.Is(err, recorder.ErrNotFound) {
		return err
	}
	content, err := upgraded(r.ID, r.Prefix, r.marker.Key)
	if err != nil {
		return err
	}
	return vfs.WriteFile(r.a.fsys, r.a.spool(r.ID, segment.KeyFile), content)
}

// upgraded is the file with the key of a recording of version 1.
func upgraded(id, prefix string, inside recorder.WrappedKey) ([]byte, error) {
	now := time.Now().UTC()
	return segment.KeyRecord{Recording: id, Prefix: prefix, Key: inside, Created: now, Wrapped: now}.Encode()
}

// putKey publishes the file with the key, unless the store has one: that may be
// newer, or tell that the recording was shredded.
func (r *recovery) putKey() error {
	content, err := r.keys().read(r.ctx)
	if errors.Is(err, recorder.ErrNotFound) {
		return nil // of version 1, and published before
	}
	if err != nil {
		return err
	}
	_, err = r.a.keys(r.at).record(r.ctx, r.ID)
	if err == nil || !errors.Is(err, recorder.ErrNotFound) {
		return err
	}
	return r.at.store.Put(r.ctx, r.at.object(segment.KeyFile), content)
}

// byKey finds out whose folder it is by the file with the key; false: it is of
// version 1, or empty. Without that file, or when it is torn, nothing in the
// folder can be read: no frame was acknowledged before it was durable.
func (r *recovery) byKey(files []fs.DirEntry, mk marker) (bool, error) {
	rec, err := r.keys().record(r.ctx, r.ID)
	switch {
	case err == nil && rec.Shredded != nil:
		return true, fmt.Errorf("what is left of it in the spool is not needed: %w", &recorder.ShreddedError{Recording: r.ID, Shredded: *rec.Shredded})
	case err == nil:
		k, err := r.keys().OpenKey(r.ctx, r.ID, recorder.WrappedKey{})
		if err != nil {
			return true, err
		}
		k.Close()
		if err := r.a.checkName(r.ID, rec.Prefix); err != nil {
			return true, fmt.Errorf("%w: %w", segment.ErrKeyFile, err)
		}
		return true, r.found(marker{Version: max(mk.Version, 1), Recording: r.ID, Prefix: rec.Prefix, Store: mk.Store})
	case !errors.Is(err, recorder.ErrNotFound) && !errors.Is(err, segment.ErrKeyFile):
		return true, err
	}
	whole, old, lerr := r.lookAt(files)
	missing := errors.Is(err, recorder.ErrNotFound)
	switch {
	case lerr != nil:
		return true, lerr
	case missing && (old || !whole && mk.Recording == ""):
		return false, nil
	case !whole: // the machine died before anything was durable
		r.empty = true
		return true, nil
	}
	return true, fmt.Errorf("%w: %w", errUnpromised, err)
}

// errUnpromised says that a recording in the spool has no key. No frame of it was
// acknowledged, or the disk has lost what was made durable.
var errUnpromised = errors.New("it cannot be read, because its key was not durable before the first audio was acknowledged, or was lost by the disk since")

// lookAt tells whether a folder has a segment or manifest that is more than a torn
// beginning, and whether such a one has its key inside.
func (r *recovery) lookAt(files []fs.DirEntry) (whole, old bool, err error) {
	for _, f := range files {
		if _, ok := segment.NumberOf(f.Name()); !ok && f.Name() != segment.ManifestFile {
			continue
		}
		b, err := segment.OpenFile(r.a.fsys, r.a.spool(r.ID, f.Name()))
		if err != nil {
			return false, false, err
		}
		torn, err := segment.Torn(b)
		inside, ierr := segment.KeyInside(b)
		_ = b.Close() // only read
		if err := errors.Join(err, ierr); err != nil {
			return false, false, err
		}
		whole, old = whole || !torn, old || !torn && inside
	}
	return whole, old, nil
}
