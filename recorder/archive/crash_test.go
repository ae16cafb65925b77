package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// layout is how spool and store lie, and how they are synced.
type layout string

const (
	oneDisk  layout = "one disk"  // a recording moves from spool to store in one step
	twoDisks layout = "two disks" // each file is copied
	lateTwo  layout = "two disks, found out by the first recording"
	grouped  layout = "one disk, synced together"
)

// TestCrashAfterEveryOperation takes a call and lets the machine die, or an
// operation fail, at every file operation. What was acknowledged must be
// published after the restart, whole and in its place, and verify must pass.
func TestCrashAfterEveryOperation(t *testing.T) {
	for _, on := range []layout{oneDisk, twoDisks, lateTwo, grouped} {
		kinds := []vfstest.Kind{vfstest.Crash, vfstest.DoneButErr, vfstest.FailFrom, vfstest.Fail, vfstest.ShortWrite}
		if on != oneDisk {
			kinds = kinds[:2]
		}
		for _, kind := range kinds {
			t.Run(fmt.Sprintf("%s/%s", on, kind), func(t *testing.T) {
				t.Parallel()
				n := 1
				for crashRun(t, on, kind, n) {
					n++
				}
				t.Logf("%d operations", n-1)
			})
		}
	}
}

func crashRun(t *testing.T, on layout, kind vfstest.Kind, n int) bool {
	t.Helper()
	mem := vfstest.NewMem()
	f := &vfstest.Faults{FS: mem, At: n, Kind: kind, Err: syscall.EIO}
	k, final, err := takeOn(f, mem, on)
	if errors.Is(err, errGaveUp) || err == nil {
		// The process dies here in any case; what it was told is what counts.
		seeds := uint64(1)
		if kind == vfstest.Crash {
			seeds = 3
		}
		for i := range seeds {
			seed := uint64(n)*seeds + i
			checkRecovered(t, mem.CrashClone(seed), fmt.Sprintf("%s, seed %d", f.Hit(), seed), k, final)
		}
	} else if kind != vfstest.Crash && !errors.Is(err, syscall.EIO) {
		t.Errorf("%s: %v", f.Hit(), err)
	}
	return f.Hit() != ""
}

// takeOn takes the test call on a file system; final is the manifest when it
// was published.
func takeOn(f *vfstest.Faults, mem *vfstest.Mem, on layout) (*taking, *recorder.Manifest, error) {
	k := &taking{c: newTestCall(testID, codec.WAVPCM16), retries: 3}
	if on == twoDisks || on == lateTwo {
		mem.OtherDevice("/data/store")
	}
	k.cat = newMemCatalog()
	k.cat.dead = func() bool { return f.Kind == vfstest.Crash && f.Hit() != "" }
	a, err := openOn(f, k.cat)
	if err != nil {
		return k, nil, err
	}
	if on == lateTwo {
		a.shelves[0].apart.Store(false)
	}
	if on == grouped {
		// Without Start, so that the order of operations is always the same.
		if a.syncer, err = segment.NewSyncer(f, a.cfg.SpoolDir); err != nil {
			return k, nil, err
		}
	}
	if k.sink, err = a.NewSink(context.Background(), k.c.id, k.c.prefix()); err != nil {
		return k, nil, err
	}
	m, err := k.take()
	if err != nil {
		return k, nil, err
	}
	return k, m, nil
}

func checkRecovered(t *testing.T, disk *vfstest.Mem, what string, k *taking, final *recorder.Manifest) {
	t.Helper()
	cat := newMemCatalog()
	a := mustOpenOn(t, disk, cat)
	got, err := a.Recover(context.Background())
	if err != nil {
		t.Fatalf("%s: recover: %v", what, err)
	}
	for _, r := range got {
		if k.durable == 0 && errors.Is(r.Err, errUnpromised) {
			continue // nothing was promised, and it is told
		}
		if r.Err != nil || len(r.Aside) > 0 {
			t.Errorf("%s: recovered %+v", what, r)
		}
	}
	if again, err := a.Recover(context.Background()); err != nil || len(again) > 0 {
		t.Errorf("%s: recover again: %v, %v", what, again, err)
	}
	m, err := a.Get(context.Background(), testID)
	switch {
	case errors.Is(err, recorder.ErrNotFound):
		if k.durable > 0 || final != nil {
			t.Errorf("%s: %d ms were durable and nothing is published", what, k.durable)
		}
		return
	case err != nil:
		t.Errorf("%s: %v", what, err)
		return
	}
	if final == nil {
		checkCrashManifest(t, what, m, k)
	} else if m.Call.EndCause != "bye" || m.RealMS != final.RealMS {
		t.Errorf("%s: published as %s, %d ms", what, m.Call.EndCause, m.RealMS)
	}
	checkAudio(t, a, m, what)
	drainUploads(t, a, what)
	checkAudio(t, a, m, what)
	// When all was published and the machine died then, the row is in the
	// catalogue of before.
	if _, ok := cat.rows[testID]; !ok {
		if _, ok := k.cat.rows[testID]; !ok {
			t.Errorf("%s: published without a row", what)
		}
		if err := a.Rebuild(context.Background(), nil); err != nil {
			t.Errorf("%s: rebuild: %v", what, err)
		}
	}
	mustVerify(t, a, what)
	for _, name := range disk.Files() {
		if strings.HasPrefix(name, "/data/spool/") && !strings.HasPrefix(name, "/data/spool/rows/") {
			t.Errorf("%s: left in the spool: %s", what, name)
		}
	}
}

func checkCrashManifest(t *testing.T, what string, m *recorder.Manifest, k *taking) {
	t.Helper()
	if m.Call.EndCause == "bye" {
		return // its own manifest was durable, only Publish did not return any more
	}
	if m.AudioMS < k.durable || m.AudioMS > k.audio+frameMS {
		t.Errorf("%s: %d ms of audio, %d were durable", what, m.AudioMS, k.durable)
	}
	if m.Call.EndCause != "crash" {
		t.Errorf("%s: end cause %q", what, m.Call.EndCause)
	}
	var restarts []recorder.Gap
	for _, g := range m.Gaps {
		if g.Cause == recorder.GapRestart && g.RealMS == m.RealMS && g.AudioMS == m.AudioMS && g.DurationMS == 0 {
			restarts = append(restarts, g)
		}
	}
	if len(restarts) != 2 || restarts[0].Channel == restarts[1].Channel {
		t.Errorf("%s: gaps %+v", what, m.Gaps)
	}
	if cut := newTimeline(m).length(m.RealMS); m.AudioMS+cut != m.RealMS {
		t.Errorf("%s: audio %d and windows %d are not %d", what, m.AudioMS, cut, m.RealMS)
	}
	for _, w := range m.Windows {
		if w.EndRealMS > m.RealMS || w.Reason == "unknown" {
			t.Errorf("%s: window %+v in %d ms", what, w, m.RealMS)
		}
	}
	for _, s := range m.Segments {
		if len(s.Parties) == 0 || s.EndRealMS > m.RealMS || s.EndRealMS <= s.RealMS {
			t.Errorf("%s: segment %+v", what, s)
		}
	}
}

// checkAudio compares what is stored with what was spoken.
func checkAudio(t *testing.T, a *Archive, m *recorder.Manifest, what string) {
	t.Helper()
	got, err := audioOn(a, m, testPrefix)
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	want := pcm(0, m.AudioMS)
	if !slices.Equal(got[0], want[0]) || !slices.Equal(got[1], want[1]) {
		t.Errorf("%s: %d samples of audio, want %d, or they differ", what, len(got[0]), len(want[0]))
	}
}

// TestCrashInRecover kills the recovery of several states at each of its
// operations, then recovers for good.
func TestCrashInRecover(t *testing.T) {
	for _, at := range []int{30, 50, 65} {
		mem := vfstest.NewMem()
		k, final, err := takeOn(&vfstest.Faults{FS: mem, At: at, Kind: vfstest.Crash}, mem, oneDisk)
		if err == nil {
			t.Fatalf("the call ended before operation %d", at)
		}
		ops := 0
		for _, kind := range []vfstest.Kind{vfstest.Crash, vfstest.Fail, vfstest.DoneButErr} {
			for n := 1; ; n++ {
				disk := mem.CrashClone(uint64(at))
				f := &vfstest.Faults{FS: disk, At: n, Kind: kind, Err: syscall.ENOSPC}
				k := *k
				k.cat = newMemCatalog()
				k.cat.dead = func() bool { return f.Kind == vfstest.Crash && f.Hit() != "" }
				if a, err := openOn(f, k.cat); err == nil {
					_, _ = a.Recover(context.Background()) // it dies or fails; the next one counts
				}
				if f.Hit() == "" {
					break
				}
				ops++
				checkRecovered(t, disk.CrashClone(uint64(n)), fmt.Sprintf("call died at %d, recovery at %s", at, f.Hit()), &k, final)
			}
		}
		t.Logf("call died at operation %d: recovery failed or died at %d places", at, ops)
	}
}
