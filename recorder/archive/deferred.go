package archive

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// DeferredConfig says what is coded anew as Opus after it was published, and
// how much of it may wait.
type DeferredConfig struct {
	// Options tells whether a recording is to be coded anew, and how. It is asked
	// when the recording is published. Nil: none is.
	Options func(*recorder.Manifest) (codec.Options, bool)

	RecordingsMax int   // that wait; 0: 10,000. What has no room stays as it is
	BytesMax      int64 // of theirs; 0: 64 GiB
	Workers       int   // recordings at once; 0: 1
}

const (
	deferredRecordingsMax = 10_000
	deferredBytesMax      = 64 << 30
	deferredTriesMax      = 5 // in one run of the daemon; the next one tries again
	deferredRetry         = time.Minute
)

// DeferredStats counts what was deferred.
type DeferredStats struct {
	Done    atomic.Int64 // recordings coded anew
	Kept    atomic.Int64 // recordings that stay as they are, because the queue was full
	Failed  atomic.Int64 // attempts that failed; the recording stays as it is and is tried again
	AudioMS atomic.Int64 // coded anew
}

// job is a recording that waits, as it stands in its file in the spool. As
// long as the file is there, segments that the manifest does not name are no
// orphans: they are not yet, or no longer, those of the recording.
type job struct {
	Version     int      `json:"version"` // 1
	Recording   string   `json:"recording"`
	Prefix      string   `json:"prefix"`
	Store       string   `json:"store,omitempty"`
	Bytes       int64    `json:"bytes"` // of its segments
	Bitrate     int      `json:"bitrate,omitempty"`
	Complexity  int      `json:"complexity"`
	Application string   `json:"application,omitempty"`
	Replaced    []string `json:"replaced,omitempty"` // files that go when the manifest does not name them any more

	at    place // set when it is tried
	tries int
	next  time.Time // not to be tried before
}

// deferral is the queue of what waits.
type deferral struct {
	stats DeferredStats

	mu    sync.Mutex // guards all following
	jobs  []*job     // waiting, oldest first
	under []string   // recordings under way
	bytes int64      // of them and of those under way
	count int        // the same

	wake    chan struct{} // one slot: something waits
	closing chan struct{} // closed: take what is there, then end
	cancel  context.CancelFunc
	ended   sync.WaitGroup
}

// DeferredStats returns the counters of what was deferred.
func (a *Archive) DeferredStats() *DeferredStats { return &a.deferred.stats }

// DeferredQueue tells how many recordings wait to be coded anew, and their
// bytes, those under way included.
func (a *Archive) DeferredQueue() (recordings int, bytes int64) {
	a.deferred.mu.Lock()
	defer a.deferred.mu.Unlock()
	return a.deferred.count, a.deferred.bytes
}

func (a *Archive) jobFile(id string) string { return a.spool(deferredDir, id+".json") }

// workDir is where segments of a recording are written anew.
func (a *Archive) workDir(id string) string { return a.spool(deferredDir, id+".work") }

// loadDeferred takes the jobs of former runs into the queue.
func (a *Archive) loadDeferred() error {
	d := &a.deferred
	d.wake, d.closing = make(chan struct{}, 1), make(chan struct{})
	entries, err := a.fsys.ReadDir(a.spool(deferredDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if strings.HasPrefix(e.Name(), vfs.TempPrefix) {
			_ = a.fsys.Remove(a.spool(deferredDir, e.Name())) // torn by a crash, promised to nobody
			continue
		}
		if !ok {
			continue // a folder of work; its job clears it
		}
		if j, err := a.readJob(id); err != nil {
			d.stats.Failed.Add(1) // the recording stays as it is; no reason to take no calls
		} else if j != nil {
			d.push(j)
		}
	}
	return nil
}

// readJob returns the job of a recording; nil when it has none.
func (a *Archive) readJob(id string) (*job, error) {
	js, err := vfs.ReadFile(a.fsys, a.jobFile(id), markerBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	j := &job{}
	if err := json.Unmarshal(js, j); err != nil || j.Recording != id || j.Version != 1 {
		return nil, errors.Join(err, fmt.Errorf("%s: not the job of recording %s", a.jobFile(id), id))
	}
	return j, nil
}

func (a *Archive) writeJob(j *job) error {
	js, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return vfs.WriteFile(a.fsys, a.jobFile(j.Recording), js)
}

// noteJob notes a recording durably if it is one of those that are coded anew;
// nil when it is not. What has no room, or cannot be noted, stays as it is: its
// manifest tells in which format.
func (a *Archive) noteJob(m *recorder.Manifest, p place) *job {
	d := &a.deferred
	if a.cfg.Deferred.Options == nil || !slices.ContainsFunc(m.Segments, func(s recorder.Segment) bool { return isLossless(formatOf(m, s)) }) {
		return nil
	}
	opt, ok := a.cfg.Deferred.Options(m)
	if !ok {
		return nil
	}
	j := &job{
		Version: 1, Recording: m.ID, Prefix: p.prefix, Store: p.name,
		Bitrate: opt.Bitrate, Complexity: opt.Complexity, Application: opt.Application,
	}
	for _, s := range m.Segments {
		j.Bytes += s.Bytes
	}
	if d.waits(m.ID) {
		return nil // its publication is being repeated
	}
	if !d.room(j, a.cfg.Deferred) || a.writeJob(j) != nil {
		d.stats.Kept.Add(1)
		return nil
	}
	return j
}

// add queues the job of a recording that is published; nil: it has none.
func (d *deferral) add(j *job) {
	if j != nil && !d.waits(j.Recording) {
		d.push(j)
	}
}

// isLossless tells whether a format is one to code Opus from.
func isLossless(format string) bool {
	return format == codec.WAVPCMU || format == codec.WAVPCMA || format == codec.WAVPCM16 || format == codec.FLAC
}

func (d *deferral) waits(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queued(id)
}

// has tells whether a recording waits or is under way. One that was given up, or whose
// job cannot be read, is neither.
func (d *deferral) has(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.under, id) || d.queued(id)
}

// queued tells whether a job waits; d.mu is held.
func (d *deferral) queued(id string) bool {
	return slices.ContainsFunc(d.jobs, func(j *job) bool { return j.Recording == id })
}

func (d *deferral) room(j *job, cfg DeferredConfig) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count < cmp.Or(cfg.RecordingsMax, deferredRecordingsMax) && d.bytes+j.Bytes <= cmp.Or(cfg.BytesMax, deferredBytesMax)
}

func (d *deferral) push(j *job) {
	d.mu.Lock()
	d.jobs = append(d.jobs, j)
	d.count++
	d.bytes += j.Bytes
	d.mu.Unlock()
	d.signal()
}

func (d *deferral) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// pop takes the first job that is due; else it tells when the next one is.
func (d *deferral) pop(now time.Time) (_ *job, wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, j := range d.jobs {
		if !j.next.After(now) {
			d.jobs = slices.Delete(d.jobs, i, i+1)
			d.under = append(d.under, j.Recording)
			return j, 0
		}
		if until := j.next.Sub(now); wait == 0 || until < wait {
			wait = until
		}
	}
	return nil, cmp.Or(wait, time.Hour)
}

// settle takes a job that was tried off the account, or puts it back.
func (d *deferral) settle(j *job, again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(d.under, j.Recording); i >= 0 {
		d.under = slices.Delete(d.under, i, i+1)
	}
	if again {
		d.jobs = append(d.jobs, j)
		return
	}
	d.count--
	d.bytes -= j.Bytes
}

// StartDeferred begins to code anew what waits, at the least priority that the
// machine has, until StopDeferred. It is to be called after Recover, once.
func (a *Archive) StartDeferred() {
	var ctx context.Context
	ctx, a.deferred.cancel = context.WithCancel(context.Background())
	for range max(a.cfg.Deferred.Workers, 1) {
		a.deferred.ended.Go(func() {
			beNice()
			a.encodeDeferred(ctx)
		})
	}
}

// StopDeferred goes on until nothing waits or ctx ends; what waits then is
// for the next start.
func (a *Archive) StopDeferred(ctx context.Context) {
	d := &a.deferred
	if d.cancel == nil {
		return // not started
	}
	close(d.closing)
	defer context.AfterFunc(ctx, d.cancel)()
	d.ended.Wait()
	d.cancel()
}

// encodeDeferred is a worker.
func (a *Archive) encodeDeferred(ctx context.Context) {
	d := &a.deferred
	for ctx.Err() == nil {
		j, wait := d.pop(time.Now())
		if j != nil {
			d.signal() // another worker may find more
			a.tryDeferred(ctx, j)
			continue
		}
		select {
		case <-d.closing:
			return
		default:
		}
		select {
		case <-d.wake:
		case <-time.After(wait):
		case <-d.closing:
		case <-ctx.Done():
		}
	}
}

// tryDeferred tries a job once.
func (a *Archive) tryDeferred(ctx context.Context, j *job) {
	d := &a.deferred
	err := a.encodeJob(ctx, j)
	switch {
	case err == nil:
		d.settle(j, false)
		a.releaseJob(j)
		return
	case errors.Is(err, errBusy):
		j.next = time.Now().Add(time.Second)
	case ctx.Err() == nil:
		d.stats.Failed.Add(1)
		j.tries++
		j.next = time.Now().Add(deferredRetry)
	}
	again := j.tries < deferredTriesMax
	d.settle(j, again)
	if !again {
		a.releaseJob(j) // it goes to its store as it is
	}
}

// releaseJob lets a recording that waited for its job go to its store.
func (a *Archive) releaseJob(j *job) {
	if s, err := a.shelf(j.Store); err == nil && s.queue != nil {
		s.queue.release(j.Recording)
	}
}

// errBusy says that a recording is in use and must wait.
var errBusy = errors.New("recording is in use")

// beingReplaced tells whether an object that no manifest names belongs to a
// recording that is being coded anew, or is gone by now.
func (a *Archive) beingReplaced(ctx context.Context, p place, object string) bool {
	if j, err := a.readJob(p.id()); err == nil && j != nil && (slices.Contains(j.Replaced, object) || isEncoded(object)) {
		return true
	}
	b, err := a.open(ctx, p, object)
	if err != nil {
		return errors.Is(err, recorder.ErrNotFound)
	}
	_ = b.Close() // only opened
	return false
}

const encodedExt = "-opus.seg"

// encodedName is the file of segment n when it was coded anew.
func encodedName(n int) string { return fmt.Sprintf("%04d%s", n, encodedExt) }

func isEncoded(name string) bool { return strings.HasSuffix(name, encodedExt) }
