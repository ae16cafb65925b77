package recorder

import (
	"sync/atomic"
	"time"
)

// latencyBounds are the upper ends of a Histogram's buckets but the last.
var latencyBounds = [...]time.Duration{
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 75 * time.Millisecond, 100 * time.Millisecond, 150 * time.Millisecond,
	200 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 30 * time.Second,
}

// Histogram counts durations. Safe for concurrent use.
type Histogram struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64
	sumNS   atomic.Int64
}

// Observe adds a duration; one below zero counts as zero.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	i := 0
	for i < len(latencyBounds) && d > latencyBounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sumNS.Add(int64(d))
}

// Snapshot returns the number of durations, their sum in seconds and, by upper
// bound in seconds, how many were not longer.
func (h *Histogram) Snapshot() (count uint64, sum float64, notLonger map[float64]uint64) {
	notLonger = make(map[float64]uint64, len(latencyBounds))
	for i := range h.buckets {
		count += h.buckets[i].Load()
		if i < len(latencyBounds) {
			notLonger[latencyBounds[i].Seconds()] = count
		}
	}
	return count, time.Duration(h.sumNS.Load()).Seconds(), notLonger
}
