// Package bucket keeps finished objects in the object stores of S3, Google
// Cloud Storage and Azure.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/storage"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/store/location"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Limits that are the same for all services.
const (
	attempts       = 4 // of a request
	requestTimeout = 20 * time.Second
	bytesPerSecond = 64 << 10 // a connection slower than that counts as broken
	partBytes      = 8 << 20
	retryFirst     = 200 * time.Millisecond
	retryMost      = 5 * time.Second
)

// Open opens the store that a URL names; see location.Parse. It does not ask the
// service anything: a store that is down at start is no reason not to start.
// See store.Preparer for what a daemon asks then.
func Open(ctx context.Context, url string, o store.Options) (recorder.Store, error) {
	l, err := location.Parse(url)
	if err != nil {
		return nil, err
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("storage %s: %w", l, err)
	}
	if l.Scheme == "file" {
		if o.Lock.Mode != "" {
			return nil, fmt.Errorf("storage %s: lock: a directory has none; s3, gs and azblob have", l)
		}
		return store.OpenDir(store.DirConfig{Root: l.Dir, FS: o.FS, FreeBytesMin: o.FreeBytesMin, ReadOnly: o.ReadOnly})
	}
	c := config{Location: l, Options: defaults(o)}
	var b *Bucket
	switch l.Scheme {
	case "s3":
		b, err = openS3(ctx, c)
	case "gs":
		b, err = openGCS(ctx, c)
	default:
		b, err = openAzure(ctx, c)
	}
	if err != nil {
		return nil, fmt.Errorf("storage %s: %w", l, err)
	}
	return b, nil
}

// config is what a service is opened with.
type config struct {
	location.Location
	store.Options
}

func defaults(o store.Options) store.Options {
	if o.PartBytes == 0 {
		o.PartBytes = partBytes
	}
	if o.Attempts == 0 {
		o.Attempts = attempts
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = requestTimeout
	}
	if o.RetryFirst == 0 {
		o.RetryFirst = retryFirst
	}
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	return o
}

// client is a client for the requests of a service, with limits of time.
func (c config) client(base http.RoundTripper) *http.Client {
	if c.Transport != nil {
		base = c.Transport
	}
	return &http.Client{Transport: &limited{base: base, timeout: c.RequestTimeout}}
}

// service is what the services do each in their own way. Keys are names with
// the store's prefix. Errors are those of the service; see fault.
type service interface {
	// put stores an object in one request. The service checks that it got the
	// bytes; what it says that it got is compared.
	put(ctx context.Context, key string, c content, w write) error
	// upload begins an object in parts; errors.ErrUnsupported.
	upload(ctx context.Context, key string, w write) (parts, error)
	// remove deletes an object with all its versions.
	remove(ctx context.Context, key string) error
	// sweep gives up uploads in parts that began before a time.
	sweep(ctx context.Context, prefix string, before time.Time) (int, error)
	// prepare tells whether the bucket can lock objects.
	prepare(ctx context.Context) error
	// fault tells what an error is and what to do; nil, "": not known.
	fault(err error) (hint string, kind error)
}

// parts is an object on its way.
type parts interface {
	part(ctx context.Context, n int, c content) error // n from 1; the same n again replaces
	complete(ctx context.Context, whole content) error
	abort(ctx context.Context) error
}

// write says how an object is written.
type write struct {
	create bool      // only if there is none
	until  time.Time // zero: not locked
	mode   store.LockMode
}

// Bucket is a store in a bucket. Safe for concurrent use.
type Bucket struct {
	config
	bucket  *blob.Bucket
	service service

	check checker
}

var (
	_ recorder.Store     = (*Bucket)(nil)
	_ store.FileUploader = (*Bucket)(nil)
	_ store.Uploader     = (*Bucket)(nil)
	_ store.FromLister   = (*Bucket)(nil)
	_ store.Preparer     = (*Bucket)(nil)
)

// New makes a store of a bucket that is open already, without locks, parts and
// versions: for tests, on gocloud.dev's memblob.
func New(b *blob.Bucket, o store.Options) *Bucket {
	return newBucket(config{Location: location.Location{Scheme: "mem", Bucket: "memory"}, Options: defaults(o)}, b, plain{b})
}

func newBucket(c config, b *blob.Bucket, s service) *Bucket {
	return &Bucket{config: c, bucket: b, service: s}
}

// Close lets go of connections.
func (b *Bucket) Close() error { return b.bucket.Close() }

// String names the store for people.
func (b *Bucket) String() string { return b.Location.String() }

func (b *Bucket) key(name string) string {
	if b.Prefix == "" {
		return name
	}
	return b.Prefix + "/" + name
}

// name is the reverse of key; false for what is not an object of this store.
func (b *Bucket) name(key string) (string, bool) {
	name := key
	if b.Prefix != "" {
		var ok bool
		if name, ok = strings.CutPrefix(key, b.Prefix+"/"); !ok {
			return "", false
		}
	}
	return name, store.CheckName(name) == nil
}

// lock says how an object of that name is written now.
func (b *Bucket) lock(name string, put bool) write {
	applies := !put
	if b.Lock.Applies != nil {
		applies = b.Lock.Applies(name)
	}
	if b.Lock.Mode == "" || !applies {
		return write{create: !put}
	}
	// Azure and S3 keep seconds; a lock must not end before its time.
	until := time.Now().UTC().Add(b.Lock.For).Truncate(time.Second).Add(time.Second)
	return write{create: !put, until: until, mode: b.Lock.Mode}
}

// limit bounds an operation with all its attempts.
func (b *Bucket) limit(ctx context.Context, bytes int64) (context.Context, context.CancelFunc) {
	each := b.RequestTimeout + timeOf(bytes) + retryMost
	return context.WithTimeoutCause(ctx, time.Duration(b.Attempts)*each, errSlow)
}

var errSlow = fmt.Errorf("the store took too long: %w", context.DeadlineExceeded)

func timeOf(bytes int64) time.Duration {
	return time.Duration(bytes/bytesPerSecond+1) * time.Second
}

// Delete implements recorder.Store. An object that is locked gives *store.LockedError.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	if err := b.ready(ctx, name); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	ctx, cancel := b.limit(ctx, 0)
	defer cancel()
	if err := b.service.remove(ctx, b.key(name)); err != nil {
		var locked *store.LockedError
		if errors.As(err, &locked) {
			locked.Name = name
		}
		return b.fail(ctx, "delete", name, err)
	}
	return nil
}

// List implements recorder.Store.
func (b *Bucket) List(ctx context.Context, prefix string, f func(recorder.BlobInfo) error) error {
	return b.list(ctx, prefix, "", f)
}

// ListFrom implements store.FromLister. Services that cannot begin at a name list all.
func (b *Bucket) ListFrom(ctx context.Context, from string, f func(recorder.BlobInfo) error) error {
	return b.list(ctx, "", from, f)
}

func (b *Bucket) list(ctx context.Context, prefix, from string, f func(recorder.BlobInfo) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list %q: %w", prefix, err)
	}
	for token := blob.FirstPageToken; len(token) > 0; {
		page, next, err := b.page(ctx, prefix, from, token)
		if err != nil {
			return err
		}
		for _, o := range page {
			name, ours := b.name(o.Key)
			if !ours || o.IsDir || name < from {
				continue
			}
			if err := f(recorder.BlobInfo{Name: name, Size: o.Size, Modified: o.ModTime}); err != nil {
				return fmt.Errorf("list %q: %w", prefix, err)
			}
		}
		token = next
	}
	return nil
}

// listPage is what one request lists.
const listPage = 1000

func (b *Bucket) page(ctx context.Context, prefix, from string, token []byte) ([]*blob.ListObject, []byte, error) {
	ctx, cancel := b.limit(ctx, 0)
	defer cancel()
	o := &blob.ListOptions{Prefix: b.key(prefix)}
	if from != "" {
		o.BeforeList = func(as func(any) bool) error { beginAt(b.key(from), as); return nil }
	}
	page, next, err := b.bucket.ListPage(ctx, token, listPage, o)
	if err != nil {
		return nil, nil, b.fail(ctx, "list "+prefix, "", err)
	}
	return page, next, nil
}

// beginAt lets a listing begin at a key, about.
func beginAt(key string, as func(any) bool) {
	var s *s3.ListObjectsV2Input
	if as(&s) && s.ContinuationToken == nil {
		s.StartAfter = &key // and not itself: folders are no objects
	}
	var g *storage.Query
	if as(&g) {
		g.StartOffset = key
	}
}

// Limits of Check.
const (
	checkFresh   = 10 * time.Second // an answer is used for so long
	checkRetry   = 2 * time.Second  // the same when it was a fault
	checkTimeout = 5 * time.Second
)

// checker remembers what Check found.
type checker struct {
	mu     sync.Mutex
	asking bool
	asked  bool // there is an answer
	err    error
	at     time.Time
}

// Check implements recorder.Store: the bucket can be listed. It asks the service
// every ten seconds at most, and nobody waits while another asks already.
func (b *Bucket) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &b.check
	c.mu.Lock()
	fresh := checkFresh
	if c.err != nil {
		fresh = checkRetry
	}
	if c.asked && (c.asking || time.Since(c.at) < fresh) {
		defer c.mu.Unlock()
		return c.err
	}
	c.asking = true
	c.mu.Unlock()

	err := b.look(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asking = false
	if ctx.Err() == nil { // else it tells of the caller, not of the store
		c.asked, c.err, c.at = true, err, time.Now()
	}
	return err
}

func (b *Bucket) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, errSlow)
	defer cancel()
	_, _, err := b.bucket.ListPage(ctx, blob.FirstPageToken, 1, &blob.ListOptions{Prefix: b.key("")})
	if err != nil {
		return b.fail(ctx, "check", "", err)
	}
	return nil
}
