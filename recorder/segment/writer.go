package segment

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// SpoolExt ends the names of segments that are being written.
const SpoolExt = ".part"

// SpoolName returns the name that segment n has in the spool when the store
// takes it for itself.
func SpoolName(n int) string { return fmt.Sprintf("%04d%s", n, SpoolExt) }

// NumberOf returns the number of the segment that has a name in a recording's
// spool folder; false when the name is no segment's.
func NumberOf(name string) (int, bool) {
	base, _, _ := strings.Cut(name, ".")
	n, err := strconv.Atoi(base)
	return n, err == nil && (name == FileName(n) || name == SpoolName(n))
}

// syncEveryMax bounds WriterConfig.SyncEvery, and by it the memory that holds
// what is not durable.
const syncEveryMax = 16

// WriterConfig is what a Writer needs.
type WriterConfig struct {
	FS    vfs.FS
	Store recorder.Store // nil: Finish leaves the file in Dir, under the name it has in the store
	Key   recorder.DataKey
	Dir   string // spool folder of the recording; it exists
	Info  recorder.SegmentInfo
	File  string // its name in its folder of the store; empty: FileName of its number

	// Beside, when set, is made durable before or with the first frame, and closed
	// by the Writer: the file with the recording's key.
	Beside vfs.File

	// Parents are directories above Dir whose entries need not be durable yet.
	Parents []string

	// SyncEvery is after how many calls of Write the file is synced; 0 and 1:
	// after each, at most 16. What a Write took is durable only then.
	SyncEvery int
	// Syncer, when set, makes durable what was written in its own time; the
	// file is synced here only when that is late by SyncEvery writes.
	Syncer *Syncer
}

// Writer writes one segment into the spool and publishes it. It implements
// recorder.SegmentWriter; one goroutine owns it.
//
// A Write that fails takes nothing: the same audio may be written again, or
// left out, or the segment finished with what it has. What could not be
// synced stays in memory and is written anew, because after a failed fsync the
// page cache no longer knows that it is dirty.
type Writer struct {
	cfg  WriterConfig
	path string
	head Header
	bind binding
	dirs []string // Dir and Parents
	file vfs.File // nil once sealed or aborted

	entered bool   // the entries in dirs are durable
	ragged  bool   // the file may be longer than what was written to it
	synced  int64  // durable bytes
	pending []byte // logical content behind them; nil: empty, or parked in the ledger
	home    buffer // of pending
	written int    // bytes of pending that the file has
	writes  int    // since the last sync
	total   int64  // writes in all
	ledger  *ledger

	index int
	sum   totals
	hash  hash.Hash // of synced and pending
	audio hash.Hash // of the coded audio in them

	sealed    recorder.Segment // File is set once the last frame is durable
	published bool
}

var _ recorder.SegmentWriter = (*Writer)(nil)

// Create begins a segment. Nothing of it is durable before its first frame; a
// crash until then leaves a file that Torn knows. A file of that name, left by
// a failed Create, is replaced.
func Create(cfg WriterConfig) (*Writer, error) {
	i := cfg.Info
	w := &Writer{cfg: cfg, hash: sha256.New(), audio: sha256.New(), dirs: append([]string{cfg.Dir}, cfg.Parents...)}
	w.cfg.File = cmp.Or(cfg.File, FileName(i.N))
	w.path = filepath.Join(cfg.Dir, SpoolName(i.N))
	if cfg.Store == nil {
		w.path = filepath.Join(cfg.Dir, w.cfg.File)
	}
	w.cfg.SyncEvery = min(max(cfg.SyncEvery, 1), syncEveryMax)
	w.head = Header{
		Recording: i.Recording, Prefix: i.Prefix, N: i.N, Format: i.Format,
		SampleRate: i.SampleRate, Channels: i.Channels, RealMS: i.RealMS, AudioMS: i.AudioMS, Start: i.Start.UTC().Round(0),
	}
	head, err := w.head.encode(kindSegment)
	if err != nil {
		w.letGo()
		return nil, fmt.Errorf("begin segment %d: %w", i.N, err)
	}
	w.bind = newBinding(head)
	_, _ = w.hash.Write(head) // never fails
	if w.file, err = cfg.FS.OpenFile(w.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		w.letGo()
		return nil, fmt.Errorf("begin segment %d: %w", i.N, err)
	}
	w.borrow()
	w.pending = append(w.pending, head...) // it goes with the first frame
	w.ledger = &ledger{file: w.file, dirs: w.dirs, beside: cfg.Beside}
	return w, nil
}

// errFinished is given to calls after Finish or Abort.
var errFinished = errors.New("segment is finished")

// Write implements recorder.SegmentWriter.
func (w *Writer) Write(a recorder.Audio, account *recorder.Manifest) error {
	if w.file == nil {
		return errFinished
	}
	if a.Samples == 0 && account == nil {
		return nil
	}
	failed := w.absorb()
	before := *w
	err := w.frames(a, account)
	sync := failed || w.writes+1 >= w.cfg.SyncEvery
	if err == nil {
		err = w.flush(sync)
	}
	if err != nil {
		w.rollBack(before)
		return fmt.Errorf("write segment %d: %w", w.head.N, err)
	}
	w.commit(len(before.pending), sync)
	if a.Samples > 0 {
		_, _ = w.audio.Write(a.Data) // never fails
	}
	return nil
}

// absorb takes note of what the Syncer made durable since the last call. When
// it failed, everything that is not durable is to be written again, because
// after a failed sync the page cache no longer knows that it is dirty.
func (w *Writer) absorb() (failed bool) {
	if w.cfg.Syncer == nil {
		return false
	}
	durable, failed, parked := w.cfg.Syncer.state(w.ledger)
	if parked != nil {
		w.home, w.pending = parked, *parked
	}
	if n := int(durable.bytes - w.synced); n > 0 {
		if w.pending == nil {
			w.written = 0 // all was durable, and the buffer is somebody else's
		} else {
			w.pending = w.pending[:copy(w.pending, w.pending[n:])]
			w.written -= n
		}
		w.synced = durable.bytes
		w.writes, w.entered = int(w.total-durable.writes), true
	}
	if failed {
		w.written = 0
	}
	return failed
}

// buffer is what holds frames until they are durable. Those of all writers are
// shared: most of the time most recordings need none.
type buffer = *pendingBytes

type pendingBytes []byte

// bufferBytesMax is up to which size buffers are kept for others.
const bufferBytesMax = 64 << 10

var buffers = sync.Pool{New: func() any { return new(pendingBytes) }}

func (b *pendingBytes) free() {
	if cap(*b) <= bufferBytesMax {
		buffers.Put(b)
	}
}

// plains are buffers for a frame's plaintext, which nobody needs once it is sealed.
var plains = sync.Pool{New: func() any { return new([]byte) }}

// frames appends the frames of one Write to pending. The account goes first:
// a crash between the two then never leaves audio behind a window that nobody
// tells of.
func (w *Writer) frames(a recorder.Audio, account *recorder.Manifest) error {
	if account != nil {
		b, err := encodeAccount(account)
		if err != nil {
			return err
		}
		if err := w.frame(frameAccount, b); err != nil {
			return err
		}
	}
	if a.Samples == 0 {
		return nil
	}
	if err := checkAudio(a, w.head); err != nil {
		return err
	}
	if a.SegMS < w.sum.endMS {
		return fmt.Errorf("audio at %d ms of the segment: %d ms are written", a.SegMS, w.sum.endMS)
	}
	plain := plains.Get().(*[]byte)
	defer plains.Put(plain)
	*plain = appendAudio((*plain)[:0], a)
	if err := w.frame(frameAudio, *plain); err != nil {
		return err
	}
	w.sum.add(a, w.head.SampleRate)
	return nil
}

func (w *Writer) frame(typ byte, plain []byte) error {
	if w.pending == nil {
		w.borrow()
	}
	b, err := appendFrame(w.pending, w.cfg.Key, &w.bind, w.index, typ, plain)
	if err != nil {
		return err
	}
	w.pending, w.index = b, w.index+1
	return nil
}

// flush writes what the file lacks and syncs it if asked to.
func (w *Writer) flush(sync bool) error {
	if _, err := w.file.WriteAt(w.pending[w.written:], w.synced+int64(w.written)); err != nil {
		return err
	}
	w.written = len(w.pending)
	w.writes++
	w.total++
	if !sync {
		return nil
	}
	return w.sync()
}

// sync makes durable what the file has.
func (w *Writer) sync() error {
	dirs, beside := w.dirs, w.cfg.Beside
	if w.entered {
		dirs, beside = nil, nil
	}
	var err error
	if w.cfg.Syncer != nil {
		err = w.cfg.Syncer.await(w.file, beside, dirs)
	} else {
		err = durable(w.cfg.FS, w.file, beside, dirs)
	}
	w.entered = w.entered || err == nil
	return err
}

// commit takes the frames behind fresh into the hash and, when everything is
// synced, forgets them; else it is the Syncer's turn.
func (w *Writer) commit(fresh int, synced bool) {
	_, _ = w.hash.Write(w.pending[fresh:]) // never fails
	if synced {
		w.synced += int64(len(w.pending))
		w.written, w.writes = 0, 0
		w.giveBack()
		return
	}
	if w.cfg.Syncer != nil {
		size, home := w.synced+int64(len(w.pending)), w.home
		*home = w.pending
		w.home, w.pending = nil, nil
		w.cfg.Syncer.wrote(w.ledger, size, w.total, home)
	}
}

// borrow makes pending empty and gives it a buffer.
func (w *Writer) borrow() {
	w.home = buffers.Get().(buffer)
	w.pending = (*w.home)[:0]
}

// giveBack empties pending.
func (w *Writer) giveBack() {
	if w.home != nil {
		*w.home = w.pending
		w.home.free()
	}
	w.home, w.pending = nil, nil
}

// rollBack forgets the frames of a failed Write. All that is not durable will
// be written again.
func (w *Writer) rollBack(before Writer) {
	w.pending = w.pending[:len(before.pending)]
	w.index, w.sum, w.writes, w.total, w.written = before.index, before.sum, before.writes, before.total, 0
	w.leaveRound()
	// What was torn lies where the next frames go; cutting it off only saves
	// recovery from reading it.
	w.ragged = w.file.Truncate(w.synced) != nil
}

// leaveRound keeps a round of the Syncer that is under way from telling of what
// is cut off or closed now.
func (w *Writer) leaveRound() {
	if w.cfg.Syncer != nil {
		w.cfg.Syncer.forget(w.ledger)
	}
}

// close closes the file. Nothing that was promised is left to fail.
func (w *Writer) close() {
	w.absorb()
	w.leaveRound()
	_ = w.file.Close() // as above
	w.file = nil
	w.letGo()
	w.giveBack()
}

// letGo closes the file beside. What is not durable of it is asked for again by
// the next writer.
func (w *Writer) letGo() {
	if w.cfg.Beside != nil {
		_ = w.cfg.Beside.Close() // its Sync told what there was to tell
	}
}

// Finish implements recorder.SegmentWriter. When the segment is durable in the
// spool but the store did not take it, the Segment is valid beside the error:
// Finish may be called again, and recovery publishes it too.
func (w *Writer) Finish(account *recorder.Manifest) (recorder.Segment, error) {
	if w.sealed.File == "" {
		if err := w.seal(account); err != nil {
			return recorder.Segment{}, fmt.Errorf("finish segment %d: %w", w.head.N, err)
		}
	}
	if !w.published && w.cfg.Store != nil {
		if err := w.cfg.Store.Publish(context.Background(), path.Join(w.head.Prefix, w.sealed.File), w.path); err != nil {
			return w.sealed, fmt.Errorf("publish segment %d: %w", w.head.N, err)
		}
		w.published = true
	}
	return w.sealed, nil
}

// seal makes the last frame durable.
func (w *Writer) seal(account *recorder.Manifest) error {
	if w.file == nil {
		return errFinished
	}
	w.absorb()
	before := *w
	err := w.frames(recorder.Audio{}, account)
	if err == nil {
		err = w.frame(frameLast, w.sum.encode())
	}
	size := w.synced + int64(len(w.pending))
	if err == nil && w.ragged {
		err = w.file.Truncate(w.synced + int64(w.written))
	}
	if err == nil {
		err = w.flush(true)
	}
	if err != nil {
		w.rollBack(before)
		return err
	}
	_, _ = w.hash.Write(w.pending[len(before.pending):]) // never fails
	w.close()
	w.sealed = recorder.Segment{
		N: w.head.N, File: w.cfg.File, RealMS: w.head.RealMS, AudioMS: w.head.AudioMS,
		DurationMS: w.sum.endMS, Bytes: size, SHA256: hex.EncodeToString(w.hash.Sum(nil)),
		AudioSHA256: hex.EncodeToString(w.audio.Sum(nil)),
	}
	return nil
}

// Entered tells whether the first frame is durable, and with it the directories
// and the file beside.
func (w *Writer) Entered() bool {
	if w.file != nil {
		w.absorb()
	}
	return w.entered
}

// Durable returns how many bytes of the file are durable, as far as the last Write
// knew: they never change any more.
func (w *Writer) Durable() int64 { return w.synced }

// Published tells whether the store has the segment.
func (w *Writer) Published() bool { return w.published }

// Path returns where the file lies in the spool.
func (w *Writer) Path() string { return w.path }

// Sealed tells whether the last frame is durable, in the spool or in the store.
func (w *Writer) Sealed() bool { return w.sealed.File != "" }

// Release closes the file. What is durable stays in the spool, for recovery or
// until the recording is discarded.
func (w *Writer) Release() {
	if w.file != nil {
		w.close()
	}
}

// Abort implements recorder.SegmentWriter: the spool file goes, so that a
// segment of the same number can be begun. What the store has stays.
func (w *Writer) Abort() error {
	w.Release()
	if err := w.cfg.FS.Remove(w.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("abort segment %d: %w", w.head.N, err)
	}
	return nil
}
