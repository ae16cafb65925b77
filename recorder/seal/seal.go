// Package seal makes, wraps and opens the data keys of recordings. Keys and
// formats are Tink's; the package says which keys there are and what they are
// bound to.
package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Limits of what is read from outside.
const (
	keyFileBytesMax = 1 << 20  // a keyset of about 4,000 keys
	wrappedBytesMax = 16 << 10 // a wrapped data key has about 180 bytes
)

// KeyFileError says what is wrong with a key file and what to do about it.
type KeyFileError struct {
	Path string
	Hint string
	Err  error
}

// Error implements error.
func (e *KeyFileError) Error() string {
	return fmt.Sprintf("key file %s: %v (%s)", e.Path, e.Err, e.Hint)
}

// Unwrap returns the cause.
func (e *KeyFileError) Unwrap() error { return e.Err }

// LocalConfig configures the mode `local`: key-encryption keys in a file.
type LocalConfig struct {
	Path     string // a Tink JSON keyset of AES-256-GCM keys, mode 0600
	FS       vfs.FS // nil: the machine's
	ReadOnly bool   // a missing file is an error, not a reason to make one
}

// Local keeps the key-encryption keys in a file. It is safe for concurrent use.
type Local struct {
	path string
	fsys vfs.FS

	mu   sync.RWMutex // guards keys
	keys *keks
}

// keks is one state of the key file; it never changes.
type keks struct {
	handle  *keyset.Handle
	aead    tink.AEAD
	primary string
	ids     map[string]bool // enabled keys
}

var _ recorder.Sealer = (*Local)(nil)

// OpenLocal reads the key file and makes it when it does not exist. Errors are
// *KeyFileError; recorder.ErrKey is in their chain when the file is missing and
// may not be made.
func OpenLocal(cfg LocalConfig) (*Local, error) {
	l := &Local{path: cfg.Path, fsys: cfg.FS}
	if l.fsys == nil {
		l.fsys = vfs.OS{}
	}
	k, err := l.load()
	switch {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case cfg.ReadOnly:
		return nil, &KeyFileError{cfg.Path, "restore the file; without it no recording can be read", fmt.Errorf("%w: %w", recorder.ErrKey, fs.ErrNotExist)}
	default:
		if k, err = l.generate(); err != nil {
			return nil, err
		}
	}
	l.keys = k
	return l, nil
}

// load reads and checks the key file.
func (l *Local) load() (*keks, error) {
	info, err := l.fsys.Stat(l.path)
	if err != nil {
		return nil, &KeyFileError{l.path, "check the path and its permissions", err}
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, &KeyFileError{l.path, "chmod 600 " + l.path, fmt.Errorf("mode %04o lets group or others at the keys", perm)}
	}
	b, err := vfs.ReadFile(l.fsys, l.path, keyFileBytesMax)
	if err != nil {
		return nil, &KeyFileError{l.path, "check that the daemon's user may read it", err}
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(b)))
	if err != nil {
		return nil, &KeyFileError{l.path, "restore it from a backup: it is no Tink JSON keyset", err}
	}
	k, err := newKEKs(h)
	if err != nil {
		return nil, &KeyFileError{l.path, "restore it from a backup: its keys cannot be used", err}
	}
	return k, nil
}

func newKEKs(h *keyset.Handle) (*keks, error) {
	a, err := aead.New(h)
	if err != nil {
		return nil, err
	}
	k := &keks{handle: h, aead: a, ids: map[string]bool{}}
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			return nil, err
		}
		id := strconv.FormatUint(uint64(e.KeyID()), 10)
		if e.KeyStatus() == keyset.Enabled {
			k.ids[id] = true
		}
		if e.IsPrimary() {
			k.primary = id
		}
	}
	return k, nil
}

// generate makes the first key file.
func (l *Local) generate() (*keks, error) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make a key-encryption key: %w", err)
	}
	if err := vfs.MkdirAll(l.fsys, filepath.Dir(l.path)); err != nil {
		return nil, &KeyFileError{l.path, "make its directory writable for the daemon's user", err}
	}
	if err := l.save(h); err != nil {
		return nil, err
	}
	// What is used is what was read back: a key that is not on the disk must
	// never seal anything.
	return l.load()
}

// save replaces the key file in one step.
func (l *Local) save(h *keyset.Handle) error {
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&b)); err != nil {
		return fmt.Errorf("write keyset: %w", err)
	}
	b.WriteByte('\n')
	if err := vfs.WriteFile(l.fsys, l.path, b.Bytes()); err != nil {
		return &KeyFileError{l.path, "make its directory writable for the daemon's user", err}
	}
	return nil
}

// Rotate adds a key-encryption key and makes it the one that wraps new data
// keys; the others stay readable. It returns the name of the new key. Of two
// processes that rotate at once one gets an error.
func (l *Local) Rotate() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lock := l.path + ".rotating"
	f, err := l.fsys.OpenFile(lock, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", &KeyFileError{lock, "another rotation is under way; when none is, remove this file", err}
	}
	defer func() { _ = l.fsys.Remove(lock) }() // a left lock names itself at the next rotation
	if err := f.Close(); err != nil {
		return "", &KeyFileError{lock, "check the disk", err}
	}
	now, err := l.load() // another process may have rotated since
	if err != nil {
		return "", err
	}
	m := keyset.NewManagerFromHandle(now.handle)
	id, err := m.Add(aead.AES256GCMKeyTemplate())
	if err == nil {
		err = m.SetPrimary(id)
	}
	if err != nil {
		return "", fmt.Errorf("rotate keys: %w", err)
	}
	h, err := m.Handle()
	if err != nil {
		return "", fmt.Errorf("rotate keys: %w", err)
	}
	if err := l.save(h); err != nil {
		return "", err
	}
	k, err := l.load()
	if err != nil {
		return "", err
	}
	l.keys = k
	return k.primary, nil
}

func (l *Local) current() *keks {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.keys
}

// reload reads the key file again when it does not know a key: another process
// may have rotated.
func (l *Local) reload() (*keks, error) {
	k, err := l.load()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys = k
	return k, nil
}

// bindKey is the associated data of a wrapped data key.
func bindKey(recording string) []byte { return []byte("trunktap data key 1\x00" + recording) }

// NewKey implements recorder.Sealer.
func (l *Local) NewKey(_ context.Context, recording string) (recorder.DataKey, error) {
	k := l.current()
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make data key: %w", err)
	}
	var b bytes.Buffer
	if err := h.WriteWithAssociatedData(keyset.NewBinaryWriter(&b), k.aead, bindKey(recording)); err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	return newDataKey(h, recorder.WrappedKey{KEK: k.primary, Bytes: b.Bytes()})
}

// OpenKey implements recorder.Sealer.
func (l *Local) OpenKey(_ context.Context, recording string, w recorder.WrappedKey) (recorder.DataKey, error) {
	if len(w.Bytes) > wrappedBytesMax {
		return nil, fmt.Errorf("unwrap data key: %d bytes: %w", len(w.Bytes), recorder.ErrTampered)
	}
	k := l.current()
	if !k.ids[w.KEK] {
		again, err := l.reload()
		if err != nil {
			return nil, fmt.Errorf("%w: key-encryption key %q: %w", recorder.ErrKey, w.KEK, err)
		}
		if k = again; !k.ids[w.KEK] {
			return nil, fmt.Errorf("%w: key-encryption key %q is not in %s", recorder.ErrKey, w.KEK, l.path)
		}
	}
	h, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(w.Bytes)), k.aead, bindKey(recording))
	if err != nil {
		return nil, fmt.Errorf("unwrap data key: %w", recorder.ErrTampered)
	}
	return newDataKey(h, w)
}
