package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"gocloud.dev/blob"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
)

// Bounds of one request that reads, and with it of what an open object holds in
// memory: as much again for the window before.
const (
	readBytesMin = 64 << 10 // the first, and after a jump
	readBytesMax = 1 << 20
)

// Open implements recorder.Store. The object is read in ranges: a small one with
// one request, a long one that is read from front to end with fewer than it has MiB.
// What is read lives until Close, whatever becomes of ctx.
func (b *Bucket) Open(ctx context.Context, name string) (recorder.Blob, error) {
	if err := b.ready(ctx, name); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	lctx, cancel := b.limit(ctx, readBytesMin)
	defer cancel()
	o, err := b.open(lctx, name)
	if err != nil {
		return nil, b.fail(lctx, "open", name, err)
	}
	return o, nil
}

func (b *Bucket) open(ctx context.Context, name string) (*object, error) {
	o := &object{b: b, name: name, step: readBytesMin}
	w := window{buf: make([]byte, readBytesMin)}
	n, err := o.fetch(ctx, w.buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		// A range of an empty object is refused as one that lies behind its end.
		a, aerr := b.bucket.Attributes(ctx, b.key(name))
		if aerr != nil || a.Size != 0 {
			return nil, err
		}
		o.size, o.modified = 0, a.ModTime
	}
	w.buf = w.buf[:n]
	o.windows[0] = w
	o.ctx, o.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return o, nil
}

// object is an open object.
type object struct {
	b        *Bucket
	name     string
	size     int64
	modified time.Time

	ctx    context.Context // ends at Close
	cancel context.CancelFunc

	mu      sync.Mutex // guards all following
	windows [2]window  // the last one first
	step    int        // bytes of the next request, when it goes on where the last one ended
}

// window is a part of the object in memory.
type window struct {
	off int64
	buf []byte
}

func (w window) end() int64 { return w.off + int64(len(w.buf)) }

// Size implements recorder.Blob.
func (o *object) Size() int64 { return o.size }

// Close implements recorder.Blob. It ends what is being read.
func (o *object) Close() error {
	o.cancel()
	return nil
}

// ReadAt implements io.ReaderAt.
func (o *object) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s at %d: negative", o.name, off)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= o.size {
			return done, io.EOF
		}
		if n := o.cached(p[done:], at); n > 0 {
			done += n
			continue
		}
		if err := o.load(at, len(p)-done); err != nil {
			return done, err
		}
	}
	return done, nil
}

// cached copies what is in memory.
func (o *object) cached(p []byte, at int64) int {
	for _, w := range o.windows {
		if at >= w.off && at < w.end() {
			return copy(p, w.buf[at-w.off:])
		}
	}
	return 0
}

// load reads what follows a place into memory: more each time as long as it is
// where the last read ended.
func (o *object) load(at int64, want int) error {
	if at == o.windows[0].end() {
		o.step = min(2*o.step, readBytesMax)
	} else {
		o.step = readBytesMin
	}
	n := min(int64(max(o.step, min(want, readBytesMax))), o.size-at)
	ctx, cancel := o.b.limit(o.ctx, n)
	defer cancel()
	w := window{off: at, buf: make([]byte, n)}
	got, err := o.fetch(ctx, w.buf, at)
	if int64(got) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return o.b.fail(ctx, "read", o.name, err)
	}
	o.windows[1], o.windows[0] = o.windows[0], w
	return nil
}

// fetch fills p from a place on, with as many requests as it takes: connections
// break in the middle. io.EOF at the object's end.
func (o *object) fetch(ctx context.Context, p []byte, at int64) (int, error) {
	done := 0
	for n := 1; ; n++ {
		got, err := o.fetchOnce(ctx, p[done:], at+int64(done))
		done += got
		if err == nil || errors.Is(err, io.EOF) || n >= o.b.Attempts || !broken(err) {
			return done, err
		}
		if got > 0 {
			n = 1
		}
		if sleep(ctx, o.b.backoff(n)) != nil {
			return done, err
		}
	}
}

// brokenError is a body that broke off, after an answer that was fine.
type brokenError struct{ error }

// Unwrap returns why.
func (e brokenError) Unwrap() error { return e.error }

// broken tells whether the rest may be had with another request. Requests that
// were not answered were tried again already.
func broken(err error) bool {
	var b brokenError
	return errors.As(err, &b)
}

func (o *object) fetchOnce(ctx context.Context, p []byte, at int64) (int, error) {
	r, err := o.b.bucket.NewRangeReader(ctx, o.b.key(o.name), at, int64(len(p)), &blob.ReaderOptions{})
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }() // only read
	switch {
	case o.modified.IsZero():
		o.size, o.modified = r.Size(), r.ModTime()
	case o.size != r.Size() || !o.modified.Equal(r.ModTime()):
		return 0, fmt.Errorf("%w: it was replaced while it was read", store.ErrCorrupt)
	}
	want := min(int64(len(p)), max(o.size-at, 0))
	n, err := io.ReadFull(r, p[:want])
	switch {
	case err != nil:
		return n, brokenError{err}
	case n < len(p):
		return n, io.EOF
	}
	return n, nil
}
