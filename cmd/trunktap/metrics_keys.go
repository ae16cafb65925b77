package main

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/recorder/seal"
)

// keyMetrics shows how the keys stand that recordings are sealed with.
type keyMetrics struct {
	of       keySealer
	rotation *rotation

	sealed, up, revoked, recording, age, until *prometheus.Desc
	renewed, requests, hits, dataKeys          *prometheus.Desc
	open, openMax, rotated, rotations          *prometheus.Desc
}

func newKeyMetrics(s keySealer, r *rotation) *keyMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("trunktap_"+name, help, labels, nil)
	}
	return &keyMetrics{
		of: s, rotation: r,
		sealed:    desc("recordings_sealed", "Whether recordings are sealed: 0 in mode none.", "mode"),
		up:        desc("key_up", "Whether the last request to the key service was answered, and the key may be used."),
		revoked:   desc("key_revoked", "Whether the key service says that the key may not be used."),
		recording: desc("key_recording", "Whether there is a key to record with: 0 while recording has stopped for want of one."),
		age:       desc("key_age_seconds", "How long ago the cached key was got, under which recordings begin; 0 in modes local and none."),
		until:     desc("key_stop_seconds", "How long recording goes on if the key service stays as it is: +Inf while it answers."),
		renewed:   desc("key_renewals_total", "Cached keys that were replaced."),
		requests:  desc("key_requests_total", "Requests to wrap and to unwrap, by what came of them.", "request", "result"),
		hits:      desc("key_cache_hits_total", "Data keys that were opened without a request."),
		dataKeys:  desc("data_keys_total", "Data keys of recordings that were made, and opened.", "what"),
		open:      desc("keys_open", "Keys in locked memory."),
		openMax:   desc("keys_open_max", "How many there may be."),
		rotated:   desc("key_rotated_timestamp_seconds", "When the key-encryption key became the active one; 0: not known."),
		rotations: desc("key_rotations_total", "Rotations from here.", "result"),
	}
}

// Describe implements prometheus.Collector.
func (m *keyMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.sealed, m.up, m.revoked, m.recording, m.age, m.until, m.renewed, m.requests, m.hits, m.dataKeys, m.open, m.openMax, m.rotated, m.rotations,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *keyMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	s, stats := m.of.Status(context.Background()), m.of.Stats()
	gauge(m.sealed, truth(s.Mode != seal.ModeNone), s.Mode)
	gauge(m.up, truth(s.Up))
	gauge(m.revoked, truth(s.Revoked))
	gauge(m.recording, truth(!s.Stopped))
	gauge(m.age, s.Age.Seconds())
	gauge(m.until, secondsOrEver(s.UntilStop))
	count(m.renewed, stats.Renewed.Load())
	for request, r := range map[string]*seal.Results{"wrap": &stats.Wraps, "unwrap": &stats.Unwraps} {
		count(m.requests, r.OK.Load(), request, "ok")
		count(m.requests, r.Unreachable.Load(), request, "unreachable")
		count(m.requests, r.Revoked.Load(), request, "revoked")
		count(m.requests, r.Failed.Load(), request, "failed")
	}
	count(m.hits, stats.CacheHits.Load())
	count(m.dataKeys, stats.Made.Load(), "made")
	count(m.dataKeys, stats.Opened.Load(), "opened")
	open, most := m.of.Memory()
	gauge(m.open, float64(open))
	gauge(m.openMax, float64(most))
	if last, _ := m.rotation.state(); last.At.IsZero() {
		gauge(m.rotated, 0)
	} else {
		gauge(m.rotated, float64(last.At.Unix()))
	}
	count(m.rotations, m.rotation.made.Load(), "ok")
	count(m.rotations, m.rotation.failed.Load(), "failed")
}

// secondsOrEver is a duration for a metric; a negative one never ends.
func secondsOrEver(d time.Duration) float64 {
	if d < 0 {
		return math.Inf(1)
	}
	return d.Seconds()
}
