package bucket

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
)

// gcsService is Google Cloud Storage.
type gcsService struct {
	config
	bucket *storage.BucketHandle
}

const gcsScope = "https://www.googleapis.com/auth/devstorage.full_control" // retention of objects asks for it

func openGCS(ctx context.Context, c config) (*Bucket, error) {
	client := c.client(newTransport())
	endpoint := c.Params["endpoint"]
	if endpoint == "" {
		if host := os.Getenv("STORAGE_EMULATOR_HOST"); host != "" {
			endpoint = "http://" + strings.TrimPrefix(host, "http://")
		}
	}
	o := []option.ClientOption{storage.WithJSONReads()}
	if endpoint != "" {
		o = append(o, option.WithEndpoint(strings.TrimSuffix(endpoint, "/")+"/storage/v1/"))
	}
	// Another service than Google's own gets no token that Google's would take.
	if endpoint == "" || c.Credentials != "" {
		ts, err := gcsToken(ctx, c)
		if err != nil {
			return nil, err
		}
		client.Transport = &oauth2.Transport{Base: client.Transport, Source: ts}
	}
	sc, err := storage.NewClient(ctx, append(o, option.WithHTTPClient(client))...)
	if err != nil {
		return nil, err
	}
	sc.SetRetry(storage.WithPolicy(storage.RetryAlways), storage.WithMaxAttempts(c.Attempts),
		storage.WithBackoff(gax.Backoff{Initial: c.RetryFirst, Max: retryMost, Multiplier: 2}), storage.WithErrorFunc(gcsRetry))
	b, err := gcsblob.OpenBucket(ctx, nil, c.Bucket, &gcsblob.Options{Client: sc})
	if err != nil {
		return nil, err
	}
	return newBucket(c, b, &gcsService{c, sc.Bucket(c.Bucket)}), nil
}

func gcsToken(ctx context.Context, c config) (oauth2.TokenSource, error) {
	if c.Credentials == "" {
		creds, err := gcp.DefaultCredentials(ctx)
		if err != nil {
			return nil, fmt.Errorf("no credentials found: give storage.credentials, GOOGLE_APPLICATION_CREDENTIALS or the machine a service account: %w", err)
		}
		return creds.TokenSource, nil
	}
	text, err := os.ReadFile(c.Credentials)
	if err != nil {
		return nil, fmt.Errorf("storage.credentials: %w", err)
	}
	cfg, err := google.JWTConfigFromJSON(text, gcsScope)
	if err != nil {
		return nil, fmt.Errorf("storage.credentials %s: want the JSON key of a service account", c.Credentials)
	}
	return cfg.TokenSource(context.WithoutCancel(ctx)), nil
}

// gcsRetry adds what took too long.
func gcsRetry(err error) bool {
	var slow slowError
	return storage.ShouldRetry(err) || errors.As(err, &slow)
}

// put sends the object in one request, from the file: in resumable pieces the
// library keeps each in memory. Hence the attempts are made here.
func (s *gcsService) put(ctx context.Context, key string, c content, w write) error {
	o := s.bucket.Object(key)
	if w.create {
		o = o.If(storage.Conditions{DoesNotExist: true})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // gives up what is not closed
	out := o.NewWriter(ctx)
	out.ChunkSize = 0
	out.ContentType, out.StorageClass, out.KMSKeyName = contentType, s.Params["class"], s.Params["kms_key"]
	out.CRC32C, out.SendCRC32C, out.MD5 = c.crc32c, true, c.md5[:]
	if !w.until.IsZero() {
		out.Retention = &storage.ObjectRetention{Mode: gcsMode(w.mode), RetainUntil: w.until}
	}
	_, err := io.Copy(out, c.reader())
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		if gcsRetry(err) {
			return retryError{err}
		}
		return err
	}
	a := out.Attrs()
	if a.Size != c.size || a.CRC32C != c.crc32c || len(a.MD5) > 0 && hex.EncodeToString(a.MD5) != hex.EncodeToString(c.md5[:]) {
		return fmt.Errorf("%w: %d bytes with CRC-32C %08x, want %d with %08x", store.ErrCorrupt, a.Size, a.CRC32C, c.size, c.crc32c)
	}
	return nil
}

// gcsMode: what is unlocked may be shortened by who has the right to.
func gcsMode(m store.LockMode) string {
	if m == store.Compliance {
		return "Locked"
	}
	return "Unlocked"
}

// upload: objects are sent whole. What the service offers for the other case
// are pieces that are kept in memory, or objects of their own that are put
// together and must be deleted, which a lock of the bucket forbids.
func (*gcsService) upload(context.Context, string, write) (parts, error) {
	return nil, errors.ErrUnsupported
}

func (*gcsService) sweep(context.Context, string, time.Time) (int, error) { return 0, nil }

// remove deletes each generation of the object: by its number it is gone for
// good, whether the bucket keeps versions or not.
func (s *gcsService) remove(ctx context.Context, key string) error {
	found := false
	it := s.bucket.Objects(ctx, &storage.Query{Prefix: key, Versions: true})
	for {
		a, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return err
		}
		if a.Name != key {
			continue
		}
		found = true
		err = s.bucket.Object(key).Generation(a.Generation).Delete(ctx)
		if err != nil && !errors.Is(err, storage.ErrObjectNotExist) {
			return gcsLocked(err, a)
		}
	}
	if !found {
		return recorder.ErrNotFound
	}
	return nil
}

func gcsLocked(err error, a *storage.ObjectAttrs) error {
	var api *googleapi.Error
	if !errors.As(err, &api) || api.Code != http.StatusForbidden {
		return err
	}
	l := &store.LockedError{Until: a.RetentionExpirationTime}
	if a.Retention != nil {
		if l.Mode = store.Governance; a.Retention.Mode == "Locked" {
			l.Mode = store.Compliance
		}
		if a.Retention.RetainUntil.After(l.Until) {
			l.Until = a.Retention.RetainUntil
		}
	}
	if l.Until.IsZero() && !a.EventBasedHold && !a.TemporaryHold {
		return err
	}
	return l
}

const hintLockGCS = "make a bucket with object retention: gcloud storage buckets create --enable-per-object-retention " +
	"(one that exists: gcloud storage buckets update --enable-per-object-retention); or leave storage.lock out"

func (s *gcsService) prepare(ctx context.Context) error {
	if s.Lock.Mode == "" {
		return nil
	}
	a, err := s.bucket.Attrs(ctx)
	if err != nil {
		return err
	}
	if !strings.EqualFold(a.ObjectRetentionMode, "enabled") {
		return hinted{store.ErrNoLock, hintLockGCS}
	}
	return nil
}

func (*gcsService) fault(err error) (hint string, kind error) {
	var api *googleapi.Error
	var token *oauth2.RetrieveError
	switch {
	case errors.Is(err, storage.ErrBucketNotExist):
		return hintBucket, store.ErrNoBucket
	case errors.Is(err, storage.ErrObjectNotExist):
		return "", recorder.ErrNotFound
	case errors.As(err, &token):
		return hintAccess, fs.ErrPermission
	case !errors.As(err, &api):
		return "", nil
	}
	text := strings.ToLower(api.Error())
	switch {
	case api.Code == http.StatusNotFound && strings.Contains(text, "bucket"):
		return hintBucket, store.ErrNoBucket
	case api.Code == http.StatusBadRequest && (strings.Contains(text, "crc32c") || strings.Contains(text, "md5") || strings.Contains(text, "hash")):
		return hintCorrupt, store.ErrCorrupt
	case api.Code == http.StatusBadRequest && strings.Contains(text, "retention"):
		return hintLockGCS, store.ErrNoLock
	}
	return status(api.Code)
}
