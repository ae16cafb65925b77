package segment

import (
	"sync"
	"time"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// groupMin is from how many files on one sync of the whole file system is
// cheaper than one for each file.
const groupMin = 4

// Syncer makes durable, together, what many Writers wrote: at a thousand calls
// an fsync for each frame costs more than all else that is done to it. Safe for
// concurrent use.
type Syncer struct {
	group    vfs.Group // nil: files are synced one by one
	groupMin int       // dirty files from which on the group is synced

	mu     sync.Mutex // guards all following, and the ledgers
	dirty  []*ledger
	spare  []*ledger // of the last round
	rounds int64

	round sync.Mutex    // one round at a time; taken before mu
	wake  chan struct{} // one slot: something is dirty
	stop  chan struct{} // closed by Close
	ended chan struct{} // closed when the goroutine has ended; nil: there is none
}

// ledger is what a Syncer knows of one file. Its fields are guarded by the
// Syncer's mu.
type ledger struct {
	file vfs.File

	dirty  bool
	gen    int  // rises when the file was cut back: rounds under way tell nothing of it
	failed bool // a round failed: what was not durable must be written again

	at, taken, durable place // of what was written, what a round took, what it made durable
}

// place is how far a file reaches.
type place struct {
	bytes  int64
	writes int64
	gen    int
}

// NewSyncer returns a Syncer for files below dir. Where the file system has no
// groups it syncs file by file. Nothing is synced before Start, but by Round.
func NewSyncer(fsys vfs.FS, dir string) (*Syncer, error) {
	s := &Syncer{groupMin: groupMin, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	if g, ok := fsys.(vfs.Grouper); ok {
		group, err := g.OpenGroup(dir)
		if err != nil {
			return nil, err
		}
		s.group = group
	}
	return s, nil
}

// Start makes a round each period in which something was written, until Close.
func (s *Syncer) Start(period time.Duration) {
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		for {
			select {
			case <-s.wake:
			case <-s.stop:
				return
			}
			select {
			case <-time.After(period):
			case <-s.stop:
			}
			s.Round()
		}
	}()
}

// Close ends the rounds; the last one takes what was written until now.
func (s *Syncer) Close() error {
	close(s.stop)
	if s.ended != nil {
		<-s.ended
	}
	s.Round()
	if s.group == nil {
		return nil
	}
	return s.group.Close()
}

// Rounds returns how many rounds had something to do.
func (s *Syncer) Rounds() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rounds
}

// Round makes durable what was written before it. A failure is told to the
// files' writers, each of which writes again what it has not durable.
func (s *Syncer) Round() {
	s.round.Lock()
	defer s.round.Unlock()
	s.mu.Lock()
	batch := s.dirty
	s.dirty, s.spare = s.spare[:0], nil
	for _, l := range batch {
		l.dirty, l.taken = false, l.at
		l.taken.gen = l.gen
	}
	if len(batch) > 0 {
		s.rounds++
	}
	s.mu.Unlock()
	if s.group != nil && len(batch) >= s.groupMin {
		err := s.group.Sync()
		for _, l := range batch {
			s.settle(l, err)
		}
	} else {
		for _, l := range batch {
			s.settle(l, l.file.Sync())
		}
	}
	clear(batch)
	s.mu.Lock()
	s.spare = batch[:0]
	s.mu.Unlock()
}

// settle notes what became of a file in a round.
func (s *Syncer) settle(l *ledger, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case l.taken.gen != l.gen: // cut back meanwhile, or closed
	case err != nil:
		l.failed = true
	default:
		l.durable = l.taken
	}
}

// wrote says how far a file reaches now.
func (s *Syncer) wrote(l *ledger, bytes, writes int64) {
	s.mu.Lock()
	l.at.bytes, l.at.writes = bytes, writes
	first := !l.dirty
	if first {
		l.dirty = true
		s.dirty = append(s.dirty, l)
	}
	s.mu.Unlock()
	if !first {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// state returns how far a file is durable, and whether a round has failed since
// it was asked last.
func (s *Syncer) state(l *ledger) (durable place, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed, l.failed = l.failed, false
	return l.durable, failed
}

// forget makes rounds that are under way mean nothing for a file.
func (s *Syncer) forget(l *ledger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.gen++
	l.at = place{}
}
