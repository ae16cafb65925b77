package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// queuedRow names a recording that the catalogue does not know yet; its
// manifest is in the store.
type queuedRow struct {
	Recording string `json:"recording"`
	Prefix    string `json:"prefix"`
	Store     string `json:"store,omitempty"`

	At int64 `json:"at,omitempty"` // Unix ns: tells a note from a later one of the same recording
}

// saveRow makes a recording known to the catalogue, now or by CatchUp. While
// the catalogue fails it is not tried again for each recording, because each
// try may take seconds.
func (a *Archive) saveRow(ctx context.Context, r recorder.Row) error {
	unweighed := a.weigh(ctx, &r) // CatchUp weighs it when the store answers again
	if !a.catalogue.isDown() {
		err := a.saveNow(ctx, r)
		if err == nil && unweighed == nil {
			return nil
		}
		a.catalogue.setDown(err != nil)
	}
	return a.noteRow(r.Manifest.ID, r.Prefix, r.Store)
}

// noteRow leaves a row to CatchUp.
func (a *Archive) noteRow(id, prefix, store string) error {
	a.notes.Lock()
	defer a.notes.Unlock()
	a.noted = max(a.noted+1, time.Now().UnixNano())
	js, err := json.Marshal(queuedRow{id, prefix, store, a.noted})
	if err != nil {
		return err
	}
	return vfs.WriteFile(a.fsys, a.spool(rowsDir, id+".json"), js)
}

// forgetNote removes a note as it was read before the row was saved. A later one
// stays: what it is about may have happened since.
func (a *Archive) forgetNote(name string, read []byte) error {
	a.notes.Lock()
	defer a.notes.Unlock()
	js, err := vfs.ReadFile(a.fsys, name, markerBytesMax)
	if err == nil && bytes.Equal(js, read) {
		err = a.fsys.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (a *Archive) saveNow(ctx context.Context, r recorder.Row) error {
	c, err := a.catalogue.get(ctx)
	if err != nil {
		return err
	}
	return c.Save(ctx, r)
}

// CatchUp saves the rows that the catalogue could not take and returns how many
// it took now. It is to be called at start and every minute or so.
func (a *Archive) CatchUp(ctx context.Context) (int, error) {
	names, err := a.notesWaiting()
	if err != nil {
		return 0, fmt.Errorf("catch up: %w", err)
	}
	n := 0
	for _, name := range names {
		err := a.catchUpOne(ctx, a.spool(rowsDir, name))
		if errors.Is(err, errBusy) {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("catch up %s: %w", name, err)
		}
		n++
	}
	a.catalogue.setDown(false)
	return n, nil
}

// notesWaiting returns the names of the notes. What is not whole is removed: with the
// lock nobody is at it, it was torn by a crash and promised to nobody.
func (a *Archive) notesWaiting() (names []string, err error) {
	a.notes.Lock()
	defer a.notes.Unlock()
	entries, err := a.fsys.ReadDir(a.spool(rowsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") && !strings.HasPrefix(e.Name(), vfs.TempPrefix) {
			names = append(names, e.Name())
		} else {
			_ = a.fsys.Remove(a.spool(rowsDir, e.Name())) // tried again
		}
	}
	return names, nil
}

func (a *Archive) catchUpOne(ctx context.Context, name string) error {
	js, err := vfs.ReadFile(a.fsys, name, markerBytesMax)
	if err != nil {
		return err
	}
	var q queuedRow
	if err := json.Unmarshal(js, &q); err != nil {
		return err
	}
	unlock, ok := a.tryLockKey(q.Recording) // so that what is weighed is what is saved last
	if !ok {
		return errBusy // it is on its way to its store
	}
	err = a.saveQueued(ctx, q)
	unlock()
	if err != nil && !errors.Is(err, recorder.ErrNotFound) { // else it was deleted since
		return err
	}
	return a.forgetNote(name, js)
}

// saveQueued brings the row of a recording up to date with what is stored of it.
// recorder.ErrNotFound when there is nothing. The lock of its key is held.
func (a *Archive) saveQueued(ctx context.Context, q queuedRow) error {
	s, err := a.shelf(q.Store)
	if err != nil {
		return err
	}
	p := place{s, q.Prefix}
	for {
		spooled := a.isSpooled(p.id())
		m, node, err := a.known(ctx, q.Recording, p)
		if err != nil {
			return err
		}
		row := p.row(m, spooled)
		row.Node = node
		if c, err := a.catalogue.get(ctx); err == nil {
			if old, err := c.Get(ctx, m.ID); err == nil {
				row.Node = old.Node // who signed it may have adopted it
			}
		}
		if err := a.weigh(ctx, &row); err != nil {
			return err
		}
		if err := a.saveNow(ctx, row); err != nil {
			return err
		}
		if spooled == a.isSpooled(p.id()) {
			return nil // else the store got it meanwhile, and said so before us
		}
	}
}

// saveAgain brings the row of a recording up to date that is stored otherwise now,
// as noteRow has noted before. What fails is left to CatchUp. The lock of its key
// is held.
func (a *Archive) saveAgain(ctx context.Context, p place) error {
	if a.catalogue.isDown() {
		return nil
	}
	name := a.spool(rowsDir, p.id()+".json")
	js, err := vfs.ReadFile(a.fsys, name, markerBytesMax)
	if err != nil {
		return err // CatchUp may be at it
	}
	if err := a.saveQueued(ctx, queuedRow{Recording: p.id(), Prefix: p.prefix, Store: p.name}); err != nil {
		return err
	}
	return a.forgetNote(name, js)
}

// Progress is told how far a long task is. Total may be 0 while it is not known.
type Progress func(done, total int64)

func (p Progress) tell(done, total int64) {
	if p != nil {
		p(done, total)
	}
}

// batchSaver is a catalogue that takes many rows at once.
type batchSaver interface {
	SaveAll(ctx context.Context, rows []recorder.Row) error
}

// Forgotten tells whether the store has recordings of which the catalogue lists
// none, as a lost catalogue that was made anew does: Rebuild brings them back.
func (a *Archive) Forgotten(ctx context.Context) (bool, error) {
	page, err := a.Find(ctx, recorder.Query{Limit: 1})
	if err != nil || len(page.Rows) > 0 {
		return false, err
	}
	err = a.eachManifest(ctx, func(place) error { return errFound })
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

func (a *Archive) countManifests(ctx context.Context) (n int64, err error) {
	err = a.eachManifest(ctx, func(place) error { n++; return nil })
	return n, err
}

// locateIn asks whether the catalogue's folder of a recording has its manifest.
func (a *Archive) locateIn(ctx context.Context, id string) (string, error) {
	c, err := a.catalogue.get(ctx)
	if err != nil {
		return "", err
	}
	row, err := c.Get(ctx, id)
	if err != nil {
		return "", err
	}
	if s, err := a.shelf(row.Store); err != nil || !a.has(ctx, place{s, row.Prefix}) {
		return "", errors.Join(err, recorder.ErrNotFound)
	}
	return row.Prefix, nil
}

// eachRow calls f for every row of the catalogue.
func eachRow(ctx context.Context, c recorder.Catalog, f func(recorder.Row)) error {
	return eachRowOf(ctx, c, recorder.Query{}, f)
}

// eachRowOf calls f for every row that a query finds, the oldest first.
func eachRowOf(ctx context.Context, c recorder.Catalog, q recorder.Query, f func(recorder.Row)) error {
	q.Limit, q.Order = 1000, recorder.OrderOldest
	for {
		page, err := c.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, r := range page.Rows {
			f(r)
		}
		if page.Next == "" {
			return nil
		}
		q.Cursor = page.Next
	}
}
