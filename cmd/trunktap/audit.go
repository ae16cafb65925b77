package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// startAudit opens the node's log and makes the archive sign what it publishes.
func (d *daemon) startAudit() error {
	id, err := audit.OpenIdentity(audit.IdentityConfig{Path: d.cfg.Audit.KeyFile, Node: d.cfg.NodeName()})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.cfg.Audit.Dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of the audit log: %w", err)
	}
	d.audit, err = audit.Open(audit.Config{
		Dir: d.cfg.Audit.Dir, Identity: id, Store: d.archive.Store(), Durable: d.archive.DurableIn(d.cfg.Audit.Dir),
		Checkpoint: d.cfg.Audit.Checkpoint, LocalBytesMax: d.cfg.Audit.LocalMax, Told: d.auditTold,
	})
	if err != nil {
		return err
	}
	d.archive.SetProof(d.audit)
	d.auditing.Store(d.audit)
	if s := d.sealer().Status(context.Background()); s.Revoked {
		d.noteKeyEvent(seal.EventRevoked, map[string]any{"key": s.Active})
	}
	if d.audit.Unclean() {
		d.audit.Note(audit.Entry{Kind: audit.KindCrashed, What: "the process before ended without a word"})
	}
	d.audit.Note(audit.Entry{Kind: audit.KindStarted, What: "version " + currentVersion().Version})
	d.noteConfig()
	d.closers = append(d.closers, func() error {
		d.audit.Note(audit.Entry{Kind: audit.KindStopped})
		return d.audit.Close()
	})
	return nil
}

// auditTold logs what an operator must mend.
func (d *daemon) auditTold(err error) {
	switch {
	case err == nil:
		d.log.Info("the audit log can be written again")
	case errors.Is(err, audit.ErrNotStored):
		d.log.Error("the audit log does not get into the store: it is kept here, and tried again", "error", err)
	default:
		d.log.Error("the audit log fails: recording goes on, nothing is served", "error", err)
	}
}

// noteConfig leaves the hash of the configuration in the log.
func (d *daemon) noteConfig() {
	js, err := json.Marshal(d.cfg)
	if err != nil {
		js = fmt.Appendf(nil, "%+v", *d.cfg) // a fault of ours; that it was loaded stands all the same
	}
	sum := sha256.Sum256(js)
	d.audit.Note(audit.Entry{Kind: audit.KindConfig, What: "sha256 " + hex.EncodeToString(sum[:])})
}

// linkUp gives recordings their links that were published while the log failed.
func (d *daemon) linkUp() {
	if n, err := d.archive.LinkUp(context.Background()); err == nil && n > 0 {
		d.log.Info("recordings have their place in the audit log now", "recordings", n)
	}
}

func auditMetrics(reg *prometheus.Registry, d *daemon) {
	s := d.audit.Stats()
	for name, m := range map[string]struct {
		help string
		get  func() int64
	}{
		"audit_entries_total":        {"Entries written into the audit log.", s.Entries.Load},
		"audit_commits_total":        {"Syncs of the audit log.", s.Commits.Load},
		"audit_errors_total":         {"Attempts to write the audit log that failed.", s.Failed.Load},
		"audit_lost_total":           {"Entries that found no room while the audit log could not be written.", s.Lost.Load},
		"audit_checkpoints_total":    {"Signed checkpoints of the audit log.", s.Checkpoints.Load},
		"audit_objects_total":        {"Objects of the audit log put into the store.", s.Shipped.Load},
		"audit_object_errors_total":  {"Attempts to put the audit log into the store that failed.", s.ShipFailed.Load},
		"audit_recordings_unlinked":  {"Recordings that wait for their place in the audit log.", d.archive.Unlinked},
		"audit_log_entries":          {"Entries of the audit log.", s.Size.Load},
		"audit_log_entries_in_store": {"Entries of the audit log that the store has.", s.ShippedSize.Load},
	} {
		get := func() float64 { return float64(m.get()) }
		if strings.HasSuffix(name, "_total") {
			reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "trunktap", Name: name, Help: m.help}, get))
			continue
		}
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "trunktap", Name: name, Help: m.help}, get))
	}
}

// auditor is the log as the API asks for it.
type auditor struct {
	log *audit.Log
	a   *archive.Archive
}

var _ api.Audit = auditor{}

func entryOf(a api.Access) audit.Entry {
	return audit.Entry{Kind: audit.Kind(a.Kind), Recording: a.Recording, Who: a.Who, From: a.From, What: a.What, Result: a.Result}
}

// Access implements api.Audit.
func (x auditor) Access(ctx context.Context, a api.Access) error {
	return x.log.Append(ctx, entryOf(a))
}

// Verified implements api.Audit.
func (x auditor) Verified(a api.Access) { x.log.Note(entryOf(a)) }

// Keys implements api.Audit.
func (x auditor) Keys() api.AuditKeys { return keysOf(x.log.Identity().Ring()) }

func keysOf(r *audit.Ring) api.AuditKeys {
	out := api.AuditKeys{Node: r.Node, Keys: []api.AuditKey{}}
	for _, k := range r.Keys {
		out.Keys = append(out.Keys, api.AuditKey{Number: k.Number, ID: k.ID, Key: k.VKey, Created: k.Created, PEM: string(k.PEM()), Statement: k.Statement})
	}
	return out
}

// Bundle implements api.Audit.
func (x auditor) Bundle(ctx context.Context, id string, entries bool) (api.Bundle, error) {
	b, err := x.a.Bundle(ctx, id, archive.ProofQuery{}, entries)
	if err != nil {
		return api.Bundle{}, err
	}
	return api.Bundle{Name: b.Name, Write: b.Write, Close: b.Close}, nil
}

// Entries implements api.Audit.
func (x auditor) Entries(ctx context.Context, q api.AuditQuery) (api.AuditPage, error) {
	return entriesIn(ctx, x.log.Dir(), q)
}

// Proof implements api.Audit.
func (x auditor) Proof(_ context.Context, epoch string, entry int64) (api.AuditProof, error) {
	p, err := proofIn(x.log.Dir(), epoch, entry)
	if errors.Is(err, recorder.ErrNotFound) && x.log.CheckpointNow() == nil {
		p, err = proofIn(x.log.Dir(), epoch, entry)
	}
	return p, err
}

// epochIn returns a log by its name, the last one without.
func epochIn(d audit.Dir, name string) (audit.Epoch, []string, error) {
	all, err := d.Epochs()
	if err != nil {
		return audit.Epoch{}, nil, err
	}
	if name == "" && len(all) > 0 {
		name = all[len(all)-1]
	}
	for _, n := range all {
		if n == name {
			return d.Epoch(name), all, nil
		}
	}
	if name == "" {
		return audit.Epoch{}, all, fmt.Errorf("there is no audit log yet, the daemon begins it: %w", recorder.ErrNotFound)
	}
	return audit.Epoch{}, all, fmt.Errorf("audit log %q: %w", name, recorder.ErrNotFound)
}

// errPage ends a page.
var errPage = errors.New("the page is full")

// entriesIn reads a page of entries.
func entriesIn(ctx context.Context, d audit.Dir, q api.AuditQuery) (api.AuditPage, error) {
	e, all, err := epochIn(d, q.Log)
	if err != nil {
		return api.AuditPage{}, err
	}
	page := api.AuditPage{Log: e.Name, Logs: all, Entries: []api.AuditEntry{}, Next: -1}
	point, err := e.Latest()
	if err != nil {
		return api.AuditPage{}, err
	}
	page.Checkpoint = string(point)
	err = e.Each(ctx, q.After+1, func(line []byte) error {
		en, err := audit.ParseEntry(line)
		if err != nil {
			return nil //nolint:nilerr // verify tells
		}
		page.Size = en.N + 1
		if !wanted(en, q) {
			return nil
		}
		if len(page.Entries) == q.Limit {
			page.Next = page.Entries[len(page.Entries)-1].N
			return errPage
		}
		page.Entries = append(page.Entries, shownEntry(en, line))
		return nil
	}, func([]byte) error { return nil })
	if errors.Is(err, errPage) {
		err = nil
	}
	return page, err
}

func wanted(e audit.Entry, q api.AuditQuery) bool {
	return !e.At.Before(q.From) && (q.To.IsZero() || e.At.Before(q.To)) && (q.Recording == "" || e.Recording == q.Recording) &&
		(q.Who == "" || e.Who == q.Who) && (q.Kind == "" || string(e.Kind) == q.Kind || strings.HasPrefix(string(e.Kind), q.Kind+"."))
}

func shownEntry(e audit.Entry, line []byte) api.AuditEntry {
	out := api.AuditEntry{
		N: e.N, At: e.At, Node: e.Node, Kind: string(e.Kind), Recording: e.Recording, Who: e.Who, From: e.From, What: e.What, Result: e.Result,
		Line: string(bytes.Clone(line)),
	}
	if !e.Happened.IsZero() {
		out.Happened = &e.Happened
	}
	if e.Link != nil {
		out.Link = e.Link.SHA256
	}
	return out
}

func proofIn(d audit.Dir, epoch string, entry int64) (api.AuditProof, error) {
	e, _, err := epochIn(d, epoch)
	if err != nil {
		return api.AuditProof{}, err
	}
	line, err := e.Entry(entry)
	var p audit.Proof
	if err == nil {
		p, err = e.Prove(entry)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", recorder.ErrNotFound, err)
	}
	if err != nil {
		return api.AuditProof{}, err
	}
	return api.AuditProof{Log: e.Name, Entry: entry, Line: string(line), Proof: string(p.Text())}, nil
}

// proofQuery is what commands verify against that work without the daemon.
func proofQuery(cfg *config.Config) archive.ProofQuery {
	q := archive.ProofQuery{Dir: audit.OpenDir(nil, cfg.Audit.Dir), Node: cfg.NodeName()}
	if id, err := audit.OpenIdentity(audit.IdentityConfig{Path: cfg.Audit.KeyFile, Node: cfg.NodeName(), ReadOnly: true}); err == nil {
		q.Ring = id.Ring()
	}
	return q
}

// trace leaves an access without the daemon in the inbox of its log, before
// anything is shown.
func trace(cfg *config.Config, kind audit.Kind, recording, what string) error {
	who := fmt.Sprintf("uid %d", os.Getuid())
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	err := audit.Drop(vfs.OS{}, cfg.Audit.Dir, audit.Entry{Kind: kind, Recording: recording, Who: who, From: "command line", What: what, Result: "served", Node: cfg.NodeName()}, time.Now())
	if err != nil {
		return fmt.Errorf("nothing is shown without a trace in the audit log: %w", err)
	}
	return nil
}

// copyBundle writes an evidence bundle.
func copyBundle(b *archive.Bundle, w io.Writer) error {
	defer b.Close()
	return b.Write(w)
}
