package archive

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/store/bucket"
	"github.com/trunktap/trunktap/recorder/store/s3test"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// TestAttacksS3 attacks a store on a real S3 server.
func TestAttacksS3(t *testing.T) {
	srv := s3test.Start(t)
	var n atomic.Int32
	withstand(t, func(t *testing.T, disk *vfstest.Mem) recorder.Store {
		st, err := bucket.Open(context.Background(), srv.URLOf(srv.Bucket(), fmt.Sprintf("site/%d", n.Add(1))), store.Options{Credentials: srv.Credentials(), RetryFirst: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		s := &site{t: t, store: st}
		s.storeOfScene(disk)
		if err := vfs.RemoveAll(disk, "/data/store"); err != nil {
			t.Fatal(err)
		}
		return st
	})
}
