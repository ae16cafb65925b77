package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/store/bucket"
	"github.com/trunktap/trunktap/recorder/store/s3test"
	"github.com/trunktap/trunktap/recorder/store/storetest"
)

func mustOpen(t *testing.T, url string, o store.Options) recorder.Store {
	t.Helper()
	s, err := bucket.Open(context.Background(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// harness runs the suite on the buckets of a service; url makes the URL of a prefix.
func harness(locked string, url func(bucket, prefix string) string, o store.Options) storetest.Harness {
	var n atomic.Int32
	o.RetryFirst = time.Millisecond
	fresh := func(bucket string) string { return url(bucket, fmt.Sprintf("a b/%d", n.Add(1))) }
	h := storetest.Harness{
		Open: func(t *testing.T) recorder.Store { return mustOpen(t, fresh("recordings"), o) },
		OpenWith: func(t *testing.T, tr http.RoundTripper) recorder.Store {
			o := o
			o.Transport = tr
			return mustOpen(t, url("recordings", "faults"), o)
		},
	}
	if locked != "" {
		h.OpenLocked = func(t *testing.T, l store.Lock) recorder.Store {
			o := o
			o.Lock = l
			return mustOpen(t, fresh(locked), o)
		}
	}
	return h
}

func s3Harness(t *testing.T) storetest.Harness {
	srv := s3test.Start(t)
	srv.MakeBucket("locked", true)
	return harness("locked", srv.URLOf, store.Options{Credentials: srv.Credentials()})
}

func TestS3(t *testing.T) { storetest.Run(t, s3Harness(t)) }

func TestS3Faults(t *testing.T) { storetest.Faults(t, s3Harness(t)) }

// TestS3LockedBehind: where an older version of an object is locked the newest stays: what
// is refused leaves the object as it is.
func TestS3LockedBehind(t *testing.T) {
	srv := s3test.StartWith(t, s3test.Options{Lock: true})
	ctx, name := context.Background(), "2026/01/02/a/recording.trm"
	for _, c := range []struct {
		content string
		locked  bool
	}{{"first", false}, {"old account", true}, {"new account", false}} {
		in := &s3.PutObjectInput{Bucket: aws.String(srv.Bucket()), Key: &name, Body: strings.NewReader(c.content)}
		if c.locked {
			in.ObjectLockMode, in.ObjectLockRetainUntilDate = types.ObjectLockModeGovernance, aws.Time(time.Now().Add(time.Hour))
		}
		if _, err := srv.Client().PutObject(ctx, in); err != nil {
			t.Fatal(err)
		}
	}
	st := mustOpen(t, srv.URL(), store.Options{Credentials: srv.Credentials()})
	if err := st.Delete(ctx, name); !errors.Is(err, store.ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
	b, err := st.Open(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }() // only read
	if got := make([]byte, len("new account")); b.Size() != int64(len(got)) {
		t.Errorf("%d bytes are left in its place", b.Size())
	} else if _, err := b.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) || string(got) != "new account" {
		t.Errorf("a deletion that was refused left %q in its place, %v", got, err)
	}
}

// TestS3VersionsUnlisted: a service tells of versions and cannot list them; what is said to be
// deleted was at least asked to be.
func TestS3VersionsUnlisted(t *testing.T) {
	asked := 0
	st := mustOpen(t, "s3://bucket?endpoint=http://127.0.0.1:1", store.Options{
		Credentials: localFile(t, []byte("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")), Attempts: 1,
		Transport: answer(func(r *http.Request) (*http.Response, error) {
			switch r.Method {
			case http.MethodHead:
				out := says(r, http.StatusOK, "")
				out.Header.Set("X-Amz-Version-Id", "null")
				return out, nil
			case http.MethodDelete:
				asked++
				return says(r, http.StatusNoContent, ""), nil
			}
			return says(r, http.StatusNotImplemented, "<Error><Code>NotImplemented</Code></Error>"), nil
		}),
	})
	if err := st.Delete(context.Background(), "a/b"); err != nil || asked != 1 {
		t.Errorf("%v; deletion was asked for %d times", err, asked)
	}
}
