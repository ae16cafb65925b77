package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/recorder"
)

// qualityMetrics sums up the quality accounts of calls when they have ended: one
// observation a source, by trunk and by the side that sent.
type qualityMetrics struct {
	mos, loss, discard, jitter, trip *prometheus.HistogramVec
}

func newQualityMetrics() *qualityMetrics {
	vec := func(name, help string, buckets ...float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "trunktap", Subsystem: "stream", Name: name, Help: help, Buckets: buckets,
		}, []string{"trunk", "side"})
	}
	return &qualityMetrics{
		mos:     vec("mos", "Estimated MOS of recorded streams (ITU-T G.107), where there is one.", 1.5, 2, 2.5, 3, 3.3, 3.6, 3.8, 4, 4.2, 4.4),
		loss:    vec("loss_ratio", "Share of packets that the network lost.", 0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
		discard: vec("discard_ratio", "Share of packets that came too late to be heard.", 0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
		jitter:  vec("jitter_seconds", "Mean interarrival jitter (RFC 3550).", 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5),
		trip:    vec("round_trip_seconds", "Mean round trip between both ends by RTCP, where it is known.", 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1),
	}
}

func (q *qualityMetrics) register(reg *prometheus.Registry) {
	reg.MustRegister(q.mos, q.loss, q.discard, q.jitter, q.trip)
}

// published takes the accounts of a call, once: from its trunk's recording.
func (q *qualityMetrics) published(m *recorder.Manifest) {
	if m.Kind != recorder.KindTrunk {
		return
	}
	for i := range m.Streams {
		s := &m.Streams[i]
		a := s.Quality
		if a == nil || s.Channel >= 2 {
			continue
		}
		side := "external"
		if s.Channel == 1 {
			side = "internal"
		}
		if a.MOS > 0 {
			q.mos.WithLabelValues(m.Trunk, side).Observe(a.MOS)
		}
		q.loss.WithLabelValues(m.Trunk, side).Observe(a.LossPct / 100)
		q.discard.WithLabelValues(m.Trunk, side).Observe(a.DiscardPct / 100)
		q.jitter.WithLabelValues(m.Trunk, side).Observe(a.JitterMS / 1000)
		if a.RTTMS > 0 {
			q.trip.WithLabelValues(m.Trunk, side).Observe(a.RTTMS / 1000)
		}
	}
}
