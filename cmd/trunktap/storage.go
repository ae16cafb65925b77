package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/store/bucket"
)

const uploadTimeout = 5 * time.Second // at the end, for what can go to stores at once; the rest waits for the next start

// openArchive opens the archive of a configuration; change, when it is not nil,
// completes what it is opened with.
func openArchive(ctx context.Context, cfg *config.Config, change func(*archive.Config)) (*archive.Archive, error) {
	c := archiveConfig(cfg)
	if change != nil {
		change(&c)
	}
	if err := openStores(ctx, cfg, &c); err != nil {
		return nil, err
	}
	c.Sealing = sealing(ctx, cfg, c.ReadOnly, keyTeller(c.Notify))
	return archive.Open(c)
}

// storageConfig is what an archive needs to know of storage but for its stores.
func storageConfig(cfg *config.Config, c *archive.Config) {
	s := &cfg.Storage
	c.Uploads = archive.UploadConfig{Workers: s.Uploads, Growing: s.Growing, KeepLocal: s.KeepLocal}
	c.Space = archive.SpaceConfig{
		SpoolMax: archive.Share(s.SpoolMax), Warn: archive.Share(s.OnDiskLow.Warn), Low: archive.Share(s.OnDiskLow.At), Do: s.OnDiskLow.Do,
	}
	c.Retention = retentionConfig(&cfg.Retention)
	for _, r := range s.Regions {
		if c.Stores == nil {
			c.Stores = map[string]archive.StoreConfig{}
		}
		c.Stores[r.Name] = archive.StoreConfig{Dir: r.Dir}
	}
}

// openStores opens those stores that are no directories. None is asked anything.
func openStores(ctx context.Context, cfg *config.Config, c *archive.Config) (err error) {
	if c.StoreDir == "" {
		if c.Store, err = openStore(ctx, &cfg.Storage.StoreAt, c.ReadOnly); err != nil {
			return err
		}
	}
	for _, r := range cfg.Storage.Regions {
		if r.Dir != "" {
			continue
		}
		st, err := openStore(ctx, &r.StoreAt, c.ReadOnly)
		if err != nil {
			return fmt.Errorf("region %s: %w", r.Name, err)
		}
		c.Stores[r.Name] = archive.StoreConfig{Store: st}
	}
	return nil
}

func openStore(ctx context.Context, s *config.StoreAt, readOnly bool) (recorder.Store, error) {
	o := store.Options{Credentials: s.Credentials, PartBytes: s.PartSize, ReadOnly: readOnly}
	if s.Lock.Mode != "none" {
		o.Lock = store.Lock{Mode: store.LockMode(s.Lock.Mode), For: s.Lock.For, Applies: lockable}
	}
	return bucket.Open(ctx, s.URL, o)
}

// region is a store's name as recordings carry it.
func region(name string) string {
	if name == config.StorageDefault {
		return ""
	}
	return name
}

// priorities are the words of recording.priority.
var priorities = map[string]recorder.Priority{"low": recorder.PriorityLow, "normal": recorder.PriorityNormal, "high": recorder.PriorityHigh}

// stopUploads gives what waits for its store a last chance.
func (d *daemon) stopUploads() error {
	ctx, cancel := context.WithTimeout(context.Background(), uploadTimeout)
	defer cancel()
	d.archive.StopSpace()
	d.archive.StopUploads(ctx)
	for _, u := range d.archive.Uploads() {
		if u.Recordings > 0 {
			d.log.Info("recordings wait in the spool for the next start", "store", u.Store, "recordings", u.Recordings, "bytes", u.Bytes)
		}
	}
	return nil
}

// stopDeferred gives what waits to be coded a last chance.
func (d *daemon) stopDeferred() error {
	ctx, cancel := context.WithTimeout(context.Background(), encodeTimeout)
	defer cancel()
	d.archive.StopDeferred(ctx)
	if n, bytes := d.archive.DeferredQueue(); n > 0 {
		d.log.Info("recordings wait for the next start to be coded", "recordings", n, "bytes", bytes)
	}
	return nil
}

// storageEvent tells whoever listens what becomes of disks, stores and keys.
func (d *daemon) storageEvent(event string, data map[string]any) {
	level, about := d.log.Warn, "storage"
	switch event {
	case "store.up", "storage.recovered", seal.EventRestored, seal.EventRotated, "key.retired", "key.rewrapped", "recording.shredded", "recording.deleted", "recording.held", "recording.released":
		level = d.log.Info
	}
	if strings.HasPrefix(event, "key.") {
		about = "keys"
		d.rotation.noted(event, data)
		d.noteKeyEvent(event, data)
	}
	args := []any{"event", event}
	for k, v := range data {
		args = append(args, k, v)
	}
	level(about, args...)
	if rec := d.recorder.Load(); rec != nil { // else nobody can listen yet
		rec.Tell(recorder.Event{Type: event, At: time.Now(), Data: data})
	}
}
