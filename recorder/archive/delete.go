package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// deleteOrder is a recording that is to be deleted. It is durable in the spool until
// all of it is gone, from everywhere.
type deleteOrder struct {
	Recording string    `json:"recording"`
	Prefix    string    `json:"prefix"`
	Store     string    `json:"store,omitempty"`
	Why       string    `json:"why"`
	By        string    `json:"by"`
	At        time.Time `json:"at"`
	Low       bool      `json:"low,omitempty"`   // it gave way on a disk that was low
	Begun     bool      `json:"begun,omitempty"` // its manifest may be gone: there is no way back
}

func (o deleteOrder) entry(result string) audit.Entry {
	return audit.Entry{Kind: audit.KindDeleted, Recording: o.Recording, Who: o.By, What: o.Why, Result: result}
}

// deleting tells whether a recording is on its way out.
func (a *Archive) deleting(id string) bool { return a.hasOrder(deletingDir, id) }

// delete deletes a recording, its row and what is kept of it here. The log says so
// before the first object goes and behind the last. The manifest goes first: what
// comes to nothing there (*store.LockedError) changes nothing. errBusy while something
// is being done to the recording, *heldError while it is held. With another error the rest waits for DeleteDue.
func (a *Archive) delete(ctx context.Context, p place, o deleteOrder) error {
	ctx = context.WithoutCancel(ctx) // what is begun is ended
	if err := a.mayTrace(); err != nil {
		return err
	}
	a.shredding.Lock()
	defer a.shredding.Unlock()
	if a.inUse(p.id()) {
		return errBusy
	}
	if err := a.mayGo(ctx, p); err != nil {
		return err
	}
	if err := a.saveOrder(deletingDir, o.Recording, o); err != nil {
		return err
	}
	return a.carryOutDelete(ctx, p, o)
}

// inUse tells whether a recording is being made, read or changed.
func (a *Archive) inUse(id string) bool {
	return a.isLive(id) || a.inSpool(id) || a.isSpooled(id) || a.pinned(id) || a.ordered(id) || a.deferred.has(id)
}

// carryOutDelete does what is left to do of an order, and forgets it.
func (a *Archive) carryOutDelete(ctx context.Context, p place, o deleteOrder) error {
	if !o.Begun {
		if err := a.trace(ctx, o.entry(audit.ResultBegun)); err != nil {
			return err // the log may have it all the same: DeleteDue says there that it came to nothing
		}
		o.Begun = true
		if err := a.saveOrder(deletingDir, o.Recording, o); err != nil {
			return errors.Join(err, a.trace(ctx, o.entry(audit.ResultFailed)))
		}
	}
	defer a.lockKey(p.id())()
	a.files.drop(p.id())
	if err := a.deleteObjects(ctx, p); err != nil {
		var held *heldError
		var locked *store.LockedError
		if errors.As(err, &held) || errors.As(err, &locked) && a.has(ctx, p) { // it is whole
			return a.refuseDelete(ctx, o, err)
		}
		return err
	}
	if err := a.forget(ctx, p); err != nil {
		return err
	}
	if err := a.trace(ctx, o.entry(audit.ResultDone)); err != nil {
		return err
	}
	a.notify("recording.deleted", map[string]any{"recording": o.Recording, "reason": o.Why})
	return a.dropOrder(deletingDir, o.Recording)
}

// refuseDelete ends an order that came to nothing, and returns why.
func (a *Archive) refuseDelete(ctx context.Context, o deleteOrder, why error) error {
	e := o.entry(audit.ResultRefused)
	e.What += ": " + why.Error()
	return errors.Join(why, a.trace(ctx, e), a.dropOrder(deletingDir, o.Recording), a.removeFile(a.spool(withdrawnDir, o.Recording)))
}

// isThere tells whether its store has the manifest of a recording.
func (a *Archive) isThere(ctx context.Context, p place) (bool, error) {
	b, err := p.store.Open(ctx, p.object(segment.ManifestFile))
	if errors.Is(err, recorder.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, b.Close()
}

// deleteObjects deletes what is stored of a recording: its manifest first, then its
// key, then all else. What is gone is no error.
func (a *Archive) deleteObjects(ctx context.Context, p place) error {
	if err := a.deleteManifest(ctx, p); err != nil {
		return err
	}
	names := []string{segment.KeyFile}
	err := p.store.List(ctx, p.prefix+"/", func(i recorder.BlobInfo) error {
		dir, base := path.Split(i.Name)
		if path.Clean(dir) == p.prefix && base != segment.KeyFile { // else of one whose folder lies in this one
			names = append(names, base)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := deleteObject(ctx, p.store, p.object(name)); err != nil {
			return err
		}
	}
	return nil
}

// deleteManifest deletes a manifest when nobody is about to replace it, and nobody holds
// the recording; *heldError. Another node, which knows nothing of the order, puts its hold beside the
// manifest and then looks whether that is there. So holds are asked for once more when it is gone:
// whoever saw it there is seen now, and it is put back.
func (a *Archive) deleteManifest(ctx context.Context, p place) error {
	a.proof.replacing.Lock()
	defer a.proof.replacing.Unlock()
	name, withdrawn := p.object(segment.ManifestFile), a.spool(withdrawnDir, p.id())
	if err := vfs.MkdirAll(a.fsys, a.spool(withdrawnDir)); err != nil {
		return err
	}
	content, err := readObject(ctx, p.store, name, segment.ManifestBytesMax)
	switch {
	case errors.Is(err, recorder.ErrNotFound): // an attempt before this one deleted it
	case err != nil:
		return err
	default:
		if err := a.mayGo(ctx, p); err != nil {
			return err
		}
		if err := vfs.WriteFile(a.fsys, withdrawn, content); err != nil {
			return err
		}
		if err := deleteObject(ctx, p.store, name); err != nil {
			return err
		}
	}
	if err := a.mayGo(ctx, p); err != nil {
		return a.putBack(ctx, p, withdrawn, err)
	}
	if err := a.removeFile(withdrawn); err != nil {
		return err
	}
	return a.fsys.SyncDir(a.spool(withdrawnDir)) // there is no way back: its key goes next
}

// putBack puts a manifest back that has been deleted, and returns why. Where it cannot, the
// next attempt does. Nothing is left to put back when the recording was held by nobody before.
func (a *Archive) putBack(ctx context.Context, p place, withdrawn string, why error) error {
	content, err := vfs.ReadFile(a.fsys, withdrawn, segment.ManifestBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = p.store.Put(ctx, p.object(segment.ManifestFile), content)
	}
	if err != nil {
		return fmt.Errorf("put its manifest back, for %s: %w", why.Error(), err)
	}
	if err := a.removeFile(withdrawn); err != nil {
		return err
	}
	return why
}

// forget removes what is known of a recording, and what is kept of it here.
func (a *Archive) forget(ctx context.Context, p place) error {
	id := p.id()
	a.notes.Lock()
	err := a.removeFile(a.spool(rowsDir, id+".json"))
	a.notes.Unlock()
	if err != nil {
		return err
	}
	if err := a.removeFile(a.spool(unlinkedDir, id+".json")); err != nil {
		return err
	}
	if err := vfs.RemoveAll(a.fsys, a.spool(keptDir, id)); err != nil {
		return err
	}
	if err := a.dropJob(&job{Recording: id}); err != nil { // one that was given up
		return err
	}
	c, err := a.catalogue.get(ctx)
	if err != nil {
		return err
	}
	if err := c.Delete(ctx, id); err != nil && !errors.Is(err, recorder.ErrNotFound) {
		return err
	}
	return nil
}

// DeleteDue ends the deletions that a crash or a fault cut short, and returns how many.
// It is to be called at start and every minute or so.
func (a *Archive) DeleteDue(ctx context.Context) (int, error) {
	a.sweepWithdrawn()
	return a.eachOrder(ctx, deletingDir, a.deleteDue)
}

// sweepWithdrawn removes what a crash left of manifests that no deletion will put back.
func (a *Archive) sweepWithdrawn() {
	a.shredding.Lock() // then no deletion is under way
	defer a.shredding.Unlock()
	entries, err := a.fsys.ReadDir(a.spool(withdrawnDir))
	if err != nil || a.cfg.ReadOnly {
		return // there are none, or it is tried again
	}
	for _, e := range entries {
		if !a.deleting(e.Name()) {
			_ = a.fsys.Remove(a.spool(withdrawnDir, e.Name())) // as above
		}
	}
}

func (a *Archive) deleteDue(ctx context.Context, name string) (bool, error) {
	a.shredding.Lock()
	defer a.shredding.Unlock()
	var o deleteOrder
	if there, err := a.readOrder(name, &o); !there {
		return false, err
	}
	if !o.Begun {
		if err := a.trace(ctx, o.entry(audit.ResultFailed)); err != nil { // the log may say that it was begun
			return false, err
		}
		return false, a.fsys.Remove(name) // nothing was done, and rules may be others now
	}
	s, err := a.shelf(o.Store)
	if err == nil {
		err = a.checkName(o.Recording, o.Prefix)
	}
	if err == nil {
		err = a.resumeDelete(context.WithoutCancel(ctx), place{s, o.Prefix}, o)
	}
	if held := (*heldError)(nil); (errors.As(err, &held) || errors.Is(err, errKept)) && !a.deleting(o.Recording) {
		return false, nil // it stays, and the log says so
	}
	if err != nil {
		return false, fmt.Errorf("delete recording %s: %w", o.Recording, err)
	}
	a.retained.ended()
	return true, nil
}

// errKept says that rules have changed.
var errKept = errors.New("by the rules of now it is to be kept")

// resumeDelete goes on with a deletion. Of a recording that is whole the rules are asked anew: the
// store may have failed for days, and somebody have mended them.
func (a *Archive) resumeDelete(ctx context.Context, p place, o deleteOrder) error {
	there, err := a.isThere(ctx, p)
	if err != nil {
		return err
	}
	if there {
		m, _, err := a.known(ctx, p.id(), p)
		switch {
		case unreadable(err):
			return a.refuseDelete(ctx, o, err)
		case err != nil:
			return err
		}
		if _, due := a.cfg.Retention.Policy.Due(m, p.name, o.Low, time.Now()); !due {
			return a.refuseDelete(ctx, o, errKept)
		}
	}
	return a.carryOutDelete(ctx, p, o)
}

// leaving tells whether a recording is on its way out: nothing of it is missed.
func (v *verification) leaving(id string) bool {
	return v.a.deleting(id) || v.led.has(id, markLeaving)
}
