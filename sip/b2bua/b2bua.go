package b2bua

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/callstate"
	"github.com/trunktap/trunktap/sip/dialog"
)

// B2BUA is the back-to-back user agent of all trunks.
type B2BUA struct {
	cfg      Config
	agent    *sip.Agent
	counters Counters
	wg       sync.WaitGroup // calls
	stopped  atomic.Bool    // calls must end at once
	draining atomic.Bool    // new calls are refused
	owners   owners
	udpOnly  udpOnly
	load     pressure
	hops     hops

	background context.Context // ends with Close
	quit       context.CancelFunc
	helpers    sync.WaitGroup // what runs beside calls: pings, registrations

	callState atomic.Pointer[callstate.Rules]

	tables atomic.Pointer[[]*tableUse] // the newest first; replaced under mu
	secret [secretBytes]byte
	masked masked
	tails  tails

	mu       sync.Mutex
	calls    map[callKey][]*call // guarded by mu: oldest first
	byID     map[uint64]*call    // guarded by mu: by the number in our branches
	sessions int                 // guarded by mu: calls that have not ended
	usages   int                 // guarded by mu: transactions and subscriptions outside of calls
	perTrunk map[string]int      // guarded by mu: sessions
	asks     map[uint64]*asking  // guarded by mu: requests of our own, as byID
	rates    map[string]*rates   // guarded by mu: by trunk

	registered []*registration // guarded by mu
	started    bool            // guarded by mu
	startedAt  time.Time       // guarded by mu
	opening    []func()        // guarded by mu: done when it is started
	closing    bool            // guarded by mu
}

// tableUse is an access list and how many calls were begun under it.
type tableUse struct {
	*sip.Table
	calls int // guarded by B2BUA.mu
}

// New makes a B2BUA; Start opens its sockets.
func New(cfg Config) (*B2BUA, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	b := &B2BUA{
		cfg:   cfg,
		calls: map[callKey][]*call{}, byID: map[uint64]*call{}, perTrunk: map[string]int{}, asks: map[uint64]*asking{}, rates: map[string]*rates{},
	}
	b.background, b.quit = context.WithCancel(context.Background())
	_, _ = cryptorand.Read(b.secret[:]) // never fails
	b.SetCallState(cfg.CallState)
	if err := b.Reload(cfg.Trunks); err != nil {
		return nil, err
	}
	agent, err := sip.New(sip.Config{
		Listen: cfg.Listen, Allow: b.allow, Handle: b.handle, TLS: cfg.TLS, Net: cfg.Net, Log: cfg.Log,
		DNS: cfg.DNS, VerifyPeer: b.verifyPeer, KeepAlive: cfg.KeepAlive,
	})
	if err != nil {
		return nil, fmt.Errorf("b2bua: %w", err)
	}
	b.agent = agent
	b.tails.of = dialog.NewTails(cfg.TailBytesMax)
	b.tails.send = func(m *sip.Message, f sip.Flow) { _ = agent.Send(m, f, nil) } // counted there
	b.counters.Transport = &agent.Counters
	return b, nil
}

// Start opens the sockets and takes calls.
func (b *B2BUA) Start() error {
	makeRoom(b.cfg.CallsMax)
	if err := b.agent.Start(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.started, b.startedAt = true, time.Now()
	trunks := (*b.tables.Load())[0].Trunks()
	b.configure(trunks, true)
	b.registrations(trunks)
	for _, f := range b.opening {
		f()
	}
	b.opening = nil
	return nil
}

// Counters returns the live counters.
func (b *B2BUA) Counters() *Counters { return &b.counters }

// Calls returns how many calls are going on, ringing ones included.
func (b *B2BUA) Calls() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions
}

// Reload replaces the trunks for new calls. Calls that are going on keep theirs,
// and the peers of those are let in until the last of these calls is over.
func (b *B2BUA) Reload(trunks []sip.Trunk) error {
	table, err := sip.NewTable(trunks)
	if err != nil {
		return fmt.Errorf("b2bua: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.setTables(&tableUse{Table: table})
	b.configure(table.Trunks(), b.started)
	if b.started {
		b.registrations(table.Trunks())
	}
	return nil
}

// SetCallState replaces the rules by which messages of new calls are read for signals.
func (b *B2BUA) SetCallState(r *callstate.Rules) { b.callState.Store(r) }

// setTables puts newest before the tables that are in use. b.mu is held.
func (b *B2BUA) setTables(newest *tableUse) {
	next := []*tableUse{newest}
	if old := b.tables.Load(); old != nil {
		for _, t := range *old {
			if t != newest && t.calls > 0 {
				next = append(next, t)
			}
		}
	}
	b.tables.Store(&next)
}

// allow is the access list: peers of the trunks, and of calls begun under earlier trunks.
func (b *B2BUA) allow(src netip.AddrPort) bool {
	for _, t := range *b.tables.Load() {
		if _, ok := t.Lookup(src); ok {
			return true
		}
	}
	return false
}

// handle takes a message from a transport. It does not block.
func (b *B2BUA) handle(m *sip.Message) {
	if !m.IsRequest() {
		b.handleResponse(m)
		return
	}
	sip.MarkSource(m)
	if b.tails.request(m) {
		return
	}
	c, merged := b.find(m)
	switch {
	case c != nil:
		b.deliver(c, m)
	case m.Method == sip.Ack:
		b.counters.Unknown.Add(1)
	case merged:
		b.reply(m, 482, "Loop Detected")
	case m.Method == sip.Cancel && b.tails.cancels(m):
		b.reply(m, 200, "OK")
	case m.Method == sip.Cancel, m.ToTag() != "", onlyInDialogs(m.Method):
		b.counters.Unknown.Add(1)
		b.reply(m, 481, "Call/Transaction Does Not Exist")
	case m.Method == sip.Options && b.toPhone(m):
		b.admit(m)
	case m.Method == sip.Options && len(m.List("Require")) > 0: // RFC 3261 section 8.2.2.3
		b.reply(m, 420, "Bad Extension", sip.Header{Name: "Unsupported", Value: strings.Join(m.List("Require"), ", ")})
	case m.Method == sip.Options:
		b.reply(m, 200, "OK", sip.Header{Name: "Allow", Value: allowed},
			sip.Header{Name: "Accept", Value: "application/sdp"})
	default:
		b.admit(m)
	}
}

// onlyInDialogs says whether a request means nothing outside of a dialog: without a tag of
// the far end it is of none.
func onlyInDialogs(method string) bool {
	return method == sip.Bye || method == sip.Prack || method == sip.Update
}

const allowed = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, PRACK, INFO, REFER, NOTIFY, SUBSCRIBE, MESSAGE, PUBLISH, REGISTER"

func (b *B2BUA) deliver(c *call, m *sip.Message) {
	if !c.put(event{msg: m}) {
		b.counters.Overflowed.Add(1)
	}
}

func (b *B2BUA) handleResponse(m *sip.Message) {
	via, _ := m.TopVia() // Parse has seen to it
	b.mu.Lock()
	id := callOfBranch(via.Branch())
	c, own := b.byID[id], b.asks[id]
	b.mu.Unlock()
	if own != nil {
		own.take(m)
		return
	}
	switch {
	case c != nil:
		b.deliver(c, m)
	case !b.tails.response(m):
		b.counters.Unknown.Add(1)
	}
}

// branchPrefix marks our branches; the number of the call and that of the
// transaction follow.
const branchPrefix = "z9hG4bKtt"

func branchOf(call, seq uint64) string {
	b := append(make([]byte, 0, 40), branchPrefix...)
	b = append(strconv.AppendUint(b, call, 16), '.')
	return string(strconv.AppendUint(b, seq, 16))
}

func callOfBranch(branch string) uint64 {
	rest, ok := strings.CutPrefix(branch, branchPrefix)
	id, _, ok2 := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(id, 16, 64)
	if !ok || !ok2 || err != nil {
		return 0
	}
	return n
}

// callKey is under which a call is found: its Call-ID and the caller's tag.
type callKey struct{ callID, tag string }

// find looks for the call of a request. merged: a call in progress began with
// the same request that took another way (RFC 3261 section 8.2.2.2).
func (b *B2BUA) find(m *sip.Message) (c *call, merged bool) {
	id, from, to := m.CallID(), m.FromTag(), m.ToTag()
	via, _ := m.TopVia()
	seq, _ := m.CSeq()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.calls[callKey{id, from}] {
		if c.branch == via.Branch() && strings.EqualFold(c.sentBy, via.Host) {
			return c, false
		}
		if to == "" && !c.over && c.method == m.Method && c.seq == seq && m.Method != sip.Cancel && !c.spirals(m) {
			merged = true
		}
	}
	if to == "" {
		return nil, merged
	}
	if c := newest(b.calls[callKey{id, from}], to, m.Flow.Remote, true); c != nil {
		return c, false
	}
	return newest(b.calls[callKey{id, to}], from, m.Flow.Remote, false), false
}

// newest returns the latest call that knows the callee's tag, else the latest
// that may still learn it, of those whose trunk has src as a peer. A call that comes
// back through a proxy is two here, of one name: the one in which src is on the side
// of the caller, or on the other one, goes first.
func newest(calls []*call, tag string, src netip.AddrPort, byCaller bool) *call {
	var open, strayKnows, stray *call
	for i := len(calls) - 1; i >= 0; i-- {
		c := calls[i]
		if !c.peers(src) {
			continue
		}
		side := c.side
		if !byCaller {
			side = side.Other()
		}
		knows := slices.Contains(c.tags, tag)
		switch fits := len(calls) == 1 || c.table.Allows(sip.Peer{Trunk: c.trunk, Side: side}, src.Addr()); {
		case knows && fits:
			return c
		case fits && open == nil && !c.over:
			open = c
		case knows && strayKnows == nil:
			strayKnows = c
		case stray == nil && !c.over:
			stray = c
		}
	}
	return cmp.Or(open, strayKnows, stray)
}

// admit begins a call, or what else begins with a request outside of a dialog.
func (b *B2BUA) admit(m *sip.Message) {
	b.mu.Lock()
	table := (*b.tables.Load())[0]
	peer, ok := table.Lookup(m.Flow.Remote)
	if !ok || b.closing { // a peer of an earlier table may not begin calls
		closing := b.closing
		b.mu.Unlock()
		if closing {
			b.refused(m, "", sip.RefusedDraining, 503)
		} else {
			b.refused(m, "", sip.RefusedStranger, 503)
		}
		b.reply(m, 503, "Service Unavailable", sip.RetryAfter())
		return
	}
	if b.loops(m, peer) {
		b.mu.Unlock()
		b.counters.Refused.Loops.Add(1)
		b.refused(m, peer.Trunk.Name, sip.RefusedLoop, 482)
		b.reply(m, 482, "Loop Detected")
		return
	}
	if !b.admits(m, peer) {
		b.mu.Unlock()
		return
	}
	invite := m.Method == sip.Invite
	if invite && b.draining.Load() {
		b.mu.Unlock()
		b.counters.Drained.Add(1)
		b.refused(m, peer.Trunk.Name, sip.RefusedDraining, 503)
		b.reply(m, 503, "Service Unavailable", sip.Header{Name: "Retry-After", Value: seconds(drainRetry)})
		return
	}
	if why := b.refuses(m, peer.Trunk, m.Arrival); why != nil {
		b.mu.Unlock()
		b.counters.CallsRefused.Add(1)
		why.Add(1)
		b.refused(m, peer.Trunk.Name, b.counters.Refused.cause(why), 503)
		b.reply(m, 503, "Service Unavailable", sip.RetryAfter())
		return
	}
	c := newCall(b, m, peer, table)
	b.byID[c.id] = c
	b.calls[c.key] = append(b.calls[c.key], c)
	b.mask(c)
	table.calls++
	if invite {
		b.sessions++
		b.perTrunk[peer.Trunk.Name]++
		b.counters.CallsStarted.Add(1)
	} else {
		b.usages++
	}
	b.wg.Add(1)
	b.mu.Unlock()
	c.put(event{msg: m})
}

// over notes that a call has ended; its transactions may live on.
func (b *B2BUA) over(c *call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.over {
		return
	}
	c.over = true
	if c.method != sip.Invite {
		b.usages--
		return
	}
	b.sessions--
	if b.perTrunk[c.trunk.Name]--; b.perTrunk[c.trunk.Name] == 0 {
		delete(b.perTrunk, c.trunk.Name)
	}
}

// forget removes a call of which nothing is left.
func (b *B2BUA) forget(c *call) {
	b.over(c)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.byID, c.id)
	drop(b.calls, c.key, c)
	b.unmask(c)
	if c.table.calls--; c.table.calls == 0 {
		b.setTables((*b.tables.Load())[0])
	}
}

// learn makes the callee's tag known for the choice of the call, and where the
// parties are reached.
func (b *B2BUA) learn(c *call, tag string, d *dialogState) {
	b.reachable(c, d)
	b.mu.Lock()
	defer b.mu.Unlock()
	c.tags = append(c.tags, tag) // dialogsMax at most
}

// reply answers a request without a transaction (RFC 3261 section 8.2.7): the
// same request is answered with the same tag.
func (b *B2BUA) reply(req *sip.Message, status int, reason string, extra ...sip.Header) {
	b.agent.Reply(req, status, reason, extra...)
}

// Close ends all calls with a BYE to both legs, waits a bounded time for the
// answers and closes the sockets. New calls are refused meanwhile.
func (b *B2BUA) Close() error {
	b.mu.Lock()
	if b.closing {
		b.mu.Unlock()
		return errors.New("b2bua: closed already")
	}
	b.closing = true
	b.mu.Unlock()
	b.quit()
	b.toAll(func(c *call) event { return event{do: c.shutdown} })
	ended := make(chan struct{})
	go func() { b.wg.Wait(); close(ended) }()
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	b.stopped.Store(true)
	b.toAll(func(*call) event { return event{} })
	<-ended
	b.helpers.Wait()
	b.tails.close()
	b.owners.close()
	if err := b.agent.Close(); err != nil {
		return fmt.Errorf("b2bua: close transports: %w", err)
	}
	return nil
}

// toAll gives every call an event.
func (b *B2BUA) toAll(e func(*call) event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.byID {
		c.put(e(c))
	}
}
