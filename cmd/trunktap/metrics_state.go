package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress/feed"
)

// stateMetrics registers what the sources of call state count, and how soon
// their signals act.
func stateMetrics(reg *prometheus.Registry, d *daemon) {
	reg.MustRegister(latencyMetric{
		prometheus.NewDesc("trunktap_signal_latency_seconds", "From what a call-state signal tells of to its effect.", nil, nil),
		&d.rec.Stats().SignalLatency,
	})
	d.quality.register(reg)
	if len(d.feeds) > 0 {
		reg.MustRegister(newFeedMetrics(d.feeds))
	}
}

// latencyMetric shows a histogram of the recorder.
type latencyMetric struct {
	desc *prometheus.Desc
	of   *recorder.Histogram
}

// Describe implements prometheus.Collector.
func (m latencyMetric) Describe(ch chan<- *prometheus.Desc) { ch <- m.desc }

// Collect implements prometheus.Collector.
func (m latencyMetric) Collect(ch chan<- prometheus.Metric) {
	count, sum, notLonger := m.of.Snapshot()
	ch <- prometheus.MustNewConstHistogram(m.desc, count, sum, notLonger)
}

// feedMetrics shows how the sources of signals do.
type feedMetrics struct {
	feeds                                   []feed.Source
	connected, signals, reconnects, ignored *prometheus.Desc
}

func newFeedMetrics(feeds []feed.Source) *feedMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("trunktap_signal_source_"+name, help, []string{"source"}, nil)
	}
	return &feedMetrics{
		feeds:      feeds,
		connected:  desc("connected", "Whether a source of call-state signals is connected."),
		signals:    desc("signals_total", "Signals that it gave."),
		reconnects: desc("reconnects_total", "Times that its connection was made again."),
		ignored:    desc("ignored_total", "Messages of it that are none of ours or could not be understood."),
	}
}

// Describe implements prometheus.Collector.
func (m *feedMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.connected, m.signals, m.reconnects, m.ignored} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *feedMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, f := range m.feeds {
		s, up := f.Status(), 0.0
		if s.Connected {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(m.connected, prometheus.GaugeValue, up, f.Name())
		ch <- prometheus.MustNewConstMetric(m.signals, prometheus.CounterValue, float64(s.Signals), f.Name())
		ch <- prometheus.MustNewConstMetric(m.reconnects, prometheus.CounterValue, float64(s.Reconnects), f.Name())
		ch <- prometheus.MustNewConstMetric(m.ignored, prometheus.CounterValue, float64(s.Ignored), f.Name())
	}
}
