package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/sip/journal"
)

// returning is a sealer whose key service comes back.
type returning struct {
	recorder.Sealer
	left atomic.Int32 // attempts that fail
}

func (r *returning) NewKey(ctx context.Context, name string) (recorder.DataKey, error) {
	if r.left.Add(-1) >= 0 {
		return nil, recorder.ErrKeyUnreachable
	}
	return r.Sealer.NewKey(ctx, name)
}

// TestJournalSealedLater: a journal begun while the key service was away, with no place in
// memory for its key, can be opened by the next process once the service was back, and
// not when it never was.
func TestJournalSealedLater(t *testing.T) {
	sealer := must(seal.OpenLocal(seal.LocalConfig{Path: filepath.Join(t.TempDir(), "keys.json"), MayMake: func() error { return nil }}))(t)
	for name, failing := range map[string]int32{"back": 3, "never": 1 << 20} {
		path := filepath.Join(t.TempDir(), "calls.journal")
		synctest.Test(t, func(t *testing.T) {
			away := &returning{Sealer: sealer}
			away.left.Store(failing)
			k := must(newJournalKeys(away, "none", path))(t)
			j, _, err := journal.Open(path, k, nil)
			if err != nil {
				t.Fatal(err)
			}
			if k.copies.sealed.Load() || k.copies.memory.Load() {
				t.Errorf("%s: a copy is told of that is not there", name)
			}
			stop := k.sealLater(j, slog.New(slog.DiscardHandler))
			j.Put("call", []byte("state"))
			time.Sleep(2 * sealAgainMost)
			stop()
			if err := j.Close(); err != nil {
				t.Error(err)
			}
			if got := k.copies.sealed.Load(); got != (name == "back") {
				t.Errorf("%s: sealed %t", name, got)
			}
			if b := k.late.key; string(b) != string(make([]byte, len(b))) {
				t.Error("the key was not wiped")
			}
		})
		next := must(newJournalKeys(sealer, "none", path))(t)
		j, left, err := journal.Open(path, next, nil)
		if err != nil {
			t.Fatal(err)
		}
		if (left.Calls["call"] != nil) != (name == "back") {
			t.Errorf("%s: %+v", name, left.Calls)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}
