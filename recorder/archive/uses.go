package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
)

// liveKey is which key-encryption key wraps the key of a recording that goes on.
type liveKey struct {
	making bool   // not known yet: it may be any that was active a moment ago
	kek    string // stored name; empty: that of the file in the spool
}

// keyMade notes by what the key of a recording is wrapped.
func (a *Archive) keyMade(live *liveSpool, kek string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	live.key = liveKey{kek: kek}
}

// liveKeys returns the names of key-encryption keys by the recordings that go on,
// and how many are just being given a key.
func (a *Archive) liveKeys() (by map[string]string, making int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	by = map[string]string{}
	for id, l := range a.live {
		if l.key.making {
			making++
		}
		if l.key.kek != "" {
			by[id] = l.key.kek
		}
	}
	return by, making
}

// KeyUse tells how many recordings a key-encryption key wraps the keys of.
type KeyUse struct {
	Recordings int
	Live       int       // of them: that go on, or that a crash left in the spool
	First      time.Time // the oldest of these data keys was made; zero: none tells
}

func (u *KeyUse) add(created time.Time, live bool) {
	u.Recordings++
	if live {
		u.Live++
	}
	if !created.IsZero() && (u.First.IsZero() || created.Before(u.First)) {
		u.First = created
	}
}

// keyUses counts.
type keyUses struct {
	by     map[string]*KeyUse
	failed error
}

func (k *keyUses) of(kek string) *KeyUse {
	u := k.by[kek]
	if u == nil {
		u = &KeyUse{}
		k.by[kek] = u
	}
	return u
}

func (k *keyUses) count(rec segment.KeyRecord, live bool) {
	if rec.Shredded == nil {
		k.of(rec.Key.KEK).add(rec.Created, live)
	}
}

// KeyUses counts recordings by the stored names of key-encryption keys: those that
// go on, those of the spool and those of the stores, in this order, so that none
// is missed that moves on meanwhile. What cannot be read is told by the error:
// then a key that is not in the list may be needed all the same.
func (a *Archive) KeyUses(ctx context.Context) (map[string]KeyUse, error) {
	k := &keyUses{by: map[string]*KeyUse{}}
	counted := map[string]bool{}
	if !a.cfg.ReadOnly {
		live, making := a.liveKeys()
		for id, kek := range live {
			counted[id] = true
			k.of(kek).add(time.Time{}, true)
		}
		if making > 0 {
			k.failed = fmt.Errorf("%d recordings are just beginning: ask again", making)
		}
		if err := a.spoolUses(ctx, k, counted); err != nil {
			return k.list(), err
		}
	}
	err := a.eachManifest(ctx, func(p place) error {
		if counted[p.id()] {
			return ctx.Err()
		}
		rec, err := a.keyRecord(ctx, p)
		if err != nil {
			k.failed = errors.Join(k.failed, fmt.Errorf("recording %s: %w", p.id(), err))
		} else {
			k.count(rec, false)
		}
		return ctx.Err()
	})
	return k.list(), errors.Join(k.failed, err)
}

// spoolUses counts what lies in the spool and no manifest tells of.
func (a *Archive) spoolUses(ctx context.Context, k *keyUses, counted map[string]bool) error {
	entries, err := a.fsys.ReadDir(a.cfg.SpoolDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id := e.Name()
		if !e.IsDir() || reserved(id) || counted[id] || a.isSpooled(id) {
			continue
		}
		rec, err := a.spoolKeys(id).record(ctx, id)
		if errors.Is(err, recorder.ErrNotFound) {
			if mk, err := a.marker(id); err == nil && !mk.Key.IsZero() {
				k.of(mk.Key.KEK).add(time.Time{}, true) // of version 1
			}
			continue // else nothing is in it, or it went to its store just now
		}
		if err != nil {
			k.failed = errors.Join(k.failed, fmt.Errorf("recording %s in the spool: %w", id, err))
			continue
		}
		counted[id] = true
		k.count(rec, true)
	}
	return nil
}

func (k *keyUses) list() map[string]KeyUse {
	out := make(map[string]KeyUse, len(k.by))
	for name, u := range k.by {
		out[name] = *u
	}
	return out
}

// Nodes returns the names of nodes that have a log in a store, and those of the
// catalogue's recordings, this one's among them. What cannot be read is told by the
// error: then there may be more.
func (a *Archive) Nodes(ctx context.Context) ([]string, error) {
	nodes := map[string]bool{}
	var failed error
	for _, s := range a.shelves {
		err := s.store.List(ctx, audit.StorePrefix, func(i recorder.BlobInfo) error {
			node, _, _ := strings.Cut(strings.TrimPrefix(i.Name, audit.StorePrefix), "/")
			nodes[node] = true
			return ctx.Err()
		})
		failed = errors.Join(failed, err)
	}
	rows, err := a.Usage(ctx, recorder.UsageQuery{Group: []string{"node"}})
	for _, r := range rows {
		nodes[r.Node] = true
	}
	delete(nodes, "") // from before rows had one
	return slices.Sorted(maps.Keys(nodes)), errors.Join(failed, err)
}
