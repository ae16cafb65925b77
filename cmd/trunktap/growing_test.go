package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/store/bucket"
	"github.com/trunktap/trunktap/recorder/store/s3test"
)

// partsIn returns how many parts the open uploads in a bucket have, by object.
func partsIn(t *testing.T, srv *s3test.Server) map[string]int {
	t.Helper()
	name, out := srv.Bucket(), map[string]int{}
	c := srv.Client()
	for _, u := range must(c.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &name}))(t).Uploads {
		parts, err := c.ListParts(t.Context(), &s3.ListPartsInput{Bucket: &name, Key: u.Key, UploadId: u.UploadId})
		if err != nil {
			continue // it was completed or given up just now
		}
		out[*u.Key] = len(parts.Parts)
	}
	return out
}

// growingArchive opens an archive on a real server's bucket.
func growingArchive(t *testing.T, srv *s3test.Server, dir string) *archive.Archive {
	t.Helper()
	st := must(bucket.Open(t.Context(), srv.URL(), store.Options{
		Credentials: srv.Credentials(), PartBytes: store.PartBytesMin, Attempts: 1, RetryFirst: time.Millisecond,
	}))(t)
	a := must(archive.Open(archive.Config{
		SpoolDir: filepath.Join(dir, "spool"), CatalogPath: filepath.Join(dir, "catalog.db"), KeyFile: filepath.Join(dir, "keys.json"),
		Store: st, Uploads: archive.UploadConfig{Growing: true},
	}))(t)
	_ = must(a.Recover(t.Context()))(t)
	a.StartUploads()
	return a
}

// long is a recording of one long segment, written as fast as it goes.
type long struct {
	id, prefix string
	m          *recorder.Manifest
	sink       recorder.Sink
	w          recorder.SegmentWriter
	ms         int64
}

func newLong(t *testing.T, a *archive.Archive, id string) *long {
	t.Helper()
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	l := &long{id: id, prefix: path.Join("2026/11/22", id)}
	l.sink = must(a.OpenSink(t.Context(), recorder.SinkInfo{Recording: id, Prefix: l.prefix}))(t)
	l.w = must(l.sink.Begin(recorder.SegmentInfo{
		Recording: id, Prefix: l.prefix, N: 1, Format: recorder.FormatWAVPCM16, SampleRate: 48000, Channels: 2, Start: start,
	}))(t)
	l.m = &recorder.Manifest{
		Version: 1, ID: id, Kind: recorder.KindTrunk, Trunk: "a", Format: recorder.FormatWAVPCM16, SampleRate: 48000, Suppressed: "cut",
		Channels: []recorder.Channel{{Side: "external"}, {Side: "internal"}}, Origin: start,
		Call: recorder.Call{SIPCallID: id, Direction: "inbound", Start: start, Answer: start},
	}
	return l
}

// write writes so many seconds of audio.
func (l *long) write(t *testing.T, seconds int) {
	t.Helper()
	data := make([]byte, 48000*4)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	for range seconds {
		l.ms += 1000
		l.m.RealMS, l.m.AudioMS = l.ms, l.ms
		err := l.w.Write(recorder.Audio{RealMS: l.ms - 1000, AudioMS: l.ms - 1000, SegMS: l.ms - 1000, Samples: 48000, Data: data}, l.m)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (l *long) publish(t *testing.T) {
	t.Helper()
	seg := must(l.w.Finish(l.m))(t)
	seg.EndRealMS = l.ms
	l.m.Segments, l.m.Call.EndCause, l.m.Call.End = []recorder.Segment{seg}, "bye", l.m.Origin.Add(time.Duration(l.ms)*time.Millisecond)
	if err := l.sink.Publish(l.m); err != nil {
		t.Fatal(err)
	}
}

// TestGrowingServer: a long segment is in a real server in parts while it is
// written. One call loses the server in the middle of it; a second one ends with
// the process, and the next one gives up what it left and stores what was recorded.
func TestGrowingServer(t *testing.T) {
	srv, dir := s3test.Start(t), t.TempDir()
	a := growingArchive(t, srv, dir)
	calls := []*long{newLong(t, a, "20261122T100000Z-0000000000000001"), newLong(t, a, "20261122T100000Z-0000000000000002")}
	for _, l := range calls {
		l.write(t, 60) // 11.5 MB
	}
	hasParts := func(n int) func() error {
		return func() error {
			parts := partsIn(t, srv)
			for _, l := range calls {
				if got := parts[l.prefix+"/0001.seg"]; got < n {
					return fmt.Errorf("the store has %d parts of %s, want %d: %v", got, l.id, n, a.Uploads()[0].Stats.Growth.Parts.Load())
				}
			}
			return nil
		}
	}
	eventually(t, hasParts(2))
	if names := storedIn(t, srv, srv.Bucket()); len(names) > 0 {
		t.Errorf("before a segment is finished: %v", names)
	}
	srv.Stop()
	calls[0].write(t, 30)
	srv.Restart()
	calls[1].write(t, 30)
	eventually(t, hasParts(3))
	calls[0].publish(t)
	eventually(t, func() error {
		if s := a.Uploads()[0]; s.Stats.Done.Load() != 1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if n := a.Uploads()[0].Stats.Growth.Done.Load(); n != 1 {
		t.Errorf("%d segments were put together from parts", n)
	}
	verifyAll(t, a, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a.StopUploads(ctx) // as a process that dies
	if err := a.Close(); err != nil {
		t.Error(err)
	}

	b := growingArchive(t, srv, dir)
	eventually(t, func() error {
		if s := b.Uploads()[0]; s.Stats.Done.Load() != 1 || len(partsIn(t, srv)) > 0 {
			return fmt.Errorf("%+v, uploads %v", s, partsIn(t, srv))
		}
		return nil
	})
	verifyAll(t, b, 2)
	b.StopUploads(t.Context())
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func verifyAll(t *testing.T, a *archive.Archive, recordings int) {
	t.Helper()
	r := must(a.Verify(t.Context(), archive.VerifyQuery{}, nil))(t)
	if r.Recordings != recordings || len(r.Findings) > 0 {
		t.Errorf("verified %+v", r)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for until := time.Now().Add(time.Minute); time.Now().Before(until); <-time.After(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// TestLiveGrowing: a call of a minute and a half, recorded at 48 kHz into one
// segment, is in the store in parts while it goes on, and whole in the end.
func TestLiveGrowing(t *testing.T) {
	if os.Getenv("TRUNKTAP_LONG") == "" {
		t.Skip("a call of a minute and a half: set TRUNKTAP_LONG=1, or make growing")
	}
	srv := s3test.Start(t)
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16)
	trunks[0].Recording = append(trunks[0].Recording, "sample_rate: 48000")
	d := newLiveDaemon(t, liveConfig{
		Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, SegmentMax: time.Hour,
		StoreURL: srv.URL(), Storage: []string{"credentials: " + srv.Credentials(), "part_size: 5MiB"},
	})
	d.start()
	c := d.call(agents[0], [2]float64{440, 660})
	d.within(3*time.Minute, "parts of the segment are in the store", func() error {
		for name, parts := range partsIn(t, srv) {
			if parts >= 2 {
				t.Logf("%s has %d parts while the call goes on", name, parts)
				return nil
			}
		}
		return fmt.Errorf("%v", partsIn(t, srv))
	})
	if n := d.metric("trunktap_upload_growing"); n != 1 {
		t.Errorf("trunktap_upload_growing %v", n)
	}
	if err := c.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := d.recordings(1)[c.external.ID()]
	d.waitMetric("trunktap_upload_growing_done_total", func(v float64) bool { return v == 1 })
	d.waitMetric("trunktap_upload_waiting", func(v float64) bool { return v == 0 })
	checkAccount(t, m)
	d.export(m.ID) // at 48 kHz
	if n := partsIn(t, srv); len(n) > 0 || len(m.Segments) != 1 {
		t.Errorf("uploads %v, %d segments", n, len(m.Segments))
	}
	d.command("verify")
	d.stop()
}
