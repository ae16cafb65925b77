package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// openRemote opens an archive whose store is somewhere else.
func openRemote(fsys vfs.FS, c recorder.Catalog, r recorder.Store, with ...func(*Config)) (*Archive, error) {
	cfg := Config{SpoolDir: "/data/spool", FS: fsys, Sealer: testSealer(), Catalog: c, Store: r}
	for _, f := range with {
		f(&cfg)
	}
	return Open(cfg)
}

func mustOpenRemote(t testing.TB, fsys vfs.FS, c recorder.Catalog, r recorder.Store, with ...func(*Config)) *Archive {
	t.Helper()
	a, err := openRemote(fsys, c, r, with...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// carryOnce makes one attempt at the first thing that is due, whatever the time.
func carryOnce(a *Archive) (did bool, _ error) {
	for _, s := range a.shelves {
		if it, _ := s.queue.take(time.Now().Add(time.Hour)); it != nil {
			err := s.queue.carry(context.Background(), it)
			s.queue.settle(it, err, time.Now())
			return true, err
		}
	}
	return false, nil
}

// TestUploadFails lets every operation of the store fail, with and without its
// effect, while a call is recorded and after it: nothing is lost, no manifest is
// there before what it tells of, and the recording can be read at any time.
func TestUploadFails(t *testing.T) {
	for _, done := range []bool{false, true} {
		n := 1
		for uploadFault(t, n, done) {
			n++
		}
		t.Logf("done %v: %d operations", done, n-1)
	}
}

func uploadFault(t *testing.T, n int, done bool) bool {
	t.Helper()
	what := fmt.Sprintf("operation %d fails, done %v", n, done)
	mem, cat := vfstest.NewMem(), newMemCatalog()
	r := newRemote(mem)
	a := mustOpenRemote(t, mem, cat, r)
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	r.at, r.done = n, done
	k := &taking{c: newTestCall(testID, codec.WAVPCM16), sink: sink, between: func() { _, _ = carryOnce(a) }}
	m, err := k.take()
	if err != nil {
		t.Fatalf("%s: the recording waits for the store: %v", what, err)
	}
	if !cat.rows[testID].Spooled {
		t.Errorf("%s: the row does not say that it is in the spool", what)
	}
	if len(r.names()) == 0 {
		t.Errorf("%s: nothing was uploaded while the call went on", what)
	}
	for tries := 0; ; tries++ {
		if a.isSpooled(testID) { // else reading is the operation that fails
			checkAudio(t, a, m, what)
		}
		did, err := carryOnce(a)
		if !did {
			break
		}
		if tries > 10 {
			t.Fatalf("%s: still %v", what, err)
		}
	}
	ops := r.ops
	r.at = 0
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	checkStored(t, a, r, mem, what)
	if cat.rows[testID].Spooled {
		t.Errorf("%s: the row says that it is in the spool", what)
	}
	checkAudio(t, a, m, what)
	mustVerify(t, a, what)
	return ops >= n
}

// checkStored holds that the store has the test recording, and the spool nothing.
func checkStored(t *testing.T, a *Archive, r *remote, mem *vfstest.Mem, what string) {
	t.Helper()
	if len(r.halves) > 0 {
		t.Errorf("%s: a manifest came before %v", what, r.halves)
	}
	want := []string{testPrefix + "/0001.seg", testPrefix + "/0002.seg", testPrefix + "/0003.seg", testPrefix + "/recording.key", testPrefix + "/recording.trm"}
	if got := r.names(); !slices.Equal(got, want) {
		t.Errorf("%s: the store has %v", what, got)
	}
	for _, name := range mem.Files() {
		if strings.HasPrefix(name, "/data/spool/") && !strings.HasPrefix(name, "/data/spool/rows/") {
			t.Errorf("%s: left in the spool: %s", what, name)
		}
	}
	if n := a.spoolBytes.Load(); n != 0 {
		t.Errorf("%s: %d bytes are thought to be in the spool", what, n)
	}
}

// TestUploadCrash lets the machine die at every file operation of recording and
// uploading. The store lives on.
func TestUploadCrash(t *testing.T) {
	for _, kind := range []vfstest.Kind{vfstest.Crash, vfstest.Fail, vfstest.DoneButErr} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			n := 1
			for uploadCrash(t, kind, n) {
				n++
			}
			t.Logf("%d operations", n-1)
		})
	}
}

func uploadCrash(t *testing.T, kind vfstest.Kind, n int) bool {
	t.Helper()
	mem, cat := vfstest.NewMem(), newMemCatalog()
	f := &vfstest.Faults{FS: mem, At: n, Kind: kind, Err: syscall.EIO}
	cat.dead = func() bool { return kind == vfstest.Crash && f.Hit() != "" }
	r := newRemote(f)
	k := &taking{c: newTestCall(testID, codec.WAVPCM16), retries: 3, cat: cat}
	var final *recorder.Manifest
	a, err := openRemote(f, cat, r)
	if err == nil {
		final, err = k.carried(a, 1)
	}
	faulted(t, f, kind, err)
	hit := f.Hit()
	seeds := uint64(1)
	if kind == vfstest.Crash {
		seeds = 2
	}
	for seed := range seeds {
		disk := mem.CrashClone(uint64(n)*seeds + seed)
		after := newRemote(disk)
		for name, content := range r.objects {
			after.objects[name] = content
		}
		checkRestarted(t, disk, after, fmt.Sprintf("%s, seed %d", hit, seed), k, final)
	}
	return hit != ""
}

// carried takes the test recording while it is uploaded, so many steps after each
// frame. Nil: it was not published.
func (k *taking) carried(a *Archive, steps int) (_ *recorder.Manifest, err error) {
	if k.sink, err = a.NewSink(context.Background(), testID, testPrefix); err != nil {
		return nil, err
	}
	carry := func(n int) {
		for range n {
			_, _ = carryOnce(a)
		}
	}
	k.between = func() { carry(steps) }
	m, err := k.take()
	if err != nil {
		return nil, err
	}
	carry(10)
	return m, nil
}

// faulted holds that an error is that of the fault.
func faulted(t *testing.T, f *vfstest.Faults, kind vfstest.Kind, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, errGaveUp) && kind != vfstest.Crash && !errors.Is(err, syscall.EIO) {
		t.Errorf("%s: %v", f.Hit(), err)
	}
}

// checkRestarted recovers with the store down first: everything can be read then,
// too. Then it comes back.
func checkRestarted(t *testing.T, disk *vfstest.Mem, r *remote, what string, k *taking, final *recorder.Manifest) {
	t.Helper()
	cat := newMemCatalog()
	stored := slices.Contains(r.names(), testPrefix+"/recording.trm")
	r.down = !stored
	a := mustOpenRemote(t, disk, cat, r)
	got, err := a.Recover(context.Background())
	if err != nil {
		t.Fatalf("%s: recover: %v", what, err)
	}
	for _, g := range got {
		if k.durable == 0 && errors.Is(g.Err, errUnpromised) {
			continue // and it is told
		}
		if g.Err != nil || len(g.Aside) > 0 {
			t.Errorf("%s: recovered %+v", what, g)
		}
	}
	m, err := a.Get(context.Background(), testID)
	if k.durable == 0 && final == nil && err != nil {
		return // nothing was promised
	}
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if final == nil {
		checkCrashManifest(t, what, m, k)
	} else if m.Call.EndCause != "bye" {
		t.Errorf("%s: published as %s", what, m.Call.EndCause)
	}
	checkAudio(t, a, m, what)
	r.set(func(r *remote) { r.down = false })
	drainUploads(t, a, what)
	if len(r.halves) > 0 {
		t.Errorf("%s: a manifest came before %v", what, r.halves)
	}
	checkAudio(t, a, m, what)
	if err := a.Rebuild(context.Background(), nil); err != nil {
		t.Errorf("%s: rebuild: %v", what, err)
	}
	mustVerify(t, a, what)
	for _, name := range disk.Files() {
		if strings.HasPrefix(name, "/data/spool/") && !strings.HasPrefix(name, "/data/spool/rows/") {
			t.Errorf("%s: left in the spool: %s", what, name)
		}
	}
}

// TestStoreDown records while the store is down for hours, with the workers of
// the daemon: nobody waits for it, everything can be found, played and verified,
// and when it comes back it gets all of it.
func TestStoreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		r := newRemote(mem)
		r.down = true
		var events []string
		a := mustOpenRemote(t, mem, cat, r, func(c *Config) { c.Notify = func(e string, _ map[string]any) { events = append(events, e) } })
		a.StartUploads()
		began := time.Now()
		const calls = 20
		for i := range calls {
			record(t, a, newTestCall(fmt.Sprintf("%s%02d", testID[:len(testID)-2], i), codec.WAVPCMU))
			time.Sleep(10 * time.Minute)
		}
		if took := time.Since(began); took != calls*10*time.Minute {
			t.Errorf("recording took %v longer", took-calls*10*time.Minute)
		}
		synctest.Wait()
		st := a.Uploads()[0]
		if st.Recordings != calls || !st.Down || st.OldestAge < 3*time.Hour || st.Bytes == 0 {
			t.Errorf("state %+v", st)
		}
		if ops := r.ops; ops > 4*int(time.Since(began)/uploadRetryMost) {
			t.Errorf("%d operations on a store that is down", ops)
		}
		rep, err := a.Verify(context.Background(), VerifyQuery{}, nil)
		if err != nil || rep.Recordings != calls || len(rep.Findings) != 1 || rep.Findings[0].Fault != FaultUnreadable {
			t.Errorf("verified %+v, %v: want one finding, about the store", rep, err)
		}
		for id, row := range cat.rows {
			m, err := a.Media(context.Background(), id, "")
			if err != nil || !row.Spooled {
				t.Fatalf("%s, spooled %v: %v", id, row.Spooled, err)
			}
			_ = m.Close()
		}
		r.set(func(r *remote) { r.down = false })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if st := a.Uploads()[0]; st.Recordings != 0 || st.Down || a.spoolBytes.Load() != 0 {
			t.Errorf("state %+v, %d bytes in the spool", st, a.spoolBytes.Load())
		}
		for id, row := range cat.rows {
			if row.Spooled {
				t.Errorf("%s: the row says it is in the spool", id)
			}
		}
		mustVerify(t, a, "up again")
		if !slices.Equal(events, []string{"store.down", "store.up"}) {
			t.Errorf("events %v", events)
		}
		a.StopUploads(context.Background())
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestDiscardWhatWasUploaded: a recording that is given up leaves the store, even
// when that is down just then and the daemon dies before it comes back.
func TestDiscardWhatWasUploaded(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	r := newRemote(mem)
	a := mustOpenRemote(t, mem, cat, r)
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	k := &taking{c: newTestCall(testID, codec.WAVPCM16), sink: sink}
	for real := int64(0); real < 2000; real += frameMS {
		if err := k.frame(real); err != nil {
			t.Fatal(err)
		}
	}
	drainUploads(t, a, "while it goes on")
	if len(r.names()) == 0 {
		t.Fatal("nothing was uploaded")
	}
	r.down = true
	if err := errors.Join(sink.Discard(), sink.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range mem.Files() {
		if strings.HasSuffix(name, ".seg") {
			t.Errorf("its audio is still here: %s", name)
		}
	}
	disk := mem.CrashClone(1)
	r.fsys, r.down = disk, false
	b := mustOpenRemote(t, disk, cat, r)
	if got, err := b.Recover(context.Background()); err != nil || len(got) > 0 {
		t.Errorf("recovered %v, %v", got, err)
	}
	if _, err := b.Get(context.Background(), testID); !errors.Is(err, recorder.ErrNotFound) {
		t.Errorf("it is there: %v", err)
	}
	drainUploads(t, b, "after the restart")
	if left := append(r.names(), disk.Files()...); len(left) > 0 {
		t.Errorf("left of it: %v", left)
	}
}

// TestDeferredBeforeUpload: what is to be coded anew goes to the store once, as
// it is in the end.
func TestDeferredBeforeUpload(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	r := newRemote(mem)
	deferred := func(c *Config) {
		c.Deferred.Options = func(m *recorder.Manifest) (codec.Options, bool) { return codec.Options{}, m.Trunk == "carrier-a" }
	}
	a := mustOpenRemote(t, mem, cat, r, deferred)
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	k := &taking{c: newTestCall(testID, codec.WAVPCM16), sink: sink, between: func() { _, _ = carryOnce(a) }}
	if _, err = k.take(); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	drainUploads(t, a, "before it is coded")
	if got := r.names(); len(got) > 0 {
		t.Fatalf("uploaded before it was coded: %v", got)
	}
	disk := mem.CrashClone(3) // and a restart finds both: the job and the recording
	r.fsys = disk
	b := mustOpenRemote(t, disk, cat, r, deferred)
	if _, err := b.Recover(context.Background()); err != nil {
		t.Fatal(err)
	}
	drainUploads(t, b, "after the restart")
	if got := r.names(); len(got) > 0 {
		t.Fatalf("uploaded before it was coded: %v", got)
	}
	j, _ := b.deferred.pop(time.Now())
	if j == nil {
		t.Fatal("no job")
	}
	b.tryDeferred(context.Background(), j)
	drainUploads(t, b, "coded")
	for _, name := range r.names() {
		if !isEncoded(name) && !strings.HasSuffix(name, "recording.trm") && !strings.HasSuffix(name, "recording.key") {
			t.Errorf("the store has %s", name)
		}
	}
	m, err := b.Get(context.Background(), testID)
	if err != nil || m.Format != codec.OggOpus || len(m.Segments) != 3 || len(r.names()) != 5 {
		t.Errorf("%v, %v", r.names(), err)
	}
	mustVerify(t, b, "coded")
}

// TestStores: each recording lies in the store that it was meant for, and nothing
// of it anywhere else, after a crash as well.
func TestStores(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	eu, us, home := newRemote(mem), newRemote(mem), newRemote(mem)
	regions := func(c *Config) {
		c.Stores = map[string]StoreConfig{"eu": {Store: eu}, "us": {Store: us}, "disk": {Dir: "/data/disk"}}
	}
	a := mustOpenRemote(t, mem, cat, home, regions)
	ids := map[string]string{}
	for i, where := range []string{"", "eu", "us", "disk"} {
		id := fmt.Sprintf("%s%02d", testID[:len(testID)-2], i)
		ids[where] = id
		c := newTestCall(id, codec.WAVPCMU)
		sink, err := a.OpenSink(context.Background(), recorder.SinkInfo{Recording: id, Prefix: c.prefix(), Storage: where})
		if err != nil {
			t.Fatal(err)
		}
		k := &taking{c: c, sink: sink}
		if where == "us" || where == "disk" { // these two die in mid-call
			for real := int64(0); real < 2000 && err == nil; real += frameMS {
				err = k.frame(real)
			}
		} else {
			_, err = k.take()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.OpenSink(context.Background(), recorder.SinkInfo{Recording: "x", Prefix: "2026/11/22/x", Storage: "mars"}); err == nil {
		t.Error("a store that is not there is taken")
	}
	disk := mem.CrashClone(1)
	for _, r := range []*remote{eu, us, home} {
		r.fsys = disk
	}
	b := mustOpenRemote(t, disk, cat, home, regions)
	if _, err := b.Recover(context.Background()); err != nil {
		t.Fatal(err)
	}
	drainUploads(t, b, "all")
	for where, r := range map[string]*remote{"": home, "eu": eu, "us": us} {
		for _, name := range r.names() {
			if !strings.HasPrefix(name, "2026/11/22/"+ids[where]+"/") {
				t.Errorf("store %q has %s", where, name)
			}
		}
		if len(r.names()) < 2 {
			t.Errorf("store %q has %v", where, r.names())
		}
	}
	for _, name := range disk.Files() {
		if !strings.HasPrefix(name, "/data/disk/2026/11/22/"+ids["disk"]+"/") {
			t.Errorf("on disk: %s", name)
		}
	}
	for where, id := range ids {
		if row := cat.rows[id]; row.Store != where || row.Spooled {
			t.Errorf("row of %s: store %q, spooled %v", where, row.Store, row.Spooled)
		}
	}
	cat.rows = map[string]recorder.Row{}
	if err := b.Rebuild(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	for where, id := range ids {
		if row := cat.rows[id]; row.Store != where {
			t.Errorf("rebuilt row of %s: store %q", where, row.Store)
		}
	}
	mustVerify(t, b, "stores")
}
