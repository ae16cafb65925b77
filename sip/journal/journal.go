// Package journal keeps on disk what a daemon must know to go on with its calls
// after it was killed: for each call its latest state, and notes in the order in
// which they were added. It is for the death of the process, not of the machine:
// nothing is synced, and nobody waits for the disk.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Limits. What is beyond them is refused and counted.
const (
	// EntryBytesMax is the size of the largest state or note.
	EntryBytesMax = 256 << 10
	// NotesMax bounds the notes of one call.
	NotesMax = 4096
	// CallsMax bounds the calls.
	CallsMax = 1 << 16

	queueBytesMax   = 16 << 20  // that wait to be written
	fileBytesMax    = 512 << 20 // of a file that is read
	slackBytes      = 1 << 20   // of what is outdated before the file is written anew
	keyBytesMax     = 256
	aliveEvery      = 2 * time.Second
	rewriteAfterBad = time.Second // after a write that failed
)

// Key seals and opens what is written. bind is authenticated beside it.
type Key interface {
	Seal(plaintext, bind []byte) ([]byte, error)
	Open(sealed, bind []byte) ([]byte, error)
}

// Keys makes the key of a file, and finds it again by what New returned beside
// it, which is no secret.
type Keys interface {
	New() (key Key, wrapped []byte, err error)
	Open(wrapped []byte) (Key, error)
}

// Call is what is kept of one call.
type Call struct {
	State []byte   // the latest
	Notes [][]byte // in the order of Add
}

// Contents is what a process before has left.
type Contents struct {
	Calls map[string]*Call
	Alive time.Time // when it wrote last that it was there; zero: nobody did
	Torn  int64     // bytes behind the last good entry
}

// Counters of a Journal.
type Counters struct {
	Written     atomic.Uint64 // entries
	Refused     atomic.Uint64 // entries beyond a limit: their calls cannot be restored, or not as they are
	WriteErrors atomic.Uint64
	Calls       atomic.Int64 // that have an entry
}

// Journal is safe for concurrent use. No method but Flush and Close waits.
type Journal struct {
	Counters Counters

	// constant
	path string
	keys Keys
	log  *slog.Logger
	wake chan struct{} // of capacity 1
	done chan struct{}

	mu     sync.Mutex
	queue  []op          // guarded by mu
	bytes  int           // guarded by mu: of the queue
	flush  chan struct{} // guarded by mu: closed when the queue was written; nil: nobody waits
	after  []func()      // guarded by mu: done when the queue was written
	busy   bool          // guarded by mu: what was queued is being written
	closed bool          // guarded by mu

	// of the goroutine
	file    *os.File
	key     Key
	head    []byte
	wrapped []byte // constant after Open: what Keys.New returned
	stale   bool   // the head in the file is an older one
	live    map[string]*frames
	size    int64 // of the file
	needed  int64 // of it, what is not outdated
	bad     time.Time
	failing bool // told
}

// frames are the entries of a call as they stand in the file.
type frames struct {
	state []byte
	notes [][]byte
}

type op struct {
	kind byte
	key  string
	data []byte
}

// ErrVersion says that a file was written by a version whose format is not known here.
var ErrVersion = errors.New("the journal is of another version")

// Open reads what a process before has left at path and goes on with it: what is
// not dropped stays. A file of another version, or one whose key is not at hand, is
// set aside beside it, and the error that says so is told to log alone.
func Open(path string, keys Keys, log *slog.Logger) (*Journal, *Contents, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	j := &Journal{
		path: path, keys: keys, log: log, wake: make(chan struct{}, 1), done: make(chan struct{}), live: map[string]*frames{},
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, fmt.Errorf("open the journal of calls: %w", err)
	}
	found, err := j.readOld()
	if err != nil {
		return nil, nil, fmt.Errorf("open the journal of calls: %w", err)
	}
	if j.key, j.wrapped, err = keys.New(); err != nil {
		return nil, nil, fmt.Errorf("open the journal of calls: %w", err)
	}
	j.head = newHead(j.wrapped)
	for key, c := range found.Calls {
		if err := j.carry(key, c); err != nil {
			return nil, nil, fmt.Errorf("open the journal of calls: %w", err)
		}
	}
	if err := j.rewrite(time.Now()); err != nil {
		return nil, nil, fmt.Errorf("open the journal of calls: %w", err)
	}
	go j.run()
	return j, found, nil
}

func (j *Journal) readOld() (*Contents, error) {
	empty := &Contents{Calls: map[string]*Call{}}
	f, err := os.Open(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, fileBytesMax))
	if err != nil {
		return nil, err
	}
	c, err := Read(data, j.keys.Open)
	if err == nil {
		return c, nil
	}
	aside := j.path + ".aside"
	j.log.Error("the journal of calls cannot be used: the calls of before are lost", "error", err, "moved_to", aside)
	return empty, os.Rename(j.path, aside)
}

// carry takes a call over into the file that is begun.
func (j *Journal) carry(key string, c *Call) error {
	f := &frames{}
	var err error
	if c.State != nil {
		if f.state, err = j.frame(op{kindState, key, c.State}); err != nil {
			return err
		}
	}
	for _, n := range c.Notes {
		b, err := j.frame(op{kindNote, key, n})
		if err != nil {
			return err
		}
		f.notes = append(f.notes, b)
	}
	j.live[key] = f
	j.Counters.Calls.Add(1)
	return nil
}

// Wrapped is what Keys.New has returned beside the key.
func (j *Journal) Wrapped() []byte { return j.wrapped }

// Rewrap puts other words about the same key in the place of those that Keys.New has
// returned. The file is written anew for it.
func (j *Journal) Rewrap(wrapped []byte) { j.push(op{kind: kindKey, data: wrapped}) }

// Put notes the state of a call in place of the one before. False: it was refused,
// and the one before stands.
func (j *Journal) Put(key string, state []byte) bool { return j.push(op{kindState, key, state}) }

// Add adds a note to a call.
func (j *Journal) Add(key string, note []byte) bool { return j.push(op{kindNote, key, note}) }

// Drop forgets a call. It is never refused.
func (j *Journal) Drop(key string) { j.push(op{kind: kindDrop, key: key}) }

func (j *Journal) push(o op) bool {
	j.mu.Lock()
	full := len(o.data) > EntryBytesMax || len(o.key) > keyBytesMax || j.bytes+len(o.data) > queueBytesMax
	if j.closed || full && o.kind != kindDrop {
		j.mu.Unlock()
		j.Counters.Refused.Add(1)
		return false
	}
	j.queue = append(j.queue, o)
	j.bytes += len(o.data)
	j.mu.Unlock()
	j.rouse()
	return true
}

func (j *Journal) rouse() {
	select {
	case j.wake <- struct{}{}:
	default: // it is awake
	}
}

// Flush returns when everything that was noted before is with the system.
func (j *Journal) Flush() {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return
	}
	if j.flush == nil {
		j.flush = make(chan struct{})
	}
	written := j.flush
	j.mu.Unlock()
	j.rouse()
	select {
	case <-written:
	case <-j.done:
	}
}

// After does f when everything that was noted before is with the system, or cannot
// be: at once, or soon and elsewhere. f must not wait.
func (j *Journal) After(f func()) {
	j.mu.Lock()
	if j.closed || len(j.queue) == 0 && !j.busy {
		j.mu.Unlock()
		f()
		return
	}
	j.after = append(j.after, f)
	j.mu.Unlock()
	j.rouse()
}

// Close writes what waits and closes the file. What it holds is for the next one.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	j.mu.Unlock()
	j.rouse()
	<-j.done
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}

// run is the goroutine that writes.
func (j *Journal) run() {
	defer close(j.done)
	t := time.NewTicker(aliveEvery)
	defer t.Stop()
	for {
		alive := false
		select {
		case <-j.wake:
		case <-t.C:
			alive = true
		}
		j.mu.Lock()
		queue, after, flush, closed := j.queue, j.after, j.flush, j.closed
		j.queue, j.after, j.bytes, j.flush, j.busy = nil, nil, 0, nil, true
		j.mu.Unlock()
		j.write(queue, alive || closed, time.Now())
		j.mu.Lock()
		j.busy = false
		j.mu.Unlock()
		for _, f := range after {
			f()
		}
		if flush != nil {
			close(flush)
		}
		if closed {
			return
		}
	}
}

// write takes a batch of entries.
func (j *Journal) write(queue []op, alive bool, now time.Time) {
	var out []byte
	for _, o := range queue {
		out = append(out, j.take(o)...)
	}
	if alive {
		out = append(out, aliveFrame(now)...)
	}
	j.Counters.Calls.Store(int64(len(j.live)))
	j.Counters.Written.Add(uint64(len(queue)))
	if len(out) == 0 && !j.stale {
		return
	}
	var err error
	switch {
	case !j.bad.IsZero() && now.Sub(j.bad) < rewriteAfterBad:
		return // what is missing comes with the next rewrite
	case !j.bad.IsZero(), j.stale, j.size+int64(len(out)) > 2*j.needed+slackBytes:
		err = j.rewrite(now)
	default:
		_, err = j.file.Write(out)
		j.size += int64(len(out))
	}
	j.tell(err, now)
}

// tell notes how a write went.
func (j *Journal) tell(err error, now time.Time) {
	if err == nil {
		j.bad, j.failing = time.Time{}, false
		return
	}
	j.bad = now
	j.Counters.WriteErrors.Add(1)
	if !j.failing {
		j.failing = true
		j.log.Error("the journal of calls cannot be written: calls would not survive a restart", "error", err)
	}
}

// take brings live up to date and returns what is to be appended.
func (j *Journal) take(o op) []byte {
	if o.kind == kindKey {
		j.head, j.stale = newHead(o.data), true
		return nil
	}
	f := j.live[o.key]
	if o.kind == kindDrop {
		if f == nil {
			return nil
		}
		j.needed -= f.bytes()
		delete(j.live, o.key)
		return dropFrame(o.key)
	}
	if f == nil && len(j.live) >= CallsMax || f != nil && o.kind == kindNote && len(f.notes) >= NotesMax {
		j.Counters.Refused.Add(1)
		return nil
	}
	b, err := j.frame(o)
	if err != nil {
		j.Counters.Refused.Add(1)
		return nil
	}
	if f == nil {
		f = &frames{}
		j.live[o.key] = f
	}
	j.needed += int64(len(b))
	if o.kind == kindNote {
		f.notes = append(f.notes, b)
		return b
	}
	j.needed -= int64(len(f.state))
	f.state = b
	return b
}

func (f *frames) bytes() int64 {
	n := len(f.state)
	for _, b := range f.notes {
		n += len(b)
	}
	return int64(n)
}

// rewrite begins a new file with what is not outdated.
func (j *Journal) rewrite(now time.Time) error {
	var b bytes.Buffer
	b.Write(j.head)
	j.needed = 0
	for _, f := range j.live {
		b.Write(f.state)
		for _, n := range f.notes {
			b.Write(n)
		}
		j.needed += f.bytes()
	}
	b.Write(aliveFrame(now))
	temp := j.path + ".new"
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if _, err = file.Write(b.Bytes()); err == nil {
		err = os.Rename(temp, j.path)
	}
	if err != nil {
		return errors.Join(err, file.Close(), os.Remove(temp))
	}
	if j.file != nil {
		_ = j.file.Close() // replaced
	}
	j.file, j.size, j.stale = file, int64(b.Len()), false
	return nil
}
