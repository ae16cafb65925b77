package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/catalog"
)

// library is the archive as the API asks for it; the two do not know each other.
type library struct{ *archive.Archive }

var _ api.Library = library{}

// Find implements api.Library.
func (l library) Find(ctx context.Context, q recorder.Query) (recorder.Page, error) {
	page, err := l.Archive.Find(ctx, q)
	if errors.Is(err, catalog.ErrCursor) {
		err = fmt.Errorf("%w: %w", api.ErrCursor, err)
	}
	return page, err
}

// Media implements api.Library.
func (l library) Media(ctx context.Context, id, format string) (api.Media, error) {
	m, err := l.Archive.Media(ctx, id, format)
	if err != nil {
		return api.Media{}, err
	}
	return api.Media{Content: m, Type: m.ContentType, Name: m.Name, Modified: m.Modified, Damaged: len(m.Damage()) > 0}, nil
}

// Verify implements api.Library.
func (l library) Verify(ctx context.Context, ids []string, progress func(done, total int64)) (api.Report, error) {
	r, err := l.Archive.Verify(ctx, archive.VerifyQuery{IDs: ids}, progress)
	out := api.Report{Recordings: r.Recordings, Segments: r.Segments, Frames: r.Frames, Bytes: r.Bytes, Dropped: r.Dropped, Findings: []api.Finding{}}
	for _, f := range r.Findings {
		out.Findings = append(out.Findings, api.Finding(f))
	}
	return out, err
}

// readiness names the parts that cannot take recordings.
func readiness(a *archive.Archive) func(context.Context) map[string]error {
	return func(ctx context.Context) map[string]error {
		err := a.Ready(ctx)
		var n *archive.NotReady
		if errors.As(err, &n) {
			return map[string]error{"store": n.Store, "spool": n.Spool, "keys": n.Keys, "catalogue": n.Catalog}
		}
		return map[string]error{"archive": err}
	}
}

var errNotTaking = errors.New("new calls are not taken: the daemon is starting, or drains before it stops")

// ready names all parts without which no new call is taken and recorded.
func (d *daemon) ready(ctx context.Context) map[string]error {
	all := readiness(d.archive)(ctx)
	if d.listener != nil {
		all["capture"] = d.listener.ready()
	}
	if !d.taking.Load() {
		all["sip"] = errNotTaking
	}
	return all
}

// freeBytesMin is what must be free for a recording to begin: the store must
// never fill a disk that others need to write a log.
const freeBytesMin = 64 << 20

func archiveConfig(cfg *config.Config) archive.Config {
	c := archive.Config{
		StoreDir: cfg.Storage.Dir, SpoolDir: cfg.Storage.Spool, KeyFile: cfg.Keys.File, FreeBytesMin: freeBytesMin,
		CatalogURL: cfg.Catalog.URL, CatalogOptions: catalogOptions(cfg), Node: nodeName(cfg),
	}
	storageConfig(cfg, &c)
	return c
}

// local is the store itself, opened for reading.
type local struct{ library }

func openLocal(e *env, cfg *config.Config) (source, error) {
	// A store that was never written is not made by looking at it.
	if dir := cfg.Storage.Dir; dir != "" {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("the daemon does not answer, and its store cannot be read: %w", err)
		}
	}
	a, err := openArchive(e.ctx, cfg, func(c *archive.Config) { c.ReadOnly = true })
	if err != nil {
		return nil, err
	}
	if forgotten, err := a.Forgotten(e.ctx); err == nil && forgotten {
		e.note("the catalogue %s lists none of the store's recordings: run trunktap rebuild", shownURL(cfg.Catalog.URL))
	}
	return local{library{a}}, nil
}

func (l local) find(ctx context.Context, q recorder.Query) (listing, error) {
	page, err := l.Find(ctx, q)
	out := listing{Next: page.Next}
	if q.Total && err == nil {
		out.Total, out.TotalMore = &page.Total, page.TotalMore
	}
	for _, row := range page.Rows {
		out.Recordings = append(out.Recordings, api.Complete(row.Manifest))
	}
	return out, err
}

func (l local) get(ctx context.Context, id string) (*recorder.Manifest, error) {
	m, err := l.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	full := api.Complete(*m)
	return &full, nil
}

func (l local) media(ctx context.Context, id, format string) (io.ReadCloser, int64, error) {
	m, err := l.Archive.Media(ctx, id, format)
	if err != nil {
		return nil, 0, err
	}
	return m, m.Size, nil
}

func (l local) verify(ctx context.Context, ids []string, progress func(done, total int64)) (api.Report, error) {
	return l.Verify(ctx, ids, progress)
}

func (l local) close() error { return l.Close() }
