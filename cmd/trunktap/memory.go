package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Times and sizes of giving memory back.
const (
	reclaimEvery  = 10 * time.Second
	reclaimAgain  = 40 * time.Second // when the transactions of a flood have ended: 64 times T1 and a moment
	reclaimSlack  = 16 << 20         // bytes that are not worth it
	reclaimCycles = 1                // collections in reclaimEvery; with more of them memory is in use
)

// reclaimer decides when memory goes back to the system: once a flood is over. By
// itself the runtime would collect what it left after two minutes, and keep room
// for as much again. It is a core: it has no clock and frees nothing itself.
type reclaimer struct {
	low    uint64 // bytes held when there was nothing to give back
	cycles uint64 // collections by then
	before uint64 // bytes held when memory was freed last; 0: that is done with
	again  time.Time
}

// usage is what the process holds, and how often it has collected by itself.
type usage struct{ held, cycles uint64 }

// free says whether to free memory now.
func (r *reclaimer) free(u usage, now time.Time) bool {
	busy := u.cycles-r.cycles > reclaimCycles
	r.cycles = u.cycles
	if r.low == 0 || u.held < r.low {
		r.low = u.held
	}
	if r.before > 0 { // it was freed a moment ago
		if u.held+reclaimSlack/2 < r.before {
			r.again = now.Add(reclaimAgain) // much of it came back: more may
		}
		r.low, r.before = u.held, 0
	}
	due := !r.again.IsZero() && !now.Before(r.again)
	if busy || !due && u.held < r.low+max(r.low/8, reclaimSlack) {
		return false
	}
	r.again, r.before = time.Time{}, u.held
	return true
}

// reclaim gives memory back to the system until the daemon ends.
func (d *daemon) reclaim(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		read := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/cycles/automatic:gc-cycles"}}
		tick := time.NewTicker(reclaimEvery)
		defer tick.Stop()
		var r reclaimer
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				metrics.Read(read)
				if r.free(usage{read[0].Value.Uint64() - read[1].Value.Uint64(), read[2].Value.Uint64()}, now) {
					debug.FreeOSMemory()
					d.reclaimed.Add(1)
				}
			}
		}
	})
	d.closers = append(d.closers, func() error { cancel(); ended.Wait(); return nil })
	return nil
}

// memoryMetrics registers what is kept of requests that were refused, and how often
// memory went back.
func memoryMetrics(reg *prometheus.Registry, d *daemon) {
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "trunktap", Name: name, Help: help}, f))
	}
	count := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "trunktap", Name: name, Help: help}, f))
	}
	gauge("sip_answers_kept", "Refusals that are kept for repetitions of what they answer.", func() float64 { return float64(d.b2bua.Tails().Transactions) })
	gauge("sip_answers_kept_bytes", "What they take.", func() float64 { return float64(d.b2bua.Tails().Bytes) })
	count("sip_answers_evicted_total", "Those that were forgotten before their time, for want of room.", func() float64 { return float64(d.b2bua.Tails().Evicted) })
	count("memory_reclaimed_total", "Times that memory was given back to the system.", counterValue(&d.reclaimed))
}

func counterValue(v *atomic.Uint64) func() float64 {
	return func() float64 { return float64(v.Load()) }
}
