package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/trunktap/trunktap/sip/journal"
)

// Between attempts to have the key of the journal sealed.
const (
	sealAgainAfter = 5 * time.Second
	sealAgainMost  = time.Minute
)

// lateKey is a key of the journal that the key service of recordings could not seal
// when the journal was begun; zero: it could. A process after this one finds the key in
// memory alone meanwhile, or not at all.
type lateKey struct {
	wrapped wrappedJournalKey
	key     []byte
	err     error
}

// note keeps a key to be sealed later.
func (l *lateKey) note(w wrappedJournalKey, key []byte, err error) {
	if l != nil {
		*l = lateKey{w, bytes.Clone(key), err}
	}
}

// sealLater has the key of a journal sealed as soon as that can be done, if it could not
// when the journal was begun. Who calls stop waits for it.
func (k journalKeys) sealLater(j *journal.Journal, log *slog.Logger) (stop func()) {
	if err := k.copies.keepFailed; err != nil && k.dir != "" {
		log.Warn("calls would not survive a restart while the key service of recordings is away: no copy of the journal's key is in memory; see restart.key_dir", "error", err)
	}
	if k.late == nil || k.late.key == nil {
		return func() {}
	}
	if k.late.wrapped.Run == "" {
		log.Error("calls would not survive a restart until the key service of recordings is back", "error", k.late.err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer clear(k.late.key)
		if k.sealAgain(ctx, j) {
			log.Info("the key of the journal of calls is sealed now: calls survive a restart")
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// sealAgain tries until it is done, or ctx is; true: it is done.
func (k journalKeys) sealAgain(ctx context.Context, j *journal.Journal) bool {
	for pause := sealAgainAfter; ; pause = min(2*pause, sealAgainMost) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
		w := k.late.wrapped
		if k.seal(ctx, &w, k.late.key) != nil {
			continue // told by the keys' own log and metrics
		}
		if wrapped, err := json.Marshal(w); err == nil {
			j.Rewrap(wrapped)
			k.copies.sealed.Store(true)
			return true
		}
	}
}
