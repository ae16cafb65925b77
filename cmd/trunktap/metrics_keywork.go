package main

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// keyWorkMetrics show what was done to keys, and how rewrapping stands.
func keyWorkMetrics(reg *prometheus.Registry, w *keyWork) {
	count := func(name, help string, get func() int64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "trunktap", Name: name, Help: help}, func() float64 { return float64(get()) }))
	}
	count("recordings_shredded_total", "Recordings whose keys were destroyed.", w.archive.ShreddedHere)
	count("recordings_rewrapped_total", "Recordings whose keys were wrapped anew.", w.archive.Rewrapped)
	gauge := func(name, help string, get func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "trunktap", Name: name, Help: help}, get))
	}
	is := func(states ...string) func() float64 {
		return func() float64 {
			if slices.Contains(states, w.Rewrapping().State) {
				return 1
			}
			return 0
		}
	}
	gauge("rewrap_running", "Whether keys are being rewrapped.", is("running", "waiting"))
	gauge("rewrap_waiting", "Whether that waits for the key service.", is("waiting"))
	gauge("rewrap_recordings_left", "Recordings that rewrapping has not looked at yet.", func() float64 {
		s := w.Rewrapping()
		return float64(max(s.Total-s.Done, 0))
	})
}
