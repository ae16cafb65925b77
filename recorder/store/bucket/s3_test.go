package bucket_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

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
