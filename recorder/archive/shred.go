package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

const shredReasonBytesMax = 500

// Shred destroys the key of a recording: nobody will ever read again what is left
// of it here, and of copies of its files without recording.key. The file with the
// key is replaced, in one step, by one that tells when and why, so a crash leaves
// either the recording or its end. The catalogue keeps no more of it than what
// its folder tells. Done again it changes nothing and returns what was done.
// *recorder.RefusedError while the recording goes on.
func (a *Archive) Shred(ctx context.Context, id, reason, by string) (recorder.Shredded, error) {
	s, err := a.shred(ctx, id, strings.TrimSpace(reason), by)
	if err != nil {
		return s, fmt.Errorf("shred recording %s: %w", id, err)
	}
	return s, nil
}

func (a *Archive) shred(ctx context.Context, id, reason, by string) (recorder.Shredded, error) {
	if a.cfg.ReadOnly {
		return recorder.Shredded{}, errors.New("archive is read-only")
	}
	if reason == "" || len(reason) > shredReasonBytesMax || !utf8.ValidString(reason) {
		return recorder.Shredded{}, &recorder.RefusedError{Why: fmt.Sprintf("a reason is wanted, of 1 to %d bytes", shredReasonBytesMax)}
	}
	if a.isLive(id) {
		return recorder.Shredded{}, &recorder.RefusedError{Why: "the recording goes on: end it first"}
	}
	p, err := a.locate(ctx, id)
	if err != nil {
		return recorder.Shredded{}, err
	}
	unlock := a.lockKey(id)
	rec, err := a.keys(p).record(ctx, id)
	old := errors.Is(err, recorder.ErrNotFound)
	if err != nil && !old && !errors.Is(err, recorder.ErrTampered) {
		unlock()
		return recorder.Shredded{}, err
	}
	if rec.Shredded == nil {
		rec = segment.KeyRecord{Recording: id, Prefix: p.prefix, Created: rec.Created, Wrapped: rec.Wrapped}
		rec.Shredded = &recorder.Shredded{At: time.Now().UTC().Round(0), Reason: reason, By: by}
		if err := a.putKeyRecord(ctx, p, rec); err != nil {
			unlock()
			return recorder.Shredded{}, err
		}
		a.tellLog(audit.KindShredded, id, reason)
	}
	unlock()
	return *rec.Shredded, a.afterShred(ctx, p, rec)
}

// afterShred brings everything else in line with a key that is gone; it may be
// repeated.
func (a *Archive) afterShred(ctx context.Context, p place, rec segment.KeyRecord) error {
	a.files.drop(p.id())
	if j, err := a.readJob(p.id()); err == nil && j != nil {
		if err := a.dropJob(j); err != nil {
			return err
		}
	}
	if err := a.scrub(ctx, p); err != nil {
		return err
	}
	return a.saveNow(ctx, p.row(tombstone(p, rec), a.isSpooled(p.id())))
}

// known is what the catalogue may know of a recording: its manifest, or that it
// was shredded.
func (a *Archive) known(ctx context.Context, id string, p place) (*recorder.Manifest, error) {
	m, err := a.manifest(ctx, id, p)
	var gone *recorder.ShreddedError
	if errors.As(err, &gone) && gone.Recording == p.id() {
		return tombstone(p, segment.KeyRecord{Shredded: &gone.Shredded}), nil
	}
	return m, err
}

// tombstone is the manifest of which nothing is left: what its folder tells.
func tombstone(p place, rec segment.KeyRecord) *recorder.Manifest {
	m := &recorder.Manifest{
		Version: recorder.Version, ID: p.id(), Kind: recorder.KindOf(p.id()), Shredded: rec.Shredded,
		Channels: []recorder.Channel{}, Segments: []recorder.Segment{}, Windows: []recorder.Window{}, Gaps: []recorder.Gap{},
		Streams: []recorder.Stream{}, DTMF: []recorder.Digit{},
	}
	if parts := strings.Split(p.prefix, "/"); len(parts) == 5 {
		m.Conversation = parts[3]
	}
	if day, err := time.Parse("2006/01/02", dayIn(p.prefix)); err == nil {
		m.Call.Start, m.Origin = day, day
	}
	return m
}

// scrub takes the wrapped key out of the files of version 1, which have it inside.
// They can be read no more anyway.
func (a *Archive) scrub(ctx context.Context, p place) error {
	names, err := a.objects(ctx, p)
	if err != nil {
		return err
	}
	st := a.storeOf(p)
	for _, name := range names {
		if !isSegment(name) && name != segment.ManifestFile {
			continue
		}
		if err := a.scrubFile(ctx, st, p, name); err != nil {
			return fmt.Errorf("take the key out of %s: %w", name, err)
		}
	}
	return nil
}

func (a *Archive) scrubFile(ctx context.Context, st recorder.Store, p place, name string) error {
	b, err := a.open(ctx, p, name)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // only read
	scrubbed, err := segment.WithoutKey(b)
	if err != nil || scrubbed == nil {
		return err
	}
	tmp, err := vfs.TempName(a.spool(path.Base(name)))
	if err != nil {
		return err
	}
	if err := copyBehind(a.fsys, tmp, scrubbed, b); err != nil {
		_ = a.fsys.Remove(tmp) // the first error is the one to report
		return err
	}
	if err := st.Delete(ctx, p.object(name)); err != nil && !errors.Is(err, recorder.ErrNotFound) {
		_ = a.fsys.Remove(tmp) // as above
		return err
	}
	return st.Publish(ctx, p.object(name), tmp)
}

// copyBehind writes a file that begins with head and goes on as b does behind that.
func copyBehind(fsys vfs.FS, name string, head []byte, b recorder.Blob) error {
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(head); err == nil {
		_, err = io.Copy(f, io.NewSectionReader(b, int64(len(head)), b.Size()-int64(len(head))))
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
