package archive

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// markerFile tells whose folder of the spool it lies in. It is where segments go
// to the store one by one, and in the spools of earlier versions of the daemon;
// elsewhere the headers of segments and manifest tell.
const markerFile = "sink.json"

const markerBytesMax = 64 << 10

// markerQueued is the version of markers of recordings that go to their store by
// its queue: all of such a recording is in the spool until the store has it whole,
// and a manifest under its name there was durable before it had that name.
const markerQueued = 2

// marker is the content of markerFile.
type marker struct {
	Version   int                 `json:"version"` // 1 and markerQueued
	Recording string              `json:"recording"`
	Prefix    string              `json:"prefix"`
	Key       recorder.WrappedKey `json:"key,omitzero"`        // of earlier versions; now it lies in a file beside
	Store     string              `json:"store,omitempty"`     // name; empty: the one that has no name
	Discarded bool                `json:"discarded,omitempty"` // given up: what the store has of it goes
}

// marker reads the marker of a folder of the spool.
func (a *Archive) marker(id string) (mk marker, err error) {
	js, err := vfs.ReadFile(a.fsys, a.spool(id, markerFile), markerBytesMax)
	if err != nil {
		return mk, err
	}
	if json.Unmarshal(js, &mk) != nil || mk.Recording != id || a.checkName(id, mk.Prefix) != nil {
		return mk, errMarker
	}
	return mk, nil
}

// errMarker says that a marker is none.
var errMarker = errors.New("the marker of the recording is damaged")

func (a *Archive) writeMarker(mk marker) error {
	js, err := json.Marshal(mk)
	if err != nil {
		return err
	}
	return vfs.WriteFile(a.fsys, a.spool(mk.Recording, markerFile), js)
}

// Recovered tells what became of a recording that a crash left in the spool.
type Recovered struct {
	ID       string             `json:"id"`
	Prefix   string             `json:"prefix,omitempty"`
	Manifest *recorder.Manifest `json:"-"`                  // published; nil when nothing was
	Finished bool               `json:"finished,omitempty"` // its own final manifest was there
	AudioMS  int64              `json:"audio_ms"`
	Repaired int                `json:"repaired"`        // segments that were cut behind their last good frame
	Torn     int64              `json:"torn_bytes"`      // bytes behind last good frames, not promised to anybody
	Aside    []string           `json:"aside,omitempty"` // files in the quarantine folder of the spool
	Err      error              `json:"-"`               // it stays in the spool, or in quarantine
	Error    string             `json:"error,omitempty"` // Err as text
}

// Recover publishes what a crash left in the spool. It is to be called at
// start, before recordings are taken; it skips those that are being taken here.
// What cannot be read is moved to the folder quarantine of the spool. A missing
// key or a failing disk leaves the recording where it is for the next time. A
// crash in it does no harm. The error tells that the spool itself cannot be read.
func (a *Archive) Recover(ctx context.Context) ([]Recovered, error) {
	if a.cfg.ReadOnly {
		return nil, errors.New("recover: archive is read-only")
	}
	ids, err := a.inSpoolDir()
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	out := a.recoverAll(ctx, ids)
	if err := ctx.Err(); err != nil {
		return out, fmt.Errorf("recover: %w", err)
	}
	// Rows wait for the next CatchUp when the catalogue is not there yet.
	_, _ = a.CatchUp(ctx)
	return out, nil
}

// recovery is the repair of one recording.
type recovery struct {
	Recovered
	a      *Archive
	ctx    context.Context
	empty  bool // there was nothing to recover
	at     place
	marker marker
	ring   *keyring
	parts  []part // in order of segment number
}

// part is a segment, in the spool or in the store already.
type part struct {
	n      int
	spool  string // path; empty: it is in the store
	s      segment.Salvaged
	bytes  int64
	sha256 string
}

func (r *recovery) run() error {
	files, err := r.a.fsys.ReadDir(r.a.spool(r.ID))
	if err != nil {
		return err
	}
	if err := r.readMarker(files); err != nil {
		return err
	}
	if r.empty {
		return r.a.dropSpool(r.ID)
	}
	if err := r.readSpool(files); err != nil {
		return err
	}
	m, content, err := r.finalManifest()
	if err != nil {
		return err
	}
	if m == nil {
		if m, content, err = r.resume(); err != nil {
			return err
		}
	}
	if err := r.publish(m, content); err != nil {
		return err
	}
	r.Manifest, r.AudioMS = m, m.AudioMS
	return nil
}

// readMarker finds out whose folder it is: by its marker, or by a header.
func (r *recovery) readMarker(files []fs.DirEntry) error {
	mk, err := r.a.marker(r.ID)
	switch {
	case err == nil && mk.Key.IsZero():
	case err == nil:
		k, err := r.a.sealer.OpenKey(r.ctx, r.ID, mk.Key)
		if err == nil {
			k.Close()
			return r.found(mk)
		}
		if errors.Is(err, recorder.ErrKey) {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errMarker):
		return err
	}
	if known, err := r.byKey(files, mk); known {
		if errors.Is(err, recorder.ErrTampered) || errors.Is(err, recorder.ErrNotFound) || errors.Is(err, recorder.ErrShredded) {
			return r.giveUp(err)
		}
		return err
	}
	return r.byHeader(files, mk)
}

// byHeader finds out whose folder of version 1 it is, by the headers in it.
func (r *recovery) byHeader(files []fs.DirEntry, mk marker) error {
	var first error
	something := false
	for _, f := range files {
		if _, ok := segment.NumberOf(f.Name()); !ok {
			something = something || f.Name() == markerFile
			continue
		}
		s, err := r.salvage(r.a.spool(r.ID, f.Name()))
		if errors.Is(err, errTorn) {
			continue
		}
		something = true
		if err == nil && s.Header.Recording == r.ID && r.a.checkName(r.ID, s.Header.Prefix) == nil {
			return r.found(marker{Version: 1, Recording: r.ID, Prefix: s.Header.Prefix, Key: s.Header.Key, Store: mk.Store})
		}
		if first == nil {
			first = err
		}
	}
	_, head, err := r.openManifest(r.a.spool(r.ID, segment.ManifestFile))
	if err == nil {
		// Nothing else was recorded, or the machine died while the folder of a
		// published recording was removed.
		return r.found(marker{Version: 1, Recording: r.ID, Prefix: head.Prefix, Key: head.Key, Store: mk.Store})
	}
	if !something && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTorn)) {
		r.empty = true // the machine died before anything was durable, or after all was published
		return nil
	}
	if first == nil || errors.Is(first, fs.ErrNotExist) {
		first = err
	}
	if !errors.Is(first, recorder.ErrTampered) && !errors.Is(first, fs.ErrNotExist) && !errors.Is(first, errTorn) {
		return first // the key may come back, the disk may recover
	}
	return r.giveUp(first)
}

// giveUp moves the whole folder aside, because of an error that it returns.
func (r *recovery) giveUp(why error) error {
	if err := r.aside(r.a.spool(r.ID), r.ID); err != nil {
		return errors.Join(why, err)
	}
	return fmt.Errorf("moved aside: %w", why)
}

// found notes whose folder it is.
func (r *recovery) found(mk marker) error {
	s, err := r.a.shelf(mk.Store)
	if err != nil {
		return err
	}
	r.marker, r.Prefix, r.at = mk, mk.Prefix, place{s, mk.Prefix}
	return nil
}

func (r *recovery) salvage(name string) (segment.Salvaged, error) {
	b, err := segment.OpenFile(r.a.fsys, name)
	if err != nil {
		return segment.Salvaged{}, err
	}
	defer func() { _ = b.Close() }() // only read
	s, err := segment.Salvage(r.ctx, b, r.keys())
	return s, orTorn(b, err)
}

// errTorn says of a file that nothing of it was durable when the machine died.
var errTorn = errors.New("nothing of it was durable")

// orTorn returns errTorn instead of an error that the state of a file explains.
func orTorn(b recorder.Blob, err error) error {
	if !errors.Is(err, recorder.ErrTampered) {
		return err
	}
	torn, terr := segment.Torn(b)
	if torn && terr == nil {
		return errTorn
	}
	return errors.Join(err, terr)
}

// aside moves a file or folder into quarantine.
func (r *recovery) aside(name, as string) error {
	r.a.asides.Lock()
	defer r.a.asides.Unlock()
	dir := r.a.spool(quarantineDir)
	if err := vfs.MkdirAll(r.a.fsys, dir); err != nil {
		return err
	}
	to := path.Join(dir, as)
	for i := 2; ; i++ {
		if _, err := r.a.fsys.Stat(to); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		to = path.Join(dir, fmt.Sprintf("%s.%d", as, i))
	}
	if err := r.a.fsys.Rename(name, to); err != nil {
		return err
	}
	r.Aside = append(r.Aside, path.Base(to))
	return r.a.fsys.SyncDir(dir)
}

// readSpool reads the segments of the spool and moves aside what is none.
func (r *recovery) readSpool(files []fs.DirEntry) error {
	for _, f := range files {
		n, ok := segment.NumberOf(f.Name())
		if !ok {
			continue
		}
		name := r.a.spool(r.ID, f.Name())
		s, err := r.salvage(name)
		if err == nil && (s.Header.Recording != r.ID || s.Header.Prefix != r.Prefix || s.Header.N != n) {
			err = fmt.Errorf("%s: it is segment %d of recording %s: %w", f.Name(), s.Header.N, s.Header.Recording, recorder.ErrTampered)
		}
		switch {
		case err == nil:
		case errors.Is(err, errTorn):
			continue // it goes with the folder
		case errors.Is(err, recorder.ErrTampered):
			if err := r.aside(name, r.ID+"-"+f.Name()); err != nil {
				return err
			}
			continue
		default:
			return err
		}
		if s.Beyond > 0 {
			// Good frames behind a bad one: the disk lost something that was
			// promised. The cut below would lose what is left of it.
			if err := r.copyAside(name, r.ID+"-"+f.Name()); err != nil {
				return err
			}
		}
		r.Torn += s.Torn
		r.parts = append(r.parts, part{n: s.Header.N, spool: name, s: s})
	}
	slices.SortFunc(r.parts, func(a, b part) int { return cmp.Compare(a.n, b.n) })
	return nil
}

// copyAside keeps a copy of a file in quarantine.
func (r *recovery) copyAside(name, as string) error {
	tmp, err := vfs.TempName(name)
	if err == nil {
		err = copyFile(r.a.fsys, tmp, name)
	}
	if err == nil {
		err = r.aside(tmp, as)
	}
	return err
}

// copyFile copies a file into a new one, durably but for its name.
func copyFile(fsys vfs.FS, to, from string) error {
	src, err := fsys.OpenFile(from, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // only read
	dst, err := fsys.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(dst, src); err == nil {
		err = dst.Sync()
	}
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	return err
}

// finalManifest returns the manifest that the recording itself had finished
// with, from the spool or the store; nil when there is none.
func (r *recovery) finalManifest() (*recorder.Manifest, []byte, error) {
	name := r.a.spool(r.ID, segment.ManifestFile)
	content, err := vfs.ReadFile(r.a.fsys, name, segment.ManifestBytesMax)
	if err == nil {
		m, _, err := r.openManifest(name)
		if err == nil {
			r.Finished = m.Call.EndCause != string(media.CauseCrash)
			content, err = r.a.linkContent(r.ctx, r.keys(), r.at, content, audit.ReasonRecovered)
			return m, content, err
		}
		if !errors.Is(err, recorder.ErrTampered) && !errors.Is(err, errTorn) {
			return nil, nil, err
		}
		if errors.Is(err, recorder.ErrTampered) {
			if err := r.aside(name, r.ID+"-"+segment.ManifestFile); err != nil {
				return nil, nil, err
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if r.marker.Version >= markerQueued {
		return nil, nil, nil // else it would be here
	}
	m, err := r.a.manifest(r.ctx, r.ID, r.at)
	switch {
	case err == nil:
		r.Finished = m.Call.EndCause != string(media.CauseCrash)
		return m, nil, nil
	case errors.Is(err, recorder.ErrNotFound):
		return nil, nil, nil
	}
	return nil, nil, err
}

// openManifest reads a manifest of this recording from the spool.
func (r *recovery) openManifest(name string) (*recorder.Manifest, segment.Header, error) {
	b, err := segment.OpenFile(r.a.fsys, name)
	if err != nil {
		return nil, segment.Header{}, err
	}
	defer func() { _ = b.Close() }() // only read
	m, head, err := segment.OpenManifest(r.ctx, b, r.keys())
	err = orTorn(b, err)
	if err == nil && (m.ID != r.ID || r.Prefix != "" && head.Prefix != r.Prefix || r.a.checkName(r.ID, head.Prefix) != nil) {
		err = recorder.ErrTampered
	}
	return m, head, err
}

// publish makes segments, manifest and row known. Content is the sealed
// manifest; nil: the store has it.
func (r *recovery) publish(m *recorder.Manifest, content []byte) error {
	for _, p := range r.parts {
		if p.spool == "" || p.empty() {
			continue
		}
		if !listed(m, p.n) {
			// The recording gave it up, or was published without it.
			if err := r.aside(p.spool, r.ID+"-"+path.Base(p.spool)); err != nil {
				return err
			}
			continue
		}
		if !p.s.Complete || p.s.Torn > 0 {
			if err := segment.Repair(r.ctx, r.a.fsys, p.spool, r.keys(), p.s); err != nil {
				return err
			}
			r.Repaired++
		}
		if r.behind(content) {
			continue
		}
		if err := r.at.store.Publish(r.ctx, r.at.object(segment.FileName(p.n)), p.spool); err != nil {
			return err
		}
	}
	if r.behind(content) {
		return r.publishBehind(m, content)
	}
	if err := r.putKey(); err != nil {
		return err
	}
	if content != nil {
		if err := r.at.store.Put(r.ctx, r.at.object(segment.ManifestFile), content); err != nil {
			return err
		}
	}
	if err := r.a.saveRow(r.ctx, r.at.row(m, false)); err != nil {
		return err
	}
	r.a.deferred.add(r.a.noteJob(m, r.at))
	return r.a.dropSpool(r.ID)
}

func listed(m *recorder.Manifest, n int) bool {
	return slices.ContainsFunc(m.Segments, func(s recorder.Segment) bool { return s.N == n })
}

// empty tells whether a spooled segment has no audio.
func (p part) empty() bool { return len(p.s.Runs) == 0 }
