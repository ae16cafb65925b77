package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/store/bucket"
	"github.com/trunktap/trunktap/recorder/store/s3test"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// harmedS3 has recordings on a real S3 server, of which some are not whole; want are
// the ids that have rows, harmed those that are named.
func harmedS3(t *testing.T, open func() recorder.Store, n int) (want, harmed []string) {
	t.Helper()
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := mustOpenOn(t, mem, cat)
	for i := range n {
		c := newTestCall(fmt.Sprintf("202611%02dT163608Z-1f0c9a3b5d7e8%03x", 20+i%3, i), "wav-pcmu")
		c.kept, c.endMS = []span{{0, 500}}, 500
		record(t, a, c)
		want = append(want, c.id)
	}
	drainUploads(t, a, "rebuild")
	s := &site{t: t, store: open()}
	s.storeOfScene(mem)
	at := func(i int, name string) string { return path.Join(cat.rows[want[i]].Prefix, name) }
	altered := bytes.Clone(s.get(at(7, segment.ManifestFile)))
	altered[len(altered)-1] ^= 1
	s.put(at(7, segment.ManifestFile), altered)
	s.put(at(17, segment.ManifestFile), nil)
	s.put(at(27, segment.ManifestFile), bytes.Repeat([]byte("garbage "), 1<<17))
	s.remove(at(37, segment.KeyFile))
	s.remove(at(47, segment.ManifestFile)) // nobody knows of it any more
	s.remove(at(57, "0001.seg"))           // it has a row: verify names what is missing
	s.remove(cat.rows[want[67]].Prefix + "/")
	for _, i := range []int{7, 17, 27, 37} {
		harmed = append(harmed, want[i])
	}
	for _, i := range []int{67, 47, 37, 27, 17, 7} {
		want = slices.Delete(want, i, i+1)
	}
	slices.Sort(want)
	return want, harmed
}

// TestRebuildS3 makes the catalogue of some hundred recordings on a real S3 server. It
// is ended, the server goes away and the keys do; each run goes on with the one before,
// and the last ends with what one run would have ended with.
func TestRebuildS3(t *testing.T) {
	srv, ctx := s3test.Start(t), context.Background()
	open := func() recorder.Store {
		st, err := bucket.Open(ctx, srv.URL(), store.Options{Credentials: srv.Credentials(), RetryFirst: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	const recordings = 240
	want, harmed := harmedS3(t, open, recordings)
	check := func(what string, cat *memCatalog, r RebuildReport, err error) {
		t.Helper()
		var de *DamageError
		if !errors.As(err, &de) {
			t.Fatalf("%s: %+v, %v", what, r, err)
		}
		var named, rows []string
		for _, f := range de.Findings {
			named = append(named, f.Recording)
		}
		for id := range cat.rows {
			rows = append(rows, id)
		}
		slices.Sort(named)
		slices.Sort(rows)
		slices.Sort(harmed)
		if d := cmp.Diff(want, rows); d != "" {
			t.Errorf("%s: rows: %s", what, d)
		}
		if d := cmp.Diff(harmed, named); d != "" {
			t.Errorf("%s: named: %s", what, d)
		}
		if r.Recordings != recordings-2 {
			t.Errorf("%s: %+v", what, r)
		}
	}
	q := RebuildQuery{batch: rebuildStuck, saveRows: 1}
	whole := newMemCatalog()
	r, err := mustOpenRemote(t, vfstest.NewMem(), whole, open()).RebuildWith(ctx, q, nil)
	check("whole", whole, r, err)

	disk, cat := vfstest.NewMem(), newMemCatalog()
	resumed := int64(0)
	run := func(until int64, away error, f func(a *Archive, cancel func()) Progress) {
		t.Helper()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		a := mustOpenRemote(t, disk, cat, open())
		p := f(a, cancel)
		r, err := a.RebuildWith(ctx, q, func(done, _ int64) {
			if done >= until && p != nil {
				p(done, 0)
			}
		})
		if err == nil || errors.As(err, new(*DamageError)) || away != nil && !errors.Is(err, away) {
			t.Errorf("until %d: %+v, %v", until, r, err)
		}
		if r.Resumed < resumed {
			t.Errorf("until %d: %d were done, it goes on with %d", until, resumed, r.Resumed)
		}
		resumed = r.Recordings
	}
	run(32, context.Canceled, func(_ *Archive, cancel func()) Progress { return func(int64, int64) { cancel() } })
	run(96, nil, func(*Archive, func()) Progress { return func(int64, int64) { srv.Stop() } })
	srv.Restart()
	run(0, recorder.ErrKeyUnreachable, func(a *Archive, _ func()) Progress {
		away := &noService{Sealer: a.sealer}
		away.left.Store(20)
		a.sealer = away
		return nil
	})
	r, err = mustOpenRemote(t, disk, cat, open()).RebuildWith(ctx, q, nil)
	check("in parts", cat, r, err)
	if r.Resumed < 96 || resumed == recordings-2 {
		t.Errorf("the last run did not go on: %+v", r)
	}
	if d := cmp.Diff(whole.rows, cat.rows); d != "" {
		t.Errorf("in parts: %s", d)
	}
}

// TestHoldsS3: two nodes hold one recording on a real S3 server for many cases at the same time,
// and release it; not before then is it deleted, with all that was left of holds.
func TestHoldsS3(t *testing.T) {
	srv, ctx := s3test.Start(t), context.Background()
	st, err := bucket.Open(ctx, srv.URL(), store.Options{Credentials: srv.Credentials()})
	if err != nil {
		t.Fatal(err)
	}
	mem, cat := vfstest.NewMem(), newMemCatalog()
	record(t, retaining(t, mem, cat, RetentionConfig{}), newTestCall(testID, codec.WAVPCMU))
	(&site{t: t, store: st}).storeOfScene(mem)
	remote := func(node string) *Archive {
		return retaining(t, vfstest.NewMem(), cat, allSoon, func(c *Config) { c.Store, c.Node = st, node })
	}
	a, b := remote("rec-a"), remote("rec-b")
	each := func(do func(a *Archive) func(context.Context, HoldOrder) error) {
		var ended sync.WaitGroup
		for node, a := range []*Archive{a, b} {
			ended.Go(func() {
				for i := range 5 {
					if err := do(a)(ctx, order(fmt.Sprintf("case %d of %d", i, node))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		ended.Wait()
	}
	each(func(a *Archive) func(context.Context, HoldOrder) error { return a.PlaceHold })
	if holds, err := a.Holds(ctx, testID); err != nil || len(holds) != 10 {
		t.Fatalf("%d holds, %v", len(holds), err)
	}
	if r := mustExpire(t, a, ExpireQuery{}); r.Held != 1 || r.Deleted != 0 {
		t.Errorf("held: %+v", r)
	}
	mustVerify(t, a, "held")
	each(func(a *Archive) func(context.Context, HoldOrder) error { return a.ReleaseHold })
	mustVerify(t, a, "released")
	if r := mustExpire(t, a, ExpireQuery{}); r.Deleted != 1 {
		t.Errorf("released: %+v", r)
	}
	if err := st.List(ctx, "", func(i recorder.BlobInfo) error { return fmt.Errorf("%s is left", i.Name) }); err != nil {
		t.Error(err)
	}
}
