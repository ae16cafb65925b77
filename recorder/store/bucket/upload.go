package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// upload is an object in parts.
type upload struct {
	b     *Bucket
	name  string
	parts parts

	n    int       // parts so far
	size int64     // of them
	sum  hash.Hash // SHA-256 of them
	crc  uint32    // CRC-32C of them
	last bool      // a short part was the last
	over bool      // completed or given up
}

// NewUpload implements store.Uploader.
func (b *Bucket) NewUpload(ctx context.Context, name string) (store.Upload, error) {
	if err := b.ready(ctx, name); err != nil {
		return nil, fmt.Errorf("upload: %w", err)
	}
	u, err := b.newUpload(ctx, name)
	if err != nil {
		return nil, b.fail(ctx, "upload", name, err)
	}
	return u, nil
}

func (b *Bucket) newUpload(ctx context.Context, name string) (*upload, error) {
	ctx, cancel := b.limit(ctx, 0)
	defer cancel()
	p, err := b.service.upload(ctx, b.key(name), b.lock(name, false))
	if err != nil {
		return nil, err
	}
	return &upload{b: b, name: name, parts: p, sum: sha256.New()}, nil
}

// errOver says that an upload is completed or given up.
var errOver = errors.New("the upload is completed or given up")

// Part implements store.Upload.
func (u *upload) Part(ctx context.Context, r io.ReaderAt, off, size int64) error {
	switch {
	case u.over:
		return fmt.Errorf("upload %s: %w", u.name, errOver)
	case off != u.size:
		return fmt.Errorf("upload %s: part at %d, want %d", u.name, off, u.size)
	case size <= 0 || u.last:
		return fmt.Errorf("upload %s: part %d has less than %d bytes and is not the last", u.name, u.n, store.PartBytesMin)
	case u.n >= store.PartsMax:
		return fmt.Errorf("upload %s: it has %d parts, at most %d", u.name, u.n+1, store.PartsMax)
	}
	if err := u.part(ctx, r, off, size); err != nil {
		return u.b.fail(ctx, "upload", u.name, err)
	}
	return nil
}

func (u *upload) part(ctx context.Context, r io.ReaderAt, off, size int64) error {
	sum, err := clone(u.sum)
	if err != nil {
		return err
	}
	crc := &running{u.crc}
	c, err := digest(r, off, size, sum, crc)
	if err != nil {
		return err
	}
	ctx, cancel := u.b.limit(ctx, size)
	defer cancel()
	if err := u.b.again(ctx, func() error { return u.parts.part(ctx, u.n+1, c) }); err != nil {
		return err
	}
	u.n++
	u.size += size
	u.sum, u.crc, u.last = sum, crc.sum, size < store.PartBytesMin
	return nil
}

// clone copies a sum, so that a part that failed does not count.
func clone(h hash.Hash) (hash.Hash, error) {
	c, ok := h.(hash.Cloner)
	if !ok {
		return nil, errors.New("this SHA-256 cannot be copied")
	}
	n, err := c.Clone()
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Complete implements store.Upload.
func (u *upload) Complete(ctx context.Context, sum []byte) error {
	if u.over {
		return fmt.Errorf("upload %s: %w", u.name, errOver)
	}
	err := u.complete(ctx, sum)
	if err == nil || errors.Is(err, store.ErrCorrupt) || u.b.is(err, recorder.ErrExists) {
		u.over = true
	}
	if err != nil {
		return u.b.fail(ctx, "upload", u.name, err)
	}
	return nil
}

func (u *upload) complete(ctx context.Context, sum []byte) error {
	ctx, cancel := u.b.limit(ctx, 0)
	defer cancel()
	if !bytes.Equal(u.sum.Sum(nil), sum) {
		_ = u.parts.abort(ctx) // else Sweep finds it
		return fmt.Errorf("%w: what is to be stored changed while it was uploaded", store.ErrCorrupt)
	}
	c := content{size: u.size, crc32c: u.crc}
	u.sum.Sum(c.sha256[:0])
	err := u.b.again(ctx, func() error { return u.parts.complete(ctx, c) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrCorrupt):
		u.b.discard(ctx, u.name, c)
		_ = u.parts.abort(ctx) // else Sweep finds it
		return err
	case u.b.is(err, recorder.ErrExists), u.b.is(err, recorder.ErrNotFound):
		// Somebody else's, or ours: the answer to a call before was lost.
		if same := u.b.wantSame(ctx, u.name, c.size, c.sha256[:]); same == nil || u.b.is(err, recorder.ErrExists) {
			_ = u.parts.abort(ctx) // else Sweep finds it
			return same
		}
	}
	return err
}

// Abort implements store.Upload.
func (u *upload) Abort(ctx context.Context) error {
	if u.over {
		return nil
	}
	ctx, cancel := u.b.limit(ctx, 0)
	defer cancel()
	if err := u.parts.abort(ctx); err != nil && !u.b.is(err, recorder.ErrNotFound) {
		return u.b.fail(ctx, "abort upload", u.name, err)
	}
	u.over = true
	return nil
}

// inParts uploads a whole file in parts.
func (b *Bucket) inParts(ctx context.Context, name string, f vfs.File, c content) error {
	u, err := b.newUpload(ctx, name)
	if err != nil {
		return err
	}
	size := max(b.PartBytes, (c.size+store.PartsMax-1)/store.PartsMax)
	for off := int64(0); off < c.size && err == nil; off += size {
		err = u.part(ctx, f, off, min(size, c.size-off))
	}
	if err == nil {
		err = u.complete(ctx, c.sha256[:])
	}
	if err != nil {
		// Where the caller gave up there is still time to tidy.
		actx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.RequestTimeout)
		defer cancel()
		_ = u.parts.abort(actx) // else Sweep finds it
	}
	return err
}

// PartSize implements store.Uploader.
func (b *Bucket) PartSize() int64 { return b.PartBytes }

// Sweep implements store.Uploader.
func (b *Bucket) Sweep(ctx context.Context, prefix string, before time.Time) (int, error) {
	n, err := b.service.sweep(ctx, b.key(prefix), before)
	if err != nil {
		return n, b.fail(ctx, "sweep uploads", "", err)
	}
	return n, nil
}

// random fills p, as package crypto/rand never fails to.
func random(p []byte) { _, _ = rand.Read(p) }
