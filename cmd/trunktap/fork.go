package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/siprec/src"
)

// forks sends copies of calls to other recorders.
type forks struct {
	client atomic.Pointer[src.Client] // nil: no trunk has ever asked for copies
	plans  atomic.Pointer[map[string]forkPlan]
	left   *restart // has those of a process before
}

// forkPlan is who gets the calls of a trunk. Each group is one copy, its members
// take each other's place.
type forkPlan struct {
	groups  [][]src.Server
	windows bool
}

// startForks begins before the recorder, which tells it of its calls.
func (d *daemon) startForks(context.Context) error {
	d.closers = append(d.closers, func() error {
		if c := d.forks.client.Load(); c != nil {
			return c.Close()
		}
		return nil
	})
	d.forks.left = &d.restart
	return d.forks.reload(d)
}

// reload replaces the plans for new calls.
func (f *forks) reload(d *daemon) error {
	plans := map[string]forkPlan{}
	var first *config.NextHop
	for i := range d.cfg.Trunks {
		r := &d.cfg.Trunks[i].Recording
		if len(r.ForkTo) == 0 || !r.Enabled {
			continue
		}
		p := forkPlan{windows: r.ForkWindows}
		auth, err := credentials(r.ForkAuth)
		if err != nil {
			return fmt.Errorf("trunk %s: recording.fork_%w", d.cfg.Trunks[i].Name, err)
		}
		for k, to := range r.ForkTo {
			if first == nil {
				first = &r.ForkTo[k].Hop
			}
			s := src.Server{Auth: auth, URI: to.URI, Hop: sip.NextHop{Host: to.Hop.Host, Port: int(to.Hop.Port), Transport: to.Hop.Transport}}
			if k == 0 || r.ForkMode == "all" {
				p.groups = append(p.groups, nil)
			}
			last := len(p.groups) - 1
			p.groups[last] = append(p.groups[last], s)
		}
		plans[d.cfg.Trunks[i].Name] = p
	}
	if first != nil && f.client.Load() == nil {
		if err := f.start(d, *first); err != nil {
			return fmt.Errorf("send copies of calls: %w", err)
		}
	}
	f.plans.Store(&plans)
	return nil
}

// start makes the client. Its address is that of media, or the one that the
// routing table gives for the first recorder.
func (f *forks) start(d *daemon, to config.NextHop) error {
	addr := d.cfg.Media.Address
	if !addr.IsValid() {
		var err error
		if addr, err = localAddress(to); err != nil {
			return fmt.Errorf("no address towards %s: %w (give media.address)", to, err)
		}
	}
	cfg := src.Config{Address: addr, TLS: d.secure.dialer(), Ports: d.restart.forkPorts(), Journal: d.callJournal(), Log: d.log}
	c, err := startedFork(cfg)
	if err != nil && cfg.Ports != (src.Ports{}) { // servers are told of others
		cfg.Ports = src.Ports{}
		c, err = startedFork(cfg)
	}
	if err != nil {
		return err
	}
	f.client.Store(c)
	return nil
}

func startedFork(cfg src.Config) (*src.Client, error) {
	c, err := src.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// monitor implements recorder.Config.Monitor.
func (f *forks) monitor(s media.Session) recorder.Monitor {
	plan, ok := (*f.plans.Load())[s.Trunk]
	if !ok {
		return nil
	}
	c := &copier{client: f.client.Load(), session: s, plan: plan, list: make([]*src.Fork, len(plan.groups))}
	if s.Resumed != nil {
		c.resume(f.left)
	}
	return c
}

// copier is the monitor of one call. It belongs to the owner of the session.
type copier struct {
	client  *src.Client
	session media.Session
	plan    forkPlan
	agents  []string
	begun   bool
	over    bool
	list    []*src.Fork // of each group; nil: it has none
	missed  missed      // by groups that have none once it has begun
}

// missed is audio that went to no copy at all: there were too many.
type missed struct{ fromMS, toMS, ms int64 }

// begin calls the recorders once there is something to tell: a call that is not
// answered, or not consented to, they never hear of.
func (c *copier) begin(rate int) {
	if c.begun || c.over {
		return
	}
	c.begun = true
	for k, g := range c.plan.groups {
		if c.list[k] != nil {
			continue // it goes on
		}
		if c.list[k] = c.client.Fork(forkKey(c.session.ID, k), c.session, g, rate > 8000); c.list[k] != nil {
			c.list[k].Parties(c.agents)
		}
	}
}

// each does something with all forks that there are.
func (c *copier) each(do func(*src.Fork)) {
	for _, f := range c.list {
		if f != nil {
			do(f)
		}
	}
}

// Raw implements recorder.Monitor.
func (c *copier) Raw() bool { return c.plan.windows }

// Audio implements recorder.Monitor.
func (c *copier) Audio(realMS int64, rate int, ch [2][]int16) {
	c.begin(rate)
	if c.missed.ms == 0 {
		c.missed.fromMS = realMS
	}
	ms := int64(len(ch[0]) * 1000 / rate)
	c.missed.toMS, c.missed.ms = realMS+ms, c.missed.ms+ms
	c.each(func(f *src.Fork) { f.Audio(realMS, rate, ch) })
}

// Suppressed implements recorder.Monitor.
func (c *copier) Suppressed() {
	c.each((*src.Fork).Suppressed)
}

// Parties implements recorder.Monitor.
func (c *copier) Parties(names []string) {
	c.agents = c.agents[:0:0]
	if len(names) != 1 || !c.isParty(names[0]) {
		c.agents = names
	}
	c.each(func(f *src.Fork) { f.Parties(c.agents) })
}

// isParty tells whether a name is that of the call itself: nobody has said who
// the agent is.
func (c *copier) isParty(name string) bool {
	for _, p := range c.session.Parties {
		if p.URI == name {
			return true
		}
	}
	return false
}

// End implements recorder.Monitor.
func (c *copier) End() {
	c.over = true
	c.each((*src.Fork).End)
}

// register shows what is sent to other recorders.
func (f *forks) register(reg *prometheus.Registry) {
	add := func(name, help string, of func(*src.Counters) *atomic.Uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "trunktap", Subsystem: "fork", Name: name, Help: help}, func() float64 {
			if c := f.client.Load(); c != nil {
				return float64(of(c.Counters()).Load())
			}
			return 0
		}))
	}
	add("calls_total", "Copies of calls to other recorders that were begun.", func(c *src.Counters) *atomic.Uint64 { return &c.Started })
	add("calls_refused_total", "Copies that were not begun because there were too many.", func(c *src.Counters) *atomic.Uint64 { return &c.Refused })
	add("sessions_total", "Recording sessions that another recorder took.", func(c *src.Counters) *atomic.Uint64 { return &c.Established })
	add("resumed_total", "Recording sessions of a process before that went on.", func(c *src.Counters) *atomic.Uint64 { return &c.Resumed })
	add("dismissed_total", "Recording sessions of a process before that were ended, as their calls were.", func(c *src.Counters) *atomic.Uint64 { return &c.Dismissed })
	add("failovers_total", "Recorders that were given up during a call.", func(c *src.Counters) *atomic.Uint64 { return &c.Failovers })
	add("unserved_total", "Rounds in which no recorder took the copy.", func(c *src.Counters) *atomic.Uint64 { return &c.Unserved })
	add("packets_total", "RTP packets sent to other recorders.", func(c *src.Counters) *atomic.Uint64 { return &c.Packets })
	add("send_errors_total", "Packets that could not be sent.", func(c *src.Counters) *atomic.Uint64 { return &c.SendErrors })
	add("dropped_milliseconds_total", "Audio for which no recorder was there.", func(c *src.Counters) *atomic.Uint64 { return &c.DroppedMS })
	add("partial_total", "Answers by which a recorder takes one side of a call alone.", func(c *src.Counters) *atomic.Uint64 { return &c.Partial })
	add("untaken_milliseconds_total", "Audio of a side that its recorder does not take.", func(c *src.Counters) *atomic.Uint64 { return &c.UntakenMS })
	add("unreachable_total", "Recorders that were given up because their host refuses the audio (ICMP).", func(c *src.Counters) *atomic.Uint64 { return &c.Unreachable })
	gauge := func(name, help string, of func(*src.Counters) *atomic.Int64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "trunktap", Subsystem: "fork", Name: name, Help: help}, func() float64 {
			if c := f.client.Load(); c != nil {
				return float64(of(c.Counters()).Load())
			}
			return 0
		}))
	}
	gauge("calls", "Copies that are going on.", func(c *src.Counters) *atomic.Int64 { return &c.Live })
	gauge("untaken_streams", "Sides of copies going on that their recorders do not take.", func(c *src.Counters) *atomic.Int64 { return &c.UntakenStreams })
}

// reloadForks replaces who gets copies, at a reload.
func (d *daemon) reloadForks() error {
	if err := d.forks.reload(d); err != nil {
		return errors.Join(errors.New("copies of calls go on as before"), err)
	}
	return nil
}
