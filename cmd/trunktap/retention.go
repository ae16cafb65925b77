package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/retention"
)

// retentionFirst is when a daemon first looks for what need not be kept any more: who
// started it with a slip in the rules has time to see what the log says of them.
const retentionFirst = 5 * time.Minute

// retentionConfig is what an archive needs to know of retention.
func retentionConfig(cfg *config.Retention) archive.RetentionConfig {
	out := archive.RetentionConfig{Nodes: cfg.Nodes, DeletionsMax: cfg.DeletionsMax}
	for _, r := range cfg.Rules {
		rule := retention.Rule{
			Trunk: cmp.Or(r.Trunk, r.FormerTrunk), User: r.User, Kind: recorder.Kind(r.Kind), Attr: r.Attr, DeleteAfter: r.DeleteAfter, GiveWayAfter: r.GiveWayAfter,
		}
		if r.Storage != "" {
			rule.Store = new(region(r.Storage))
		}
		out.Policy = append(out.Policy, rule)
	}
	return out
}

// startRetention deletes what need not be kept any more, now and then.
func (d *daemon) startRetention() {
	cfg := &d.cfg.Retention
	policy := retentionConfig(cfg).Policy
	due, some := policy.Least(false)
	room, gives := policy.Least(true)
	if !some && !gives {
		return
	}
	d.log.Info("recordings are not kept for ever", "rules", len(policy), "deleted_after_at_least", due, "give_way_after_at_least", room, "first_look_in", min(cfg.Every, retentionFirst))
	if !some {
		return // only for want of room
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		failing := false
		for wait := min(cfg.Every, retentionFirst); ; wait = cfg.Every {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
				failing = d.expire(ctx, failing)
			}
		}
	}()
	d.closers = append(d.closers, func() error { cancel(); <-ended; return nil })
}

// expire is one look.
func (d *daemon) expire(ctx context.Context, failing bool) bool {
	r, err := d.archive.Expire(ctx, archive.ExpireQuery{})
	if r.Deleted > 0 || r.Unreadable > 0 {
		d.log.Info("deleted recordings that need not be kept any more", "recordings", r.Deleted, "bytes", r.Bytes, "held", r.Held, "busy", r.Busy, "locked", r.Locked, "unreadable", r.Unreadable, "failed", r.Failed, "more", r.More)
	}
	switch {
	case ctx.Err() != nil:
		return failing
	case err != nil && !failing:
		d.log.Error("recordings that need not be kept any more are not all deleted", "error", err)
	}
	return err != nil
}

// deleteDue ends deletions that were cut short, and tells when that begins to fail.
func (d *daemon) deleteDue(failing bool) bool {
	n, err := d.archive.DeleteDue(context.Background())
	if n > 0 {
		d.log.Info("deleted what was left of recordings whose deletion was cut short", "recordings", n)
	}
	if err != nil && !failing {
		d.log.Error("the deletion of recordings was cut short, and cannot be ended yet", "error", err)
	}
	return err != nil
}

type retentionCmd struct {
	configFlag
	Low  bool `help:"Show what may give way on a disk that is low, in place of what is due."`
	JSON bool `help:"Print JSON." name:"json"`
}

// expiry is one recording that would be deleted.
type expiry struct {
	ID    string        `json:"id"`
	Trunk string        `json:"trunk"`
	Kind  recorder.Kind `json:"kind"`
	Store string        `json:"store,omitempty"`
	Ended time.Time     `json:"ended"`
	Due   time.Time     `json:"due"`
}

// Run shows what the daemon would delete now. It deletes nothing.
func (c *retentionCmd) Run(e *env) (err error) {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	a, err := openArchive(e.ctx, cfg, func(c *archive.Config) { c.ReadOnly = true })
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	out := json.NewEncoder(e.stdout)
	table := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	if !c.JSON {
		_, _ = fmt.Fprintln(table, "ID\tTRUNK\tKIND\tSTORE\tENDED\tDUE") // Flush tells of errors
	}
	q := archive.ExpireQuery{DryRun: true}
	if c.Low {
		q.Stores = []string{""}
		for _, r := range cfg.Storage.Regions {
			q.Stores = append(q.Stores, r.Name)
		}
	}
	var failed error
	q.Each = func(m *recorder.Manifest, store string, due time.Time) {
		x := expiry{m.ID, m.Trunk, m.Kind, store, retention.Ended(m).UTC(), due.UTC()}
		if c.JSON {
			failed = errors.Join(failed, out.Encode(x))
			return
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", clean(x.ID), clean(x.Trunk), clean(string(x.Kind)), dash(clean(x.Store)), x.Ended.Format(time.RFC3339), x.Due.Format(time.RFC3339))
	}
	r, err := a.Expire(e.ctx, q)
	if err = errors.Join(err, failed); err != nil || c.JSON {
		return err
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%d recordings of this node, %d bytes; besides, %d are under legal hold, %d are other nodes', %d cannot be read and %d are not in their store\n", r.Deleted, r.Bytes, r.Held, r.Others, r.Unreadable, r.Missing)
	return err
}

// retentionMetrics shows what retention does.
type retentionMetrics struct {
	of                      *archive.Archive
	deleted, bytes, gaveWay *prometheus.Desc
	kept, at, more          *prometheus.Desc
}

func newRetentionMetrics(a *archive.Archive) *retentionMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("trunktap_retention_"+name, help, labels, nil)
	}
	return &retentionMetrics{
		of:      a,
		deleted: desc("deleted_total", "Recordings that were deleted because they need not be kept any more."),
		bytes:   desc("deleted_bytes_total", "Bytes of these."),
		gaveWay: desc("gave_way_total", "Of these, recordings that made room on a disk that was low."),
		kept:    desc("kept", "Recordings that were due at the last look and are still there, by why.", "why"),
		at:      desc("timestamp_seconds", "When it was looked last for what is due."),
		more:    desc("more", "1: the last look reached deletions_max; the next one goes on."),
	}
}

// Describe implements prometheus.Collector.
func (m *retentionMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.deleted, m.bytes, m.gaveWay, m.kept, m.at, m.more} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *retentionMetrics) Collect(ch chan<- prometheus.Metric) {
	r := m.of.Retained()
	count := func(d *prometheus.Desc, n int64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	count(m.deleted, r.Deleted)
	count(m.bytes, r.Bytes)
	count(m.gaveWay, r.GaveWay)
	if r.Last == nil {
		return
	}
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	gauge(m.kept, float64(r.Last.Held), "held")
	gauge(m.kept, float64(r.Last.Busy), "busy")
	gauge(m.kept, float64(r.Last.Locked), "locked")
	gauge(m.kept, float64(r.Last.Unreadable), "unreadable")
	gauge(m.kept, float64(r.Last.Others), "others")
	gauge(m.kept, float64(r.Last.Missing), "missing")
	gauge(m.kept, float64(r.Last.Failed), "failed")
	gauge(m.at, float64(r.Last.At.Unix()))
	gauge(m.more, map[bool]float64{true: 1}[r.Last.More])
}
