package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/audit"
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
func (l library) Verify(ctx context.Context, q api.VerifyQuery, progress func(done, total int64)) (api.Report, error) {
	return l.verifyWith(ctx, q, archive.ProofQuery{}, progress)
}

func (l library) verifyWith(ctx context.Context, q api.VerifyQuery, proof archive.ProofQuery, progress func(done, total int64)) (api.Report, error) {
	r, err := l.Archive.Verify(ctx, archive.VerifyQuery{
		IDs: q.IDs, From: q.From, To: q.To, Trunk: q.Trunk, FromID: q.FromID, ToID: q.ToID, Proof: proof,
	}, progress)
	out := api.Report{
		Recordings: r.Recordings, Segments: r.Segments, Frames: r.Frames, Bytes: r.Bytes, Dropped: r.Dropped, Findings: []api.Finding{},
		Shredded: r.Shredded, Unsealed: r.Unsealed, Unopened: api.Unopened(r.Unopened),
	}
	for _, f := range r.Findings {
		out.Findings = append(out.Findings, api.Finding(f))
	}
	for _, f := range r.Notes {
		out.Notes = append(out.Notes, api.Finding(f))
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
		CatalogURL: cfg.Catalog.URL, CatalogOptions: catalogOptions(cfg), Node: nodeName(cfg), LogNode: cfg.NodeName(),
	}
	storageConfig(cfg, &c)
	return c
}

// local is the store itself, opened for reading.
type local struct {
	library
	cfg *config.Config
}

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
	return local{library{a}, cfg}, nil
}

func (l local) find(ctx context.Context, q recorder.Query) (listing, error) {
	page, err := l.Find(ctx, q)
	var given []string
	for name := range parameters(&q) {
		given = append(given, name)
	}
	slices.Sort(given)
	if err := trace(l.cfg, audit.KindList, "", api.Listed(len(page.Rows), given)); err != nil {
		return listing{}, err
	}
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
	if err := trace(l.cfg, audit.KindGet, id, ""); err != nil {
		return nil, err
	}
	m, err := l.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	full := api.Complete(*m)
	return &full, nil
}

func (l local) media(ctx context.Context, id, format string) (io.ReadCloser, int64, error) {
	if err := trace(l.cfg, audit.KindMedia, id, format); err != nil {
		return nil, 0, err
	}
	m, err := l.Archive.Media(ctx, id, format)
	if err != nil {
		return nil, 0, err
	}
	return m, m.Size, nil
}

func (l local) verify(ctx context.Context, q api.VerifyQuery, pin string, progress func(done, total int64)) (api.Report, error) {
	proof := proofQuery(l.cfg)
	proof.Pin = pin
	_ = trace(l.cfg, audit.KindVerify, "", "") // it shows nothing, and a copy of a store may be read-only
	return l.verifyWith(ctx, q, proof, progress)
}

func (l local) bundle(ctx context.Context, id string, entries bool, w io.Writer) error {
	if err := trace(l.cfg, audit.KindBundle, id, ""); err != nil {
		return err
	}
	b, err := l.Archive.Bundle(ctx, id, proofQuery(l.cfg), entries)
	if err != nil {
		return err
	}
	return copyBundle(b, w)
}

func (l local) entries(ctx context.Context, q api.AuditQuery) (api.AuditPage, error) {
	if q.After < 0 { // the first page
		if err := trace(l.cfg, audit.KindAudit, q.Recording, "entries"); err != nil {
			return api.AuditPage{}, err
		}
	}
	return entriesIn(ctx, audit.OpenDir(nil, l.cfg.Audit.Dir), q)
}

func (l local) proof(_ context.Context, epoch string, entry int64) (api.AuditProof, error) {
	return proofIn(audit.OpenDir(nil, l.cfg.Audit.Dir), epoch, entry)
}

func (l local) keys(context.Context) (api.AuditKeys, error) {
	id, err := audit.OpenIdentity(audit.IdentityConfig{Path: l.cfg.Audit.KeyFile, Node: l.cfg.NodeName(), ReadOnly: true})
	if err != nil {
		return api.AuditKeys{}, err
	}
	return keysOf(id.Ring()), nil
}

func (l local) close() error { return l.Close() }
