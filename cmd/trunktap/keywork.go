package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/sip/journal"
)

// keyWork is what operators do to keys, through the daemon's API or, when none
// runs, by commands. Each leaves its trace, also when it fails.
type keyWork struct {
	cfg     *config.Config
	archive *archive.Archive
	trace   func(context.Context, audit.Entry) error // durable when it returns nil
	tell    func(event string, data map[string]any)  // nil: nobody listens
	running bool                                     // a daemon's: the journal of calls is in use
	rotate  func(context.Context) (keyRotation, error)
	job     rewrapJob
}

// onlineWork is the work of a daemon.
func (d *daemon) onlineWork() *keyWork {
	return &keyWork{cfg: d.cfg, archive: d.archive, trace: d.audit.Append, tell: d.storageEvent, running: true, rotate: d.rotateKeys}
}

// startKeyWork goes on with what a process before could not end.
func (d *daemon) startKeyWork() {
	if err := d.keys.resumeRewrap(); err != nil {
		d.log.Error("keys are not rewrapped any more: begin it again", "error", err)
	}
}

// noteKeyEvent leaves in the log what a key service has done by itself: a key was
// revoked, or another one took its place.
func (d *daemon) noteKeyEvent(event string, data map[string]any) {
	l := d.auditing.Load()
	if l == nil {
		return
	}
	e := audit.Entry{Who: "key service", Result: audit.ResultDone}
	switch {
	case event == seal.EventRevoked:
		e.Kind = audit.KindKeyRevoked
		e.What, _ = d.sealer().ActiveKey(context.Background()) // empty: not known
	case event == seal.EventRotated && !d.rotation.ours.Load():
		key, _ := data["key"].(string)
		before, _ := data["before"].(string)
		e.Kind, e.What = audit.KindKeyRotated, keyRotation{Key: key, Before: before}.what()
	default:
		return
	}
	l.Note(e)
}

// shredDue carries out what waited, and tells when it begins to fail.
func (d *daemon) shredDue(failing bool) bool {
	n, err := d.archive.ShredDue(context.Background())
	if n > 0 {
		d.log.Info("shredded recordings that were ordered to be", "recordings", n)
	}
	if err != nil && !failing {
		d.log.Error("recordings that were ordered to be shredded are not yet", "error", err)
	}
	return err != nil
}

func (w *keyWork) sealer() keySealer { return w.archive.Sealer().(keySealer) }

// offlineWork is the work of a command that has the archive for itself.
func offlineWork(cfg *config.Config, a *archive.Archive) *keyWork {
	w := &keyWork{cfg: cfg, archive: a}
	w.trace = func(_ context.Context, e audit.Entry) error { return dropTrace(cfg, e) }
	w.rotate = func(ctx context.Context) (keyRotation, error) { return rotateWith(ctx, w.sealer()) }
	return w
}

// commandActor is who works at a command line.
func commandActor() api.Actor {
	who := fmt.Sprintf("uid %d", os.Getuid())
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	return api.Actor{Who: who, From: "command line"}
}

// dropTrace leaves an entry in the inbox of the log.
func dropTrace(cfg *config.Config, e audit.Entry) error {
	e.Node = cfg.NodeName()
	return audit.Drop(vfs.OS{}, cfg.Audit.Dir, e, time.Now())
}

// done writes what came of work that an operator wanted. That it was not written
// is told beside what was done.
func (w *keyWork) done(ctx context.Context, kind audit.Kind, what string, by api.Actor, err error) error {
	if err != nil {
		what += ": " + err.Error()
	}
	terr := w.trace(context.WithoutCancel(ctx), audit.Entry{Kind: kind, Who: by.Who, From: by.From, What: what, Result: audit.ResultOf(err)})
	if terr != nil && err == nil {
		return fmt.Errorf("%s is done, but leaves no trace: %w", what, terr)
	}
	return err
}

// List implements api.Keys.
func (w *keyWork) List(ctx context.Context, uses bool) (api.KeyList, error) {
	s := w.sealer()
	active, _ := s.ActiveKey(ctx) // empty: there is none now
	out := api.KeyList{Mode: s.Mode(), Active: active, Keys: []api.Key{}, Counted: uses}
	seen := map[string]bool{}
	add := func(k api.Key) {
		if k.Name != "" && !seen[k.Name] {
			seen[k.Name] = true
			out.Keys = append(out.Keys, k)
		}
	}
	listed := false
	if l, ok := w.archive.Sealer().(*seal.Local); ok {
		infos, err := l.KEK().(seal.Lister).Keys(ctx)
		if err != nil {
			return out, err
		}
		for _, i := range infos {
			add(api.Key{Name: i.Name, Active: i.Active})
		}
		listed = true
	}
	add(api.Key{Name: active, Active: true})
	if uses {
		counts, err := w.archive.KeyUses(ctx)
		if err != nil {
			out.Unknown = err.Error()
		}
		for name := range counts {
			add(api.Key{Name: name, Missing: listed && !strings.Contains(name, ":")})
		}
		for i := range out.Keys {
			u := counts[out.Keys[i].Name]
			out.Keys[i].Recordings, out.Keys[i].Live, out.Keys[i].First = u.Recordings, u.Live, u.First
		}
	}
	if name, err := w.journalKey(); err == nil && seen[name] {
		out.Keys[slices.IndexFunc(out.Keys, func(k api.Key) bool { return k.Name == name })].Journal = true
	}
	slices.SortFunc(out.Keys, func(a, b api.Key) int {
		if c := a.First.Compare(b.First); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out, nil
}

const journalBytesMax = 1 << 30

// journalKey is the stored name of the key that the journal of calls needs; empty:
// none is needed. An error: that cannot be told.
func (w *keyWork) journalKey() (string, error) {
	data, err := vfs.ReadFile(vfs.OS{}, w.cfg.Restart.Journal, journalBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the journal of calls: %w", err)
	}
	var k recorder.WrappedKey
	c, err := journal.Read(data, func(wrapped []byte) (journal.Key, error) {
		if err := json.Unmarshal(wrapped, &k); err != nil {
			return nil, err
		}
		return journalKeys{sealer: w.archive.Sealer()}.Open(wrapped)
	})
	if !w.running && err == nil && len(c.Calls) == 0 {
		return "", nil // no call is to go on
	}
	return k.KEK, nil
}

// Rotate implements api.Keys.
func (w *keyWork) Rotate(ctx context.Context, by api.Actor) (api.KeyRotation, error) {
	r, err := w.rotate(ctx)
	return api.KeyRotation(r), w.done(ctx, audit.KindKeyRotated, r.what(), by, err)
}

func (r keyRotation) what() string {
	switch {
	case r.Key == "":
		return "rotation"
	case r.Elsewhere:
		return "the cached key was renewed, under " + r.Key
	}
	return r.Key + " in place of " + dash(r.Before)
}

// Retire implements api.Keys. What cannot be undone is in the log before it is done.
func (w *keyWork) Retire(ctx context.Context, o api.RetireOrder, by api.Actor) error {
	key, what := o.Key, o.Key
	err := w.mayRetire(ctx, key)
	if err == nil {
		what, err = w.othersAsked(ctx, o)
	}
	if err == nil {
		e := audit.Entry{Kind: audit.KindKeyRetired, Who: by.Who, From: by.From, What: what, Result: audit.ResultBegun}
		if err := w.trace(ctx, e); err != nil {
			return noTrace(err)
		}
		err = w.archive.Sealer().(*seal.Local).KEK().(seal.Retirer).Retire(ctx, key)
	}
	if err == nil && w.tell != nil {
		w.tell("key.retired", map[string]any{"key": key})
	}
	return w.done(ctx, audit.KindKeyRetired, what, by, err)
}

const otherNodesShown = 10

// othersAsked returns what the log tells of an order. Calls that go on at other nodes
// and what waits in their spools are seen by nobody here: an operator has to ask
// there, and to say that he has.
func (w *keyWork) othersAsked(ctx context.Context, o api.RetireOrder) (what string, err error) {
	nodes, err := w.archive.Nodes(ctx)
	nodes = slices.DeleteFunc(nodes, func(name string) bool { return name == w.cfg.NodeName() || name == nodeName(w.cfg) })
	names := strings.Join(nodes[:min(len(nodes), otherNodesShown)], ", ")
	if n := len(nodes) - otherNodesShown; n > 0 {
		names += fmt.Sprintf(" and %d more", n)
	}
	if o.OtherNodesAsked {
		what = o.Key + " (other nodes were asked, who retires it says"
		if names != "" {
			what += ": " + names
		}
		if err != nil {
			what += "; which there are could not be told: " + err.Error()
		}
		return what + ")", nil
	}
	const ask = "ask there whether calls or uploads need it, then say so: --other-nodes-asked"
	switch {
	case names != "":
		return o.Key, &recorder.RefusedError{Why: "other nodes may need key " + o.Key + ", and are not seen from here: " + names + "; " + ask}
	case err != nil:
		return o.Key, fmt.Errorf("%w: %w", &recorder.RefusedError{Why: "it cannot be told whether there are other nodes that may need key " + o.Key + "; " + ask}, err)
	}
	return o.Key, nil
}

// noTrace says that nothing was done, for want of a trace.
func noTrace(err error) error {
	if errors.Is(err, audit.ErrUnavailable) || errors.Is(err, audit.ErrClosed) {
		return fmt.Errorf("%w: %w", api.ErrAudit, err)
	}
	return err
}

// mayRetire asks everything that may need a key.
func (w *keyWork) mayRetire(ctx context.Context, key string) error {
	l, ok := w.archive.Sealer().(*seal.Local)
	if !ok {
		return &recorder.RefusedError{Why: "the keys are not those of mode local: retire them with the tools of their service"}
	}
	infos, err := l.KEK().(seal.Lister).Keys(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(infos, func(k seal.KeyInfo) bool { return k.Name == key })
	inJournal, err := w.journalKey()
	switch {
	case i < 0:
		return fmt.Errorf("key %s: %w", key, recorder.ErrNotFound)
	case infos[i].Active:
		return &recorder.RefusedError{Why: "key " + key + " is the active one: rotate first"}
	case err != nil:
		return &recorder.RefusedError{Why: "it cannot be told whether calls that go on need key " + key + ": " + err.Error()}
	case inJournal == key && w.running:
		return &recorder.RefusedError{Why: "the journal of calls needs key " + key + ": start the daemon again first, which takes another one"}
	case inJournal == key:
		return &recorder.RefusedError{Why: "the journal of calls that go on needs key " + key + ": start the daemon first"}
	}
	uses, err := w.archive.KeyUses(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", &recorder.RefusedError{Why: "not all recordings can be asked whether they need key " + key}, err)
	}
	switch u := uses[key]; {
	case u.Live > 0:
		return &recorder.RefusedError{Why: fmt.Sprintf("%d recordings need key %s, of which %d go on: wait for their end, then rewrap", u.Recordings, key, u.Live)}
	case u.Recordings > 0:
		return &recorder.RefusedError{Why: fmt.Sprintf("%d recordings need key %s: rewrap first", u.Recordings, key)}
	}
	return nil
}

// Shred implements api.Keys. The archive leaves the traces.
func (w *keyWork) Shred(ctx context.Context, id string, o api.ShredOrder, by api.Actor) (api.ShredResult, error) {
	s, err := w.archive.Shred(ctx, archive.ShredOrder{Recording: id, Reason: o.Reason, WhenEnded: o.WhenEnded, By: by.Who, From: by.From})
	out := api.ShredResult{Shredded: s, State: "shredded"}
	switch {
	case err != nil && s.At.IsZero():
		return out, noTrace(err)
	case err != nil:
		if out.Rest = err.Error(); errors.Is(err, archive.ErrCopyLeft) {
			out.State = "waits"
		}
	case s.At.IsZero():
		out.State, out.Reason, out.By = "waits", o.Reason, by.Who
		return out, nil
	}
	return out, nil
}
