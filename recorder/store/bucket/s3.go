package bucket

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	"gocloud.dev/blob/s3blob"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
)

// s3Service is Amazon S3, and what speaks its protocol.
type s3Service struct {
	config
	client *s3.Client
}

// regionDefault is what services that have no regions want to hear.
const regionDefault = "us-east-1"

func openS3(ctx context.Context, c config) (*Bucket, error) {
	load := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts = c.Attempts
				o.Backoff = retry.BackoffDelayerFunc(func(n int, _ error) (time.Duration, error) { return jitter(c.backoff(n)), nil })
				o.RateLimiter = noLimit{} // the queue behind it slows down by itself
			})
		}),
	}
	if c.Credentials != "" {
		load = append(load, awsconfig.WithSharedCredentialsFiles([]string{c.Credentials}))
	}
	if p := c.Params["profile"]; p != "" {
		load = append(load, awsconfig.WithSharedConfigProfile(p))
	}
	if r := c.Params["region"]; r != "" {
		load = append(load, awsconfig.WithRegion(r))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("settings of the S3 client: %w", err)
	}
	if c.Credentials != "" {
		// What is configured wins over the environment.
		if cfg.Credentials, err = sharedCredentials(ctx, c); err != nil {
			return nil, err
		}
	}
	endpoint := c.Params["endpoint"]
	if cfg.Region == "" {
		if endpoint == "" {
			return nil, errors.New("no region: give it as ?region=… in the URL or as AWS_REGION")
		}
		cfg.Region = regionDefault
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.HTTPClient, o.Logger = c.client(ownRoots(cfg)), logging.Nop{}
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
		o.UsePathStyle = c.Params["path_style"] == "true" || endpoint != "" && c.Params["path_style"] == ""
		// Services of others do not know the checksums that Amazon's client adds by itself.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	b, err := s3blob.OpenBucket(ctx, client, c.Bucket, nil)
	if err != nil {
		return nil, err
	}
	return newBucket(c, b, &s3Service{c, client}), nil
}

// ownRoots is a transport that trusts the authorities of AWS_CA_BUNDLE, if any.
func ownRoots(cfg aws.Config) *http.Transport {
	t := newTransport()
	if c, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		if tls := c.GetTransport().TLSClientConfig; tls != nil && tls.RootCAs != nil {
			t.TLSClientConfig = tls.Clone()
		}
	}
	return t
}

// sharedCredentials reads the file that is configured.
func sharedCredentials(ctx context.Context, c config) (aws.CredentialsProvider, error) {
	profile := c.Params["profile"]
	if profile == "" {
		profile = awsconfig.DefaultSharedConfigProfile
	}
	s, err := awsconfig.LoadSharedConfigProfile(ctx, profile, func(o *awsconfig.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{c.Credentials}, []string{}
	})
	if err != nil {
		return nil, fmt.Errorf("storage.credentials %s: %w", c.Credentials, err)
	}
	if !s.Credentials.HasKeys() {
		return nil, fmt.Errorf("storage.credentials %s: profile %s has no aws_access_key_id and aws_secret_access_key", c.Credentials, profile)
	}
	v := s.Credentials
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return v, nil }), nil
}

// noLimit lets every retry pass: how many there are is bounded by request.
type noLimit struct{}

// GetToken implements retry.RateLimiter.
func (noLimit) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}

// AddTokens implements retry.RateLimiter.
func (noLimit) AddTokens(uint) error { return nil }

func b64(b []byte) *string { return aws.String(base64.StdEncoding.EncodeToString(b)) }

func crcText(sum uint32) *string { return b64(binary.BigEndian.AppendUint32(nil, sum)) }

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// payload makes the client sign the sum that is known instead of reading all again.
func payload(sum []byte) func(*s3.Options) {
	return s3.WithAPIOptions(func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("payloadHash",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				return next.HandleInitialize(v4.SetPayloadHash(ctx, hex.EncodeToString(sum)), in)
			}), middleware.Before)
	})
}

func (s *s3Service) sse() (types.ServerSideEncryption, *string) {
	key := optional(s.Params["kms_key"])
	if key != nil && s.Params["sse"] == "" {
		return types.ServerSideEncryptionAwsKms, key
	}
	return types.ServerSideEncryption(s.Params["sse"]), key
}

func lockS3(w write) (types.ObjectLockMode, *time.Time) {
	if w.until.IsZero() {
		return "", nil
	}
	return types.ObjectLockMode(strings.ToUpper(string(w.mode))), aws.Time(w.until)
}

func (s *s3Service) put(ctx context.Context, key string, c content, w write) error {
	in := &s3.PutObjectInput{
		Bucket: &s.Bucket, Key: &key, Body: c.reader(), ContentLength: &c.size, ContentType: aws.String(contentType),
		ChecksumSHA256: b64(c.sha256[:]), StorageClass: types.StorageClass(s.Params["class"]),
	}
	in.ServerSideEncryption, in.SSEKMSKeyId = s.sse()
	in.ObjectLockMode, in.ObjectLockRetainUntilDate = lockS3(w)
	if w.create {
		in.IfNoneMatch = aws.String("*")
	}
	out, err := s.client.PutObject(ctx, in, payload(c.sha256[:]))
	if err != nil {
		return err
	}
	if got := out.ChecksumSHA256; got != nil && *got != *in.ChecksumSHA256 {
		return fmt.Errorf("%w: SHA-256 %s, want %s", store.ErrCorrupt, *got, *in.ChecksumSHA256)
	}
	return s.etag(out.ETag, hex.EncodeToString(c.md5[:]), out.ServerSideEncryption)
}

// etag compares what the service calls the object's content with what it must
// be. Amazon's is the MD5 unless a key of KMS encrypts it.
func (s *s3Service) etag(got *string, want string, sse types.ServerSideEncryption) error {
	if s.Params["etag"] == "opaque" || sse != "" && sse != types.ServerSideEncryptionAes256 {
		return nil
	}
	if g := strings.Trim(aws.ToString(got), `"`); g != want {
		return fmt.Errorf("%w: ETag %q, want %q; a service whose ETags are no MD5 needs etag=opaque in storage.url", store.ErrCorrupt, g, want)
	}
	return nil
}

// remove deletes the object with all versions of it: in a bucket that keeps
// versions a plain deletion hides an object and keeps every byte.
func (s *s3Service) remove(ctx context.Context, key string) error {
	head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.Bucket, Key: &key})
	switch {
	case err != nil && s.gone(err):
		// Nothing, or no bucket, or one in which somebody hid it: the answer has no words.
		n, lerr := s.removeVersions(ctx, key, &s3.HeadObjectOutput{})
		if n > 0 || lerr != nil {
			return lerr
		}
		return err
	case err != nil:
		return err
	case aws.ToString(head.VersionId) != "":
		// Where versions are told of and cannot be listed the plain deletion is all there is.
		if n, err := s.removeVersions(ctx, key, head); n > 0 || err != nil {
			return err
		}
	}
	_, err = s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.Bucket, Key: &key})
	return s.locked(err, head)
}

// removeVersions deletes all that the bucket keeps under a key and returns how
// many there were. The newest goes last: what is refused on the way leaves the object
// as it is, and never an older one in its place.
func (s *s3Service) removeVersions(ctx context.Context, key string, head *s3.HeadObjectOutput) (n int, err error) {
	if l := lockIn(head); l != nil {
		return 0, l
	}
	var kept, markers []string // newest first
	pages := s3.NewListObjectVersionsPaginator(s.client, &s3.ListObjectVersionsInput{Bucket: &s.Bucket, Prefix: &key})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		var api smithy.APIError
		if errors.As(err, &api) && api.ErrorCode() == "NotImplemented" {
			return n, nil // a service without versions
		}
		if err != nil {
			return n, err
		}
		for _, v := range page.Versions {
			if aws.ToString(v.Key) == key {
				kept = append(kept, aws.ToString(v.VersionId))
			}
		}
		for _, m := range page.DeleteMarkers {
			if aws.ToString(m.Key) == key {
				markers = append(markers, aws.ToString(m.VersionId))
			}
		}
	}
	slices.Reverse(kept)
	for _, id := range slices.Concat(kept, markers) { // a marker hides what is there: it goes behind that
		if _, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.Bucket, Key: &key, VersionId: &id}); err != nil {
			return n, s.locked(err, head)
		}
		n++
	}
	return n, nil
}

// locked tells whether a deletion was refused because of a lock.
func (s *s3Service) locked(err error, head *s3.HeadObjectOutput) error {
	var api smithy.APIError
	if !errors.As(err, &api) || code(err) != http.StatusForbidden && api.ErrorCode() != "AccessDenied" && api.ErrorCode() != "InvalidRequest" {
		return err
	}
	if l := lockIn(head); l != nil {
		return l
	}
	if strings.Contains(strings.ToLower(api.ErrorMessage()), "lock") {
		return &store.LockedError{}
	}
	return err
}

// lockIn returns the lock that the service tells of; nil: it tells of none.
func lockIn(head *s3.HeadObjectOutput) error {
	if until := aws.ToTime(head.ObjectLockRetainUntilDate); until.After(time.Now()) {
		return &store.LockedError{Until: until, Mode: store.LockMode(strings.ToLower(string(head.ObjectLockMode)))}
	}
	if head.ObjectLockLegalHoldStatus == types.ObjectLockLegalHoldStatusOn {
		return &store.LockedError{}
	}
	return nil
}

func code(err error) int {
	var resp *awshttp.ResponseError
	if errors.As(err, &resp) {
		return resp.HTTPStatusCode()
	}
	return 0
}

func (s *s3Service) fault(err error) (hint string, kind error) {
	var api smithy.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode() {
		case "NoSuchBucket":
			return hintBucket, store.ErrNoBucket
		case "NoSuchKey", "NotFound", "NoSuchUpload", "NoSuchVersion":
			return "", recorder.ErrNotFound
		case "PreconditionFailed", "ConditionalRequestConflict":
			return hintExists, recorder.ErrExists
		case "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "InvalidDigest":
			return hintCorrupt, store.ErrCorrupt
		case "RequestTimeTooSkewed", "RequestExpired":
			return hintClock, store.ErrClock
		case "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "AllAccessDisabled",
			"XAdminUserNotFound":
			return hintAccess, fs.ErrPermission
		case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
			return "the bucket lies in another region: correct region in storage.url", nil
		case "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "NoSpaceLeftOnDevice":
			return hintSpace, syscall.ENOSPC
		case "InvalidRequest":
			if strings.Contains(strings.ToLower(api.ErrorMessage()), "lock") {
				return hintLockS3, store.ErrNoLock
			}
		}
	}
	switch c := code(err); c {
	case 0:
	case http.StatusNotFound:
		return hintEndpoint, nil // no object is said to be missing unless in so many words
	default:
		return status(c)
	}
	var sign *v4.SigningError
	if errors.As(err, &sign) || strings.Contains(err.Error(), "credentials") {
		return "no credentials found: give storage.credentials, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine a role", fs.ErrPermission
	}
	return "", nil
}
