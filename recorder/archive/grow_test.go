package archive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// remoteUpload is an object on its way into a remote.
type remoteUpload struct {
	r    *remote
	n    int
	name string
	body []byte
}

// NewUpload implements store.Uploader.
func (r *remote) NewUpload(_ context.Context, name string) (store.Upload, error) {
	if r.part < 0 {
		return nil, errors.ErrUnsupported
	}
	u := &remoteUpload{r: r, name: name}
	err := r.step(func() {
		if r.open == nil {
			r.open = map[int]*remoteUpload{}
		}
		r.opened++
		u.n = r.opened
		r.open[u.n] = u
	})
	if err != nil {
		return nil, err
	}
	return u, nil
}

// PartSize implements store.Uploader.
func (r *remote) PartSize() int64 { return max(cmp.Or(r.part, 1<<30), -r.part) }

// Sweep implements store.Uploader.
func (r *remote) Sweep(_ context.Context, prefix string, _ time.Time) (n int, err error) {
	err = r.step(func() {
		maps.DeleteFunc(r.open, func(_ int, u *remoteUpload) bool {
			if strings.HasPrefix(u.name, prefix) {
				n++
				return true
			}
			return false
		})
	})
	return n, err
}

// errNoUpload says that an upload was given up.
var errNoUpload = fmt.Errorf("no such upload: %w", recorder.ErrNotFound)

// Part implements store.Upload.
func (u *remoteUpload) Part(_ context.Context, src io.ReaderAt, off, size int64) (err error) {
	p := make([]byte, size)
	if n, err := src.ReadAt(p, off); int64(n) < size {
		return err
	}
	serr := u.r.step(func() {
		switch {
		case u.r.open[u.n] == nil:
			err = errNoUpload
		case off < int64(len(u.body)): // the answer to the attempt before was lost
			copy(u.body[off:], p)
		default:
			u.body = append(u.body, p...)
		}
	})
	u.r.set(func(r *remote) { r.parts++ })
	return errors.Join(serr, err)
}

// Complete implements store.Upload.
func (u *remoteUpload) Complete(_ context.Context, sum []byte) (err error) {
	serr := u.r.step(func() {
		got := sha256.Sum256(u.body)
		was, there := u.r.objects[u.name]
		switch {
		case u.r.open[u.n] == nil && !there:
			err = errNoUpload
		case !bytes.Equal(got[:], sum):
			delete(u.r.open, u.n)
			err = store.ErrCorrupt
		case there && !bytes.Equal(was, u.body):
			err = recorder.ErrExists
		default:
			u.r.objects[u.name] = u.body
			delete(u.r.open, u.n)
		}
	})
	return errors.Join(serr, err)
}

// Abort implements store.Upload.
func (u *remoteUpload) Abort(context.Context) error {
	return u.r.step(func() { delete(u.r.open, u.n) })
}

func growing(c *Config) { c.Uploads.Growing = true }

const testPart = 5000 // a frame of 500 ms has 16,000 bytes

// TestGrowing: parts of a segment are in the store while it is written, nothing of
// it can be seen there before all is, and then it is what was written.
func TestGrowing(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	r := newRemote(mem)
	r.part = testPart
	a := mustOpenRemote(t, mem, cat, r, growing)
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	k := &taking{c: newTestCall(testID, codec.WAVPCM16), sink: sink}
	k.between = func() {
		drainUploads(t, a, "while it goes on")
		most = max(most, len(r.open))
		for _, name := range r.names() {
			if strings.HasSuffix(name, fmt.Sprintf("%04d.seg", len(k.segs))) && k.w != nil {
				t.Errorf("%s is there before it is finished", name)
			}
		}
	}
	m, err := k.take()
	if err != nil {
		t.Fatal(err)
	}
	g := &a.shelves[0].queue.stats.Growth
	if most != 1 || g.Parts.Load() < 20 || g.Bytes.Load() != g.Parts.Load()*testPart {
		t.Errorf("at most %d uploads, %d parts of %d bytes", most, g.Parts.Load(), g.Bytes.Load())
	}
	drainUploads(t, a, "over")
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	if n := g.Done.Load(); n != 3 || g.GivenUp.Load() != 0 || len(r.open) > 0 {
		t.Errorf("%d segments went in parts, %d were given up, %d are open", n, g.GivenUp.Load(), len(r.open))
	}
	checkStored(t, a, r, mem, "growing")
	checkAudio(t, a, m, "growing")
	mustVerify(t, a, "growing")
}

// TestGrowingFails lets every operation of the store fail, with and without its
// effect. What of it stays there without being complete a sweep finds.
func TestGrowingFails(t *testing.T) {
	for _, done := range []bool{false, true} {
		n := 1
		for growingFault(t, n, 1, done) {
			n++
		}
		t.Logf("done %v: %d operations", done, n-1)
		for n := 1; n < 40; n += 3 { // so long that it is given up
			growingFault(t, n, 2*growthTries, done)
		}
	}
}

func growingFault(t *testing.T, n, times int, done bool) bool {
	t.Helper()
	what := fmt.Sprintf("operations %d to %d fail, done %v", n, n+times-1, done)
	mem, cat := vfstest.NewMem(), newMemCatalog()
	r := newRemote(mem)
	r.part, r.at, r.times, r.done = testPart, n, times, done
	a := mustOpenRemote(t, mem, cat, r, growing)
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	k := &taking{c: newTestCall(testID, codec.WAVPCM16), sink: sink, between: func() {
		for range 4 {
			_, _ = carryOnce(a)
		}
	}}
	m, err := k.take()
	if err != nil {
		t.Fatalf("%s: the recording waits for the store: %v", what, err)
	}
	for tries := 0; ; tries++ {
		did, err := carryOnce(a)
		if !did {
			break
		}
		a.shelves[0].queue.orphan(context.Background())
		if tries > 30 {
			t.Fatalf("%s: still %v", what, err)
		}
	}
	ops := r.ops
	r.at = 0
	for range a.shelves[0].queue.orphans {
		a.shelves[0].queue.orphan(context.Background())
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	checkStored(t, a, r, mem, what)
	checkAudio(t, a, m, what)
	mustVerify(t, a, what)
	if len(r.open) > 0 && !done {
		t.Errorf("%s: %d uploads are open", what, len(r.open))
	}
	// The store began an upload whose answer was lost: nobody knows of it but the store.
	if _, err := r.Sweep(context.Background(), "", time.Time{}); err != nil || len(r.open) > 0 {
		t.Errorf("%s: %d uploads are open after a sweep, %v", what, len(r.open), err)
	}
	return ops >= n
}

// TestGrowingCrash lets the machine die, or an operation of it fail, at every file
// operation. The spool has all of it; what was begun in the store is given up there.
func TestGrowingCrash(t *testing.T) {
	for _, kind := range []vfstest.Kind{vfstest.Crash, vfstest.Fail, vfstest.DoneButErr} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			n := 1
			for growingCrash(t, kind, n) {
				n += 2
			}
			t.Logf("%d operations", n-1)
		})
	}
}

func growingCrash(t *testing.T, kind vfstest.Kind, n int) bool {
	t.Helper()
	mem, cat := vfstest.NewMem(), newMemCatalog()
	f := &vfstest.Faults{FS: mem, At: n, Kind: kind, Err: syscall.EIO}
	cat.dead = func() bool { return kind == vfstest.Crash && f.Hit() != "" }
	r := newRemote(f)
	r.part = testPart
	k := &taking{c: newTestCall(testID, codec.WAVPCM16), retries: 3, cat: cat}
	var final *recorder.Manifest
	a, err := openRemote(f, cat, r, growing)
	if err == nil {
		final, err = k.carried(a, 4)
	}
	faulted(t, f, kind, err)
	hit := f.Hit()
	disk := mem.CrashClone(uint64(n))
	after := newRemote(disk)
	after.part, after.open = testPart, map[int]*remoteUpload{}
	maps.Copy(after.objects, r.objects)
	for n, u := range r.open {
		after.open[n] = &remoteUpload{r: after, n: n, name: u.name, body: u.body}
	}
	checkRestarted(t, disk, after, hit, k, final)
	for _, u := range after.open {
		if len(u.body) < testPart {
			continue // of a segment that the crash left shorter than a part
		}
		if _, err := after.Open(context.Background(), u.name); err == nil {
			t.Errorf("%s: the upload of %s is open, and the store has it", hit, u.name)
		}
	}
	return hit != ""
}

// TestGrowingGivenUp: what a discarded recording, an aborted segment or a restart
// leaves of an upload goes.
func TestGrowingGivenUp(t *testing.T) {
	for _, how := range []string{"discard", "abort", "restart"} {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		r := newRemote(mem)
		r.part = testPart
		a := mustOpenRemote(t, mem, cat, r, growing)
		sink, err := a.NewSink(context.Background(), testID, testPrefix)
		if err != nil {
			t.Fatal(err)
		}
		k := &taking{c: newTestCall(testID, codec.WAVPCM16), sink: sink}
		err = errors.Join(k.frame(0), k.frame(500))
		drainUploads(t, a, how)
		if err != nil || len(r.open) != 1 {
			t.Fatalf("%s: %d uploads, %v", how, len(r.open), err)
		}
		switch how {
		case "discard":
			err = errors.Join(sink.Discard(), sink.Close())
		case "abort":
			err = k.w.Abort()
		case "restart":
			disk := mem.CrashClone(1)
			r.fsys = disk
			a = mustOpenRemote(t, disk, cat, r, growing)
			_, err = a.Recover(context.Background())
		}
		if err != nil {
			t.Fatal(err)
		}
		drainUploads(t, a, how)
		if len(r.open) > 0 {
			t.Errorf("%s: the upload is open", how)
		}
		if want := map[string]int{"restart": 3}[how]; len(r.names()) != want {
			t.Errorf("%s: the store has %v", how, r.names())
		}
	}
}

// TestGrowingNot: a store that takes whole objects alone, a segment that is to be
// coded anew, and one that stays small.
func TestGrowingNot(t *testing.T) {
	anew := func(c *Config) {
		c.Deferred.Options = func(*recorder.Manifest) (codec.Options, bool) { return codec.Options{}, true }
	}
	for what, c := range map[string]struct {
		part int64
		with func(*Config)
	}{"whole": {-testPart, growing}, "anew": {testPart, anew}, "small": {30_000, growing}, "off": {testPart, func(*Config) {}}} {
		mem := vfstest.NewMem()
		r := newRemote(mem)
		r.part = c.part
		a := mustOpenRemote(t, mem, newMemCatalog(), r, growing, c.with, func(cfg *Config) { cfg.Uploads.Growing = what != "off" })
		sink, err := a.NewSink(context.Background(), testID, testPrefix)
		if err != nil {
			t.Fatal(err)
		}
		k := &taking{c: newTestCall(testID, codec.WAVPCM16), sink: sink, between: func() { drainUploads(t, a, what) }}
		if _, err := k.take(); err != nil {
			t.Fatal(err)
		}
		drainUploads(t, a, what)
		if r.parts > 0 || r.opened > 0 {
			t.Errorf("%s: %d uploads, %d parts", what, r.opened, r.parts)
		}
	}
}

// TestGrowingWaits: finished segments go first, and parts never take all workers.
func TestGrowingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfstest.NewMem()
		r := newRemote(mem)
		r.part = testPart
		a := mustOpenRemote(t, mem, newMemCatalog(), r, growing)
		q := a.shelves[0].queue
		for i := range 10 {
			g := &growth{name: "0001.seg", durable: 10 * testPart}
			q.change(place{a.shelves[0], fmt.Sprintf("2026/11/22/grows%d", i)}, time.Now(), func(it *pending) { it.growing = append(it.growing, g) })
		}
		q.segment(place{a.shelves[0], "2026/11/22/done"}, "0001.seg", time.Now())
		var parts []bool
		var taken []*pending
		for it, _ := q.take(time.Now()); it != nil; it, _ = q.take(time.Now()) {
			parts, taken = append(parts, it.part), append(taken, it)
		}
		if !slices.Equal(parts, []bool{false, true, true}) {
			t.Errorf("taken: %v", parts)
		}
		for _, it := range taken {
			q.settle(it, nil, time.Now())
		}
		if q.parts != 0 || q.state(time.Now()).Growing != 10 {
			t.Errorf("%d under way, state %+v", q.parts, q.state(time.Now()))
		}
	})
}
