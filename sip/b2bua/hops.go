package b2bua

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// HopStatus is what is known of one next hop.
type HopStatus struct {
	Trunk   string
	Side    media.Side
	NextHop sip.NextHop

	Up    bool      // it gets requests
	Since time.Time // of the last change; zero: none
	Until time.Time // it gets nothing until then; zero or past: it does

	Requests    uint64 // attempts, each request that begins something
	Failed      uint64 // those that were not answered, or with 503, or could not be sent
	Pings       uint64
	PingsFailed uint64
}

// hopKey names a next hop across reloads.
type hopKey struct {
	trunk string
	side  media.Side
	hop   sip.NextHop // without priority and weight
}

func keyOf(trunk string, side media.Side, hop sip.NextHop) hopKey {
	hop.Priority, hop.Weight = 0, 0
	return hopKey{trunk, side, hop}
}

// hops is what is known of the next hops of all trunks, and asks those that are to
// be asked.
type hops struct {
	mu     sync.Mutex
	states map[hopKey]*hopState // guarded by mu
	order  []hopKey             // guarded by mu: of the configuration
}

type hopState struct {
	sip.Health // guarded by hops.mu, as all of it
	HopStatus
	ping sip.Ping
	at   sip.Side
	stop context.CancelFunc // of its pings; nil: it gets none
}

// configure takes the trunks of a reload. What is known of a next hop that stays is
// kept, and pings begin when started.
func (b *B2BUA) configure(trunks []sip.Trunk, started bool) {
	h := &b.hops
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.states
	h.states, h.order = map[hopKey]*hopState{}, nil
	for i := range trunks {
		for side, s := range trunks[i].Sides {
			for _, hop := range s.NextHops {
				key := keyOf(trunks[i].Name, media.Side(side), hop)
				if h.states[key] != nil {
					continue
				}
				st := &hopState{HopStatus: HopStatus{Trunk: trunks[i].Name, Side: media.Side(side), NextHop: hop}}
				if was := old[key]; was != nil {
					st.Health, st.HopStatus = was.Health, was.HopStatus
					st.NextHop = hop
				}
				st.ping, st.at = s.Ping, s
				if st.ping.Interval <= 0 {
					st.Health.Down = false // nobody would find out that it is back
				}
				h.states[key], h.order = st, append(h.order, key)
			}
		}
	}
	for _, st := range old {
		if st.stop != nil {
			st.stop()
		}
	}
	if started {
		b.startPings()
	}
}

// startPings begins to ask those next hops that are to be asked. hops.mu is held.
func (b *B2BUA) startPings() {
	for _, st := range b.hops.states {
		if st.ping.Interval <= 0 || st.stop != nil || b.background.Err() != nil {
			continue
		}
		var ctx context.Context
		ctx, st.stop = context.WithCancel(b.background)
		b.helpers.Go(func() { b.pingEvery(ctx, st) })
	}
}

// NextHops returns what is known of the next hops, in the order of the trunks.
func (b *B2BUA) NextHops() []HopStatus {
	h, now := &b.hops, time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]HopStatus, 0, len(h.order))
	for _, key := range h.order {
		st := h.states[key]
		s := st.HopStatus
		s.Up, s.Since, s.Until = st.Usable(now), st.Health.Since, st.Health.Until
		out = append(out, s)
	}
	return out
}

// choose orders the next hops of a side for one request.
func (h *hops) choose(trunk *sip.Trunk, side media.Side, now time.Time) []sip.NextHop {
	h.mu.Lock()
	defer h.mu.Unlock()
	return sip.Choose(trunk.Sides[side].NextHops, func(hop sip.NextHop) bool {
		st := h.states[keyOf(trunk.Name, side, hop)]
		return st == nil || st.Usable(now)
	}, rand.IntN)
}

// hopOutcome is what became of a request to a next hop, or of a ping.
type hopOutcome struct {
	failed     bool
	retryAfter time.Duration // it wants nothing for so long; 0: it says nothing
	ping       bool
	begun      bool // the request was sent, nothing is known yet
}

// note takes an outcome; b tells when the state of the next hop changes.
func (b *B2BUA) note(key hopKey, o hopOutcome, now time.Time) {
	h := &b.hops
	h.mu.Lock()
	st := h.states[key]
	if st == nil { // of an earlier configuration
		h.mu.Unlock()
		return
	}
	count, failed := &st.Requests, &st.HopStatus.Failed
	if o.ping {
		count, failed = &st.Pings, &st.PingsFailed
	}
	changed := false
	switch {
	case o.begun:
		*count++
	case o.failed:
		*failed++
		changed = st.Health.Failed(st.ping, now)
	default:
		changed = st.Answered(st.ping, now)
	}
	if o.retryAfter > 0 {
		st.Rest(o.retryAfter, now)
	}
	down := st.Down
	h.mu.Unlock()
	if !changed {
		return
	}
	if b.cfg.HopChanged != nil {
		b.cfg.HopChanged(key.trunk, key.side, key.hop, !down)
	}
	log := b.cfg.Log.With("trunk", key.trunk, "side", key.side, "next_hop", key.hop.String())
	if down {
		log.Error("next hop is down")
	} else {
		log.Info("next hop is up")
	}
}

// noteHop tells what became of the attempt at the next hop that is being tried.
func (c *call) noteHop(o hopOutcome, now time.Time) {
	c.b.note(keyOf(c.trunk.Name, c.at(dialog.Callee), c.hop), o, now)
}

// retryAfterOf reads Retry-After in seconds (RFC 3261 section 20.33); 0 without one.
func retryAfterOf(res *sip.Message) time.Duration {
	v := strings.TrimSpace(res.Get("Retry-After"))
	if i := strings.IndexFunc(v, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		v = v[:i] // a comment or parameters
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, sip.HopRestMax)
}

// failover tries another next hop in place of one that cannot take the first
// request now (RFC 3263 section 4.3); false when there is none, or when the caller
// has heard of this one already.
func (c *call) failover(ex *exchange, res *sip.Message, now time.Time) bool {
	again := len(c.redirects) > 0 && res.Status < 600 // RFC 3261 section 8.1.3.4
	if ex != c.setup || res.Status != 503 && !again {
		return false
	}
	if res.Status == 503 {
		c.noteHop(hopOutcome{failed: true, retryAfter: retryAfterOf(res)}, now)
	}
	if len(c.flows)+len(c.hops)+len(c.redirects) == 0 || ex.cancelled || ex.answered() || len(c.dialogs) > 0 {
		return false
	}
	c.log.Info("next hop cannot take the request, another is tried", "next_hop", c.hop.String())
	c.refused503, c.timedOut = res.Status == 503, false
	c.nextHop(now)
	return true
}

// pingEvery asks a next hop until ctx ends, at first at a time of its own.
func (b *B2BUA) pingEvery(ctx context.Context, st *hopState) {
	key := keyOf(st.Trunk, st.Side, st.NextHop)
	timer := time.NewTimer(time.Duration(rand.Int64N(int64(min(st.ping.Interval, time.Second)))))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		b.note(key, hopOutcome{ping: true, begun: true}, time.Now())
		res, err := b.ping(ctx, st)
		if ctx.Err() != nil {
			return
		}
		o := hopOutcome{ping: true, failed: err != nil}
		if err == nil && (res.Status == 503 || res.Status == 408) {
			o.failed, o.retryAfter = true, retryAfterOf(res)
		}
		b.note(key, o, time.Now())
		timer.Reset(st.ping.Interval)
	}
}

// ping asks a next hop once, at each of its addresses until one answers.
func (b *B2BUA) ping(ctx context.Context, st *hopState) (*sip.Message, error) {
	timeout := st.ping.Timeout
	if timeout <= 0 {
		timeout = sip.PingTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	flows, err := b.agent.Resolve(ctx, st.NextHop)
	if err != nil {
		return nil, err
	}
	b.admitFlows(st.Trunk, st.Side, flows)
	each := timeout / time.Duration(len(flows))
	var res *sip.Message
	for _, flow := range flows {
		one, done := context.WithTimeout(ctx, each)
		flow.TLS = st.at.TLS
		res, err = b.transact(one, b.lone(sip.Options, st.NextHop.URI("")), flow, st.at.Address)
		done()
		if err == nil {
			return res, nil
		}
	}
	return nil, fmt.Errorf("ping next hop %s: %w", st.NextHop, err)
}

// admitFlows lets answers of addresses in that the name of a peer of ours leads to.
func (b *B2BUA) admitFlows(trunk string, side media.Side, flows []sip.Flow) {
	table := (*b.tables.Load())[0]
	trunks := table.Trunks()
	for i := range trunks {
		if trunks[i].Name != trunk {
			continue
		}
		addrs := make([]netip.Addr, len(flows))
		for j, f := range flows {
			addrs[j] = f.Remote.Addr()
		}
		table.Learn(sip.Peer{Trunk: &trunks[i], Side: side}, addrs)
	}
}
