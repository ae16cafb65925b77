package recorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

const (
	// tick is how often a worker looks for sessions that something happened in.
	tick = 20 * time.Millisecond
	// strideMax is how many ticks packets may wait in a ring where a worker has
	// many sessions: the state of a call is then fetched into the processor's
	// cache once for many packets, which is most of what a packet costs. It is
	// part of what a crash may lose.
	strideMax = 8
	// sessionsPerTick is how many sessions a worker processes each tick before
	// they take turns.
	sessionsPerTick = 16
	// settle is how long an event may be under way to its session's inbox and
	// still be taken in order of time.
	settle = 60 * time.Millisecond
	// abandonWait is how long Close waits for writers once they are to give up.
	abandonWait = time.Second
	// signalWait bounds the wait for the effect of a signal.
	signalWait = 2 * time.Second
)

// Config of a Recorder.
type Config struct {
	Policy  Policy
	NewSink func(ctx context.Context, recording, prefix string) (Sink, error)
	// OpenSink is asked in the place of NewSink where it is set: it is told all.
	OpenSink func(ctx context.Context, info SinkInfo) (Sink, error)
	// Ready tells whether a call that begins now could be recorded; asked only
	// for plans with RefuseUnready. Nil: always.
	Ready func(ctx context.Context) error

	// Admit tells whether recordings may begin at all; asked for every new call, so it
	// must answer at once. A *NotAdmitted says what becomes of the call; another error
	// is as one of Ready. Nil: always.
	Admit func() error
	// Room tells why audio of a recording that goes on is to be given up for want of
	// disk (a gap of cause disk); empty: it is not. It is asked for each frame and
	// must answer at once. Nil: never.
	Room func(recording string) string
	// Paused tells why no audio is to be sealed now, of any recording; empty: it is.
	// It must not wait. Nil: never.
	Paused func() string

	RingBytes        int   // tap ring of a stream; 0: for about 4 s of what it may send, 24 KiB to 1 MiB
	CallBudgetBytes  int64 // queued for a failing or slow store, a call; 0: 4 MiB
	TotalBudgetBytes int64 // the same for all calls; 0: 1 GiB
	// PrerollBudgetBytes bounds the locked memory that audio waits in for consent,
	// all calls together; 0: 256 MiB.
	PrerollBudgetBytes int64

	Workers     int // goroutines that run pipelines; 0: GOMAXPROCS
	DisksAtOnce int // disk operations under way at once; 0: 64

	// Published, when set, is told of each recording that is complete in the store,
	// with a manifest that must be left as it is. It must not wait.
	Published func(*Manifest)

	// Monitor, when set, returns who is to hear the trunk recording of a call; nil: nobody.
	Monitor func(media.Session) Monitor

	// Synchronous makes the recorder work in the goroutine that calls it, by the
	// times it is given alone: replay. Nothing is dropped then.
	Synchronous bool

	// Restart is how recordings go on after a restart of the daemon.
	Restart Restart

	Log *slog.Logger // nil: discarded

	// Fault, when set, is called in each round of a pipeline with the id of its
	// session. It is for tests, which make it panic.
	Fault func(session string)
}

// Stats counts what the recorder did. All counters only grow.
type Stats struct {
	Started, Published, Discarded, Failed, Refused    atomic.Int64
	SegmentsDone, FramesRefused, WriteErrors, Signals atomic.Int64
	LateSignals, MissedMS, PausesOrphaned             atomic.Int64
	MonitorsFailed                                    atomic.Int64

	// SignalLatency is the time from what a signal tells of to its effect.
	SignalLatency Histogram
}

// Recorder records the sessions that it observes. It implements
// media.Observer and Runtime.
type Recorder struct {
	cfg     Config
	stats   Stats
	events  *hub
	shards  []*shard
	queued  atomic.Int64 // bytes waiting for sinks
	scribes *scribes
	policy  atomic.Pointer[Policy]
	vault   vault
	proceed atomic.Bool

	mu       sync.Mutex
	sessions map[string]*session
	convs    *conversations
	adhoc    map[string]string // user → id of the adhoc recording going on
	closed   bool
	shut     chan struct{} // closed when Close is over
	errs     []error       // synchronous: what failed
	done     []*Manifest
	early    []suppress.Signal // posted for calls that have not begun
	unheard  int               // posted signals whose call did not begin in time
}

// shard is one worker and its sessions.
type shard struct {
	mu       sync.Mutex
	sessions []*session
	added    uint64 // sessions so far
	stop     chan struct{}
	done     chan struct{}
}

// New returns a running recorder.
func New(cfg Config) (*Recorder, error) {
	if cfg.Policy == nil || cfg.NewSink == nil && cfg.OpenSink == nil {
		return nil, errors.New("recorder: Policy, and NewSink or OpenSink, are required")
	}
	if cfg.RingBytes == 0 && cfg.Synchronous {
		cfg.RingBytes = ringBytesMax // all packets of one instant of a capture wait in it
	}
	if cfg.CallBudgetBytes == 0 {
		cfg.CallBudgetBytes = 4 << 20
	}
	if cfg.TotalBudgetBytes == 0 {
		cfg.TotalBudgetBytes = 1 << 30
	}
	if cfg.PrerollBudgetBytes == 0 {
		cfg.PrerollBudgetBytes = 256 << 20
	}
	if cfg.Workers == 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	if cfg.DisksAtOnce == 0 {
		cfg.DisksAtOnce = 64
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Recorder{
		cfg: cfg, events: newHub(), scribes: newScribes(cfg.DisksAtOnce),
		sessions: make(map[string]*session), convs: newConversations(), adhoc: make(map[string]string), vault: plainMemory{},
		shut: make(chan struct{}),
	}
	r.policy.Store(&cfg.Policy)
	if !cfg.Synchronous {
		r.vault = &lockedMemory{budget: cfg.PrerollBudgetBytes}
		for range cfg.Workers {
			s := &shard{stop: make(chan struct{}), done: make(chan struct{})}
			r.shards = append(r.shards, s)
			go s.run()
		}
	}
	return r, nil
}

// SetPolicy replaces the policy for calls that begin from now on.
func (r *Recorder) SetPolicy(p Policy) { r.policy.Store(&p) }

// Stats returns the counters.
func (r *Recorder) Stats() *Stats { return &r.stats }

// QueuedBytes is what waits for sinks at the moment.
func (r *Recorder) QueuedBytes() int64 { return r.queued.Load() }

// SessionStarted implements media.Observer.
func (r *Recorder) SessionStarted(ctx context.Context, s media.Session) (media.SessionTap, error) {
	plan, ok := (*r.policy.Load()).Plan(s)
	if !ok {
		return nil, nil
	}
	if err := plan.Validate(); err != nil {
		return nil, r.refuse(s, plan, fmt.Errorf("plan of trunk %q: %w", s.Trunk, err))
	}
	x := r.resumption(s)
	if x == nil && r.cfg.Admit != nil {
		if err := r.cfg.Admit(); err != nil {
			return nil, r.refuse(s, plan, err)
		}
	}
	if plan.RefuseUnready && x == nil {
		if err := r.ready(ctx); err != nil {
			return nil, r.refuse(s, plan, err)
		}
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, r.refuse(s, plan, errors.New("the recorder is closed"))
	}
	if r.sessions[s.ID] != nil {
		r.mu.Unlock()
		return nil, r.refuse(s, plan, fmt.Errorf("session %s: %w", s.ID, ErrExists))
	}
	conv, news := r.convs.join(s)
	r.convs.agree(s, &plan)
	plan.NoTrunk = plan.NoTrunk || r.convs.secondLeg(s)
	n := newSession(r, s, plan, conv, x)
	r.sessions[s.ID] = n
	if len(r.shards) > 0 {
		r.shards[len(r.sessions)%len(r.shards)].add(n) // under r.mu: Close must find it
	}
	r.regroup(news)
	r.mu.Unlock()
	r.stats.Started.Add(1)
	r.events.publish(Event{Type: "call.started", At: s.Start, Call: s.ID, Data: n.live()})
	r.deliverSticky(n)
	r.deliverEarly(n)
	return n, nil
}

// refuse turns "cannot be recorded" into what the plan makes of it: an error
// where recording is required, a call without recording elsewhere.
func (r *Recorder) refuse(s media.Session, p Plan, err error) error {
	r.stats.Refused.Add(1)
	r.alarm(s.ID, "not-recorded", err)
	var na *NotAdmitted
	if p.RefuseUnready || errors.As(err, &na) && na.RefuseCall {
		return fmt.Errorf("recording is required and not possible: %w", err)
	}
	return nil
}

// NotAdmitted says that no recording may begin now.
type NotAdmitted struct {
	Why        string
	RefuseCall bool // the call is refused, whatever its plan says; false: as its plan says
}

// Error implements error.
func (e *NotAdmitted) Error() string { return e.Why }

// Tell publishes an event that does not come from a call.
func (r *Recorder) Tell(e Event) { r.events.publish(e) }

func (r *Recorder) ready(ctx context.Context) error {
	if r.queued.Load()+r.cfg.CallBudgetBytes > r.cfg.TotalBudgetBytes {
		return fmt.Errorf("write budget: %d of %d bytes are waiting for the store", r.queued.Load(), r.cfg.TotalBudgetBytes)
	}
	if r.cfg.Ready == nil {
		return nil
	}
	return r.cfg.Ready(ctx)
}

func (s *shard) add(n *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.slot = s.added
	s.added++
	s.sessions = append(s.sessions, n)
}

// stride is after how many ticks it is a session's turn when a worker has n of
// them: a power of two, so that one that grows never makes a session wait longer
// than the new one.
func stride(n int) uint64 {
	k := uint64(1)
	for k < strideMax && n > sessionsPerTick*int(k) {
		k *= 2
	}
	return k
}

// run is a worker: it owns its sessions' cores.
func (s *shard) run() {
	defer close(s.done)
	t := time.NewTicker(tick)
	defer t.Stop()
	var round []*session
	for ticks := uint64(0); ; ticks++ {
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		s.mu.Lock()
		round = append(round[:0], s.sessions...)
		s.mu.Unlock()
		cutoff := time.Now().Add(-settle)
		ended, turns := false, stride(len(round))
		for _, n := range round {
			if (ticks+n.slot)%turns != 0 && !n.waiting.Load() || n.rec.waits(n) {
				continue
			}
			if n.process(cutoff, false) {
				ended = true
				n.rec.remove(n)
			}
		}
		if ended {
			s.sweep()
		}
	}
}

func (s *shard) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := s.sessions[:0]
	for _, n := range s.sessions {
		if !n.done {
			keep = append(keep, n)
		}
	}
	clear(s.sessions[len(keep):])
	s.sessions = keep
}

// remove forgets a session that has ended.
func (r *Recorder) remove(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[s.info.ID] != s {
		return
	}
	delete(r.sessions, s.info.ID)
	r.convs.leave(s.info)
	s.core.monitor.end()
}

// claim implements claims.
func (r *Recorder) claim(user, recording string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.adhoc[user] != "" {
		return false
	}
	r.adhoc[user] = recording
	return true
}

// release implements claims.
func (r *Recorder) release(user, recording string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.adhoc[user] == recording {
		delete(r.adhoc, user)
	}
}

// Calls implements Runtime.
func (r *Recorder) Calls() []LiveCall {
	r.mu.Lock()
	all := r.inOrder()
	r.mu.Unlock()
	out := make([]LiveCall, 0, len(all))
	for _, s := range all {
		out = append(out, s.live())
	}
	return out
}

// inOrder lists the sessions, oldest first. r.mu is held.
func (r *Recorder) inOrder() []*session {
	all := slices.Collect(maps.Values(r.sessions))
	sortSessions(all)
	return all
}

func sortSessions(all []*session) {
	slices.SortFunc(all, func(a, b *session) int {
		return cmp.Or(a.info.Start.Compare(b.info.Start), cmp.Compare(a.info.ID, b.info.ID))
	})
}

// Signal implements Runtime. A SIP Call-ID may name several calls: one that
// passes the daemon twice has it on both passes. The answer is then that of the
// one which the signal reached latest.
func (r *Recorder) Signal(ctx context.Context, sig suppress.Signal) (Applied, error) {
	ctx, cancel := context.WithTimeout(ctx, signalWait)
	defer cancel()
	return r.ask(sig).outcome(ctx)
}

func applied(e effect) Applied {
	return Applied{
		AppliedAt: e.AppliedAt.UTC(), LateMS: e.LateMS, MissedMS: e.MissedMS, Duplicate: e.Duplicate, Reasons: words(e.Reasons),
		Refused: e.refused, Recording: e.recording,
	}
}

// Subscribe implements Runtime.
func (r *Recorder) Subscribe() (<-chan Event, func()) { return r.events.subscribe() }

// Results returns what a synchronous recorder has published, and the errors of
// its sinks, since the last call.
func (r *Recorder) Results() ([]*Manifest, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	done, errs := r.done, r.errs
	r.done, r.errs = nil, nil
	return done, errors.Join(errs...)
}

// Close takes no new sessions, ends those that are left, and waits for their
// audio to be published; when ctx ends first, what is unpublished stays in the
// spool for the next start. A second call waits for the first, which has the error.
func (r *Recorder) Close(ctx context.Context) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		select {
		case <-r.shut:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for the recorder to be closed: %w", ctx.Err())
		}
	}
	r.closed = true
	defer close(r.shut)
	left := make([]*session, 0, len(r.sessions))
	for _, s := range r.sessions {
		left = append(left, s)
	}
	r.mu.Unlock()
	for _, s := range left {
		s.Ended(time.Now(), media.CauseShutdown)
	}
	for _, s := range r.shards {
		close(s.stop)
		<-s.done
		s.mu.Lock()
		rest := s.sessions
		s.mu.Unlock()
		for _, n := range rest {
			n.process(time.Time{}, true)
			r.remove(n)
		}
	}
	written := r.scribes.drain()
	defer r.events.close()
	select {
	case <-written:
		r.scribes.stop()
		return nil
	case <-ctx.Done():
	}
	r.scribes.abandon()
	select {
	case <-written:
		r.scribes.stop()
	case <-time.After(abandonWait): // a disk that does not answer holds its scribe, not us
	}
	return fmt.Errorf("close recorder: some recordings are left in the spool: %w", ctx.Err())
}
