package bucket

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
)

// s3Parts is a multipart upload.
type s3Parts struct {
	s    *s3Service
	key  string
	id   string
	w    write
	done []types.CompletedPart
	sums []byte // MD5s of the parts
}

func (s *s3Service) upload(ctx context.Context, key string, w write) (parts, error) {
	in := &s3.CreateMultipartUploadInput{
		Bucket: &s.Bucket, Key: &key, ContentType: aws.String(contentType), StorageClass: types.StorageClass(s.Params["class"]),
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c, ChecksumType: types.ChecksumTypeFullObject,
	}
	in.ServerSideEncryption, in.SSEKMSKeyId = s.sse()
	in.ObjectLockMode, in.ObjectLockRetainUntilDate = lockS3(w)
	out, err := s.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		return nil, err
	}
	return &s3Parts{s: s, key: key, id: aws.ToString(out.UploadId), w: w}, nil
}

func (p *s3Parts) part(ctx context.Context, n int, c content) error {
	number := aws.Int32(int32(n)) // at most store.PartsMax
	in := &s3.UploadPartInput{
		Bucket: &p.s.Bucket, Key: &p.key, UploadId: &p.id, PartNumber: number,
		Body: c.reader(), ContentLength: &c.size, ChecksumCRC32C: crcText(c.crc32c),
	}
	var o []func(*s3.Options)
	if !strings.HasPrefix(p.s.Params["endpoint"], "http:") {
		o = append(o, s3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)) // TLS and the CRC do
	}
	out, err := p.s.client.UploadPart(ctx, in, o...)
	if err != nil {
		return err
	}
	if got := out.ChecksumCRC32C; got != nil && *got != *in.ChecksumCRC32C {
		return fmt.Errorf("%w: part %d: CRC-32C %s, want %s", store.ErrCorrupt, n, *got, *in.ChecksumCRC32C)
	}
	if err := p.s.etag(out.ETag, hex.EncodeToString(c.md5[:]), out.ServerSideEncryption); err != nil {
		return fmt.Errorf("part %d: %w", n, err)
	}
	p.done = append(p.done, types.CompletedPart{ETag: out.ETag, PartNumber: number, ChecksumCRC32C: in.ChecksumCRC32C})
	p.sums = append(p.sums, c.md5[:]...)
	return nil
}

func (p *s3Parts) complete(ctx context.Context, whole content) error {
	if len(p.done) == 0 {
		return fmt.Errorf("an upload in parts has at least one: %w", errors.ErrUnsupported)
	}
	in := &s3.CompleteMultipartUploadInput{
		Bucket: &p.s.Bucket, Key: &p.key, UploadId: &p.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: p.done},
		ChecksumCRC32C: crcText(whole.crc32c), ChecksumType: types.ChecksumTypeFullObject, MpuObjectSize: &whole.size,
	}
	if p.w.create {
		in.IfNoneMatch = aws.String("*")
	}
	out, err := p.s.client.CompleteMultipartUpload(ctx, in)
	if err != nil {
		return err
	}
	if got := out.ChecksumCRC32C; got != nil && *got != *in.ChecksumCRC32C {
		return fmt.Errorf("%w: CRC-32C %s, want %s", store.ErrCorrupt, *got, *in.ChecksumCRC32C)
	}
	sum := md5.Sum(p.sums)
	return p.s.etag(out.ETag, fmt.Sprintf("%x-%d", sum, len(p.done)), out.ServerSideEncryption)
}

func (p *s3Parts) abort(ctx context.Context) error {
	return p.s.abort(ctx, p.key, p.id)
}

func (s *s3Service) abort(ctx context.Context, key, id string) error {
	_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.Bucket, Key: &key, UploadId: &id})
	return err
}

func (s *s3Service) sweep(ctx context.Context, prefix string, before time.Time) (n int, err error) {
	pages := s3.NewListMultipartUploadsPaginator(s.client, &s3.ListMultipartUploadsInput{Bucket: &s.Bucket, Prefix: optional(prefix)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return n, err
		}
		for _, u := range page.Uploads {
			if !before.IsZero() && !aws.ToTime(u.Initiated).Before(before) || !strings.HasPrefix(aws.ToString(u.Key), prefix) {
				continue
			}
			err := s.abort(ctx, aws.ToString(u.Key), aws.ToString(u.UploadId))
			if err != nil && !s.gone(err) {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// gone tells whether an error says that what was meant is not there.
func (s *s3Service) gone(err error) bool {
	_, kind := s.fault(err)
	return errors.Is(kind, recorder.ErrNotFound)
}

const hintLockS3 = "switch on object lock for the bucket: aws s3api create-bucket --object-lock-enabled-for-bucket for a new one, " +
	"aws s3api put-bucket-versioning and put-object-lock-configuration for one that exists; or leave storage.lock out"

// prepare asks whether objects can be locked.
func (s *s3Service) prepare(ctx context.Context) error {
	if s.Lock.Mode == "" {
		return nil
	}
	out, err := s.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &s.Bucket})
	var api smithy.APIError
	switch {
	case errors.As(err, &api) && (api.ErrorCode() == "ObjectLockConfigurationNotFoundError" || api.ErrorCode() == "NotImplemented"):
	case err != nil:
		return err
	case out.ObjectLockConfiguration != nil && out.ObjectLockConfiguration.ObjectLockEnabled == types.ObjectLockEnabledEnabled:
		return nil
	}
	return hinted{store.ErrNoLock, hintLockS3}
}
