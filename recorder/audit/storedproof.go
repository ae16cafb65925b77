package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/mod/sumdb/tlog"
)

// Prove returns an entry of a log in a store and the proof that it is in it, at the
// first checkpoint of the store that has it. It reads the log twice and keeps
// nothing of it. fs.ErrNotExist while no checkpoint has the entry.
func (s StoredLog) Prove(ctx context.Context, n int64) (line []byte, p Proof, err error) {
	line, point, err := s.find(ctx, n)
	if err != nil {
		return nil, Proof{}, fmt.Errorf("prove entry %d of log %s: %w", n, s.Name(), err)
	}
	want := &wantedHashes{}
	if _, err := tlog.ProveRecord(point.c.Size, n, want); err != nil {
		return nil, Proof{}, fmt.Errorf("prove entry %d of log %s: %w", n, s.Name(), err)
	}
	f := frontier{inner: want.take}
	err = s.Each(ctx, func(line []byte) error {
		if f.n == point.c.Size {
			return errStop
		}
		h := tlog.RecordHash(line)
		want.take(0, f.n, h)
		f.add(h)
		return nil
	}, func([]byte) error { return nil })
	if err != nil && !errors.Is(err, errStop) {
		return nil, Proof{}, fmt.Errorf("prove entry %d of log %s: %w", n, s.Name(), err)
	}
	path, err := tlog.ProveRecord(point.c.Size, n, want)
	if err != nil {
		return nil, Proof{}, fmt.Errorf("prove entry %d of log %s: %w", n, s.Name(), err)
	}
	return line, Proof{Index: n, Path: path, Checkpoint: point.signed}, nil
}

// find reads an entry, and the first checkpoint behind it.
func (s StoredLog) find(ctx context.Context, n int64) (line []byte, found point, err error) {
	at := int64(0)
	err = s.Each(ctx, func(l []byte) error {
		if at == n {
			line = bytes.Clone(l)
		}
		at++
		return nil
	}, func(signed []byte) error {
		c, err := peekCheckpoint(signed)
		if err != nil || c.Size <= n {
			return nil //nolint:nilerr // whoever checks the log tells
		}
		found = point{c, bytes.Clone(signed)}
		return errStop
	})
	switch {
	case err != nil && !errors.Is(err, errStop):
		return nil, point{}, err
	case line == nil || found.signed == nil || found.c.Size > at:
		return nil, point{}, fs.ErrNotExist
	}
	return line, found, nil
}

// wantedHashes is a tree of which only those hashes are kept that a proof needs: at
// first it learns which they are.
type wantedHashes struct{ got map[int64]tlog.Hash }

// ReadHashes implements tlog.HashReader.
func (w *wantedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	if w.got == nil {
		w.got = map[int64]tlog.Hash{}
	}
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = w.got[x]
		w.got[x] = out[i]
	}
	return out, nil
}

func (w *wantedHashes) take(level int, n int64, h tlog.Hash) {
	if x := tlog.StoredHashIndex(level, n); len(w.got) > 0 {
		if _, ok := w.got[x]; ok {
			w.got[x] = h
		}
	}
}
