package archive

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
)

// growth is a segment that goes to its store in parts while it is written: what
// is durable of it in the spool, which never changes. The spool has all of it
// until the store has the recording, so that an upload may be given up at any
// time: the segment goes whole then.
type growth struct {
	name string

	// guarded by the queue's mu
	durable int64  // bytes of the file that do not change any more
	sum     []byte // SHA-256 of the whole file, from whoever wrote it; nil: it grows
	over    bool   // nothing more of it goes: it was aborted, or goes whole

	// of whoever has the entry busy
	up    store.Upload // nil: not begun, or ended
	size  int64        // of the parts that the store has
	tries int          // attempts that failed
}

// growthTries is how often a part may fail before the segment goes whole.
const growthTries = 3

// growthFirst is how many parts must be there before the first of them goes: what
// ends up smaller goes in one request, which costs less.
const growthFirst = 2

// orphansMax bounds the uploads that are to be given up when the store can be
// reached again; Sweep finds the others.
const orphansMax = 1000

// GrowthStats counts what went to a store while it was written. All only grow.
type GrowthStats struct {
	Parts   atomic.Int64 // of segments that were not finished
	Bytes   atomic.Int64 // of them
	Done    atomic.Int64 // segments that the store has by their parts
	GivenUp atomic.Int64 // uploads that were given up: the segment went whole, or not at all
}

// partSize is how many bytes a part has; 0: the store gets whole segments.
func (q *queue) partSize() int64 {
	u, ok := q.s.store.(store.Uploader)
	if !ok || !q.a.cfg.Uploads.Growing || q.noParts.Load() {
		return 0
	}
	return u.PartSize()
}

// grows tells the queue how much of a segment is durable, when that is worth a part.
func (w *sinkWriter) grows(account *recorder.Manifest) {
	if w.part == 0 || w.Durable()-w.told < w.part || !w.s.goesEarly(account) {
		return
	}
	w.told = w.Durable()
	begins := w.growth == nil
	if begins {
		if w.told < growthFirst*w.part {
			return
		}
		w.growth = &growth{name: segment.FileName(w.n)}
	}
	w.s.at.queue.change(w.s.at, time.Now(), func(it *pending) {
		w.growth.durable = w.told
		if begins {
			it.growing = append(it.growing, w.growth)
		}
	})
}

// finished tells the queue the sum of a segment that grew.
func (w *sinkWriter) finished(seg recorder.Segment) {
	if w.growth == nil {
		return
	}
	sum, err := hex.DecodeString(seg.SHA256)
	w.s.at.queue.change(w.s.at, time.Now(), func(*pending) { w.growth.sum, w.growth.over = sum, err != nil })
}

// dropped tells the queue that a segment is given up.
func (w *sinkWriter) dropped() {
	if w.growth != nil {
		w.s.at.queue.change(w.s.at, time.Now(), func(*pending) { w.growth.over = true })
	}
}

// due returns what is to be done of a recording's growing segments: a part, or an
// upload to give up. Nil: nothing. q.mu is held.
func (p *pending) due(part int64) *growth {
	for _, g := range p.growing {
		if g.over && g.up != nil || part > 0 && !g.over && g.sum == nil && g.durable-g.size >= part {
			return g
		}
	}
	return nil
}

// growingMost is how many parts may be under way at once: finished segments go
// first, and find a worker.
func (q *queue) growingMost() int { return max(cmpOr(q.a.cfg.Uploads.Workers, uploadWorkers)/2, 1) }

// grow carries the next part of a growing segment.
func (q *queue) grow(ctx context.Context, it *pending) error {
	part := q.partSize()
	q.mu.Lock()
	g := it.due(part)
	over := g != nil && g.over
	q.mu.Unlock()
	if g == nil {
		return nil
	}
	if over {
		q.giveUp(ctx, it, g)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, uploadStepTime+time.Duration(part/uploadRateLeast)*time.Second)
	defer cancel()
	err := q.part(ctx, it, g, part)
	if err == nil {
		q.stats.Growth.Parts.Add(1)
		q.stats.Growth.Bytes.Add(part)
	}
	return q.grew(ctx, it, g, err)
}

// part carries the next bytes of a segment; the upload is begun with the first.
func (q *queue) part(ctx context.Context, it *pending, g *growth, bytes int64) error {
	b, err := segment.OpenFile(q.a.fsys, q.a.spool(it.id(), g.name))
	if err != nil {
		return localError{fmt.Errorf("upload %s: %w", it.object(g.name), err)}
	}
	defer func() { _ = b.Close() }() // only read
	if g.up == nil {
		u, ok := q.s.store.(store.Uploader)
		if !ok {
			return errors.ErrUnsupported
		}
		up, err := u.NewUpload(ctx, it.object(g.name))
		if err != nil {
			return err
		}
		q.begun(g, up)
	}
	if err := g.up.Part(ctx, b, g.size, bytes); err != nil {
		return err
	}
	g.size += bytes
	return nil
}

func (q *queue) begun(g *growth, up store.Upload) {
	q.mu.Lock()
	defer q.mu.Unlock()
	g.up = up
}

// grew tells what an error of a growing segment means: nothing for the recording
// when it can go whole, else that the store is not there.
func (q *queue) grew(ctx context.Context, it *pending, g *growth, err error) error {
	switch {
	case err == nil:
		g.tries = 0
		return nil
	case errors.Is(err, errors.ErrUnsupported):
		q.noParts.Store(true)
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return err
	case !ownFault(err) && !errors.Is(err, recorder.ErrNotFound) && !errors.Is(err, store.ErrCorrupt):
		if g.tries++; g.tries < growthTries {
			return err
		}
		q.giveUp(ctx, it, g)
		return err
	}
	q.giveUp(ctx, it, g)
	return nil
}

// giveUp ends the upload of a segment; it goes whole, when it is finished.
func (q *queue) giveUp(ctx context.Context, it *pending, g *growth) {
	q.mu.Lock()
	up := g.up
	g.up, g.over = nil, true
	it.growing = slices.DeleteFunc(it.growing, func(o *growth) bool { return o == g })
	q.mu.Unlock()
	if up == nil {
		return
	}
	q.stats.Growth.GivenUp.Add(1)
	// Where the caller gave up there is still time to tidy.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	if up.Abort(ctx) == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.orphans) < orphansMax {
		q.orphans = append(q.orphans, up)
	}
}

// abortTime bounds an attempt to give up an upload.
const abortTime = 20 * time.Second

// giveUpAll ends what goes in parts of a recording.
func (q *queue) giveUpAll(ctx context.Context, it *pending) {
	q.mu.Lock()
	growing := slices.Clone(it.growing)
	q.mu.Unlock()
	for _, g := range growing {
		q.giveUp(ctx, it, g)
	}
}

// orphan gives up an upload that could not be given up before, now that the store
// takes something again.
func (q *queue) orphan(ctx context.Context) {
	q.mu.Lock()
	var up store.Upload
	if n := len(q.orphans); n > 0 && q.failed == 0 {
		up, q.orphans = q.orphans[n-1], q.orphans[:n-1]
	}
	q.mu.Unlock()
	if up == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, abortTime)
	defer cancel()
	_ = up.Abort(ctx) // else Sweep finds it
}

// completed ends the upload of a segment that grew and is finished; false: it goes
// whole. What the store puts together must be what was written, by the sum that was
// taken when it was.
func (q *queue) completed(ctx context.Context, it *pending, name string, size int64) (bool, error) {
	q.mu.Lock()
	i := slices.IndexFunc(it.growing, func(g *growth) bool { return g.name == name && !g.over })
	if i < 0 {
		q.mu.Unlock()
		return false, nil
	}
	g := it.growing[i]
	begun, sum := g.up != nil, g.sum
	q.mu.Unlock()
	if !begun || sum == nil {
		q.giveUp(ctx, it, g)
		return false, nil
	}
	part := q.s.store.(store.Uploader).PartSize() // it has begun one
	var err error
	for err == nil && g.size < size {
		err = q.part(ctx, it, g, min(part, size-g.size))
	}
	if err == nil {
		err = g.up.Complete(ctx, sum)
	}
	if err != nil {
		return false, q.grew(ctx, it, g, err)
	}
	q.mu.Lock()
	g.up = nil
	it.growing = slices.DeleteFunc(it.growing, func(o *growth) bool { return o == g })
	q.mu.Unlock()
	q.stats.Growth.Done.Add(1)
	return true, nil
}

// sweepBefore gives up what a process before this one began to upload under a
// name and did not complete. Without the right to look for it, the store's own
// rules or Sweep do.
func (q *queue) sweepBefore(ctx context.Context, it *pending, prefix string, size int64) {
	u, ok := q.s.store.(store.Uploader)
	if !ok || !it.inherited || size >= 0 && size < u.PartSize() {
		return
	}
	if n, err := u.Sweep(ctx, prefix, time.Time{}); err == nil {
		q.stats.Growth.GivenUp.Add(int64(n))
	}
}
