package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Bounds of the time that one step may take.
const (
	uploadStepTime  = time.Minute
	uploadRateLeast = 64 << 10 // bytes a second: a slower connection counts as broken
)

// StartUploads begins to carry what waits to the stores, until StopUploads. It
// is to be called after Recover, once.
func (a *Archive) StartUploads() {
	for _, s := range a.shelves {
		if s.queue == nil {
			continue
		}
		var ctx context.Context
		ctx, s.queue.cancel = context.WithCancel(context.Background())
		for range cmpOr(a.cfg.Uploads.Workers, uploadWorkers) {
			s.queue.ended.Go(func() { s.queue.work(ctx) })
		}
	}
}

func cmpOr(n, other int) int {
	if n > 0 {
		return n
	}
	return other
}

// StopUploads goes on until nothing can be done at once or ctx ends; what waits
// then is for the next start.
func (a *Archive) StopUploads(ctx context.Context) {
	var stops []func() bool
	for _, s := range a.shelves {
		if s.queue != nil && s.queue.cancel != nil {
			close(s.queue.closing)
			stop := context.AfterFunc(ctx, s.queue.cancel)
			stops = append(stops, stop)
		}
	}
	for _, s := range a.shelves {
		if s.queue != nil && s.queue.cancel != nil {
			s.queue.ended.Wait()
			s.queue.cancel()
		}
	}
	for _, stop := range stops {
		stop()
	}
}

// Uploads describes the way into each store.
func (a *Archive) Uploads() []UploadState {
	var out []UploadState
	for _, s := range a.shelves {
		if s.queue != nil {
			out = append(out, s.queue.state(time.Now()))
		}
	}
	return out
}

// work is a worker.
func (q *queue) work(ctx context.Context) {
	for ctx.Err() == nil {
		it, wait := q.take(time.Now())
		if it != nil {
			q.signal() // another worker may find more
			q.try(ctx, it)
			q.orphan(ctx)
			continue
		}
		select {
		case <-q.closing:
			if q.idle(time.Now()) {
				q.signal() // the others may end, too
				return
			}
			wait = min(wait, 50*time.Millisecond)
		default:
		}
		t := time.NewTimer(wait)
		select {
		case <-q.wake:
		case <-t.C:
		case <-q.ending():
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// ending is closing until it is closed, so that nobody spins on it.
func (q *queue) ending() <-chan struct{} {
	select {
	case <-q.closing:
		return nil
	default:
		return q.closing
	}
}

// try is one attempt at a recording.
func (q *queue) try(ctx context.Context, it *pending) {
	err := q.carry(ctx, it)
	if err != nil && !errors.Is(err, errOver) {
		q.stats.Failed[reasonOf(err)].Add(1)
	}
	q.aged(it, time.Now())
	changed, down, first := q.settle(it, err, time.Now())
	switch {
	case changed && down:
		q.a.notify("store.down", map[string]any{"store": q.s.name, "error": err.Error()})
	case changed:
		q.a.notify("store.up", map[string]any{"store": q.s.name})
	}
	if first {
		q.a.notify("upload.failed", map[string]any{"store": q.s.name, "recording": it.id(), "error": err.Error()})
	}
}

// carry does what there is to do for a recording. errOver: nothing is left.
func (q *queue) carry(ctx context.Context, it *pending) error {
	files, final, erase, part := q.begin(it)
	switch {
	case part && !erase:
		return q.grow(ctx, it)
	case erase:
		return q.erase(ctx, it)
	case final:
		return q.complete(ctx, it)
	}
	for _, name := range files {
		var err error
		if isSegment(name) {
			err = q.upload(ctx, it, name)
		} else {
			err = q.putKey(ctx, it, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// putKey carries the key of a recording that goes on, unless it is replaced meanwhile.
func (q *queue) putKey(ctx context.Context, it *pending, name string) error {
	defer q.a.lockKey(it.id())()
	_, err := q.put(ctx, it, name)
	return err
}

// upload carries one segment.
func (q *queue) upload(ctx context.Context, it *pending, name string) error {
	local := q.a.spool(it.id(), name)
	info, err := q.a.fsys.Stat(local)
	if err != nil {
		return localError{fmt.Errorf("upload %s: %w", it.object(name), err)}
	}
	ctx, cancel := context.WithTimeout(ctx, uploadStepTime+time.Duration(info.Size()/uploadRateLeast)*time.Second)
	defer cancel()
	done, err := q.completed(ctx, it, name, info.Size())
	if err == nil && !done {
		q.sweepBefore(ctx, it, it.object(name), info.Size())
		err = q.uploadWhole(ctx, it, name, local)
	}
	if err != nil {
		return err
	}
	q.carried(it, name, info.Size())
	return nil
}

func (q *queue) uploadWhole(ctx context.Context, it *pending, name, local string) error {
	if u, ok := q.s.store.(recorder.Uploader); ok {
		return u.Upload(ctx, it.object(name), local)
	}
	return q.publishCopy(ctx, it, name, local)
}

// publishCopy is for stores that take the file itself.
func (q *queue) publishCopy(ctx context.Context, it *pending, name, local string) error {
	tmp, err := vfs.TempName(local)
	if err == nil {
		err = copyFile(q.a.fsys, tmp, local)
	}
	if err == nil {
		err = q.s.store.Publish(ctx, it.object(name), tmp)
	}
	if err != nil {
		_ = q.a.fsys.Remove(tmp) // the first error is the one to report
	}
	return err
}

// complete carries all that the store does not have, the manifest last. It looks
// at what the store has before it says with the manifest that all is there.
func (q *queue) complete(ctx context.Context, it *pending) error {
	defer q.a.lockKey(it.id())() // until the store is where it lies
	names, sizes, err := q.local(it)
	if err != nil {
		return localError{err}
	}
	for _, name := range names {
		if isSegment(name) && q.has(it, name) {
			continue
		}
		if isSegment(name) {
			err = q.upload(ctx, it, name)
		} else {
			sizes[name], err = q.put(ctx, it, name) // it may be replaced while it waits
		}
		if err != nil {
			return err
		}
	}
	if err := q.compare(ctx, it, names, sizes); err != nil {
		return err
	}
	manifest, err := q.put(ctx, it, segment.ManifestFile)
	if err != nil {
		return err
	}
	q.giveUpAll(ctx, it) // of segments that the recording gave up
	if err := q.finish(ctx, it, weight(manifest, sizes)); err != nil {
		return localError{err}
	}
	return errOver
}

func isSegment(name string) bool { return strings.HasSuffix(name, ".seg") }

// local lists what the spool has for the store, but for the manifest.
func (q *queue) local(it *pending) (names []string, sizes map[string]int64, err error) {
	sizes = map[string]int64{}
	err = spoolStore{q.a, it.place}.List(context.Background(), "", func(i recorder.BlobInfo) error {
		if name := path.Base(i.Name); name != segment.ManifestFile {
			names = append(names, name)
			sizes[name] = i.Size
		}
		return nil
	})
	return names, sizes, err
}

// compare looks whether the store has what was carried.
func (q *queue) compare(ctx context.Context, it *pending, names []string, sizes map[string]int64) error {
	ctx, cancel := context.WithTimeout(ctx, uploadStepTime)
	defer cancel()
	there := map[string]int64{}
	err := q.s.store.List(ctx, it.prefix+"/", func(i recorder.BlobInfo) error {
		there[path.Base(i.Name)] = i.Size
		return nil
	})
	if err != nil {
		return err
	}
	var lost []string
	for _, name := range names {
		if size, ok := there[name]; !ok || isSegment(name) && size != sizes[name] {
			lost = append(lost, name)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	q.missing(it, lost)
	return fmt.Errorf("%s: the store took %s and has not got it", it.prefix, strings.Join(lost, ", "))
}

// put carries a small object that may replace another one, and returns its size.
func (q *queue) put(ctx context.Context, it *pending, name string) (int64, error) {
	content, err := vfs.ReadFile(q.a.fsys, q.a.spool(it.id(), name), segment.ManifestBytesMax)
	if err != nil {
		return 0, localError{fmt.Errorf("upload %s: %w", it.object(name), err)}
	}
	if name == segment.KeyFile {
		q.mu.Lock()
		it.keyed = true
		q.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, uploadStepTime)
	defer cancel()
	if err := q.s.store.Put(ctx, it.object(name), content); err != nil {
		return 0, err
	}
	q.carried(it, name, int64(len(content)))
	return int64(len(content)), nil
}

// finish says that the store has a recording, and lets go of the spool's copy.
// From the rename on the store is where it lies.
func (q *queue) finish(ctx context.Context, it *pending, w recorder.Row) error {
	a, id := q.a, it.id()
	m, err := a.spooledManifest(ctx, it.place)
	if err == nil {
		row := it.row(m, false)
		row.ManifestBytes, row.OtherBytes = w.ManifestBytes, w.OtherBytes
		err = a.saveRow(ctx, row)
	} else {
		err = a.noteRow(id, it.prefix, it.name) // its key is not at hand: the row follows
	}
	if err != nil {
		return err
	}
	if err := a.letGo(it.place); err != nil {
		return err
	}
	a.spoolBytes.Add(-it.bytes)
	q.stats.Done.Add(1)
	return nil
}

// spooledManifest reads a manifest in the spool.
func (a *Archive) spooledManifest(ctx context.Context, p place) (*recorder.Manifest, error) {
	b, err := segment.OpenFile(a.fsys, a.spool(p.id(), segment.ManifestFile))
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // only read
	m, _, err := segment.OpenManifest(ctx, b, a.spoolKeys(p.id()))
	return m, err
}

// erase deletes what a store has of a recording that was given up.
func (q *queue) erase(ctx context.Context, it *pending) error {
	ctx, cancel := context.WithTimeout(ctx, uploadStepTime)
	defer cancel()
	q.giveUpAll(ctx, it)
	q.sweepBefore(ctx, it, it.prefix+"/", -1)
	var names []string
	err := q.s.store.List(ctx, it.prefix+"/", func(i recorder.BlobInfo) error {
		names = append(names, i.Name)
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := deleteObject(ctx, q.s.store, name); err != nil {
			return err
		}
	}
	if err := q.a.dropSpool(it.id()); err != nil {
		return localError{err}
	}
	return errOver
}

// ownFault tells whether an error is no reason to think that the store is down.
func ownFault(err error) bool {
	var local localError
	return errors.As(err, &local) || errors.Is(err, recorder.ErrExists) || errors.Is(err, store.ErrLocked) || errors.Is(err, recorder.ErrTampered) || errors.Is(err, recorder.ErrKey)
}

// reasonOf returns the index of an error's reason in FailureReasons.
func reasonOf(err error) int {
	var local localError
	var timeout net.Error
	var dial *net.OpError
	reason := "other"
	switch {
	case errors.Is(err, context.Canceled):
		reason = "canceled"
	case errors.As(err, &local):
		reason = "local"
	case errors.Is(err, recorder.ErrExists):
		reason = "exists"
	case errors.Is(err, store.ErrLocked):
		reason = "locked"
	case errors.Is(err, store.ErrCorrupt):
		reason = "corrupt"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		reason = "space"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		reason = "denied"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		reason = "timeout"
	case errors.As(err, &dial):
		reason = "unreachable"
	}
	return slices.Index(FailureReasons, reason)
}
