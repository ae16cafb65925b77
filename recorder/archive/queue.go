package archive

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/recorder/store"
)

// UploadConfig says how recordings get from the spool into stores that do not
// take them in one step. Each store has a queue of its own, which is the spool:
// a restart finds in it what was not yet carried.
type UploadConfig struct {
	Workers   int           // objects on their way at once, a store; 0: 4
	Growing   bool          // long segments go in parts while they are written, where the store takes them so
	KeepLocal time.Duration // how long segments stay in the spool when the store has the recording; 0: not
	Behind    time.Duration // a recording that waits longer is an event (upload.behind); 0: 10 min
}

const (
	uploadWorkers     = 4
	uploadBehind      = 10 * time.Minute
	uploadRetryFirst  = time.Second
	uploadRetryMost   = time.Minute
	uploadRetryItem   = 10 * time.Minute // most, for what one recording alone fails with
	storeDownFailures = 3                // in a row, after which a store is down
)

// FailureReasons are the reasons by which failed uploads are counted.
var FailureReasons = []string{"timeout", "unreachable", "denied", "space", "exists", "locked", "corrupt", "local", "canceled", "other"}

// UploadStats counts what became of the way into one store. All only grow.
type UploadStats struct {
	Objects atomic.Int64     // carried
	Bytes   atomic.Int64     // of them
	Done    atomic.Int64     // recordings that the store has whole
	Retries atomic.Int64     // attempts after a failed one
	Failed  [10]atomic.Int64 // by FailureReasons
	Growth  GrowthStats
}

// UploadState is a store's queue at one moment.
type UploadState struct {
	Store      string // name; empty: the one that has no name
	Queued     bool   // false: recordings are moved there in one step
	Recordings int    // that wait, those going on with finished segments included
	Bytes      int64  // of theirs in the spool
	OldestAge  time.Duration
	Growing    int // segments that go in parts while they are written
	Down       bool
	Stats      *UploadStats
}

// pending is a recording that waits for its store.
type pending struct {
	place
	since time.Time // when the first of it was ready
	bytes int64     // in the spool
	files []string  // finished segments that the store has not got; of one that goes on
	done  map[string]bool
	final bool // its manifest is in the spool: all of it can go
	erase bool // it was given up: what the store has of it goes
	held  bool // it is to be coded anew first

	growing   []*growth // segments that go in parts
	inherited bool      // a process before may have begun uploads of it
	keyed     bool      // its key was sent to the store, whatever came of that

	busy  bool
	part  bool // busy with a part of a growing segment
	tries int
	next  time.Time
}

// ready tells whether there is something to do.
func (p *pending) ready() bool { return p.final && !p.held || p.erase || len(p.files) > 0 }

// queue is what waits for one store.
type queue struct {
	a       *Archive
	s       *shelf
	stats   UploadStats
	noParts atomic.Bool // the store takes no parts

	mu      sync.Mutex // guards all following
	items   map[string]*pending
	order   []*pending // the same, oldest first
	failed  int        // attempts in a row that the store was to blame for
	blocked time.Time  // none before it
	probing bool       // one attempt is under way while it was down
	down    bool
	parts   int            // under way, of growing segments
	orphans []store.Upload // to be given up when the store can be reached

	wake    chan struct{} // one slot: something waits
	closing chan struct{} // closed: take what is ready, then end
	cancel  context.CancelFunc
	ended   sync.WaitGroup
}

func newQueue(a *Archive, s *shelf) *queue {
	return &queue{a: a, s: s, items: map[string]*pending{}, wake: make(chan struct{}, 1), closing: make(chan struct{})}
}

// change looks up the entry of a recording, made if need be, and changes it.
func (q *queue) change(p place, now time.Time, f func(*pending)) {
	q.mu.Lock()
	it := q.items[p.id()]
	if it == nil {
		it = &pending{place: p, since: now, done: map[string]bool{}}
		q.items[p.id()] = it
		q.order = append(q.order, it)
	}
	f(it)
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// segment queues a finished segment of a recording that goes on.
func (q *queue) segment(p place, name string, now time.Time) {
	q.change(p, now, func(it *pending) {
		if len(it.files) == 0 && !it.final {
			it.since = now // until then nothing of it waited
		}
		if !it.done[name] && !slices.Contains(it.files, name) {
			it.files = append(it.files, name)
		}
	})
}

// whole queues a finished recording; held: not before release.
func (q *queue) whole(p place, held bool, now time.Time) {
	q.change(p, now, func(it *pending) { it.final, it.held, it.next = true, held, time.Time{} })
}

// release lets go of a recording that was held.
func (q *queue) release(id string) {
	q.mu.Lock()
	if it := q.items[id]; it != nil {
		it.held = false
	}
	q.mu.Unlock()
	q.signal()
}

// forget takes out a recording of which the store was given nothing; false: it
// was, or may be just now.
func (q *queue) forget(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[id]
	if it == nil {
		return true
	}
	begun := slices.ContainsFunc(it.growing, func(g *growth) bool { return g.up != nil })
	if it.busy || begun || len(it.done) > 0 || it.tries > 0 {
		return false
	}
	q.drop(it)
	return true
}

// drop takes an entry out. q.mu is held.
func (q *queue) drop(it *pending) {
	delete(q.items, it.id())
	q.order = slices.DeleteFunc(q.order, func(o *pending) bool { return o == it })
}

// take gives the oldest entry that is due to a worker, which must settle it;
// else it tells how long to wait for the next one.
func (q *queue) take(now time.Time) (*pending, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed > 0 && (q.probing || now.Before(q.blocked)) {
		return nil, cmp.Or(max(q.blocked.Sub(now), 0), uploadRetryFirst)
	}
	wait := time.Hour
	part, crowded := q.partSize(), q.parts >= q.growingMost()
	var ready, growing *pending // the latter waits for whatever is finished
	for _, it := range q.order {
		if !it.busy && !it.ready() && !crowded && growing == nil && it.due(part) != nil {
			growing = it
		}
		if it.busy || !it.ready() {
			continue
		}
		if d := it.next.Sub(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		// What one recording alone fails with must not keep the others from a store
		// that seems to be down: the one that failed least tries it.
		if ready == nil || it.tries < ready.tries {
			ready = it
		}
		if q.failed == 0 || ready.tries == 0 {
			break
		}
	}
	if ready != nil {
		ready.busy, q.probing = true, q.failed > 0
		if ready.tries > 0 {
			q.stats.Retries.Add(1)
		}
		return ready, 0
	}
	if growing != nil {
		growing.busy, growing.part, q.probing = true, true, q.failed > 0
		q.parts++
	}
	return growing, wait
}

// idle tells whether nothing is due or under way, and nothing will be by itself
// as things stand: what failed waits for a later time.
func (q *queue) idle(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed > 0 && !q.probing {
		return true
	}
	return !slices.ContainsFunc(q.order, func(it *pending) bool {
		return it.busy || it.ready() && !it.next.After(now)
	})
}

// begin returns what a worker is to do: the segments, and whether all.
func (q *queue) begin(it *pending) (files []string, final, erase, part bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(it.files), it.final && !it.held, it.erase, it.part
}

// carried notes an object that the store has.
func (q *queue) carried(it *pending, name string, bytes int64) {
	q.stats.Objects.Add(1)
	q.stats.Bytes.Add(bytes)
	q.mu.Lock()
	defer q.mu.Unlock()
	it.done[name] = true
	it.files = slices.DeleteFunc(it.files, func(f string) bool { return f == name })
}

// missing notes that the store lost objects which it had, or has them otherwise.
func (q *queue) missing(it *pending, names []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, n := range names {
		delete(it.done, n)
	}
}

func (q *queue) has(it *pending, name string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return it.done[name]
}

// errOver says that a recording needs nothing more of the queue.
var errOver = errors.New("the store has it")

// localError is a fault of this machine, not of the store.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// settle takes an entry back from its worker. It returns what became of the
// store, a change to down or up, or nothing, and whether it is the first time that
// the entry alone failed.
func (q *queue) settle(it *pending, err error, now time.Time) (changed, down, first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.signal()
	if it.part {
		q.parts--
	}
	it.busy, it.part, q.probing = false, false, false
	was := q.down
	switch {
	case err == nil, errors.Is(err, errOver):
		it.tries, it.next = 0, time.Time{}
		q.failed, q.blocked, q.down = 0, time.Time{}, false
		if err != nil {
			q.drop(it)
		}
	case errors.Is(err, context.Canceled):
	case ownFault(err):
		it.tries++
		first = it.tries == 1
		it.next = now.Add(backoff(it.tries, uploadRetryItem))
	default:
		it.tries++
		q.failed++
		q.blocked = now.Add(backoff(q.failed, uploadRetryMost))
		it.next = now.Add(backoff(it.tries, uploadRetryMost)) // it may be to blame: others go first
		q.down = q.failed >= storeDownFailures
	}
	return was != q.down, q.down, first
}

// backoff is how long to wait after so many failures: longer each time, and
// never as long as somebody else.
func backoff(failures int, most time.Duration) time.Duration {
	d := min(uploadRetryFirst<<min(failures-1, 20), most)
	return d/2 + rand.N(d/2+1)
}

// state describes the queue.
func (q *queue) state(now time.Time) UploadState {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := UploadState{Store: q.s.name, Queued: q.s.queued(), Down: q.down, Stats: &q.stats}
	for _, it := range q.order {
		s.Growing += len(it.growing)
		if !it.ready() && !it.final {
			continue
		}
		s.Recordings++
		s.Bytes += it.bytes
		if !it.held {
			s.OldestAge = max(s.OldestAge, now.Sub(it.since))
		}
	}
	return s
}

// aged makes a recording that goes on as young as its oldest finished segment
// that waits.
func (q *queue) aged(it *pending, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(it.files) == 0 && !it.final {
		it.since = now
	}
}
