package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
)

const (
	holdVersion   = 1
	holdsMax      = 100 // of a recording
	holdFilesMax  = 10 * holdsMax
	holdNameMax   = 64 // bytes
	holdReasonMax = shredReasonBytesMax
)

// LegalHold keeps a recording from being deleted or shredded until it is released.
type LegalHold struct {
	Name   string    `json:"name"` // of a case: one recording may be held for several
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"`
}

// holdContent is what stands in an object of holds, beside the manifest: see segment/FORMAT.md.
type holdContent struct {
	Version   int         `json:"version"`
	Recording string      `json:"recording"`
	Holds     []LegalHold `json:"holds"`
}

// HoldOrder asks for a hold, or for its end.
type HoldOrder struct {
	Recording, Name, Reason string
	By, From                string
}

func (o HoldOrder) entry(kind audit.Kind, result string) audit.Entry {
	return audit.Entry{Kind: kind, Recording: o.Recording, Who: o.By, From: o.From, What: o.Name + ": " + o.Reason, Result: result}
}

func (o HoldOrder) check() error {
	switch {
	case o.Name == "" || len(o.Name) > holdNameMax || !utf8.ValidString(o.Name) || strings.ContainsFunc(o.Name, func(r rune) bool { return r < ' ' || r == ':' }):
		return &recorder.RefusedError{Why: fmt.Sprintf("a name is wanted, of 1 to %d bytes without colons and control characters", holdNameMax)}
	case strings.TrimSpace(o.Reason) == "" || len(o.Reason) > holdReasonMax || !utf8.ValidString(o.Reason):
		return &recorder.RefusedError{Why: fmt.Sprintf("a reason is wanted, of 1 to %d bytes", holdReasonMax)}
	}
	return nil
}

// Holds lists the legal holds of a recording, in the order in which they were made.
func (a *Archive) Holds(ctx context.Context, id string) ([]LegalHold, error) {
	p, err := a.locate(ctx, id)
	if err != nil {
		return nil, err
	}
	return a.holds(ctx, p)
}

// holds reads the objects, one for each hold: so nodes that change those of one recording at
// the same time do not undo each other's. What cannot be read, or is another recording's, is an error:
// whoever is about to delete has to take it for held.
func (a *Archive) holds(ctx context.Context, p place) ([]LegalHold, error) {
	files, err := a.holdFiles(ctx, p)
	if err != nil {
		return nil, err
	}
	var out []LegalHold
	for _, f := range files {
		out = append(out, f.holds...)
	}
	slices.SortStableFunc(out, func(a, b LegalHold) int { return a.At.Compare(b.At) })
	return out, nil
}

// holdFile is an object of holds. Those that are written now have one each.
type holdFile struct {
	name  string // in the recording's folder
	holds []LegalHold
}

func (a *Archive) holdFiles(ctx context.Context, p place) (files []holdFile, err error) {
	var names []string
	err = p.store.List(ctx, p.object(segment.HoldFile), func(i recorder.BlobInfo) error {
		dir, base := path.Split(i.Name)
		if path.Clean(dir) == p.prefix && segment.IsHold(base) {
			names = append(names, base)
		}
		if len(names) > holdFilesMax {
			return fmt.Errorf("%s: more than %d objects: %w", p.object(segment.HoldFile), holdFilesMax, recorder.ErrTampered)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		holds, err := a.readHolds(ctx, p, name)
		if errors.Is(err, recorder.ErrNotFound) {
			continue // released since
		}
		if err != nil {
			return nil, err
		}
		files = append(files, holdFile{name, holds})
	}
	return files, nil
}

func (a *Archive) readHolds(ctx context.Context, p place, name string) ([]LegalHold, error) {
	js, err := readObject(ctx, p.store, p.object(name), markerBytesMax)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.object(name), err)
	}
	var c holdContent
	if err := json.Unmarshal(js, &c); err != nil || c.Version != holdVersion || c.Recording != p.id() {
		return nil, fmt.Errorf("%s: %w", p.object(name), recorder.ErrTampered)
	}
	return c.Holds, nil
}

// heldError says that a recording is under legal hold.
type heldError struct{ names []string }

func (e *heldError) Error() string { return "it is under legal hold: " + strings.Join(e.names, ", ") }

// refused is what somebody is told who asked for its end.
func (e *heldError) refused() error {
	return &recorder.RefusedError{Why: e.Error() + ": release it first"}
}

// mayGo tells whether a recording is held by nobody; *heldError.
func (a *Archive) mayGo(ctx context.Context, p place) error {
	holds, err := a.holds(ctx, p)
	if err != nil || len(holds) == 0 {
		return err
	}
	e := &heldError{}
	for _, h := range holds {
		e.names = append(e.names, h.Name)
	}
	return e
}

// PlaceHold puts a recording under legal hold; done again under the same name it changes
// nothing. *recorder.RefusedError, recorder.ErrNotFound, audit.ErrUnavailable.
func (a *Archive) PlaceHold(ctx context.Context, o HoldOrder) error {
	err := a.changeHolds(ctx, o, audit.KindHeld, func(ctx context.Context, p place, files []holdFile) error {
		n := 0
		for _, f := range files {
			if f.has(o.Name) {
				return nil
			}
			n += len(f.holds)
		}
		if n >= holdsMax {
			return &recorder.RefusedError{Why: fmt.Sprintf("it has %d holds already", holdsMax)}
		}
		f := holdFile{segment.HoldName(o.Name), []LegalHold{{Name: o.Name, Reason: o.Reason, By: o.By, At: time.Now().UTC().Round(0)}}}
		if err := a.putHolds(ctx, p, f); err != nil {
			return err
		}
		// Another node asks for holds once more when it has deleted the manifest.
		there, err := a.isThere(ctx, p)
		if err == nil && !there {
			_ = p.store.Delete(ctx, p.object(f.name)) // of nothing
			err = &recorder.RefusedError{Why: "it is being deleted"}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("hold recording %s: %w", o.Recording, err)
	}
	a.notify("recording.held", map[string]any{"recording": o.Recording, "name": o.Name})
	return nil
}

func (f holdFile) has(hold string) bool {
	return slices.ContainsFunc(f.holds, func(h LegalHold) bool { return h.Name == hold })
}

// putHolds replaces an object of holds.
func (a *Archive) putHolds(ctx context.Context, p place, f holdFile) error {
	js, err := json.Marshal(holdContent{Version: holdVersion, Recording: p.id(), Holds: f.holds})
	if err != nil {
		return err
	}
	return p.store.Put(ctx, p.object(f.name), js)
}

// ReleaseHold ends a legal hold.
func (a *Archive) ReleaseHold(ctx context.Context, o HoldOrder) error {
	err := a.changeHolds(ctx, o, audit.KindReleased, func(ctx context.Context, p place, files []holdFile) error {
		held := false
		for _, f := range files {
			if !f.has(o.Name) {
				continue
			}
			held = true
			f.holds = slices.DeleteFunc(f.holds, func(h LegalHold) bool { return h.Name == o.Name })
			if err := a.withoutHold(ctx, p, f); err != nil {
				return err
			}
		}
		if !held {
			return &recorder.RefusedError{Why: "it is not held under that name"}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("release recording %s: %w", o.Recording, err)
	}
	a.notify("recording.released", map[string]any{"recording": o.Recording, "name": o.Name})
	return nil
}

// withoutHold stores what is left of an object: nothing, unless the store keeps it from being deleted.
func (a *Archive) withoutHold(ctx context.Context, p place, f holdFile) error {
	if len(f.holds) == 0 {
		var locked *store.LockedError
		if err := deleteObject(ctx, p.store, p.object(f.name)); !errors.As(err, &locked) {
			return err
		}
		f.holds = []LegalHold{}
	}
	return a.putHolds(ctx, p, f)
}

// holdChange changes the objects of a recording's holds.
type holdChange func(ctx context.Context, p place, files []holdFile) error

// changeHolds replaces the holds of a recording. The log says so before it is done, and
// what came of it.
func (a *Archive) changeHolds(ctx context.Context, o HoldOrder, kind audit.Kind, change holdChange) error {
	if a.cfg.ReadOnly {
		return errors.New("archive is read-only")
	}
	if err := o.check(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // what is begun is ended, whoever hangs up
	if err := a.trace(ctx, o.entry(kind, audit.ResultBegun)); err != nil {
		return err
	}
	err := a.replaceHolds(ctx, o.Recording, change)
	return errors.Join(err, a.trace(ctx, o.entry(kind, audit.ResultOf(err))))
}

func (a *Archive) replaceHolds(ctx context.Context, id string, change holdChange) error {
	a.shredding.Lock()
	defer a.shredding.Unlock()
	if a.isLive(id) || a.inSpool(id) || a.isSpooled(id) {
		return &recorder.RefusedError{Why: "it goes on, or is on its way to its store: nothing is deleted before it is there; ask again then"}
	}
	p, err := a.locate(ctx, id)
	if err != nil {
		return err
	}
	if a.deleting(id) || a.ordered(id) {
		return &recorder.RefusedError{Why: "it is being deleted, or shredded"}
	}
	files, err := a.holdFiles(ctx, p)
	if err != nil {
		return err
	}
	if err := a.noteRow(id, p.prefix, p.name); err != nil { // its row counts what is stored
		return err
	}
	defer a.lockKey(id)()
	err = change(ctx, p, files)
	_ = a.saveAgain(ctx, p) // else CatchUp does
	return err
}

// held looks whether an object of a recording's holds can be read.
func (v *verification) held(id string, p place, object string) {
	if _, err := v.a.readHolds(v.ctx, p, object); err != nil && !errors.Is(err, recorder.ErrNotFound) {
		v.found.addErr(id, object, err)
	}
}
