package bucket_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

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

func TestS3(t *testing.T) {
	srv := s3test.Start(t)
	var n atomic.Int32
	storetest.Run(t, storetest.Harness{Open: func(t *testing.T) recorder.Store {
		return mustOpen(t, srv.URLOf(srv.Bucket(), fmt.Sprintf("a b/%d", n.Add(1))), store.Options{Credentials: srv.Credentials()})
	}})
}
