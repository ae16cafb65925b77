package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// logClock makes each run of a log later than the one before it.
var logClock struct {
	sync.Mutex
	t time.Time
}

func logNow() time.Time {
	logClock.Lock()
	defer logClock.Unlock()
	if logClock.t.IsZero() {
		logClock.t = epoch.Add(-time.Hour)
	}
	logClock.t = logClock.t.Add(time.Millisecond)
	return logClock.t
}

func mustIdentity(t testing.TB, fsys vfs.FS) *audit.Identity {
	t.Helper()
	id, err := audit.OpenIdentity(audit.IdentityConfig{Path: "/data/node-key.json", Node: "rec-a", FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// mustProve gives an archive a log; close ends it.
func mustProve(t testing.TB, a *Archive, fsys vfs.FS) (l *audit.Log) {
	t.Helper()
	l, err := audit.Open(audit.Config{
		Dir: "/data/audit", FS: fsys, Identity: mustIdentity(t, fsys), Store: a.Store(), Durable: a.DurableIn("/data/audit"), Checkpoint: time.Hour, Now: logNow,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.SetProof(l)
	return l
}

// proven is a store with some recordings and a log that was closed.
func proven(t testing.TB, calls ...testCall) *vfstest.Mem {
	t.Helper()
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	l := mustProve(t, a, mem)
	for _, c := range calls {
		record(t, a, c)
	}
	if err := errors.Join(l.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	return mem
}

// readOnly opens what lies on a file system for verifying it.
func readOnly(t testing.TB, fsys vfs.FS) (*Archive, ProofQuery) {
	t.Helper()
	a, err := Open(Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: fsys, Sealer: testSealer(), Catalog: newMemCatalog(), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	return a, ProofQuery{Dir: audit.OpenDir(fsys, "/data/audit"), Node: "rec-a", Ring: mustIdentity(t, fsys).Ring()}
}

// verifyOn verifies everything, catalogue aside.
func verifyOn(t testing.TB, fsys vfs.FS, change func(*VerifyQuery)) Report {
	t.Helper()
	a, proof := readOnly(t, fsys)
	q := VerifyQuery{FromID: "0", Proof: proof}
	if change != nil {
		change(&q)
	}
	r, err := a.Verify(context.Background(), q, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func faults(r Report) string {
	var out []string
	for _, f := range r.Findings {
		out = append(out, f.String())
	}
	return strings.Join(out, "\n")
}

func TestProven(t *testing.T) {
	mem := proven(t, newTestCall(testID, codec.WAVPCMU), newTestCall(idOf(7), codec.WAVPCMU))
	for what, change := range map[string]func(*VerifyQuery){
		"everything": nil,
		"one":        func(q *VerifyQuery) { q.IDs = []string{testID} },
		"store only": func(q *VerifyQuery) { q.Proof = ProofQuery{} },
		"range":      func(q *VerifyQuery) { q.FromID, q.From = "", epoch.Add(-time.Minute) },
	} {
		if r := verifyOn(t, mem, change); !r.OK() || len(r.Notes) > 0 || r.Recordings == 0 {
			t.Errorf("%s: %d recordings, %v %v", what, r.Recordings, r.Findings, r.Notes)
		}
	}
	if r := verifyOn(t, mem, func(q *VerifyQuery) { q.Trunk = "another" }); r.Recordings != 0 || !r.OK() {
		t.Errorf("of no trunk: %+v", r)
	}
	for _, ids := range [][]string{nil, {testID}} {
		if r := verifyOn(t, mem, func(q *VerifyQuery) { q.IDs, q.Proof.Pin = ids, "rec-a+01234567+AA" }); len(r.Findings) != 1 || r.Findings[0].Fault != FaultSignature {
			t.Errorf("another key is pinned: %v", r.Findings)
		}
	}
}

// TestProvenWithoutKeys: hashes and signatures are checked all the same.
func TestProvenWithoutKeys(t *testing.T) {
	mem := proven(t, newTestCall(testID, codec.WAVPCMU))
	lost := func() Report {
		a, proof := readOnly(t, mem)
		a.sealer = keyless{}
		r, err := a.Verify(context.Background(), VerifyQuery{FromID: "0", Proof: proof}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := lost(); !r.OK() || len(r.Notes) != 1 || r.Notes[0].Fault != FaultSealed || r.Segments == 0 {
		t.Errorf("%v %v", r.Findings, r.Notes)
	}
	alter(t, mem, 2, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	if r := lost(); len(r.Findings) != 1 || r.Findings[0].Fault != FaultAltered || r.Findings[0].File != "0002.seg" {
		t.Errorf("%v", r.Findings)
	}
}

type keyless struct{}

func (keyless) NewKey(context.Context, string) (recorder.DataKey, error) { return nil, recorder.ErrKey }

func (keyless) OpenKey(context.Context, string, recorder.WrappedKey) (recorder.DataKey, error) {
	return nil, recorder.ErrKey
}

// TestProvenFinds: what somebody who can write to the store might do.
func TestProvenFinds(t *testing.T) {
	other := idOf(7)
	path := func(id, name string) string { return "/data/store/2026/11/22/" + id + "/" + name }
	manifest := func(id string) string { return path(id, segment.ManifestFile) }
	read := func(t *testing.T, mem *vfstest.Mem, name string) []byte {
		t.Helper()
		b, err := vfs.ReadFile(mem, name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	write := func(t *testing.T, mem *vfstest.Mem, name string, b []byte) {
		t.Helper()
		if err := vfs.WriteFile(mem, name, b); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		harm  func(t *testing.T, mem *vfstest.Mem)
		fault string
	}{
		{"recording removed", func(_ *testing.T, mem *vfstest.Mem) { _ = vfs.RemoveAll(mem, path(testID, "")) }, FaultMissing},
		{"link removed", func(t *testing.T, mem *vfstest.Mem) {
			sealed, _, err := segment.SplitManifest(read(t, mem, manifest(testID)))
			if err != nil {
				t.Fatal(err)
			}
			write(t, mem, manifest(testID), sealed)
		}, FaultUnsigned},
		{"links exchanged", func(t *testing.T, mem *vfstest.Mem) {
			a, _, _ := segment.SplitManifest(read(t, mem, manifest(testID)))
			_, link, _ := segment.SplitManifest(read(t, mem, manifest(other)))
			b, err := segment.AppendLink(bytes.Clone(a), link)
			if err != nil {
				t.Fatal(err)
			}
			write(t, mem, manifest(testID), b)
		}, FaultAltered},
		{"manifests exchanged", func(t *testing.T, mem *vfstest.Mem) {
			a, b := read(t, mem, manifest(testID)), read(t, mem, manifest(other))
			write(t, mem, manifest(testID), b)
			write(t, mem, manifest(other), a)
		}, FaultAltered},
		{"segments exchanged between recordings", func(t *testing.T, mem *vfstest.Mem) {
			a, b := read(t, mem, path(testID, "0001.seg")), read(t, mem, path(other, "0001.seg"))
			write(t, mem, path(testID, "0001.seg"), b)
			write(t, mem, path(other, "0001.seg"), a)
		}, FaultAltered},
		{"truncated", func(t *testing.T, mem *vfstest.Mem) {
			b := read(t, mem, path(testID, "0002.seg"))
			write(t, mem, path(testID, "0002.seg"), b[:len(b)-100])
		}, FaultTruncated},
		{"the log's end removed, here and in the store", func(t *testing.T, mem *vfstest.Mem) {
			_ = vfs.RemoveAll(mem, "/data/audit")
			for _, f := range mem.Files() {
				if strings.HasPrefix(f, "/data/store/audit/") && strings.HasSuffix(f, ".log") {
					_ = mem.Remove(f)
				}
			}
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := proven(t, newTestCall(testID, codec.WAVPCMU), newTestCall(other, codec.WAVPCMU))
			c.harm(t, mem)
			r := verifyOn(t, mem, nil)
			if c.fault == "" {
				if len(r.Notes) == 0 || r.Notes[0].Fault != FaultNoLog {
					t.Errorf("%v", r.Notes)
				}
				return
			}
			if len(r.Findings) == 0 || !strings.Contains(faults(r), ": "+c.fault+": ") {
				t.Errorf("%v, notes %v", r.Findings, r.Notes)
			}
		})
	}
}

// TestProvenRollback puts an older manifest of a recording back.
func TestProvenRollback(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	l := mustProve(t, a, mem)
	m := record(t, a, newTestCall(testID, codec.WAVPCMU))
	name := "/data/store/" + testPrefix + "/" + segment.ManifestFile
	old, err := vfs.ReadFile(mem, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	at := place{a.shelves[0], testPrefix}
	key, err := a.keys(at).OpenKey(context.Background(), testID, recorder.WrappedKey{})
	if err != nil {
		t.Fatal(err)
	}
	m.Attrs = map[string]string{"changed": "yes"}
	content, err := a.sealManifest(context.Background(), key, at, m, audit.ReasonRewritten, "")
	key.Close()
	if err = errors.Join(err, a.replaceManifestFile(context.Background(), at, content), l.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	if r := verifyOn(t, mem, nil); !r.OK() {
		t.Fatal(r.Findings)
	}
	if err := vfs.WriteFile(mem, name, old); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*VerifyQuery){"everything": nil, "one": func(q *VerifyQuery) { q.IDs = []string{testID} }} {
		if r := verifyOn(t, mem, change); len(r.Findings) != 1 || r.Findings[0].Fault != FaultRolledBack {
			t.Errorf("%s: %v", what, r.Findings)
		}
	}
}

// TestProvenUnsigned: a recording of before the log is no damage, and one that
// was made while the log failed gets its link later.
func TestProvenUnsigned(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	before := newTestCall(testID, codec.WAVPCMU)
	record(t, a, before)
	if r := verifyOn(t, mem, nil); !r.OK() || len(r.Notes) != 1 || r.Notes[0].Fault != FaultUnsigned {
		t.Fatalf("%v %v", r.Findings, r.Notes)
	}
	var mu sync.Mutex
	fault := syscall.Errno(0)
	l, err := audit.Open(audit.Config{Dir: "/data/audit", FS: mem, Identity: mustIdentity(t, mem), Store: a.Store(), Checkpoint: time.Hour, Now: func() time.Time { return logNow().Add(2 * time.Hour) }, Durable: func(f vfs.File, dirs ...string) error {
		mu.Lock()
		defer mu.Unlock()
		if fault != 0 {
			return fault
		}
		return vfs.Durable(mem, f, dirs...)
	}})
	if err != nil {
		t.Fatal(err)
	}
	a.SetProof(l)
	set := func(e syscall.Errno) {
		mu.Lock()
		defer mu.Unlock()
		fault = e
	}
	set(syscall.EIO)
	record(t, a, newTestCall(idOf(7), codec.WAVPCMU))
	if a.Unlinked() != 1 {
		t.Errorf("%d wait for a link", a.Unlinked())
	}
	if n, err := a.LinkUp(context.Background()); n != 0 || err == nil {
		t.Errorf("linked %d, %v", n, err)
	}
	set(0)
	if n, err := a.LinkUp(context.Background()); n != 1 || err != nil || a.Unlinked() != 0 {
		t.Errorf("linked %d, %v", n, err)
	}
	if err := errors.Join(l.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	r := verifyOn(t, mem, nil)
	if !r.OK() || len(r.Notes) != 1 || r.Notes[0].Recording != testID {
		t.Errorf("%v %v", r.Findings, r.Notes)
	}
}

// TestProvenCrash crashes at each operation of taking a recording: afterwards it
// is there with a link that fits, and the chain has no fork and no hole.
func TestProvenCrash(t *testing.T) {
	call := newTestCall(testID, codec.WAVPCMU)
	call.kept, call.endMS = []span{{0, 1000}}, 1000
	identity := vfstest.NewMem()
	for n, hit := 1, true; hit; n++ {
		mem := vfstest.NewMem()
		b, err := vfs.ReadFile(mustIdentityFS(t, identity), "/data/node-key.json", 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(vfs.MkdirAll(mem, "/data"), vfs.WriteFile(mem, "/data/node-key.json", b)); err != nil {
			t.Fatal(err)
		}
		f := &vfstest.Faults{FS: mem, At: n, Kind: vfstest.Crash, Err: syscall.EIO}
		takeProven(t, f, mem, call)
		hit = f.Hit() != ""
		after := mem.CrashClone(uint64(n))
		cat := newMemCatalog()
		a := mustOpenOn(t, after, cat)
		l := mustProve(t, a, after)
		if _, err := a.Recover(context.Background()); err != nil {
			t.Fatalf("%s: %v", f.Hit(), err)
		}
		_, err = a.LinkUp(context.Background())
		if err := errors.Join(err, l.Close(), a.Close()); err != nil {
			t.Fatalf("%s: %v", f.Hit(), err)
		}
		r := verifyOn(t, after, nil)
		for _, x := range r.Notes {
			if x.Fault == FaultUnsigned {
				t.Errorf("%s: %v", f.Hit(), x)
			}
		}
		if !r.OK() {
			t.Fatalf("%s: %v", f.Hit(), r.Findings)
		}
	}
}

func mustIdentityFS(t *testing.T, mem *vfstest.Mem) *vfstest.Mem {
	t.Helper()
	mustIdentity(t, mem)
	return mem
}

// takeProven takes a call on a file system that fails; what becomes of it shows later.
func takeProven(t *testing.T, f *vfstest.Faults, mem *vfstest.Mem, call testCall) {
	t.Helper()
	a, err := openOn(f, newMemCatalog())
	if err != nil {
		return
	}
	defer func() { _ = a.Close() }() // the machine is dead
	l, err := audit.Open(audit.Config{
		Dir: "/data/audit", FS: f, Identity: mustIdentity(t, mem), Store: a.Store(), Durable: a.DurableIn("/data/audit"), Checkpoint: time.Hour, Now: logNow,
	})
	if err != nil {
		return
	}
	defer func() { _ = l.Close() }() // as above
	a.SetProof(l)
	sink, err := a.NewSink(context.Background(), call.id, call.prefix())
	if err != nil {
		return
	}
	k := &taking{c: call, sink: sink}
	_, _ = k.take()  // as above
	_ = sink.Close() // as above
}

// flips flips each of the bits of files in turn and demands that it is found.
func flips(t *testing.T, mem *vfstest.Mem, every int, names func(string) bool) {
	t.Helper()
	const workers = 4
	var wg sync.WaitGroup
	var total atomic.Int64
	for w := range workers {
		own := mem.CrashClone(1) // all of it is durable
		wg.Go(func() {
			a, proof := readOnly(t, own)
			for _, name := range own.Files() {
				if names(name) {
					total.Add(flipFile(t, a, proof, own, name, w*every, workers*every))
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d bits flipped in turn", total.Load())
}

// flipFile flips the bits from, from+step, … of a file.
func flipFile(t *testing.T, a *Archive, proof ProofQuery, mem *vfstest.Mem, name string, from, step int) (n int64) {
	content, err := vfs.ReadFile(mem, name, 1<<20)
	if err != nil {
		t.Error(err)
		return 0
	}
	f, err := mem.OpenFile(name, syscall.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer func() { _ = f.Close() }() // memory never fails
	for bit := from; bit < 8*len(content); bit += step {
		at := int64(bit / 8)
		_, _ = f.WriteAt([]byte{content[at] ^ 1<<(bit%8)}, at) // as above
		r, err := a.Verify(context.Background(), VerifyQuery{FromID: "0", Proof: proof}, nil)
		_, _ = f.WriteAt(content[at:at+1], at) // as above
		n++
		if err == nil && r.OK() {
			t.Errorf("%s: bit %d of byte %d of %d flipped: nothing was found; it is %q", name, bit%8, at, len(content), around(content, at))
		}
	}
	return n
}

func around(b []byte, at int64) string {
	return fmt.Sprintf("%.40s", b[max(0, at-20):])
}

// tinyCall is 20 ms long.
func tinyRecording(t testing.TB) *vfstest.Mem {
	t.Helper()
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	l := mustProve(t, a, mem)
	sink, err := a.NewSink(context.Background(), testID, testPrefix)
	if err != nil {
		t.Fatal(err)
	}
	w, err := sink.Begin(recorder.SegmentInfo{Recording: testID, Prefix: testPrefix, N: 1, Format: codec.WAVPCMU, SampleRate: 8000, Channels: 2, Start: epoch})
	if err == nil {
		err = w.Write(recorder.Audio{Samples: 160, Data: bytes.Repeat([]byte{0xff, 0x55}, 160)}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	seg, err := w.Finish(nil)
	seg.EndRealMS = 20
	m := &recorder.Manifest{
		Version: 1, ID: testID, Kind: recorder.KindTrunk, Trunk: "a", Format: codec.WAVPCMU, SampleRate: 8000, Channels: []recorder.Channel{{Side: "external"}, {Side: "internal"}},
		Origin: epoch, RealMS: 20, AudioMS: 20, Suppressed: "cut", Segments: []recorder.Segment{seg}, Call: recorder.Call{Start: epoch, End: epoch},
	}
	if err := errors.Join(err, sink.Publish(m), sink.Close(), l.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	if r := verifyOn(t, mem, nil); !r.OK() || len(r.Notes) > 0 {
		t.Fatal(r.Findings, r.Notes)
	}
	return mem
}

// TestEveryBit flips bits of a recording's files, of its log and of the node's
// public keys in turn: some of each byte, with TRUNKTAP_BITS each of them.
func TestEveryBit(t *testing.T) {
	mem := tinyRecording(t)
	every := 3
	if os.Getenv("TRUNKTAP_BITS") != "" {
		every = 1
	}
	flips(t, mem, every, func(name string) bool {
		return strings.HasPrefix(name, "/data/store/") || strings.HasPrefix(name, "/data/audit/") && !strings.HasSuffix(name, "shipped")
	})
}
