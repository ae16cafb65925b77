package segment

import (
	"errors"
	"sync"
	"time"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// groupMin is from how many files and directories on one sync of the whole file
// system is cheaper than one for each.
const groupMin = 3

// gather is how long a round waits for company while many want one: each sync
// costs as much CPU as the rest of what a short recording does to the disk.
const gather = 2 * time.Millisecond

// Syncer makes durable, together, what many Writers wrote: at a thousand calls
// an fsync for each frame costs more than all else that is done to it. Safe for
// concurrent use.
type Syncer struct {
	fsys     vfs.FS
	group    vfs.Group // nil: files are synced one by one
	groupMin int       // dirty files from which on the group is synced

	mu     sync.Mutex // guards all following, and the ledgers
	dirty  []*ledger
	spare  []*ledger // of the last round
	wishes []*wish
	rounds int64

	round chan struct{} // one slot, full during a round; taken before mu
	crowd int           // wishes of the last round; guarded by round
	wake  chan struct{} // one slot: something is dirty
	stop  chan struct{} // closed by Close
	ended chan struct{} // closed when the goroutine has ended; nil: there is none
}

// ledger is what a Syncer knows of one file.
type ledger struct {
	file   vfs.File // constant
	beside vfs.File // constant: to be durable before it, once; nil: nothing is
	dirs   []string // constant: the directories by which it is found

	// guarded by the Syncer's mu
	entered bool   // the entries in dirs are durable, and what is beside
	parked  buffer // what is not durable, between two calls of the writer; nil: nothing is
	dirty   bool
	gen     int  // rises when the file was cut back: rounds under way tell nothing of it
	failed  bool // a round failed: what was not durable must be written again

	at, taken, durable place // of what was written, what a round took, what it made durable
}

// place is how far a file reaches.
type place struct {
	bytes  int64
	writes int64
	gen    int
}

// wish is what a call of Await waits for. Done and err are guarded by round.
type wish struct {
	file   vfs.File // may be nil
	beside vfs.File // may be nil
	dirs   []string
	done   bool
	err    error
}

// NewSyncer returns a Syncer for files below dir. Where the file system has no
// groups it syncs file by file. Nothing is synced before Start, but by Round
// and Await.
func NewSyncer(fsys vfs.FS, dir string) (*Syncer, error) {
	s := &Syncer{fsys: fsys, groupMin: groupMin, round: make(chan struct{}, 1), wake: make(chan struct{}, 1), stop: make(chan struct{})}
	if g, ok := fsys.(vfs.Grouper); ok {
		group, err := g.OpenGroup(dir)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
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

// Await makes durable what was written to a file, if there is one, and the
// entries of directories, all of the file system that the Syncer is for. Those
// that wait at the same time share a round: nobody waits for the period.
func (s *Syncer) Await(f vfs.File, dirs ...string) error { return s.await(f, nil, dirs) }

// durable is vfs.Durable of a file and one beside it, which goes first.
func durable(fsys vfs.FS, f, beside vfs.File, dirs []string) error {
	if beside != nil {
		if err := beside.Sync(); err != nil {
			return err
		}
	}
	return vfs.Durable(fsys, f, dirs...)
}

func (s *Syncer) await(f, beside vfs.File, dirs []string) error {
	if s.group == nil {
		return durable(s.fsys, f, beside, dirs)
	}
	w := &wish{file: f, beside: beside, dirs: dirs}
	s.mu.Lock()
	s.wishes = append(s.wishes, w)
	s.mu.Unlock()
	s.round <- struct{}{}
	defer func() { <-s.round }()
	if w.done { // by the round before
		return w.err
	}
	if s.crowd >= s.groupMin {
		time.Sleep(gather)
	}
	s.sync(false)
	return w.err
}

// Round makes durable what was written before it. A failure is told to the
// files' writers, each of which writes again what it has not durable.
func (s *Syncer) Round() {
	s.round <- struct{}{}
	defer func() { <-s.round }()
	s.sync(true)
}

// sync is a round: of wishes, and of dirty files when it is time for them or
// when they cost nothing more. The round lock is held.
func (s *Syncer) sync(due bool) {
	s.mu.Lock()
	wishes := s.wishes
	s.wishes, s.crowd = nil, len(wishes)
	things := len(s.dirty)
	for _, w := range wishes {
		if things += len(w.dirs) + 1; w.beside != nil {
			things++
		}
	}
	together := s.group != nil && things >= s.groupMin
	var batch []*ledger
	if due || together {
		batch = s.take()
	}
	s.mu.Unlock()
	var err error
	if together {
		err = s.group.Sync()
	}
	for _, w := range wishes {
		if w.err = err; !together {
			w.err = durable(s.fsys, w.file, w.beside, w.dirs)
		}
		w.done = true
	}
	for _, l := range batch {
		if together {
			s.settle(l, err)
		} else {
			s.settle(l, s.syncOne(l))
		}
	}
	if batch != nil {
		clear(batch)
		s.mu.Lock()
		s.spare = batch[:0]
		s.mu.Unlock()
	}
}

// take empties the list of dirty files. mu is held.
func (s *Syncer) take() []*ledger {
	batch := s.spare[:0]
	for _, l := range s.dirty {
		if l.dirty = false; l.at.bytes == 0 {
			continue // cut back or closed since
		}
		l.taken = l.at
		l.taken.gen = l.gen
		batch = append(batch, l)
	}
	clear(s.dirty)
	s.dirty, s.spare = s.dirty[:0], nil
	if len(batch) > 0 {
		s.rounds++
	}
	return batch
}

// syncOne makes one file durable.
func (s *Syncer) syncOne(l *ledger) error {
	s.mu.Lock()
	dirs, beside := l.dirs, l.beside
	if l.entered {
		dirs, beside = nil, nil
	}
	s.mu.Unlock()
	return durable(s.fsys, l.file, beside, dirs)
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
		l.durable, l.entered = l.taken, true
		if l.parked != nil && l.durable.bytes == l.at.bytes {
			l.parked.free()
			l.parked = nil
		}
	}
}

// wrote says how far a file reaches now. The Syncer frees the buffer of what is
// not durable once it is, unless the writer takes it back before.
func (s *Syncer) wrote(l *ledger, bytes, writes int64, b buffer) {
	s.mu.Lock()
	l.at.bytes, l.at.writes, l.parked = bytes, writes, b
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

// state returns how far a file is durable, whether a round has failed since it
// was asked last, and gives the buffer back.
func (s *Syncer) state(l *ledger) (durable place, failed bool, b buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed, l.failed = l.failed, false
	b, l.parked = l.parked, nil
	return l.durable, failed, b
}

// forget makes rounds that are under way mean nothing for a file.
func (s *Syncer) forget(l *ledger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.gen++
	l.at = place{}
}
