package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// TestFaults fails and crashes at every file operation of a segment, with
// every kind of fault. What Write acknowledged must be there after the crash,
// in order, unaltered; the repaired file is whole; a segment that lived through
// a failed write is whole as well.
func TestFaults(t *testing.T) {
	for _, kind := range []vfstest.Kind{vfstest.Fail, vfstest.ShortWrite, vfstest.DoneButErr, vfstest.Crash, vfstest.FailFrom} {
		for _, every := range []int{1, 3} {
			n := 1
			for faultRun(t, kind, n, every, -1) {
				n++
			}
			t.Logf("%s, sync every %d: %d operations", kind, every, n-1)
		}
		for _, group := range []int{1, 2} { // from which on all are synced together: one file is, or is not
			n := 1
			for faultRun(t, kind, n, 4, group) {
				n++
			}
			t.Logf("%s, synced in groups of %d: %d operations", kind, group, n-1)
		}
	}
}

// faultRun fails the n-th operation; group -1: without a Syncer.
func faultRun(t *testing.T, kind vfstest.Kind, n, every, group int) bool {
	mem := vfstest.NewMem()
	b := mustBench(t, mem)
	f := &vfstest.Faults{FS: mem, At: n, Kind: kind, Err: syscall.ENOSPC}
	st, err := store.OpenDir(store.DirConfig{Root: "/store", FS: f})
	if err != nil {
		return true
	}
	var acked []recorder.Audio // durable by the writer's promise
	var asked []recorder.Audio
	finished := false
	cfg := WriterConfig{FS: f, Store: st, Key: b.key, Dir: testDir, Info: testInfo(1), SyncEvery: every}
	if group > 0 {
		if cfg.Syncer, err = NewSyncer(f, testDir); err != nil {
			return true
		}
		cfg.Syncer.groupMin = group
	}
	w, err := Create(cfg)
	if err == nil {
		var took []recorder.Audio
		for i := range 7 {
			a := testAudio(1, i)
			asked = append(asked, a)
			if w.Write(a, testAccount(i)) == nil {
				took = append(took, a)
			}
			if group > 0 && i%3 != 0 {
				cfg.Syncer.Round()
				if d := w.ledger.durable; d.gen == w.ledger.gen && d.bytes == w.synced+int64(len(unsynced(w))) || len(unsynced(w)) == 0 {
					acked = slices.Clone(took)
				}
			}
			if len(unsynced(w)) == 0 {
				acked = slices.Clone(took)
			}
		}
		if _, err = w.Finish(nil); err != nil && kind != vfstest.Crash {
			_, err = w.Finish(nil)
		}
		if err == nil {
			finished, acked = true, took
		}
	}
	for seed := range uint64(5) {
		afterCrash(t, b, mem.CrashClone(seed), fmt.Sprintf("%s, sync every %d, seed %d", f.Hit(), every, seed), acked, asked, finished)
	}
	return f.Hit() != ""
}

// unsynced is what a writer holds because it does not know yet that it is durable.
func unsynced(w *Writer) []byte {
	if s := w.cfg.Syncer; s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if w.ledger.parked != nil {
			return *w.ledger.parked
		}
	}
	return w.pending
}

func afterCrash(t *testing.T, b bench, disk *vfstest.Mem, what string, acked, asked []recorder.Audio, finished bool) {
	t.Helper()
	name := "/store/" + testPrefix + "/" + FileName(1)
	spool := testDir + "/" + SpoolName(1)
	if _, err := disk.Stat(name); err != nil {
		if finished {
			t.Errorf("%s: finished and not published", what)
		}
		name = spool
	}
	blob, err := OpenFile(disk, name)
	if err != nil {
		if len(acked) > 0 {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	s, err := Salvage(context.Background(), blob, b.sealer)
	torn, terr := Torn(blob)
	if terr != nil || torn && (err == nil || len(acked) > 0) {
		t.Errorf("%s: torn with %d frames durable: %v, %v", what, len(acked), err, terr)
	}
	if torn {
		return
	}
	if err != nil {
		t.Errorf("%s: salvage: %v", what, err)
		return
	}
	if err := Repair(context.Background(), disk, name, b.sealer, s); err != nil {
		t.Errorf("%s: repair: %v", what, err)
		return
	}
	p, err := vfs.ReadFile(disk, name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := readAll(p, b.sealer, Want{testRec, 1})
	if err != nil {
		t.Errorf("%s: after repair: %v", what, err)
	}
	has := func(a recorder.Audio) bool {
		return slices.ContainsFunc(asked, func(x recorder.Audio) bool { return x.SegMS == a.SegMS && bytes.Equal(x.Data, a.Data) })
	}
	for _, a := range got {
		if !has(a) {
			t.Errorf("%s: wrong audio at %d ms", what, a.SegMS)
		}
	}
	for _, a := range acked {
		if !slices.ContainsFunc(got, func(x recorder.Audio) bool { return x.SegMS == a.SegMS }) {
			t.Errorf("%s: durable audio at %d ms is lost", what, a.SegMS)
		}
	}
}

// TestSalvageTorn tears a spool file at every place.
func TestSalvageTorn(t *testing.T) {
	mem := vfstest.NewMem()
	b := mustBench(t, mem)
	w := b.create(t, 1, 1)
	for i := range 4 {
		if err := w.Write(testAudio(1, i), testAccount(i)); err != nil {
			t.Fatal(err)
		}
	}
	w.Release()
	p, err := vfs.ReadFile(mem, w.path, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	at := frameOffsets(t, p)
	for cut := at[0]; cut <= len(p); cut += 37 {
		for _, tail := range [][]byte{nil, make([]byte, 300), bytes.Repeat([]byte{0xff}, 300)} {
			torn := slices.Concat(p[:cut], tail)
			s, err := Salvage(context.Background(), blobOf(torn), b.sealer)
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			whole, _ := slices.BinarySearch(at, cut+1)
			if want := int64(at[whole-1]); s.Good != want || s.Torn != int64(len(torn))-want || s.Complete {
				t.Fatalf("cut at %d: good %d, torn %d, complete %v; want good %d", cut, s.Good, s.Torn, s.Complete, want)
			}
			if want := int64(whole-1) / 2 * 500; s.EndMS != want {
				t.Fatalf("cut at %d: %d ms, want %d", cut, s.EndMS, want)
			}
		}
	}
}

func TestSalvageTellsDamageFromTornTail(t *testing.T) {
	b := mustBench(t, vfstest.NewMem())
	b.write(t, 1, 6)
	p := b.content(t, 1)
	at := frameOffsets(t, p)
	p[at[3]+9] ^= 1
	s, err := Salvage(context.Background(), blobOf(p), b.sealer)
	if err != nil || s.Good != int64(at[3]) || s.Beyond == 0 {
		t.Errorf("Salvage = good %d, beyond %d, %v; want good %d and frames beyond", s.Good, s.Beyond, err, at[3])
	}
}

func TestManyTinyFramesAreBounded(t *testing.T) {
	b := mustBench(t, vfstest.NewMem())
	b.write(t, 1, 1)
	p := b.content(t, 1)
	at := frameOffsets(t, p)
	tiny := append([]byte{frameAudio, 0, 0, 0, 40}, make([]byte, 40)...)
	p = append(p[:at[0]:at[0]], bytes.Repeat(tiny, 100_000)...)
	start := time.Now()
	if _, err := Salvage(context.Background(), blobOf(p), b.sealer); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("%d frames of garbage took %v", 100_000, d)
	}
}

// TestEveryBitFlip flips a bit of every byte of a segment: each must be found,
// and no audio read before it may be wrong.
func TestEveryBitFlip(t *testing.T) {
	b := mustBench(t, vfstest.NewMem())
	w := b.create(t, 1, 1)
	var want []recorder.Audio
	for i := range 3 {
		a := testAudio(1, i)
		a.Samples, a.Data, a.SegMS = 160, a.Data[:320], int64(i)*20
		a.RealMS, a.AudioMS = a.SegMS, a.SegMS
		want = append(want, a)
		if err := w.Write(a, testAccount(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish(nil); err != nil {
		t.Fatal(err)
	}
	p := b.content(t, 1)
	for i := range p {
		bit := byte(1) << (i % 8)
		bad := slices.Clone(p)
		bad[i] ^= bit
		got, _, err := readAll(bad, b.sealer, Want{testRec, 1})
		if err == nil {
			t.Fatalf("byte %d of %d, bit %#x: not found", i, len(p), bit)
		}
		if !errors.Is(err, recorder.ErrTampered) && !errors.Is(err, recorder.ErrKey) {
			t.Fatalf("byte %d: %v is neither ErrTampered nor ErrKey", i, err)
		}
		if len(got) > len(want) || len(got) > 0 && cmp.Diff(want[:len(got)], got) != "" {
			t.Fatalf("byte %d: wrong audio was given", i)
		}
	}
	t.Logf("a bit of each of %d bytes flipped, all found", len(p))
}

func TestEveryTruncation(t *testing.T) {
	b := mustBench(t, vfstest.NewMem())
	b.write(t, 1, 1)
	p := b.content(t, 1)
	for n := range p {
		if _, _, err := readAll(p[:n], b.sealer, Want{}); !errors.Is(err, recorder.ErrTampered) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(p), err)
		}
	}
	if _, _, err := readAll(append(slices.Clone(p), 0), b.sealer, Want{}); !errors.Is(err, recorder.ErrTampered) {
		t.Errorf("a byte appended: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	b := mustBench(f, vfstest.NewMem())
	b.write(f, 1, 2)
	p := b.content(f, 1)
	f.Add(p)
	f.Add(p[:200])
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Add(append([]byte(magic+"\x01S\x00\x00\x00\x02"), "{}"...))
	f.Add(append([]byte(magic+"\x01S\xff\xff\xff\xff"), "{}"...))
	f.Add(slices.Concat(p[:len(p)-60], make([]byte, 300)))
	f.Fuzz(func(t *testing.T, file []byte) {
		got, _, err := readAll(file, b.sealer, Want{})
		if err == nil && !bytes.Equal(file, p) {
			t.Fatal("an altered file is taken")
		}
		for i, a := range got {
			if !bytes.Equal(a.Data, testAudio(1, i).Data) {
				t.Fatal("wrong audio")
			}
		}
		if s, err := Salvage(context.Background(), blobOf(file), b.sealer); err == nil && s.Good+s.Torn != int64(len(file)) {
			t.Fatalf("salvage: %d good and %d torn of %d bytes", s.Good, s.Torn, len(file))
		}
		_, _, _ = OpenManifest(context.Background(), blobOf(file), b.sealer)
	})
}
