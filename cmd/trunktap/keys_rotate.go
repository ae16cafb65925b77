package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// keySealer is what seals recordings, as an operator sees it: *seal.Envelope, and
// *seal.Local by it.
type keySealer interface {
	Mode() string
	ActiveKey(context.Context) (string, error)
	Rotate(context.Context) (string, error)
	Renew(context.Context) error
	Status(context.Context) seal.Status
	Stats() *seal.Stats
	Memory() (keys, keysMax int)
}

// sealer returns what seals recordings.
func (d *daemon) sealer() keySealer { return d.archive.Sealer().(keySealer) }

// keyRotation is what came of a rotation.
type keyRotation struct {
	Key    string `json:"key"` // that wraps what is new
	Before string `json:"before"`
	// Elsewhere: the service makes versions of its keys itself; the intermediate key
	// alone is new.
	Elsewhere bool `json:"elsewhere,omitempty"`
}

// rotation is when the key-encryption key was last made anew, by whomever: that
// outlives a restart.
type rotation struct {
	turn sync.Mutex // held during a rotation; before mu

	made, failed atomic.Int64 // rotations
	ours         atomic.Bool  // one is under way: who wanted it leaves its trace

	mu   sync.Mutex // guards all following
	file string     // empty: not known yet
	last rotatedAt
	err  error // of writing it
}

// rotatedAt is what is kept of the last rotation.
type rotatedAt struct {
	Key string    `json:"key"`
	At  time.Time `json:"at"`
}

const (
	rotatedBytesMax = 64 << 10
	rotateAgain     = time.Minute     // after a rotation that failed
	rotateLook      = time.Hour       // at most: a clock may be set
	rotateSpreadMax = 5 * time.Minute // nodes that share a key do not rotate it at once
)

// rotateKeys makes a new key-encryption key that wraps what is new; older ones stay
// readable. One at a time. Errors are *recorder.RefusedError in mode none, and those
// of the key source.
func (d *daemon) rotateKeys(ctx context.Context) (keyRotation, error) {
	r := &d.rotation
	r.turn.Lock()
	defer r.turn.Unlock()
	r.ours.Store(true)
	defer r.ours.Store(false)
	done, err := rotateWith(ctx, d.sealer())
	if err != nil {
		r.failed.Add(1)
		return keyRotation{}, err
	}
	r.made.Add(1)
	r.note(done.Key, time.Now())
	return done, nil
}

// rotateWith makes a new key-encryption key where keys come from.
func rotateWith(ctx context.Context, s keySealer) (keyRotation, error) {
	if s.Mode() == seal.ModeNone {
		return keyRotation{}, &recorder.RefusedError{Why: "keys.mode is none: there is no key to rotate"}
	}
	before, _ := s.ActiveKey(ctx) // empty: there is none yet
	key, err := s.Rotate(ctx)
	done := keyRotation{Key: key, Before: before, Elsewhere: errors.Is(err, seal.ErrRotateElsewhere)}
	if done.Elsewhere {
		done.Key, err = s.ActiveKey(ctx)
	}
	if err != nil {
		return keyRotation{}, fmt.Errorf("rotate keys: %w", err)
	}
	return done, nil
}

// noted hears of a key that somebody else has made.
func (r *rotation) noted(event string, data map[string]any) {
	if key, ok := data["key"].(string); ok && event == seal.EventRotated {
		r.note(key, time.Now())
	}
}

// note keeps when a key became the active one.
func (r *rotation) note(key string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = rotatedAt{key, at.UTC().Round(0)}
	if r.file == "" {
		return
	}
	content, err := json.Marshal(r.last)
	if err == nil {
		err = vfs.WriteFile(vfs.OS{}, r.file, append(content, '\n'))
	}
	r.err = err
}

// read finds what a process before has kept.
func (r *rotation) read(file string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.file = file
	b, err := vfs.ReadFile(vfs.OS{}, file, rotatedBytesMax)
	if err == nil {
		err = json.Unmarshal(b, &r.last)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (r *rotation) state() (last rotatedAt, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.err
}

// startRotation has keys rotated when they are due.
func (d *daemon) startRotation(ctx context.Context) error {
	every := d.cfg.Keys.Rotate
	if every.IsZero() {
		return nil
	}
	r := &d.rotation
	if err := r.read(d.cfg.Keys.RotatedFile); err != nil {
		d.log.Error("when keys were last rotated is not known; it counts from now on", "error", err)
	}
	active, _ := d.sealer().ActiveKey(ctx) // empty: there is none yet
	if last, _ := r.state(); last.At.IsZero() || active != "" && active != last.Key {
		r.note(active, time.Now())
	}
	spread := func(last time.Time) time.Duration {
		h := fnv.New32a()
		_, _ = h.Write([]byte(d.cfg.NodeName())) // never fails
		most := min(every.After(last).Sub(last)/100, rotateSpreadMax)
		return time.Duration(h.Sum32()) % max(most, 1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for failing := false; ; {
			last, err := r.state()
			wait := time.Until(every.After(last.At).Add(spread(last.At)))
			if wait <= 0 {
				if err = errors.Join(d.rotateDue(ctx, last, failing), err); err == nil {
					failing = false
					continue
				}
				wait = rotateAgain
			}
			if err != nil && !failing && ctx.Err() == nil {
				d.storageEvent("key.rotation_failed", map[string]any{"error": err.Error()})
			}
			failing = err != nil
			select {
			case <-ctx.Done():
				return
			case <-time.After(min(wait, rotateLook)):
			}
		}
	}()
	d.closers = append(d.closers, func() error { cancel(); <-ended; return nil })
	return nil
}

// rotateDue rotates, unless another node that shares the key has. What fails again
// and again is in the log once.
func (d *daemon) rotateDue(ctx context.Context, last rotatedAt, failing bool) error {
	by := api.Actor{Who: "schedule"}
	if err := d.sealer().Renew(ctx); err != nil {
		err = fmt.Errorf("rotate keys: %w", err)
		if !failing && ctx.Err() == nil {
			_ = d.keys.done(ctx, audit.KindKeyRotated, "rotation", by, err) // err is told
		}
		return err
	}
	if now, _ := d.rotation.state(); now != last {
		return nil
	}
	r, err := d.rotateKeys(ctx)
	if err == nil || !failing {
		return d.keys.done(ctx, audit.KindKeyRotated, r.what(), by, err)
	}
	return err
}

// keyWarnings are what /readyz tells of keys though recordings can begin.
func (d *daemon) keyWarnings() []string {
	switch s := d.sealer().Status(context.Background()); {
	case s.Mode == seal.ModeNone:
		return []string{"unsealed"}
	case !s.Up:
		return []string{"key-service"}
	}
	return nil
}

// keyTeller passes on what becomes of keys; nil: nobody listens.
func keyTeller(notify func(string, map[string]any)) func(string, map[string]string) {
	if notify == nil {
		return nil
	}
	return func(event string, data map[string]string) {
		out := make(map[string]any, len(data))
		for k, v := range data {
			out[k] = v
		}
		notify(event, out)
	}
}
