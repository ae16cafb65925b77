package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
)

const (
	holdVersion   = 1
	holdsMax      = 100 // of a recording
	holdNameMax   = 64  // bytes
	holdReasonMax = shredReasonBytesMax
)

// LegalHold keeps a recording from being deleted or shredded until it is released.
type LegalHold struct {
	Name   string    `json:"name"` // of a case: one recording may be held for several
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"`
}

// holdContent is what stands in segment.HoldFile, beside the manifest: see segment/FORMAT.md.
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

// holds reads the file. What cannot be read, or is another recording's, is an error:
// whoever is about to delete has to take it for held.
func (a *Archive) holds(ctx context.Context, p place) ([]LegalHold, error) {
	js, err := readObject(ctx, p.store, p.object(segment.HoldFile), markerBytesMax)
	if errors.Is(err, recorder.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.object(segment.HoldFile), err)
	}
	var c holdContent
	if err := json.Unmarshal(js, &c); err != nil || c.Version != holdVersion || c.Recording != p.id() {
		return nil, fmt.Errorf("%s: %w", p.object(segment.HoldFile), recorder.ErrTampered)
	}
	return c.Holds, nil
}

// heldError says that a recording is under legal hold.
type heldError struct{ names []string }

func (e *heldError) Error() string { return "it is under legal hold: " + strings.Join(e.names, ", ") }

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
	err := a.changeHolds(ctx, o, audit.KindHeld, func(holds []LegalHold) ([]LegalHold, error) {
		if slices.ContainsFunc(holds, func(h LegalHold) bool { return h.Name == o.Name }) {
			return holds, nil
		}
		if len(holds) >= holdsMax {
			return nil, &recorder.RefusedError{Why: fmt.Sprintf("it has %d holds already", holdsMax)}
		}
		return append(holds, LegalHold{Name: o.Name, Reason: o.Reason, By: o.By, At: time.Now().UTC().Round(0)}), nil
	})
	if err != nil {
		return fmt.Errorf("hold recording %s: %w", o.Recording, err)
	}
	a.notify("recording.held", map[string]any{"recording": o.Recording, "name": o.Name})
	return nil
}

// ReleaseHold ends a legal hold.
func (a *Archive) ReleaseHold(ctx context.Context, o HoldOrder) error {
	err := a.changeHolds(ctx, o, audit.KindReleased, func(holds []LegalHold) ([]LegalHold, error) {
		n := len(holds)
		if holds = slices.DeleteFunc(holds, func(h LegalHold) bool { return h.Name == o.Name }); len(holds) == n {
			return nil, &recorder.RefusedError{Why: "it is not held under that name"}
		}
		return holds, nil
	})
	if err != nil {
		return fmt.Errorf("release recording %s: %w", o.Recording, err)
	}
	a.notify("recording.released", map[string]any{"recording": o.Recording, "name": o.Name})
	return nil
}

// changeHolds replaces the holds of a recording. The log says so before it is done, and
// what came of it.
func (a *Archive) changeHolds(ctx context.Context, o HoldOrder, kind audit.Kind, change func([]LegalHold) ([]LegalHold, error)) error {
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

func (a *Archive) replaceHolds(ctx context.Context, id string, change func([]LegalHold) ([]LegalHold, error)) error {
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
	holds, err := a.holds(ctx, p)
	if err != nil {
		return err
	}
	had := len(holds)
	if holds, err = change(holds); err != nil {
		return err
	}
	js, err := json.Marshal(holdContent{Version: holdVersion, Recording: id, Holds: holds})
	if err != nil {
		return err
	}
	if len(js) > markerBytesMax { // nobody could read it, nor release anything
		return &recorder.RefusedError{Why: "its holds and their reasons take more room than there is: give a shorter reason"}
	}
	if err := a.noteRow(id, p.prefix, p.name); err != nil { // its row counts what is stored
		return err
	}
	defer a.lockKey(id)()
	if err := p.store.Put(ctx, p.object(segment.HoldFile), js); err != nil {
		return err
	}
	if len(holds) > had { // another node asks for holds once more when it has deleted the manifest
		there, err := a.isThere(ctx, p)
		if err == nil && !there {
			err = &recorder.RefusedError{Why: "it is being deleted"}
			if had == 0 {
				_ = p.store.Delete(ctx, p.object(segment.HoldFile)) // of nothing
			}
		}
		if err != nil {
			return err
		}
	}
	_ = a.saveAgain(ctx, p) // else CatchUp does
	return nil
}

// held looks whether the holds of a recording can be read.
func (v *verification) held(id string, p place, objects []string) {
	if !slices.Contains(objects, segment.HoldFile) {
		return
	}
	if _, err := v.a.holds(v.ctx, p); err != nil {
		v.found.addErr(id, segment.HoldFile, err)
	}
}
