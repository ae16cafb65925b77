package main

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip"
)

// How many refusals of one trunk are told as events: a flood of calls must not be one of
// events.
const (
	refusalsBurst     = 20
	refusalsPerSecond = 5
)

// refusals tell operators which calls were refused: each is counted, and told as an event
// as far as there is room.
type refusals struct {
	tell    func(recorder.Event)
	counted *prometheus.CounterVec

	mu     sync.Mutex
	trunks map[string]*refusalRoom // guarded by mu; names are of the configuration
}

// refusalRoom is what is left for the events of a trunk.
type refusalRoom struct {
	tokens float64
	at     time.Time
	missed int // not told since the last that was
}

func newRefusals(tell func(recorder.Event)) *refusals {
	return &refusals{
		tell: tell, trunks: map[string]*refusalRoom{},
		counted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "trunktap", Name: "sip_refused_calls_total",
			Help: "Calls and recording sessions that the daemon refused itself, by trunk (or source) and cause.",
		}, []string{"trunk", "cause"}),
	}
}

// take implements the CallRefused of signalling. It does not block.
func (r *refusals) take(c sip.Refusal) {
	r.counted.WithLabelValues(c.Trunk, c.Cause).Inc()
	missed, ok := r.room(c.Trunk, time.Now())
	if !ok {
		return
	}
	data := map[string]string{"trunk": c.Trunk, "cause": c.Cause, "status": strconv.Itoa(c.Status), "to": c.To, "sip_call_id": c.SIPCallID}
	if c.From != "" {
		data["from"] = c.From
	}
	if missed > 0 {
		data["missed"] = strconv.Itoa(missed)
	}
	r.tell(recorder.Event{Type: "call.refused", At: c.At, Data: data})
}

// room says whether an event of a trunk may be told now, and how many were not.
func (r *refusals) room(trunk string, now time.Time) (missed int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.trunks[trunk]
	if k == nil {
		k = &refusalRoom{tokens: refusalsBurst, at: now}
		r.trunks[trunk] = k
	}
	k.tokens = min(refusalsBurst, k.tokens+max(0, now.Sub(k.at).Seconds())*refusalsPerSecond)
	k.at = now
	if k.tokens < 1 {
		k.missed++
		return 0, false
	}
	k.tokens--
	missed, k.missed = k.missed, 0
	return missed, true
}
