package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/media/quality"
	"github.com/trunktap/trunktap/recorder"
)

// TestQualityMetrics: one observation a source, of the trunk's recording alone.
func TestQualityMetrics(t *testing.T) {
	q, reg := newQualityMetrics(), prometheus.NewRegistry()
	q.register(reg)
	m := &recorder.Manifest{Kind: recorder.KindTrunk, Trunk: "a", Streams: []recorder.Stream{
		{Channel: 0, Quality: &quality.Account{MOS: 4.1, LossPct: 1.5, DiscardPct: 0.1, JitterMS: 4}},
		{Channel: 0}, // the same source in another codec
		{Channel: 1, Quality: &quality.Account{NoMOS: "no value of the codec is known", JitterMS: 30, RTTMS: 120}},
	}}
	q.published(m)
	station := *m
	station.Kind = recorder.KindStation
	q.published(&station)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, x := range f.GetMetric() {
			side := x.GetLabel()[0].GetValue()
			if h := x.GetHistogram(); h.GetSampleCount() != 1 {
				t.Errorf("%s of %s: %d observations", f.GetName(), side, h.GetSampleCount())
			}
			got[f.GetName()+" "+side] = x.GetHistogram().GetSampleSum()
		}
	}
	want := map[string]float64{
		"trunktap_stream_mos external":        4.1,
		"trunktap_stream_loss_ratio external": 0.015, "trunktap_stream_loss_ratio internal": 0,
		"trunktap_stream_discard_ratio external": 0.001, "trunktap_stream_discard_ratio internal": 0,
		"trunktap_stream_jitter_seconds external": 0.004, "trunktap_stream_jitter_seconds internal": 0.03,
		"trunktap_stream_round_trip_seconds internal": 0.12,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
