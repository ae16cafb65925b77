package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	drainLook = 200 * time.Millisecond
	drainMost = 24 * time.Hour // on SIGUSR1 without shutdown.drain
)

// live is what a daemon that stops gracefully waits for: calls of trunks, and dialogs of
// recording sessions.
type live struct{ calls, sessions int }

func (d *daemon) live() (n live) {
	n.calls = d.b2bua.Calls()
	if d.siprec != nil {
		n.sessions = d.siprec.Dialogs()
	}
	return n
}

func (n live) none() bool { return n == live{} }

func (n live) String() string {
	if n.sessions == 0 {
		return fmt.Sprintf("%d calls", n.calls)
	}
	return fmt.Sprintf("%d calls and %d recording sessions", n.calls, n.sessions)
}

// LogValue implements slog.LogValuer.
func (n live) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("calls", n.calls), slog.Int("recording_sessions", n.sessions))
}

// drain refuses new calls and recording sessions, and waits for the others to end: until
// none is left, the time is over, or a further signal comes.
func (d *daemon) drain(most time.Duration) {
	if most <= 0 || d.live().none() {
		return
	}
	d.taking.Store(false)
	d.draining.Store(true)
	d.b2bua.Drain()
	if d.siprec != nil {
		d.siprec.Drain()
	}
	d.log.Info("new calls are refused; the daemon stops when the last one has ended", "live", d.live(), "at_most", most)
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM, syscall.SIGUSR1)
	defer signal.Stop(again)
	over := time.NewTimer(most)
	defer over.Stop()
	look := time.NewTicker(drainLook)
	defer look.Stop()
	tell := time.NewTicker(drainTell)
	defer tell.Stop()
	d.notify.stopping(fmt.Sprintf("waiting for %s to end", d.live()))
	d.notify.draining(d.live())
	for !d.live().none() {
		select {
		case <-look.C:
		case <-d.pulse:
		case <-tell.C:
			d.notify.draining(d.live())
		case <-over.C:
			d.log.Warn("the time to wait is over: what is left ends now", "live", d.live())
			return
		case <-again:
			return
		}
	}
}

// drainMetrics tells what is waited for.
func drainMetrics(reg *prometheus.Registry, d *daemon) {
	for kind, count := range map[string]func(live) int{
		"call":              func(n live) int { return n.calls },
		"recording_session": func(n live) int { return n.sessions },
	} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "trunktap", Name: "drain_waiting", ConstLabels: prometheus.Labels{"kind": kind},
			Help: "Calls and recording sessions that a daemon that stops gracefully waits for; 0 while it takes new ones.",
		}, func() float64 {
			if !d.draining.Load() {
				return 0
			}
			return float64(count(d.live()))
		}))
	}
}
