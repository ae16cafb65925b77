package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/recorder/archive"
)

type sweepCmd struct {
	configFlag
	DryRun bool `help:"Only tell what is found; that is so without --delete, too."`
	Delete bool `help:"Delete what is older than a day and provably no recording's."`
	JSON   bool `help:"Print the report as JSON." name:"json"`
}

// Run tells what lies in stores, catalogue and spool that nobody owns, and what
// is missing there.
func (c *sweepCmd) Run(e *env) (err error) {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	a, err := openArchive(e.ctx, cfg, func(c *archive.Config) { c.ReadOnly = true })
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	r, err := a.Sweep(e.ctx, c.Delete && !c.DryRun)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(r)
	}
	return printSweep(e, r)
}

func printSweep(e *env, r archive.SweepReport) error {
	if len(r.Strays) > 0 {
		w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "CLASS\tSTORE\tNAME\tBYTES\tAGE\tDETAIL") // Flush tells of errors
		for _, s := range r.Strays {
			age := ""
			if s.AgeS > 0 {
				age = (time.Duration(s.AgeS) * time.Second).Round(time.Hour).String()
			}
			if s.Deleted {
				s.Detail += " (deleted)"
			}
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", s.Class, s.Store, clean(s.Name), s.Bytes, age, clean(s.Detail))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if r.Dropped > 0 {
		e.note("and %d more", r.Dropped)
	}
	_, err := fmt.Fprintf(e.stdout, "%d recordings, %d objects: %s; %d deleted, %d bytes freed\n", r.Recordings, r.Objects, r.Summary(), r.Deleted, r.Freed)
	return err
}

// startSweep looks for strays now and then, without deleting any.
func (d *daemon) startSweep() {
	every := d.cfg.Storage.SweepEvery
	if every == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(d.archive.SweepDue(every, time.Now())):
			}
			r, err := d.archive.Sweep(ctx, false)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				d.log.Error("stores were not swept", "error", err)
			case len(r.Strays) > 0:
				d.log.Warn("a sweep of the stores found strays; see trunktap sweep", "found", r.Summary(), "bytes", r.Bytes)
			}
		}
	}()
	d.closers = append(d.closers, func() error { cancel(); <-ended; return nil })
}

// sweepMetrics shows what the last sweep found.
type sweepMetrics struct {
	of            *archive.Archive
	strays, bytes *prometheus.Desc
	at, recording *prometheus.Desc
}

func newSweepMetrics(a *archive.Archive) *sweepMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("trunktap_sweep_"+name, help, labels, nil)
	}
	return &sweepMetrics{
		of:        a,
		strays:    desc("strays", "What the last sweep found that nobody owns, or that is missing.", "class"),
		bytes:     desc("stray_bytes", "Bytes of these."),
		at:        desc("timestamp_seconds", "When the last sweep began."),
		recording: desc("recordings", "Recordings that the last sweep saw in the stores."),
	}
}

// Describe implements prometheus.Collector.
func (m *sweepMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.strays, m.bytes, m.at, m.recording} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *sweepMetrics) Collect(ch chan<- prometheus.Metric) {
	r := m.of.Swept()
	if r == nil {
		return
	}
	for _, c := range archive.StrayClasses {
		ch <- prometheus.MustNewConstMetric(m.strays, prometheus.GaugeValue, float64(r.Counts[c]), c)
	}
	ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(r.Bytes))
	ch <- prometheus.MustNewConstMetric(m.at, prometheus.GaugeValue, float64(r.At.Unix()))
	ch <- prometheus.MustNewConstMetric(m.recording, prometheus.GaugeValue, float64(r.Recordings))
}
