package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media/link"
	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/sip/callstate"
	"github.com/trunktap/trunktap/sip/replay"
)

// listener follows the calls of passive trunks on a link.
type listener struct {
	link   *link.Link
	ended  chan struct{}
	trunks atomic.Pointer[[]replay.Trunk]
	state  atomic.Pointer[callstate.Rules]

	mu    sync.Mutex
	stats replay.Stats // guarded by mu; some seconds old
}

var errLinkDown = errors.New("the interfaces of capture cannot be read")

// startCapture listens to the interfaces that the configuration names.
func (d *daemon) startCapture(context.Context) (err error) {
	c := d.cfg.Capture
	if len(c.Interfaces) == 0 {
		return nil
	}
	l := &listener{ended: make(chan struct{})}
	if err := l.reload(d.cfg); err != nil {
		return err
	}
	if l.link, err = link.Open(link.Config{Interfaces: c.Interfaces, Promiscuous: c.Promiscuous, RingBytes: int(c.RingSize)}); err != nil {
		return err
	}
	idle := max(d.cfg.Media.Timeout, 0)
	run := replay.Config{Live: &replay.Live{IdleMax: idle, Tell: l.tell, Trunks: l.now}}
	go func() { // ends when the link is closed
		defer close(l.ended)
		if _, err := replay.Run(context.Background(), pcap.NewLive(l.link), run, d.rec, nil); err != nil {
			d.failed <- err
		}
	}()
	d.listener = l
	d.closers = append(d.closers, func() error { err := l.link.Close(); <-l.ended; return err })
	d.log.Info("calls of passive trunks are listened to", "interfaces", c.Interfaces)
	return nil
}

// reload replaces the trunks for new calls.
func (l *listener) reload(cfg *config.Config) error {
	state, err := newCallState(cfg)
	if err != nil {
		return err
	}
	var trunks []replay.Trunk
	for i, t := range replayTrunks(cfg) {
		if cfg.Trunks[i].Passive {
			trunks = append(trunks, t)
		}
	}
	l.trunks.Store(&trunks)
	l.state.Store(state)
	return nil
}

func (l *listener) now() ([]replay.Trunk, *callstate.Rules) { return *l.trunks.Load(), l.state.Load() }

func (l *listener) tell(s replay.Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats = s
}

// ready tells whether the link can be read.
func (l *listener) ready() error {
	if l.link.Counters.Down.Load() {
		return errLinkDown
	}
	return nil
}

// watchCapture logs when the link goes and comes.
func (d *daemon) watchCapture(wasDown bool) (down bool) {
	if d.listener == nil {
		return false
	}
	down = d.listener.ready() != nil
	switch {
	case down && !wasDown:
		d.log.Error("calls of passive trunks are not heard", "error", errLinkDown, "interfaces", d.cfg.Capture.Interfaces)
	case wasDown && !down:
		d.log.Info("calls of passive trunks are heard again", "interfaces", d.cfg.Capture.Interfaces)
	}
	return down
}

const watchCaptureEvery = time.Second

// register shows the counts of the link and of what was followed on it.
func (l *listener) register(reg *prometheus.Registry) {
	add := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "trunktap", Subsystem: "capture", Name: name, Help: help}, f))
	}
	c := &l.link.Counters
	add("frames_total", "Frames that passed the interfaces.", func() float64 { return float64(c.Frames.Load()) })
	add("lost_total", "Frames that had no room in the ring.", func() float64 { return float64(c.Lost.Load()) })
	add("gone_total", "Times that an interface went away.", func() float64 { return float64(c.Gone.Load()) })
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "trunktap", Subsystem: "capture", Name: "up", Help: "Whether the interfaces can be read.",
	}, func() float64 {
		if c.Down.Load() {
			return 0
		}
		return 1
	}))
	for _, x := range []struct {
		name, help string
		of         func(*replay.Stats) int64
	}{
		{"calls_total", "Calls that were followed.", func(s *replay.Stats) int64 { return s.Calls }},
		{"calls_in_progress_total", "Of them, those whose INVITE was not seen.", func(s *replay.Stats) int64 { return s.InProgress }},
		{"calls_unrecorded_total", "Calls that the recorder could not take.", func(s *replay.Stats) int64 { return s.Unrecorded }},
		{"calls_dropped_total", "Calls cut short because there were too many.", func(s *replay.Stats) int64 { return s.CallsDropped }},
		{"messages_total", "SIP messages.", func(s *replay.Stats) int64 { return s.Messages }},
		{"strangers_total", "SIP messages of calls that belong to no passive trunk.", func(s *replay.Stats) int64 { return s.Strangers }},
		{"unparseable_total", "SIP messages that could not be read.", func(s *replay.Stats) int64 { return s.Unparsable }},
		{"bad_sdp_total", "Session descriptions that were ignored.", func(s *replay.Stats) int64 { return s.BadSDP }},
		{"rtp_total", "Packets of followed streams.", func(s *replay.Stats) int64 { return s.RTP }},
		{"rtp_orphans_total", "RTP and RTCP packets of no followed call.", func(s *replay.Stats) int64 { return s.OrphanRTP }},
		{"rtp_rejected_total", "Packets of a source that was not agreed.", func(s *replay.Stats) int64 { return s.Rejected }},
		{"rtp_undecrypted_total", "Packets that the keys in the session descriptions do not decrypt.", func(s *replay.Stats) int64 { return s.Undecrypted }},
		{"signals_refused_total", "Call-state signals in SIP messages that could not be taken.", func(s *replay.Stats) int64 { return s.SignalsRefused }},
	} {
		add(x.name, x.help, func() float64 {
			l.mu.Lock()
			defer l.mu.Unlock()
			return float64(x.of(&l.stats))
		})
	}
}
