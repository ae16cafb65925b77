package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
)

// keyless are the recordings in the spool whose keys were not to be had.
type keyless struct {
	why  map[string]error // by recording: recorder.ErrKeyRevoked or ErrKeyUnreachable
	up   bool             // the active key service answered when it was asked last
	wait time.Duration    // between the last two tries
	next time.Time        // not to be tried before
}

const (
	keylessWait    = catchUpEvery
	keylessWaitMax = time.Minute
)

// take notes what came of a try, and returns what is news.
func (k *keyless) take(recovered []archive.Recovered, now time.Time) (news []archive.Recovered) {
	why, moved := map[string]error{}, false
	for _, r := range recovered {
		var kind error
		switch {
		case errors.Is(r.Err, recorder.ErrKeyRevoked):
			kind = recorder.ErrKeyRevoked
		case errors.Is(r.Err, recorder.ErrKeyUnreachable):
			kind = recorder.ErrKeyUnreachable
		default:
			moved, news = true, append(news, r)
			continue
		}
		if why[r.ID] = kind; !errors.Is(k.why[r.ID], kind) {
			moved, news = true, append(news, r)
		}
	}
	if k.why = why; moved {
		k.wait = 0
	}
	k.wait = min(max(2*k.wait, keylessWait), keylessWaitMax)
	k.next = now.Add(k.wait)
	return news
}

// due returns what is to be tried now: nothing while the active key service is away,
// all when it has come back, and now and then what a former one may hold.
func (k *keyless) due(up bool, now time.Time) []string {
	back := up && !k.up
	if k.up = up; !up || !back && now.Before(k.next) {
		return nil
	}
	return slices.Sorted(maps.Keys(k.why))
}

// tellRecovered logs what became of recordings in the spool, and keeps those whose
// keys were not to be had.
func (d *daemon) tellRecovered(recovered []archive.Recovered) {
	for _, r := range d.keyless.take(recovered, time.Now()) {
		switch {
		case errors.Is(r.Err, recorder.ErrKeyUnreachable) || errors.Is(r.Err, recorder.ErrKeyRevoked):
			d.log.Warn("a recording waits in the spool until its key can be had", "recording", r.ID, "error", r.Err)
		case r.Err != nil:
			d.log.Error("a recording could not be recovered", "recording", r.ID, "error", r.Err)
		default:
			d.log.Info("recovered a recording", "recording", r.ID, "audio_ms", r.AudioMS, "finished", r.Finished, "torn_bytes", r.Torn)
		}
	}
}

// recoverKeyless publishes what waited in the spool for its key, once that can be had.
func (d *daemon) recoverKeyless(ctx context.Context) {
	if len(d.keyless.why) == 0 {
		return
	}
	if ids := d.keyless.due(d.sealer().Status(ctx).Up, time.Now()); len(ids) > 0 {
		d.tellRecovered(d.archive.RecoverAgain(ctx, ids))
	}
}
