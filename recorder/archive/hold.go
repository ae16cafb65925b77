package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Held is a recording that a crash left in the spool and that is to go on. Its
// account ends with its last durable sample.
type Held struct {
	ID, Prefix string
	Manifest   *recorder.Manifest

	at    place
	mark  marker
	spool []int // numbers of the segments in the spool
}

// Hold finds the recordings in the spool whose calls go on, and keeps Recover away
// from them until they are given to Continue or Abandon. session tells by the id of
// a call whether it does. What cannot be gone on with is left to Recover.
func (a *Archive) Hold(ctx context.Context, session func(id string) bool) ([]*Held, error) {
	if a.cfg.ReadOnly {
		return nil, errors.New("hold: archive is read-only")
	}
	ids, err := a.inSpoolDir()
	if err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !session(sessionOf(id)) || a.isLive(id) })
	all := make([]*Held, len(ids))
	a.atOnce(ctx, len(ids), func(i int) { all[i] = a.holdOne(ctx, ids[i]) })
	return slices.DeleteFunc(all, func(h *Held) bool { return h == nil }), nil
}

// inSpoolDir lists the recordings that have a folder in the spool.
func (a *Archive) inSpoolDir() (ids []string, err error) {
	entries, err := a.fsys.ReadDir(a.cfg.SpoolDir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if id := e.Name(); e.IsDir() && !reserved(id) && !strings.HasPrefix(id, vfs.TempPrefix) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// holdOne holds one recording; nil: Recover tells what is wrong with it.
func (a *Archive) holdOne(ctx context.Context, id string) *Held {
	r := &recovery{a: a, ctx: ctx, Recovered: Recovered{ID: id}}
	h, err := r.hold()
	if err != nil || h == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.live[id] = &liveSpool{}
	return h
}

// Session returns the id of its call.
func (h *Held) Session() string { return sessionOf(h.ID) }

// sessionOf returns the id of the call of a recording.
func sessionOf(id string) string {
	if recorder.KindOf(id) == recorder.KindTrunk {
		return id
	}
	return id[:strings.LastIndex(id, "-")]
}

// hold is run for a recording that goes on; nil when it was over, or when nothing of
// it was durable: then its folder makes room for it to begin anew.
func (r *recovery) hold() (*Held, error) {
	files, err := r.a.fsys.ReadDir(r.a.spool(r.ID))
	if err != nil {
		return nil, err
	}
	if err := r.readMarker(files); err != nil {
		return nil, err
	}
	if r.empty {
		return nil, r.a.dropSpool(r.ID)
	}
	if err := r.readSpool(files); err != nil {
		return nil, err
	}
	if m, _, err := r.finalManifest(); err != nil || m != nil {
		return nil, err
	}
	if err := r.readStore(); err != nil {
		return nil, err
	}
	if err := r.finishParts(); err != nil {
		return nil, err
	}
	m := r.lastAccount()
	if m == nil {
		if m = r.withoutAccount(); m == nil {
			return nil, r.a.dropSpool(r.ID)
		}
	}
	if len(m.Channels) == 0 || m.SampleRate <= 0 || m.Origin.IsZero() {
		return nil, nil
	}
	closeManifest(m, r.parts)
	m.Gaps = slices.DeleteFunc(m.Gaps, func(g recorder.Gap) bool { return g.Cause == recorder.GapRestart && g.DurationMS == 0 })
	m.Call.EndCause = ""
	h := &Held{ID: r.ID, Prefix: r.Prefix, Manifest: m, at: r.at, mark: r.marker}
	for _, p := range r.parts {
		if p.spool != "" && !p.empty() {
			h.spool = append(h.spool, p.n)
		}
	}
	if err := r.ensureKey(); err != nil {
		return nil, err
	}
	return h, r.makeRoom(h)
}

// makeRoom moves the segments of the spool out of the way that have no audio, or
// nothing that was durable: what they tell is in hand, and their numbers are taken
// again. They go when the recording is published.
func (r *recovery) makeRoom(h *Held) error {
	files, err := r.a.fsys.ReadDir(r.a.spool(r.ID))
	if err != nil {
		return err
	}
	for _, f := range files {
		n, ok := segment.NumberOf(f.Name())
		if !ok || slices.Contains(h.spool, n) {
			continue
		}
		name := r.a.spool(r.ID, f.Name())
		if err := r.a.fsys.Rename(name, name+overExt); err != nil {
			return err
		}
	}
	return nil
}

// overExt ends the names of segments that made room.
const overExt = ".over"

// Continue opens the sink of a recording that goes on: it takes the segments behind
// those that are there.
func (a *Archive) Continue(ctx context.Context, h *Held) (recorder.Sink, error) {
	key, err := a.spoolKeys(h.ID).OpenKey(ctx, h.ID, h.mark.Key)
	if err != nil {
		return nil, fmt.Errorf("continue recording %s: %w", h.ID, err)
	}
	s := &sink{a: a, id: h.ID, at: h.at, dir: a.spool(h.ID), key: key, begun: true, keyed: true, resumed: true, untidy: true, live: a.liveOf(h.ID)}
	s.marked = h.mark.Version >= markerQueued
	if !h.at.queued() {
		s.folder = h.at.folder
		return s, nil
	}
	h.at.queue.change(h.at, time.Now(), func(it *pending) { it.inherited = true })
	return s, nil
}

// Abandon leaves a recording to Recover: its call does not go on after all.
func (a *Archive) Abandon(h *Held) { a.release(h.ID) }

// Stuck tells whether a recording is in the spool that was going on, and Hold could do
// nothing with it: its key is not at hand, or it is damaged.
func (a *Archive) Stuck(id string) bool {
	if !a.inSpool(id) || a.isLive(id) {
		return false
	}
	_, err := a.fsys.Stat(a.spool(id, segment.ManifestFile)) // it was over
	return errors.Is(err, fs.ErrNotExist)
}

func (a *Archive) inSpool(id string) bool {
	_, err := a.fsys.Stat(a.spool(id))
	return !errors.Is(err, fs.ErrNotExist)
}

// Known tells whether a recording is in the store, or will be: none can begin under its
// name.
func (a *Archive) Known(ctx context.Context, s media.Session) bool {
	if a.inSpool(s.ID) {
		return true
	}
	_, ok := a.guess(ctx, s.ID, recorder.Prefix(s.Start, media.ConversationID(s.SIPCallID), s.ID), recorder.Prefix(s.Start, "", s.ID))
	return ok
}

// Sealer returns what makes and opens data keys.
func (a *Archive) Sealer() recorder.Sealer { return a.sealer }
