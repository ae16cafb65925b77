package bucket

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// content is what is uploaded, with the sums that services check.
type content struct {
	r       io.ReaderAt
	off     int64
	size    int64
	md5     [md5.Size]byte // services' ETag or Content-MD5; no protection against people
	sha256  [sha256.Size]byte
	crc32c  uint32
	md5Only bool // sha256 is not known: one of a multipart's parts
}

// reader reads it from its beginning.
func (c content) reader() *io.SectionReader { return io.NewSectionReader(c.r, c.off, c.size) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// digest reads the content once. The writers get all of it, too.
func digest(r io.ReaderAt, off, size int64, also ...io.Writer) (content, error) {
	c := content{r: r, off: off, size: size, md5Only: len(also) > 0}
	m, crc := md5.New(), crc32.New(castagnoli)
	writers := append([]io.Writer{m, crc}, also...)
	sha := sha256.New()
	if !c.md5Only {
		writers = append(writers, sha)
	}
	n, err := io.Copy(io.MultiWriter(writers...), c.reader())
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return content{}, fmt.Errorf("read what is to be stored: %w", err)
	}
	m.Sum(c.md5[:0])
	sha.Sum(c.sha256[:0])
	c.crc32c = crc.Sum32()
	return c, nil
}

// Publish implements recorder.Store.
func (b *Bucket) Publish(ctx context.Context, name, localFile string) error {
	err := b.Upload(ctx, name, localFile)
	if errors.Is(err, fs.ErrNotExist) && b.has(ctx, name) {
		return nil // a call before failed in its last step
	}
	if err != nil {
		return err
	}
	if err := b.FS.Remove(localFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	return nil
}

func (b *Bucket) has(ctx context.Context, name string) bool {
	ctx, cancel := b.limit(ctx, 0)
	defer cancel()
	ok, err := b.bucket.Exists(ctx, b.key(name))
	return err == nil && ok
}

// Upload implements store.FileUploader.
func (b *Bucket) Upload(ctx context.Context, name, localFile string) error {
	if err := b.ready(ctx, name); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	f, err := b.FS.OpenFile(localFile, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	c, err := digest(f, 0, info.Size())
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	if err := b.create(ctx, name, f, c); err != nil {
		return b.fail(ctx, "publish", name, err)
	}
	return nil
}

func (b *Bucket) ready(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return store.CheckName(name)
}

// create stores an object that must not be there with other content.
func (b *Bucket) create(ctx context.Context, name string, f vfs.File, c content) error {
	if c.size > 2*b.PartBytes {
		if err := b.inParts(ctx, name, f, c); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	ctx, cancel := b.limit(ctx, c.size)
	defer cancel()
	err := b.put(ctx, name, c, b.lock(name, false))
	switch {
	case b.is(err, recorder.ErrExists):
		return b.wantSame(ctx, name, c.size, c.sha256[:])
	case errors.Is(err, store.ErrCorrupt):
		b.discard(ctx, name, c)
	}
	return err
}

func (b *Bucket) put(ctx context.Context, name string, c content, w write) error {
	return b.again(ctx, func() error { return b.service.put(ctx, b.key(name), c, w) })
}

// again makes another attempt after a fault that may pass. Services whose
// clients do so themselves answer with errors that are final, but for bytes that
// changed on the way and were refused.
func (b *Bucket) again(ctx context.Context, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if err == nil || n >= b.Attempts || !b.passing(err) || sleep(ctx, b.backoff(n)) != nil {
			return err
		}
	}
}

func (b *Bucket) passing(err error) bool {
	var r retryError
	if errors.As(err, &r) {
		return true
	}
	_, kind := b.service.fault(err)
	return errors.Is(kind, store.ErrCorrupt) && !errors.Is(err, store.ErrCorrupt)
}

// retryError is a fault after which a service wants another attempt.
type retryError struct{ error }

// Unwrap returns the fault.
func (e retryError) Unwrap() error { return e.error }

// backoff is how long to wait after so many attempts.
func (c config) backoff(n int) time.Duration { return min(c.RetryFirst<<min(n-1, 20), retryMost) }

// jitter makes that not all come back at once.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// sleep waits for about d.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(jitter(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// discard takes away what the service stored otherwise than it was told. What is
// there and right after all, though the answer said otherwise, stays: the next
// attempt finds it, and others may rely on it.
func (b *Bucket) discard(ctx context.Context, name string, c content) {
	if err := b.wantSame(ctx, name, c.size, c.sha256[:]); errors.Is(err, recorder.ErrExists) {
		_ = b.service.remove(ctx, b.key(name)) // the next attempt says that it is there
	}
}

// wantSame tells whether an object has this content; ErrExists when it has another.
func (b *Bucket) wantSame(ctx context.Context, name string, size int64, sum []byte) error {
	there, err := b.open(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = there.Close() }() // only read
	if there.Size() != size {
		return recorder.ErrExists
	}
	h := sha256.New()
	buf := make([]byte, readBytesMax)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := there.ReadAt(buf, off)
		_, _ = h.Write(buf[:n]) // never fails
		off += int64(n)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if !bytes.Equal(h.Sum(nil), sum) {
		return recorder.ErrExists
	}
	return nil
}

// Put implements recorder.Store.
func (b *Bucket) Put(ctx context.Context, name string, body []byte) error {
	if err := b.ready(ctx, name); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	c, err := digest(bytes.NewReader(body), 0, int64(len(body)))
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	ctx, cancel := b.limit(ctx, c.size)
	defer cancel()
	if err := b.put(ctx, name, c, b.lock(name, true)); err != nil {
		return b.fail(ctx, "put", name, err)
	}
	return nil
}
