package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// unlinkedDir of the spool names recordings that were published without a link,
// because the log could not be written.
const unlinkedDir = "unlinked"

// proof is what makes manifests links of the node's chain.
type proof struct {
	log atomic.Pointer[audit.Log] // nil: manifests are not signed

	replacing sync.Mutex // held while a manifest in a store is read and replaced
	unlinked  atomic.Int64
}

// SetProof makes the archive sign what it publishes from now on. The log must
// be open as long as the archive is.
func (a *Archive) SetProof(l *audit.Log) { a.proof.log.Store(l) }

// Store returns the store that has no name.
func (a *Archive) Store() recorder.Store { return a.shelves[0].store }

// DurableIn returns how files in dir become durable together with those of the
// spool, nil when they lie on another file system.
func (a *Archive) DurableIn(dir string) func(f vfs.File, dirs ...string) error {
	name, err := vfs.TempName(a.spool("apart"))
	if err != nil || a.syncer == nil {
		return nil
	}
	if err := a.fsys.Rename(name, filepath.Join(dir, filepath.Base(name))); errors.Is(err, syscall.EXDEV) {
		return nil
	}
	return a.durable
}

// Unlinked tells how many recordings wait for their link.
func (a *Archive) Unlinked() int64 { return a.proof.unlinked.Load() }

// sealManifest seals a manifest and puts the next link of the chain behind it.
// While the log cannot be written the recording goes without, and LinkUp
// follows.
func (a *Archive) sealManifest(ctx context.Context, key recorder.DataKey, p place, m *recorder.Manifest, reason, replaces string) ([]byte, error) {
	js, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("seal manifest: %w", err)
	}
	sealed, err := segment.SealManifestJSON(key, p.prefix, m.ID, js)
	if err != nil {
		return nil, err
	}
	return a.link(ctx, sealed, p, m, js, reason, replaces)
}

// link puts a link behind a sealed manifest, or notes that it has none.
func (a *Archive) link(ctx context.Context, sealed []byte, p place, m *recorder.Manifest, js []byte, reason, replaces string) ([]byte, error) {
	l := a.proof.log.Load()
	if l == nil {
		return sealed, nil
	}
	c := claimOf(sealed, p.prefix, m, js)
	c.Reason, c.Replaces = reason, replaces
	signed, err := l.Link(ctx, c)
	if err == nil {
		if linked, err := segment.AppendLink(bytes.Clone(sealed), signed); err == nil {
			return linked, nil
		}
	}
	return sealed, a.noteUnlinked(m.ID, p)
}

// claimOf is what is signed of a recording.
func claimOf(sealed []byte, prefix string, m *recorder.Manifest, js []byte) audit.Claim {
	sum := func(b []byte) string {
		h := sha256.Sum256(b)
		return hex.EncodeToString(h[:])
	}
	return audit.Claim{
		Recording: m.ID, Prefix: prefix, Trunk: m.Trunk, Start: m.Call.Start,
		ManifestSHA256: sum(js), SealedSHA256: sum(sealed), SealedBytes: int64(len(sealed)), Files: filesOf(m),
	}
}

func filesOf(m *recorder.Manifest) []audit.File {
	out := make([]audit.File, 0, len(m.Segments))
	for _, s := range m.Segments {
		out = append(out, audit.File{Name: s.File, Bytes: s.Bytes, SHA256: s.SHA256})
	}
	return out
}

// noteUnlinked makes durable that a recording has no link.
func (a *Archive) noteUnlinked(id string, p place) error {
	js, err := json.Marshal(queuedRow{Recording: id, Prefix: p.prefix, Store: p.name})
	if err != nil {
		return err
	}
	if err := vfs.MkdirAll(a.fsys, a.spool(unlinkedDir)); err != nil {
		return err
	}
	if err := vfs.WriteFile(a.fsys, a.spool(unlinkedDir, id+".json"), js); err != nil {
		return err
	}
	a.proof.unlinked.Add(1)
	return nil
}

// linkContent gives a manifest file its link when it has none.
func (a *Archive) linkContent(ctx context.Context, keys segment.Opener, p place, content []byte, reason string) ([]byte, error) {
	o, err := segment.OpenLinked(ctx, byteBlob{bytes.NewReader(content)}, keys)
	if err != nil || o.Link != nil {
		return content, err
	}
	return a.link(ctx, content, p, o.Manifest, o.JSON, reason, "")
}

// byteBlob is a blob in memory.
type byteBlob struct{ *bytes.Reader }

func (byteBlob) Close() error { return nil }

// linkHash returns the hash of the link that a stored manifest has, "" when it
// has none.
func (a *Archive) linkHash(ctx context.Context, p place) string {
	content, err := a.manifestFile(ctx, p)
	if err != nil {
		return ""
	}
	_, link, err := segment.SplitManifest(content)
	if err != nil || link == nil {
		return ""
	}
	text, err := audit.LinkText(link)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// manifestFile reads a manifest file whole.
func (a *Archive) manifestFile(ctx context.Context, p place) ([]byte, error) {
	return readObject(ctx, a.storeOf(p), p.object(segment.ManifestFile), segment.ManifestBytesMax)
}

// readObject reads an object of at most so many bytes whole.
func readObject(ctx context.Context, st recorder.Store, name string, bytesMax int64) ([]byte, error) {
	b, err := st.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // only read
	return readBlob(b, bytesMax)
}

// readBlob reads at most so many bytes.
func readBlob(b recorder.Blob, bytesMax int64) ([]byte, error) {
	if b.Size() > bytesMax {
		return nil, fmt.Errorf("%d bytes: at most %d: %w", b.Size(), bytesMax, recorder.ErrTampered)
	}
	out := make([]byte, b.Size())
	if n, err := b.ReadAt(out, 0); n < len(out) {
		return nil, err
	}
	return out, nil
}

// replaceManifestFile puts a manifest in the place of another.
func (a *Archive) replaceManifestFile(ctx context.Context, p place, content []byte) error {
	a.proof.replacing.Lock()
	defer a.proof.replacing.Unlock()
	return a.storeOf(p).Put(ctx, p.object(segment.ManifestFile), content)
}

// LinkUp gives recordings their links that were published without, and returns
// how many. It is to be called at start and every minute or so.
func (a *Archive) LinkUp(ctx context.Context) (int, error) {
	if a.proof.log.Load() == nil {
		return 0, nil
	}
	entries, err := a.fsys.ReadDir(a.spool(unlinkedDir))
	if err != nil {
		a.proof.unlinked.Store(0)
		return 0, nil //nolint:nilerr // there is none, or it is tried again
	}
	n := 0
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(id, vfs.TempPrefix) {
			_ = a.fsys.Remove(a.spool(unlinkedDir, e.Name())) // torn by a crash, promised to nobody
			continue
		}
		if a.isLive(id) {
			continue
		}
		done, err := a.linkUp(ctx, a.spool(unlinkedDir, e.Name()))
		if err != nil {
			a.proof.unlinked.Store(int64(len(entries) - n))
			return n, fmt.Errorf("link recording %s: %w", id, err)
		}
		if done {
			n++
		}
	}
	a.proof.unlinked.Store(int64(len(entries) - n))
	return n, nil
}

// linkUp links one recording, if its place is known to have it.
func (a *Archive) linkUp(ctx context.Context, note string) (bool, error) {
	js, err := vfs.ReadFile(a.fsys, note, markerBytesMax)
	if err != nil {
		return false, err
	}
	var q queuedRow
	if err := json.Unmarshal(js, &q); err != nil {
		return false, err
	}
	s, err := a.shelf(q.Store)
	if err != nil {
		return false, err
	}
	if a.isSpooled(q.Recording) {
		return false, nil // its store gets it first
	}
	p := place{s, q.Prefix}
	a.proof.replacing.Lock()
	defer a.proof.replacing.Unlock()
	content, err := a.manifestFile(ctx, p)
	if errors.Is(err, recorder.ErrNotFound) {
		if _, serr := a.fsys.Stat(a.spool(q.Recording)); serr == nil {
			return false, nil // not published yet
		}
		return true, a.fsys.Remove(note) // deleted since
	}
	if err != nil {
		return false, err
	}
	o, err := segment.OpenLinked(ctx, byteBlob{bytes.NewReader(content)}, a.keys(p))
	if err != nil && !errors.Is(err, recorder.ErrTampered) {
		return false, err
	}
	if err == nil && o.Link == nil {
		c := claimOf(content, q.Prefix, o.Manifest, o.JSON)
		c.Reason = audit.ReasonAdopted
		signed, err := a.proof.log.Load().Link(ctx, c)
		if err != nil {
			return false, err
		}
		if content, err = segment.AppendLink(content, signed); err != nil {
			return false, err
		}
		if err := p.store.Put(ctx, p.object(segment.ManifestFile), content); err != nil {
			return false, err
		}
	}
	return true, a.fsys.Remove(note)
}

// trace writes an entry into the log; when it returns nil it is durable. Without a
// log it is given to whoever keeps entries for one.
func (a *Archive) trace(ctx context.Context, e audit.Entry) error {
	if l := a.proof.log.Load(); l != nil {
		return l.Append(ctx, e)
	}
	if a.cfg.Trace != nil {
		return a.cfg.Trace(e)
	}
	return nil
}

// mayTrace tells whether the log can be written, as far as is known.
func (a *Archive) mayTrace() error {
	if l := a.proof.log.Load(); l != nil {
		return l.Err()
	}
	return nil
}
