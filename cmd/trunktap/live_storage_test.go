package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store/s3test"
	"github.com/trunktap/trunktap/sip/siptest"
)

// storedIn lists the objects of a bucket.
func storedIn(t *testing.T, srv *s3test.Server, bucket string) (names []string) {
	t.Helper()
	p := s3.NewListObjectsV2Paginator(srv.Client(), &s3.ListObjectsV2Input{Bucket: &bucket})
	for p.HasMorePages() {
		page := must(p.NextPage(t.Context()))(t)
		for _, o := range page.Contents {
			if !strings.HasPrefix(filepath.Base(*o.Key), ".") { // the probe of the store itself
				names = append(names, *o.Key)
			}
		}
	}
	return names
}

// metric is the sum of a metric over its labels.
func (d *liveDaemon) metric(name string) (sum float64) {
	d.t.Helper()
	for line := range strings.Lines(d.metrics()) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64)
			if err != nil {
				d.t.Fatalf("%s: %v", line, err)
			}
			sum += v
		}
	}
	return sum
}

// waitMetric waits for a value of a metric.
func (d *liveDaemon) waitMetric(name string, ok func(float64) bool) {
	d.t.Helper()
	d.within(time.Minute, name, func() error {
		if v := d.metric(name); !ok(v) {
			return fmt.Errorf("it is %v", v)
		}
		return nil
	})
}

// TestLiveStore records into two buckets of a real server, which goes away in the
// middle of the calls; the daemon is killed with all of it waiting, starts
// without the server, and in the end each bucket has its recording and nothing else.
func TestLiveStore(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	srv := s3test.Start(t)
	srv.MakeBucket("recordings-eu", false)
	trunks, agents := twoTrunks(t, recorder.FormatOggOpus, recorder.FormatWAVPCM16)
	trunks[1].Recording = append(trunks[1].Recording, "storage: eu")
	d := newLiveDaemon(t, liveConfig{
		Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, SegmentMax: time.Second,
		StoreURL: srv.URL(), Storage: []string{
			"credentials: " + srv.Credentials(),
			fmt.Sprintf("regions: {eu: {url: %q, credentials: %s}}", srv.URLOf("recordings-eu", ""), srv.Credentials()),
		},
	})
	d.start()
	calls := []*livePair{d.call(agents[0], [2]float64{440, 660}), d.call(agents[1], [2]float64{500, 800})}
	for _, bucket := range []string{srv.Bucket(), "recordings-eu"} {
		d.within(time.Minute, "segments are uploaded while the call goes on, to "+bucket, func() error {
			if len(storedIn(t, srv, bucket)) == 0 {
				return fmt.Errorf("the bucket is empty")
			}
			return nil
		})
	}
	srv.Stop()
	time.Sleep(2 * time.Second)
	if err := together(len(calls), func(i int) error { return calls[i].bye(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	byCall := d.recordings(len(calls))
	for i, c := range calls {
		m := byCall[c.external.ID()]
		checkAccount(t, m)
		checkVoices(t, m, d.export(m.ID), c.hz)
		if len(m.Segments) < 3 || len(m.Gaps) > 0 && m.Gaps[0].Cause == recorder.GapOverrun {
			t.Errorf("call %d: %d segments, gaps %+v", i, len(m.Segments), m.Gaps)
		}
	}
	if v := d.metric("trunktap_upload_waiting"); v != 2 {
		t.Errorf("%v recordings wait for their stores", v)
	}
	d.kill()
	d.start() // without the server
	for _, c := range calls {
		m := byCall[c.external.ID()]
		checkVoices(t, m, d.export(m.ID), c.hz)
	}
	if n := crashRecovered(t, d); n > 0 {
		t.Errorf("%d recordings that only wait were taken for crashed", n)
	}
	srv.Restart()
	d.waitMetric("trunktap_upload_waiting", func(v float64) bool { return v == 0 })
	d.waitMetric("trunktap_store_up", func(v float64) bool { return v == 2 })
	t.Log(strings.TrimSpace(d.command("verify")))
	for i, bucket := range []string{srv.Bucket(), "recordings-eu"} {
		m := byCall[calls[i].external.ID()]
		names := storedIn(t, srv, bucket)
		if i == 0 { // the node's own log lies in the default store
			names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "audit/") })
		}
		if len(names) != len(m.Segments)+2 { // its manifest and its key
			t.Errorf("bucket %s has %v", bucket, names)
		}
		for _, name := range names {
			if filepath.Base(filepath.Dir(name)) != m.ID || filepath.Base(filepath.Dir(filepath.Dir(name))) != m.Conversation {
				t.Errorf("bucket %s has %s", bucket, name)
			}
		}
		checkVoices(t, m, d.export(m.ID), calls[i].hz)
	}
	for _, e := range must(os.ReadDir(d.cfg.Spool))(t) {
		if strings.HasPrefix(e.Name(), "2") {
			t.Errorf("left in the spool: %s", e.Name())
		}
	}
	d.stop()
}

// TestLiveDiskLow: a disk that runs low keeps new calls from being recorded, or from
// being taken where that is wanted, and the others are not harmed; with room it goes on.
func TestLiveDiskLow(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	for _, do := range []string{"stop-new", "refuse-calls"} {
		t.Run(do, func(t *testing.T) { liveDiskLow(t, do) })
	}
}

func liveDiskLow(t *testing.T, do string) {
	dir := mountTmpfs(t, 300<<20)
	trunks, agents := twoTrunks(t, recorder.FormatOggOpus)
	d := newLiveDaemon(t, liveConfig{
		Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()},
		Store: filepath.Join(dir, "store"), Spool: filepath.Join(dir, "spool"),
		Storage: []string{"on_disk_low: {warn: 60%, at: 40%, do: " + do + "}"},
	})
	d.start()
	before := d.call(agents[0], [2]float64{440, 660})
	filler := filepath.Join(dir, "filler")
	mustWrite(t, filler, strings.Repeat("x", 200<<20))
	d.waitMetric("trunktap_recordings_admitted", func(v float64) bool { return v == 0 })
	all := []*livePair{before}
	if do == "refuse-calls" {
		_, err := agents[0][0].Call(t.Context(), "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{})
		var rejected *siptest.RejectedError
		if !errors.As(err, &rejected) || rejected.Response.Code != 503 {
			t.Errorf("a new call: %v, want 503", err)
		}
	} else {
		all = append(all, d.call(agents[0], [2]float64{500, 800}))
	}
	time.Sleep(1500 * time.Millisecond)
	for _, c := range all {
		if err := c.bye(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.waitMetric("trunktap_recordings_admitted", func(v float64) bool { return v == 1 })
	after := d.call(agents[0], [2]float64{600, 900})
	time.Sleep(1500 * time.Millisecond)
	if err := after.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	byCall := d.recordings(2)
	for _, c := range []*livePair{before, after} {
		m := byCall[c.external.ID()]
		if m == nil {
			t.Fatalf("not recorded: %v", byCall)
		}
		checkAccount(t, m)
	}
	for _, c := range append(all, after) {
		if p := c.packets(t); len(p) < 50 {
			t.Errorf("%d packets", len(p))
		}
	}
	if text := string(must(os.ReadFile(d.log))(t)); !strings.Contains(text, "event=storage.low") || !strings.Contains(text, "event=storage.recovered") {
		t.Error("the log does not tell of the disk")
	}
	d.stop()
}
