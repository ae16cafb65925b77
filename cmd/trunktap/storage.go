package main

import (
	"context"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

const uploadTimeout = 5 * time.Second // at the end, for what can go to stores at once; the rest waits for the next start

// stopUploads gives what waits for its store a last chance.
func (d *daemon) stopUploads() error {
	ctx, cancel := context.WithTimeout(context.Background(), uploadTimeout)
	defer cancel()
	d.archive.StopUploads(ctx)
	for _, u := range d.archive.Uploads() {
		if u.Recordings > 0 {
			d.log.Info("recordings wait in the spool for the next start", "store", u.Store, "recordings", u.Recordings, "bytes", u.Bytes)
		}
	}
	return nil
}

// storageEvent tells whoever listens what becomes of disks and stores.
func (d *daemon) storageEvent(event string, data map[string]any) {
	level := d.log.Warn
	if event == "store.up" || event == "storage.recovered" {
		level = d.log.Info
	}
	args := []any{"event", event}
	for k, v := range data {
		args = append(args, k, v)
	}
	level("storage", args...)
	if rec := d.recorder.Load(); rec != nil { // else nobody can listen yet
		rec.Tell(recorder.Event{Type: event, At: time.Now(), Data: data})
	}
}
