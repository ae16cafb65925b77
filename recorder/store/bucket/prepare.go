package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"gocloud.dev/blob"

	"github.com/trunktap/trunktap/recorder"
)

// probe is the object by which Prepare finds out what the bucket does. No
// object's name begins with a dot, so it is never listed.
const probe = ".trunktap-check"

// Prepare implements store.Preparer. It leaves one small object in the bucket.
func (b *Bucket) Prepare(ctx context.Context) error {
	ctx, cancel := b.limit(ctx, 0)
	defer cancel()
	if err := b.service.prepare(ctx); err != nil {
		return b.fail(ctx, "check", "", err)
	}
	if err := b.look(ctx); err != nil {
		return err
	}
	if err := b.once(ctx); err != nil {
		return b.fail(ctx, "check", probe, err)
	}
	return nil
}

// once tells whether the bucket takes an object, and the same name once only.
func (b *Bucket) once(ctx context.Context) error {
	body := []byte("trunktap keeps recordings here\n")
	c, err := digest(bytes.NewReader(body), 0, int64(len(body)))
	if err != nil {
		return err
	}
	for range 2 {
		err := b.put(ctx, probe, c, write{create: true})
		if b.is(err, recorder.ErrExists) {
			return b.readable(ctx)
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("the service overwrites objects though it is told not to (If-None-Match: *): %w", errors.ErrUnsupported)
}

func (b *Bucket) readable(ctx context.Context) error {
	r, err := b.bucket.NewReader(ctx, b.key(probe), &blob.ReaderOptions{})
	if err != nil {
		return err
	}
	return r.Close()
}
