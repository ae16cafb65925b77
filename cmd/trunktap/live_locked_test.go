package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store/s3test"
)

// TestLiveStoreLocked records into a bucket with object lock: nobody can delete
// the recording. A region whose bucket has none is told with its remedy, and
// harms nobody else.
func TestLiveStoreLocked(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	srv := s3test.Start(t)
	srv.MakeBucket("locked", true)
	trunks, agents := twoTrunks(t, recorder.FormatOggOpus)
	d := newLiveDaemon(t, liveConfig{
		Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()},
		StoreURL: srv.URLOf("locked", "site a"), Storage: []string{
			"credentials: " + srv.Credentials(), "lock: {mode: compliance, for: 1h}",
			fmt.Sprintf("regions: {eu: {url: %q, credentials: %s, lock: {mode: governance, for: 1h}}}", srv.URL(), srv.Credentials()),
		},
	})
	d.start()
	d.within(time.Minute, "the bucket without object lock is told", func() error {
		if text := string(must(os.ReadFile(d.log))(t)); !strings.Contains(text, "event=store.unfit") || !strings.Contains(text, "--object-lock-enabled-for-bucket") {
			return fmt.Errorf("not in the log")
		}
		return nil
	})
	c := d.call(agents[0], [2]float64{440, 660})
	time.Sleep(1500 * time.Millisecond)
	if err := c.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := d.recordings(1)[c.external.ID()]
	d.waitMetric("trunktap_upload_waiting", func(v float64) bool { return v == 0 })
	names := storedIn(t, srv, "locked")
	if len(names) < 2 {
		t.Fatalf("stored: %v", names)
	}
	bucket := "locked"
	for _, name := range names {
		if !strings.HasPrefix(name, "site a/") {
			t.Errorf("%s lies outside the prefix", name)
		}
		head := must(srv.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: &name}))(t)
		if lockable(name) != (head.ObjectLockMode == types.ObjectLockModeCompliance) {
			t.Errorf("%s: lock %q", name, head.ObjectLockMode)
		}
		_, err := srv.Client().DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &name, VersionId: head.VersionId})
		if lockable(name) && err == nil {
			t.Errorf("%s was deleted", name)
		}
	}
	checkVoices(t, m, d.export(m.ID), c.hz)
	d.stop()
}
