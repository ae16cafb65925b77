package seal

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// keyFileBytesMax bounds a key file: about 4,000 keys.
const keyFileBytesMax = 1 << 20

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

	Former []Source                                   // see EnvelopeConfig
	Tell   func(event string, data map[string]string) // hears of key.rotated; nil: nobody does

	// MayMake is asked before a missing file is made; nil: it may be.
	MayMake func() error
}

// Local keeps the key-encryption keys in a file: a KEK, and a Sealer that wraps
// with it. Safe for concurrent use.
type Local struct {
	*Envelope // direct

	path string
	fsys vfs.FS

	changing sync.Mutex // held while this process changes the file; before mu

	mu   sync.RWMutex // guards keys
	keys *keks
}

// keks is one state of the key file; it never changes.
type keks struct {
	handle  *keyset.Handle
	aead    tink.AEAD
	primary string
	ids     map[string]bool // enabled keys
	info    fs.FileInfo     // of the file, before it was read
}

var (
	_ recorder.Sealer = (*Local)(nil)
	_ Rotator         = localKEK{}
	_ Retirer         = localKEK{}
	_ Lister          = localKEK{}
)

// localKEK is a Local as a KEK.
type localKEK struct{ *Local }

// Close implements KEK.
func (localKEK) Close() error { return nil }

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
		if cfg.MayMake != nil {
			if err := cfg.MayMake(); err != nil {
				return nil, &KeyFileError{cfg.Path, "restore it from a backup; when there never was one, because other keys were in use, trunktap keys init makes it", err}
			}
		}
		if k, err = l.generate(); err != nil {
			return nil, err
		}
	}
	l.keys = k
	l.Envelope = NewEnvelope(EnvelopeConfig{Active: Source{KEK: localKEK{l}}, Former: cfg.Former, Tell: cfg.Tell, Direct: true})
	return l, nil
}

// KEK returns the keys as a source, to be used in an Envelope.
func (l *Local) KEK() KEK { return localKEK{l} }

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
	k.info = info
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

// wrapper tells which of the keys Tink would unwrap with; "" when that is not told.
func (k *keks) wrapper(wrapped []byte) string {
	if len(wrapped) < 5 || wrapped[0] != 1 {
		return ""
	}
	if id := strconv.FormatUint(uint64(binary.BigEndian.Uint32(wrapped[1:])), 10); k.ids[id] {
		return id
	}
	return ""
}

// generate makes the first key file, unless another process has by now.
func (l *Local) generate() (*keks, error) {
	if err := vfs.MkdirAll(l.fsys, filepath.Dir(l.path)); err != nil {
		return nil, &KeyFileError{l.path, "make its directory writable for the daemon's user", err}
	}
	unlock, err := l.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if k, err := l.load(); !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make a key-encryption key: %w", err)
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
	if b.Len() > keyFileBytesMax {
		return &KeyFileError{l.path, "retire old keys: trunktap keys ls, rewrap, retire", fmt.Errorf("%d bytes with one more key, at most %d", b.Len(), keyFileBytesMax)}
	}
	if err := vfs.WriteFile(l.fsys, l.path, b.Bytes()); err != nil {
		return &KeyFileError{l.path, "make its directory writable for the daemon's user", err}
	}
	return nil
}

// Rotate implements Rotator: it adds a key-encryption key and makes it the one
// that wraps new data keys; the others stay readable. Processes that share the file
// take turns.
func (l localKEK) Rotate(context.Context) (string, error) {
	k, err := l.change(func(m *keyset.Manager, _ *keks) error {
		id, err := m.Add(aead.AES256GCMKeyTemplate())
		if err == nil {
			err = m.SetPrimary(id)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("rotate keys: %w", err)
	}
	return k.primary, nil
}

// Retire implements Retirer.
func (l localKEK) Retire(_ context.Context, name string) error {
	_, err := l.change(func(m *keyset.Manager, now *keks) error {
		id, err := strconv.ParseUint(name, 10, 32)
		switch {
		case err != nil || !now.ids[name]:
			return fmt.Errorf("key %q is not in %s: %w", name, l.path, recorder.ErrNotFound)
		case name == now.primary:
			return &recorder.RefusedError{Why: "key " + name + " is the active one: rotate first"}
		}
		return m.Delete(uint32(id))
	})
	if err != nil {
		return fmt.Errorf("retire key: %w", err)
	}
	return nil
}

// Keys implements Lister.
func (l localKEK) Keys(context.Context) ([]KeyInfo, error) {
	k, err := l.reload()
	if err != nil {
		return nil, err
	}
	var out []KeyInfo
	for id := range k.ids {
		out = append(out, KeyInfo{Name: id, Active: id == k.primary})
	}
	slices.SortFunc(out, func(a, b KeyInfo) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// change replaces the key file by one that edit makes of it.
func (l *Local) change(edit func(m *keyset.Manager, now *keks) error) (*keks, error) {
	l.changing.Lock()
	defer l.changing.Unlock()
	unlock, err := l.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	now, err := l.load() // another process may have rotated since
	if err != nil {
		return nil, err
	}
	m := keyset.NewManagerFromHandle(now.handle)
	if err := edit(m, now); err != nil {
		return nil, err
	}
	h, err := m.Handle()
	if err != nil {
		return nil, err
	}
	if err := l.save(h); err != nil {
		return nil, err
	}
	return l.reload()
}

func (l *Local) current() *keks {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.keys
}

// reload reads the key file again: another process may have changed it. What is not
// known to be durable is for reading only: a crash must not take a key away that has
// sealed something.
func (l *Local) reload() (*keks, error) {
	k, err := l.load()
	if err != nil {
		return nil, err
	}
	if l.fsys.SyncDir(filepath.Dir(l.path)) != nil {
		return k, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys = k
	return k, nil
}

// Active returns the name of the key that wraps what is new.
func (l localKEK) Active() string { return l.current().primary }

// Wrap implements KEK.
func (l localKEK) Wrap(_ context.Context, plaintext, aad []byte) (string, []byte, error) {
	k := l.follow()
	b, err := k.aead.Encrypt(plaintext, aad)
	return k.primary, b, err
}

// Unwrap implements KEK.
func (l localKEK) Unwrap(_ context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	k := l.current()
	if !k.ids[name] {
		again, err := l.reload()
		if err != nil {
			return nil, fmt.Errorf("%w: key-encryption key %q: %w", recorder.ErrKey, name, err)
		}
		if k = again; !k.ids[name] {
			return nil, fmt.Errorf("%w: key-encryption key %q is not in %s", ErrRevoked, name, l.path)
		}
	}
	if other := k.wrapper(wrapped); other != "" && other != name {
		return nil, recorder.ErrTampered // so that what is refused by name cannot be had by another
	}
	b, err := k.aead.Decrypt(wrapped, aad)
	if err != nil {
		return nil, recorder.ErrTampered // Tink says no more than that it failed, on purpose
	}
	return b, nil
}
