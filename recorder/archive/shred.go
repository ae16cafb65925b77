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

// ShredOrder asks for the destruction of a recording's key. It is durable in the
// spool until all of it is done.
type ShredOrder struct {
	Recording string    `json:"recording"`
	Reason    string    `json:"reason"`
	By        string    `json:"by,omitempty"`
	From      string    `json:"from,omitempty"`       // address
	WhenEnded bool      `json:"when_ended,omitempty"` // of a recording that goes on: as soon as it has ended; else that is refused
	At        time.Time `json:"at"`                   // filled in
}

func (o ShredOrder) entry(result string) audit.Entry {
	return audit.Entry{Kind: audit.KindShredded, Recording: o.Recording, Who: o.By, From: o.From, What: o.Reason, Result: result}
}

// failed is the entry of an order that came to nothing.
func (o ShredOrder) failed(err error) audit.Entry {
	e := o.entry(audit.ResultOf(err))
	if refused := (*recorder.RefusedError)(nil); errors.As(err, &refused) {
		e.What = refused.Why
	}
	return e
}

// Shred destroys the key of a recording: nobody will ever read again what is left
// of it here, and of copies of its files without recording.key. The file with the
// key is replaced, in one step, by one that tells when and why, so a crash leaves
// either the recording or its end. The catalogue keeps no more of it than what
// its folder tells. Done again it changes nothing and returns what was done.
// *recorder.RefusedError while the recording goes on, unless the order may wait:
// then At of the result is zero. audit.ErrUnavailable when it would leave no
// trace. With an error and an At the key is destroyed and the rest waits for
// ShredDue: ErrCopyLeft until its store has no copy of the key either. What fails is in the log, too.
func (a *Archive) Shred(ctx context.Context, o ShredOrder) (recorder.Shredded, error) {
	ctx = context.WithoutCancel(ctx) // what is begun is ended, whoever hangs up
	o.Reason, o.At = strings.TrimSpace(o.Reason), time.Now().UTC().Round(0)
	s, err := a.shred(ctx, o)
	if err == nil {
		return s, nil
	}
	if errors.Is(err, ErrCopyLeft) {
		err = errors.Join(err, a.trace(ctx, o.entry(audit.ResultWaits)))
	}
	if s.At.IsZero() && !a.cfg.ReadOnly && !errors.Is(err, audit.ErrUnavailable) {
		err = errors.Join(err, a.trace(ctx, o.failed(err)))
	}
	return s, fmt.Errorf("shred recording %s: %w", o.Recording, err)
}

func (a *Archive) shred(ctx context.Context, o ShredOrder) (recorder.Shredded, error) {
	if a.cfg.ReadOnly {
		return recorder.Shredded{}, errors.New("archive is read-only")
	}
	if o.Reason == "" || len(o.Reason) > shredReasonBytesMax || !utf8.ValidString(o.Reason) {
		return recorder.Shredded{}, &recorder.RefusedError{Why: fmt.Sprintf("a reason is wanted, of 1 to %d bytes", shredReasonBytesMax)}
	}
	if err := a.mayTrace(); err != nil {
		return recorder.Shredded{}, err
	}
	a.shredding.Lock()
	defer a.shredding.Unlock()
	if a.isLive(o.Recording) {
		if !o.WhenEnded {
			return recorder.Shredded{}, &recorder.RefusedError{Why: "the recording goes on: end it first, or have it shredded when it has ended"}
		}
		if err := a.saveOrder(shreddingDir, o.Recording, o); err != nil {
			return recorder.Shredded{}, err
		}
		return recorder.Shredded{}, a.trace(ctx, o.entry(audit.ResultWaits))
	}
	p, err := a.locate(ctx, o.Recording)
	if err != nil {
		return recorder.Shredded{}, err
	}
	if rec, err := a.keys(p).record(ctx, o.Recording); err == nil && rec.Shredded != nil && !a.ordered(o.Recording) {
		err = errors.Join(a.afterShred(ctx, p), a.trace(ctx, o.entry(audit.ResultRepeat)))
		return *rec.Shredded, err
	}
	var held *heldError
	if err := a.mayShred(ctx, p); errors.As(err, &held) {
		return recorder.Shredded{}, held.refused()
	} else if err != nil {
		return recorder.Shredded{}, err
	}
	if err := a.saveOrder(shreddingDir, o.Recording, o); err != nil {
		return recorder.Shredded{}, err
	}
	return a.carryOut(ctx, p, o)
}

func (a *Archive) ordered(id string) bool { return a.hasOrder(shreddingDir, id) }

// mayShred is mayGo. While a recording waits for its store nobody can hold it, and the store need
// not answer.
func (a *Archive) mayShred(ctx context.Context, p place) error {
	if a.isSpooled(p.id()) {
		return nil
	}
	return a.mayGo(ctx, p)
}

// carryOut does what is left to do of an order, and forgets it.
func (a *Archive) carryOut(ctx context.Context, p place, o ShredOrder) (recorder.Shredded, error) {
	s, err := a.destroyKey(ctx, p, o)
	if held := (*heldError)(nil); errors.As(err, &held) {
		return recorder.Shredded{}, errors.Join(held.refused(), a.dropOrder(shreddingDir, o.Recording))
	}
	if err != nil {
		return recorder.Shredded{}, err
	}
	if err := a.destroyCopy(ctx, p); err != nil {
		return s, errors.Join(err, a.afterShred(ctx, p))
	}
	if err := a.trace(ctx, o.entry(audit.ResultDone)); err != nil {
		return s, err
	}
	if err := a.afterShred(ctx, p); err != nil {
		return s, err
	}
	return s, a.dropOrder(shreddingDir, o.Recording)
}

// destroyKey asks for holds, and puts the end of a recording in the place of its key; *heldError.
func (a *Archive) destroyKey(ctx context.Context, p place, o ShredOrder) (recorder.Shredded, error) {
	defer a.lockKey(o.Recording)()
	rec, err := a.keys(p).record(ctx, o.Recording)
	if err != nil && !errors.Is(err, recorder.ErrNotFound) && !errors.Is(err, recorder.ErrTampered) {
		return recorder.Shredded{}, err
	}
	if rec.Shredded != nil {
		return *rec.Shredded, nil
	}
	if err := a.mayShred(ctx, p); err != nil { // another node may hold it since the order was given
		return recorder.Shredded{}, err
	}
	rec = segment.KeyRecord{Recording: o.Recording, Prefix: p.prefix, Created: rec.Created, Wrapped: rec.Wrapped}
	rec.Shredded = &recorder.Shredded{At: time.Now().UTC().Round(0), Reason: o.Reason, By: o.By}
	if err := a.putKeyRecord(ctx, p, rec); err != nil {
		return recorder.Shredded{}, err
	}
	a.shredded.Add(1)
	a.notify("recording.shredded", map[string]any{"recording": o.Recording, "reason": o.Reason})
	return *rec.Shredded, nil
}

// afterShred brings everything else in line with a key that is gone; it may be
// repeated.
func (a *Archive) afterShred(ctx context.Context, p place) error {
	a.files.drop(p.id())
	if j, err := a.readJob(p.id()); err == nil && j != nil {
		if err := a.dropJob(j); err != nil {
			return err
		}
	}
	if err := a.scrub(ctx, p); err != nil {
		return err
	}
	if err := a.noteRow(p.id(), p.prefix, p.name); err != nil {
		return err
	}
	defer a.lockKey(p.id())()
	_ = a.saveAgain(ctx, p) // else CatchUp does
	return nil
}

// ShredDue carries out the orders that waited for the end of a recording, and those
// that a crash or a fault cut short. It returns how many; it is to be called at
// start and every few seconds.
func (a *Archive) ShredDue(ctx context.Context) (int, error) {
	return a.eachOrder(ctx, shreddingDir, a.shredDue)
}

func (a *Archive) shredDue(ctx context.Context, name string) (bool, error) {
	a.shredding.Lock()
	defer a.shredding.Unlock()
	var o ShredOrder
	if there, err := a.readOrder(name, &o); !there {
		return false, err
	}
	if a.isLive(o.Recording) {
		return false, nil
	}
	p, err := a.locate(ctx, o.Recording)
	if errors.Is(err, recorder.ErrNotFound) {
		if _, serr := a.fsys.Stat(a.spool(o.Recording)); serr == nil {
			return false, nil // it waits for Recover
		}
		if err := a.trace(ctx, o.entry(audit.ResultNotFound)); err != nil { // nothing was kept of it
			return false, err
		}
		return false, a.fsys.Remove(name)
	}
	if err == nil {
		_, err = a.carryOut(ctx, p, o)
	}
	if errors.As(err, new(*recorder.RefusedError)) {
		err = errors.Join(err, a.trace(ctx, o.failed(err)))
	}
	if err != nil {
		return false, fmt.Errorf("shred recording %s: %w", o.Recording, err)
	}
	return true, nil
}

// known is what the catalogue may know of a recording: its manifest, or that it
// was shredded; and the node that signed for it, if one did.
func (a *Archive) known(ctx context.Context, id string, p place) (_ *recorder.Manifest, node string, _ error) {
	o, err := a.opened(ctx, id, p)
	var gone *recorder.ShreddedError
	if errors.As(err, &gone) && gone.Recording == p.id() {
		rec, _ := a.keys(p).record(ctx, p.id()) // read just now
		return tombstone(p, segment.KeyRecord{Shredded: &gone.Shredded}), a.nodeOf([]byte(rec.Link)), nil
	}
	return o.Manifest, a.nodeOf(o.Link), err
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
	if err := deleteObject(ctx, st, p.object(name)); err != nil {
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
