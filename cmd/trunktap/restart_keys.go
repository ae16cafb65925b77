package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/journal"
)

// journalKeys makes the key of the journal. Calls go on although the key service of
// the recordings is away, so it is a key of its own that lies in two places: in memory
// that outlives the process and not the machine, and in the journal, sealed as
// recordings are. Either may be missing.
type journalKeys struct {
	sealer recorder.Sealer
	dir    string // in a memory file system; empty: none
	base   string // of the names of files there
	late   *lateKey
	copies *keyCopies
}

// keyCopies tells where copies of the key are that another process would find.
type keyCopies struct {
	memory, sealed atomic.Bool
	keepFailed     error // why there is none in memory; not for changes after New
}

const (
	// journalKeyName binds the journal's data key.
	journalKeyName = "calls-journal"

	journalKeyBytes = 32
	journalIDBytes  = 8
)

// wrappedJournalKey tells where the key of a journal is. Of version 1 it is a data key
// of the sealer itself.
type wrappedJournalKey struct {
	recorder.WrappedKey
	Own []byte `json:"own,omitempty"` // the key, sealed by that data key
	Run string `json:"run,omitempty"` // the id of the copy in memory
}

// ownKey is a key of the journal.
type ownKey struct{ aead *subtle.AESGCM }

func newOwnKey(b []byte) (journal.Key, error) {
	a, err := subtle.NewAESGCM(b)
	return ownKey{a}, err
}

// Seal implements journal.Key.
func (k ownKey) Seal(plaintext, bind []byte) ([]byte, error) { return k.aead.Encrypt(plaintext, bind) }

// Open implements journal.Key.
func (k ownKey) Open(sealed, bind []byte) ([]byte, error) { return k.aead.Decrypt(sealed, bind) }

// New implements journal.Keys.
func (k journalKeys) New() (journal.Key, []byte, error) {
	b, id := make([]byte, journalKeyBytes), make([]byte, journalIDBytes)
	defer clear(b)
	_, _ = rand.Read(b) // never fails
	_, _ = rand.Read(id)
	w := wrappedJournalKey{Run: hex.EncodeToString(id)}
	err := k.keep(w.Run, b)
	if err != nil {
		w.Run = ""
	}
	k.copies.memory.Store(err == nil)
	k.copies.keepFailed = err
	if serr := k.seal(context.Background(), &w, b); serr != nil {
		if k.late == nil && err != nil {
			return nil, nil, errors.Join(serr, err)
		}
		w.WrappedKey, w.Own = recorder.WrappedKey{}, nil
		k.late.note(w, b, serr)
	} else {
		k.copies.sealed.Store(true)
	}
	key, err := newOwnKey(b)
	if err != nil {
		return nil, nil, err
	}
	wrapped, err := json.Marshal(w)
	return key, wrapped, err
}

func (k journalKeys) seal(ctx context.Context, w *wrappedJournalKey, b []byte) error {
	key, err := k.sealer.NewKey(ctx, journalKeyName)
	if err != nil {
		return err
	}
	defer key.Close()
	w.WrappedKey = key.Wrapped()
	w.Own, err = key.Seal(b, []byte(journalKeyName))
	return err
}

// Open implements journal.Keys.
func (k journalKeys) Open(wrapped []byte) (journal.Key, error) {
	var w wrappedJournalKey
	if err := json.Unmarshal(wrapped, &w); err != nil {
		return nil, err
	}
	b, rerr := k.kept(w.Run)
	if rerr == nil {
		defer clear(b)
		return newOwnKey(b)
	}
	if w.IsZero() {
		return nil, rerr
	}
	key, err := k.sealer.OpenKey(context.Background(), journalKeyName, w.WrappedKey)
	if err != nil || w.Own == nil {
		return key, err
	}
	defer key.Close()
	if b, err = key.Open(w.Own, []byte(journalKeyName)); err != nil {
		return nil, err
	}
	defer clear(b)
	return newOwnKey(b)
}

func (k journalKeys) path(id string) string { return filepath.Join(k.dir, k.base+"."+id) }

var errNotKept = errors.New("no copy of the journal's key is in memory")

// keep puts a key where it outlives the process.
func (k journalKeys) keep(id string, b []byte) error {
	if k.dir == "" {
		return errNotKept
	}
	f, err := os.OpenFile(k.path(id), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("keep the journal's key in memory: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(k.path(id)) // the first error is the one to report
		return fmt.Errorf("keep the journal's key in memory: %w", err)
	}
	return nil
}

// kept returns a key that a process before has kept. What others could have put there
// or read is none.
func (k journalKeys) kept(id string) ([]byte, error) {
	if k.dir == "" || len(id) != 2*journalIDBytes || strings.Trim(id, "0123456789abcdef") != "" {
		return nil, errNotKept
	}
	f, err := os.OpenFile(k.path(id), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotKept, err)
	}
	defer func() { _ = f.Close() }() // only read
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotKept, err)
	}
	if st.Uid != uint32(os.Geteuid()) || st.Mode&(unix.S_IFMT|0o077) != unix.S_IFREG || st.Size != journalKeyBytes {
		return nil, fmt.Errorf("%w: %s is not this user's alone", errNotKept, k.path(id))
	}
	b := make([]byte, journalKeyBytes)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotKept, err)
	}
	return b, nil
}

// forget removes the keys of journals that are no more: all but that of a head.
func (k journalKeys) forget(except string) {
	if k.dir == "" {
		return
	}
	files, err := filepath.Glob(filepath.Join(k.dir, k.base+".*"))
	if err != nil {
		return
	}
	for _, f := range files {
		if except == "" || f != k.path(except) {
			_ = os.Remove(f) // of another user, perhaps: it opens nothing here
		}
	}
}

// runOf is the id of the copy in memory of the key of a journal.
func runOf(wrapped []byte) string {
	var w wrappedJournalKey
	if json.Unmarshal(wrapped, &w) != nil {
		return ""
	}
	return w.Run
}

// newJournalKeys finds a place in memory for the key of the journal at a path: the
// configured one, or systemd's RuntimeDirectory, or /dev/shm. Others are refused.
func newJournalKeys(sealer recorder.Sealer, dir, path string) (journalKeys, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return journalKeys{sealer: sealer, late: &lateKey{}, copies: &keyCopies{}}, err
	}
	sum := sha256.Sum256([]byte(abs))
	k := journalKeys{sealer: sealer, late: &lateKey{}, copies: &keyCopies{}, base: "trunktap-journal-" + hex.EncodeToString(sum[:6])}
	switch dir {
	case "none":
		return k, nil
	case "auto":
		run, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
		for _, d := range []string{run, "/dev/shm"} {
			if d != "" && inMemory(d) == nil && unix.Access(d, unix.W_OK) == nil {
				k.dir = d
				return k, nil
			}
		}
		return k, nil
	}
	if err := inMemory(dir); err != nil {
		return k, fmt.Errorf("restart.key_dir: %w", err)
	}
	k.dir = dir
	return k, nil
}

// inMemory says why a folder is on a disk; nil: it is not.
func inMemory(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is on a disk: the key of the journal would lie beside it; name a folder in a tmpfs, or none", dir)
	}
	return nil
}
