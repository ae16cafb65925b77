package main

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder/archive"
)

// storageMetrics shows how full disks are and what waits for stores.
type storageMetrics struct {
	of *archive.Archive

	spool, going, thinned, admitted             *prometheus.Desc
	free, total, level                          *prometheus.Desc
	up, waiting, waitingBytes, oldest           *prometheus.Desc
	objects, bytes, recordings, retries, failed *prometheus.Desc
	growing, parts, grown, givenUp              *prometheus.Desc
}

func newStorageMetrics(a *archive.Archive) *storageMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("trunktap_"+name, help, labels, nil)
	}
	return &storageMetrics{
		of:           a,
		spool:        desc("spool_bytes", "Bytes of recordings in the spool: those that go on, and those that their stores have not got."),
		going:        desc("spool_recording", "Recordings that go on."),
		thinned:      desc("spool_thinned", "Of the recordings that go on, those that get gaps because the spool is full."),
		admitted:     desc("recordings_admitted", "Whether new recordings begin: 0 while a disk is low."),
		free:         desc("disk_free_bytes", "Free space of a disk.", "dir"),
		total:        desc("disk_total_bytes", "Size of a disk.", "dir"),
		level:        desc("disk_level", "How full a disk is: 0 fine, 1 warn, 2 low.", "dir"),
		up:           desc("store_up", "Whether a store takes recordings.", "store"),
		waiting:      desc("upload_waiting", "Recordings that wait for a store.", "store"),
		waitingBytes: desc("upload_waiting_bytes", "Their bytes in the spool.", "store"),
		oldest:       desc("upload_oldest_seconds", "How long the oldest of them has been waiting.", "store"),
		objects:      desc("upload_objects_total", "Objects that a store got.", "store"),
		bytes:        desc("upload_bytes_total", "Their bytes.", "store"),
		recordings:   desc("upload_recordings_total", "Recordings that a store has whole.", "store"),
		retries:      desc("upload_retries_total", "Attempts after a failed one.", "store"),
		growing:      desc("upload_growing", "Segments that go to a store in parts while they are written.", "store"),
		parts:        desc("upload_growing_parts_total", "Parts that a store got of segments that were not finished.", "store"),
		grown:        desc("upload_growing_done_total", "Segments that a store has by parts that went while they were written.", "store"),
		givenUp:      desc("upload_growing_given_up_total", "Uploads in parts that were given up: the segment went whole, or not at all.", "store"),
		failed:       desc("upload_failures_total", "Attempts that failed.", "store", "reason"),
	}
}

// Describe implements prometheus.Collector.
func (m *storageMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.spool, m.going, m.thinned, m.admitted, m.free, m.total, m.level, m.up, m.waiting, m.waitingBytes, m.oldest,
		m.objects, m.bytes, m.recordings, m.retries, m.failed,
		m.growing, m.parts, m.grown, m.givenUp,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *storageMetrics) Collect(ch chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	s := m.of.Space()
	put(m.spool, prometheus.GaugeValue, float64(s.SpoolBytes))
	put(m.going, prometheus.GaugeValue, float64(s.Going))
	put(m.thinned, prometheus.GaugeValue, float64(s.Thinned))
	put(m.admitted, prometheus.GaugeValue, truth(s.Refusing == ""))
	for _, d := range s.Disks {
		put(m.free, prometheus.GaugeValue, float64(d.Free), d.Dir)
		put(m.total, prometheus.GaugeValue, float64(d.Total), d.Dir)
		put(m.level, prometheus.GaugeValue, float64(d.Level), d.Dir)
	}
	for _, u := range m.of.Uploads() {
		name := cmp.Or(u.Store, config.StorageDefault)
		put(m.up, prometheus.GaugeValue, truth(!u.Down), name)
		put(m.waiting, prometheus.GaugeValue, float64(u.Recordings), name)
		put(m.waitingBytes, prometheus.GaugeValue, float64(u.Bytes), name)
		put(m.oldest, prometheus.GaugeValue, u.OldestAge.Seconds(), name)
		put(m.objects, prometheus.CounterValue, float64(u.Stats.Objects.Load()), name)
		put(m.bytes, prometheus.CounterValue, float64(u.Stats.Bytes.Load()), name)
		put(m.recordings, prometheus.CounterValue, float64(u.Stats.Done.Load()), name)
		put(m.retries, prometheus.CounterValue, float64(u.Stats.Retries.Load()), name)
		put(m.growing, prometheus.GaugeValue, float64(u.Growing), name)
		put(m.parts, prometheus.CounterValue, float64(u.Stats.Growth.Parts.Load()), name)
		put(m.grown, prometheus.CounterValue, float64(u.Stats.Growth.Done.Load()), name)
		put(m.givenUp, prometheus.CounterValue, float64(u.Stats.Growth.GivenUp.Load()), name)
		for i, reason := range archive.FailureReasons {
			put(m.failed, prometheus.CounterValue, float64(u.Stats.Failed[i].Load()), name, reason)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
