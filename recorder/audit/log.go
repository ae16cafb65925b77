package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Bounds of a Log.
const (
	batchMax      = 256  // entries of one commit
	notesMax      = 1024 // that wait while the log cannot be written
	recentMax     = 4096 // recordings whose last link is remembered
	fileBytesMax  = 16 << 20
	checkpointDef = time.Minute
	shipBytesMax  = 8 << 20 // of one object
	shipTimeout   = time.Minute
)

// Config of a Log.
type Config struct {
	Dir      string
	FS       vfs.FS // nil: the machine's
	Identity *Identity
	Now      func() time.Time // nil: time.Now

	// Durable makes files and directories durable; nil: one by one.
	Durable func(f vfs.File, dirs ...string) error

	Checkpoint    time.Duration // between two checkpoints; 0: a minute
	FileBytesMax  int64         // of a file of entries; 0: 16 MiB
	LocalBytesMax int64         // files of entries that the store has go beyond it, oldest first; 0: none goes

	// Store takes entries, checkpoints and public keys, under audit/; nil: they stay here.
	Store recorder.Store

	// Told is called by the Log's goroutines with what an operator must know: the
	// log cannot be written, or can again (nil); ErrNotStored. May be nil.
	Told func(error)
}

// Stats counts what a Log does.
type Stats struct {
	Entries     atomic.Int64 // written in this run
	Commits     atomic.Int64 // syncs of them
	Failed      atomic.Int64 // commits that failed
	Lost        atomic.Int64 // entries that found no room while it could not be written
	Checkpoints atomic.Int64
	Shipped     atomic.Int64 // objects put into the store
	ShipFailed  atomic.Int64
	Size        atomic.Int64 // entries of the log
	ShippedSize atomic.Int64 // of them in the store
}

// Log writes the log of a node. Safe for concurrent use.
type Log struct {
	cfg      Config // constant
	stats    Stats
	requests chan *request
	force    chan chan error // a checkpoint is asked for
	closing  chan struct{}
	ended    sync.WaitGroup
	lost     atomic.Int64 // since the last entry that told of them

	mu       sync.Mutex // guards pending and told
	pending  []Entry    // notes that are not written yet
	failing  bool       // the last commit failed
	shipWake chan struct{}

	gone chan struct{} // closed when the owner has ended
	core *core         // of the owner goroutine
}

// request is an entry, and where its writer waits.
type request struct {
	entry  Entry
	claim  *Claim
	signed []byte     // of a claim, when it is done
	done   chan error // nil: nobody waits
	file   string     // of the inbox, where it came from
}

// Open opens the log of a node and begins one when there is none, or none that
// can be gone on with. The caller closes it.
func Open(cfg Config) (*Log, error) {
	if cfg.FS == nil {
		cfg.FS = vfs.OS{}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Durable == nil {
		cfg.Durable = func(f vfs.File, dirs ...string) error { return vfs.Durable(cfg.FS, f, dirs...) }
	}
	if cfg.Checkpoint <= 0 {
		cfg.Checkpoint = checkpointDef
	}
	if cfg.FileBytesMax <= 0 {
		cfg.FileBytesMax = fileBytesMax
	}
	l := &Log{
		cfg: cfg, requests: make(chan *request, batchMax), force: make(chan chan error),
		closing: make(chan struct{}), gone: make(chan struct{}), shipWake: make(chan struct{}, 1),
	}
	var err error
	if l.core, err = openCore(cfg); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	l.stats.Size.Store(l.core.n)
	l.ended.Go(l.own)
	if cfg.Store != nil {
		l.ended.Go(l.ship)
	}
	return l, nil
}

// Unclean tells whether the log did not end with the daemon's own word that it stops.
func (l *Log) Unclean() bool { return l.core.unclean }

// Stats returns the counters.
func (l *Log) Stats() *Stats { return &l.stats }

// Node returns the name of the node.
func (l *Log) Node() string { return l.cfg.Identity.Node() }

// Dir returns the logs for reading.
func (l *Log) Dir() Dir { return OpenDir(l.cfg.FS, l.cfg.Dir) }

// Identity returns the node's keys.
func (l *Log) Identity() *Identity { return l.cfg.Identity }

// ErrClosed is given to calls after Close.
var ErrClosed = errors.New("audit log is closed")

// ErrNotStored says that the log does not get into the store. It is written, and kept here.
var ErrNotStored = errors.New("audit log: put it into the store")

// ErrUnavailable says that the log cannot be written; what must not happen
// without a trace must not happen.
var ErrUnavailable = errors.New("audit log cannot be written")

// Append writes an entry; when it returns nil the entry is durable. At, N and
// Node are filled in. ErrUnavailable.
func (l *Log) Append(ctx context.Context, e Entry) error {
	_, err := l.ask(ctx, &request{entry: e, done: make(chan error, 1)})
	return err
}

// Link makes the next link of the chain for what a recording is published with,
// and returns it signed; the log has it durably by then. ErrUnavailable.
func (l *Log) Link(ctx context.Context, c Claim) ([]byte, error) {
	return l.ask(ctx, &request{claim: &c, done: make(chan error, 1)})
}

func (l *Log) ask(ctx context.Context, r *request) ([]byte, error) {
	select {
	case l.requests <- r:
	case <-l.closing:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select { // from here on it may be written, whoever waits for it
	case err := <-r.done:
		return r.signed, err
	case <-l.gone:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Note writes an entry soon and never blocks: it waits while the log cannot be
// written, and is counted as lost when too many do.
func (l *Log) Note(e Entry) {
	if e.Happened.IsZero() {
		e.Happened = l.cfg.Now()
	}
	l.mu.Lock()
	room := len(l.pending) < notesMax
	if room {
		l.pending = append(l.pending, e)
	}
	l.mu.Unlock()
	if !room {
		l.lost.Add(1)
		l.stats.Lost.Add(1)
		return
	}
	select { // a request without anything makes the owner look
	case l.requests <- &request{}:
	default:
	}
}

// CheckpointNow makes a checkpoint of all that is written.
func (l *Log) CheckpointNow() error {
	done := make(chan error, 1)
	select {
	case l.force <- done:
		return <-done
	case <-l.closing:
		return ErrClosed
	}
}

// Close writes what waits, makes the last checkpoint, puts it into the store and
// ends the goroutines.
func (l *Log) Close() error {
	close(l.closing)
	l.ended.Wait()
	return l.core.close()
}

// own is the owner goroutine of the core.
func (l *Log) own() {
	defer close(l.gone)
	tick := time.NewTicker(l.cfg.Checkpoint)
	defer tick.Stop()
	l.inbox()
	for {
		select {
		case r := <-l.requests:
			l.commit(l.gather(r))
		case done := <-l.force:
			l.inbox()
			l.commit(l.gather(nil))
			done <- l.point()
		case <-tick.C:
			l.inbox()
			l.commit(l.gather(nil))
			_ = l.point() // told by commit or by point itself
		case <-l.closing:
			l.finish()
			return
		}
	}
}

// finish takes what came before Close.
func (l *Log) finish() {
	for {
		batch := l.gather(nil)
		if len(batch) == 0 {
			break
		}
		if !l.commit(batch) {
			break
		}
	}
	_ = l.point() // told by point itself
	for {
		select {
		case r := <-l.requests:
			if r.done != nil {
				r.done <- ErrClosed
			}
		default:
			return
		}
	}
}

// inbox takes what commands left that worked without the daemon.
func (l *Log) inbox() {
	batch := l.core.readInbox(batchMax)
	if len(batch) > 0 && l.commit(batch) {
		l.core.dropInbox(batch)
	}
}

// gather returns what waits by now: those who wait share a sync.
func (l *Log) gather(first *request) []*request {
	var batch []*request
	if first != nil && first.done != nil {
		batch = append(batch, first)
	}
	for len(batch) < batchMax {
		select {
		case r := <-l.requests:
			if r.done != nil {
				batch = append(batch, r)
			}
			continue
		default:
		}
		break
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) > 0 && len(batch) < batchMax {
		batch = append(batch, &request{entry: l.pending[0]})
		l.pending = l.pending[1:]
	}
	return batch
}

// commit writes a batch and tells those who wait. What nobody waits for is kept
// for the next time when it cannot be written.
func (l *Log) commit(batch []*request) bool {
	if len(batch) == 0 {
		return true
	}
	lost := l.lost.Swap(0)
	if lost > 0 {
		batch = append(batch, &request{entry: Entry{Kind: KindLoss, What: fmt.Sprintf("%d entries found no room while the log could not be written", lost)}})
	}
	err := l.core.commit(batch)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		l.lost.Add(lost)
		l.keep(batch)
		l.stats.Failed.Add(1)
	} else {
		l.stats.Entries.Add(int64(len(batch)))
		l.stats.Commits.Add(1)
		l.stats.Size.Store(l.core.n)
	}
	l.tell(err)
	for _, r := range batch {
		if r.done != nil {
			r.done <- err
		}
	}
	return err == nil
}

// keep puts back the notes of a batch that was not written.
func (l *Log) keep(batch []*request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var notes []Entry
	for _, r := range batch {
		if r.done == nil && r.file == "" && r.entry.Kind != KindLoss {
			notes = append(notes, r.entry)
		}
	}
	l.pending = append(notes, l.pending...)
}

// tell reports when the log begins to fail, and when it works again.
func (l *Log) tell(err error) {
	l.mu.Lock()
	changed := l.failing != (err != nil)
	l.failing = err != nil
	l.mu.Unlock()
	if changed && l.cfg.Told != nil {
		l.cfg.Told(err)
	}
}

// Err tells why the log cannot be written, nil when it could be the last time.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing {
		return ErrUnavailable
	}
	return nil
}

// point makes a checkpoint and wakes who puts it into the store.
func (l *Log) point() error {
	made, err := l.core.point()
	switch {
	case err != nil:
		l.tell(fmt.Errorf("%w: checkpoint: %w", ErrUnavailable, err))
	case made:
		l.stats.Checkpoints.Add(1)
	}
	select {
	case l.shipWake <- struct{}{}:
	default:
	}
	return err
}
