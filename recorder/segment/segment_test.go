package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

const (
	testRec    = "20261122T163608Z-1f0c9a3b5d7e8f60"
	testPrefix = "2026/11/22/" + testRec
	testDir    = "/spool/" + testRec
)

// bench is a key, a store and a spool on one file system.
type bench struct {
	fsys   vfs.FS
	sealer Opener
	store  recorder.Store
	key    recorder.DataKey
}

var testKeys = vfstest.NewMem() // one key file for all tests

func mustBench(t testing.TB, fsys vfs.FS) bench {
	t.Helper()
	sealer, err := seal.OpenLocal(seal.LocalConfig{Path: "/keys/kek.json", FS: testKeys})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.OpenDir(store.DirConfig{Root: "/store", FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	if err := vfs.MkdirAll(fsys, testDir); err != nil {
		t.Fatal(err)
	}
	key, err := sealer.NewKey(context.Background(), testRec)
	if err != nil {
		t.Fatal(err)
	}
	return bench{fsys, Keyed(sealer, key.Wrapped()), st, key}
}

func testInfo(n int) recorder.SegmentInfo {
	return recorder.SegmentInfo{
		Recording: testRec, Prefix: testPrefix, N: n, Format: "wav-pcmu", SampleRate: 8000, Channels: 2,
		RealMS: int64(n-1) * 60_000, AudioMS: int64(n-1) * 50_000, Start: time.Date(2026, 11, 22, 16, 36, 8, 0, time.UTC),
	}
}

func (b bench) create(t testing.TB, n, syncEvery int) *Writer {
	t.Helper()
	w, err := Create(WriterConfig{FS: b.fsys, Store: b.store, Key: b.key, Dir: testDir, Info: testInfo(n), SyncEvery: syncEvery})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// testAudio is the i-th frame of 500 ms of segment n.
func testAudio(n, i int) recorder.Audio {
	info, ms := testInfo(n), int64(i)*500
	data := bytes.Repeat([]byte{byte(n), byte(i)}, 4000)
	return recorder.Audio{RealMS: info.RealMS + ms, AudioMS: info.AudioMS + ms, SegMS: ms, Samples: 4000, Data: data}
}

func testAccount(i int) *recorder.Manifest {
	return &recorder.Manifest{Version: 1, ID: testRec, RealMS: int64(i) * 500, Attrs: map[string]string{"i": fmt.Sprint(i)}}
}

// write makes segment n with that many frames of audio, an account at every third.
func (b bench) write(t testing.TB, n, frames int) recorder.Segment {
	t.Helper()
	w := b.create(t, n, 1)
	for i := range frames {
		var account *recorder.Manifest
		if i%3 == 0 {
			account = testAccount(i)
		}
		if err := w.Write(testAudio(n, i), account); err != nil {
			t.Fatal(err)
		}
	}
	s, err := w.Finish(testAccount(frames))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b bench) content(t testing.TB, n int) []byte {
	t.Helper()
	blob, err := b.store.Open(context.Background(), testPrefix+"/"+FileName(n))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = blob.Close() }()
	p := make([]byte, blob.Size())
	if _, err := blob.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// memBlob is a blob of bytes.
type memBlob struct{ *bytes.Reader }

func (memBlob) Close() error { return nil }

func blobOf(p []byte) recorder.Blob { return memBlob{bytes.NewReader(p)} }

// readAll reads until the end or the first fault.
func readAll(p []byte, s Opener, want Want) ([]recorder.Audio, *recorder.Manifest, error) {
	r, err := Open(context.Background(), blobOf(p), s, want)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	var out []recorder.Audio
	for {
		a, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, r.Account(), nil
		}
		if err != nil {
			return out, r.Account(), err
		}
		out = append(out, a)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, syncEvery := range []int{0, 1, 3, 100} {
		b := mustBench(t, vfstest.NewMem())
		w := b.create(t, 2, syncEvery)
		var want []recorder.Audio
		for i := range 10 {
			want = append(want, testAudio(2, i))
			if err := w.Write(want[i], nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Write(recorder.Audio{}, testAccount(7)); err != nil {
			t.Fatal(err)
		}
		s, err := w.Finish(nil)
		if err != nil {
			t.Fatal(err)
		}
		p := b.content(t, 2)
		got, account, err := readAll(p, b.sealer, Want{testRec, 2})
		if err != nil {
			t.Fatalf("sync every %d: %v", syncEvery, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("sync every %d: audio (-want +got):\n%s", syncEvery, d)
		}
		if d := cmp.Diff(testAccount(7), account); d != "" {
			t.Errorf("account:\n%s", d)
		}
		size, sum, err := Sum(blobOf(p))
		if err != nil || size != s.Bytes || sum != s.SHA256 || s.File != "0002.seg" || s.N != 2 || s.DurationMS != 5000 {
			t.Errorf("segment %+v; file has %d bytes, sha256 %s, %v", s, size, sum, err)
		}
		if bytes.Contains(p, want[0].Data[:64]) {
			t.Error("the file holds plain audio")
		}
		if again, err := w.Finish(nil); err != nil || again.SHA256 != s.SHA256 {
			t.Errorf("Finish again = %+v, %v", again, err)
		}
		if err := w.Write(testAudio(2, 11), nil); err == nil {
			t.Error("Write after Finish succeeded")
		}
	}
}

// frames returns where each frame of a file begins and, last, its end.
func frameOffsets(t *testing.T, p []byte) []int {
	t.Helper()
	n, err := parsePreamble(p, kindSegment)
	if err != nil {
		t.Fatal(err)
	}
	at := []int{preambleBytes + n}
	for off := at[0]; off < len(p); {
		off += frameHead + int(uint32(p[off+1])<<24|uint32(p[off+2])<<16|uint32(p[off+3])<<8|uint32(p[off+4]))
		at = append(at, off)
	}
	return at
}

func TestRearranged(t *testing.T) {
	b := mustBench(t, vfstest.NewMem())
	b.write(t, 1, 6)
	b.write(t, 2, 6)
	p, q := b.content(t, 1), b.content(t, 2)
	at, qt := frameOffsets(t, p), frameOffsets(t, q)
	frame := func(i int) []byte { return p[at[i]:at[i+1]] }
	head := p[:at[0]]
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	last := len(at) - 2

	other := mustBench(t, vfstest.NewMem())
	other.write(t, 1, 6)
	o := other.content(t, 1)
	ot := frameOffsets(t, o)

	for _, c := range []struct {
		name string
		file []byte
		want Fault
	}{
		{"swapped", join(head, frame(0), frame(2), frame(1), p[at[3]:]), FaultReordered},
		{"left out", join(head, frame(0), p[at[2]:]), FaultReordered},
		{"repeated", join(head, frame(0), frame(0), p[at[1]:]), FaultReordered},
		{"last frame early", join(head, frame(0), frame(last)), FaultReordered},
		{"last frame left out", join(head, p[at[0]:at[last]]), FaultTruncated},
		{"frame of another segment", join(head, frame(0), q[qt[1]:qt[2]], p[at[2]:]), FaultAltered},
		{"frame of another file of the same segment", join(head, frame(0), o[ot[1]:ot[2]], p[at[2]:]), FaultAltered},
		{"header of another segment", join(q[:qt[0]], p[at[0]:]), FaultAltered},
		{"another segment in its place", q, FaultAltered},
		{"only the header", head, FaultTruncated},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := readAll(c.file, b.sealer, Want{testRec, 1})
			var bad *FrameError
			if !errors.As(err, &bad) || bad.Fault != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestReadOnBehindBadFrame(t *testing.T) {
	b := mustBench(t, vfstest.NewMem())
	b.write(t, 1, 6)
	p := b.content(t, 1)
	at := frameOffsets(t, p)
	p[at[2]+20] ^= 1 // the second audio frame; frame 0 is an account
	r, err := Open(context.Background(), blobOf(p), b.sealer, Want{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []int64
	var faults int
	for {
		a, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if faults++; faults > 1 {
				t.Fatalf("second fault: %v", err)
			}
			continue
		}
		got = append(got, a.SegMS)
	}
	if want := []int64{0, 1000, 1500, 2000, 2500}; faults != 1 || !slices.Equal(got, want) {
		t.Errorf("%d faults, audio at %v, want 1 and %v", faults, got, want)
	}
}

func TestWriteRefuses(t *testing.T) {
	b := mustBench(t, vfstest.NewMem())
	w := b.create(t, 1, 1)
	if err := w.Write(testAudio(1, 2), nil); err != nil {
		t.Fatal(err)
	}
	long := testAudio(1, 3)
	long.Samples = 8001
	huge := testAudio(1, 3)
	huge.Data = make([]byte, FrameBytesMax)
	early := testAudio(1, 3)
	early.RealMS = -1
	for name, a := range map[string]recorder.Audio{
		"more than a second": long, "too many bytes": huge, "before the start": early, "written already": testAudio(1, 1),
	} {
		if err := w.Write(a, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := w.Write(testAudio(1, 9), nil); err != nil {
		t.Errorf("after a leap: %v", err)
	}
	if _, err := w.Finish(nil); err != nil {
		t.Fatal(err)
	}
	got, _, err := readAll(b.content(t, 1), b.sealer, Want{})
	if err != nil || len(got) != 2 {
		t.Errorf("%d frames, %v; want 2", len(got), err)
	}
	if _, err := Create(WriterConfig{FS: b.fsys, Store: b.store, Key: b.key, Dir: testDir, Info: recorder.SegmentInfo{Recording: "../x"}}); err == nil {
		t.Error("a bad header was accepted")
	}
}

func TestRelease(t *testing.T) {
	mem := vfstest.NewMem()
	b := mustBench(t, mem)
	w := b.create(t, 1, 1)
	if err := w.Write(testAudio(1, 0), nil); err != nil {
		t.Fatal(err)
	}
	w.Release()
	w.Release()
	if _, err := w.Finish(nil); err == nil {
		t.Error("Finish after Release succeeded")
	}
	if err := w.Write(testAudio(1, 1), nil); err == nil {
		t.Error("Write after Release succeeded")
	}
	blob, err := OpenFile(mem, w.path)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := Salvage(context.Background(), blob, b.sealer); err != nil || s.EndMS != 500 {
		t.Errorf("left for recovery: %d ms, %v; want 500", s.EndMS, err)
	}
}

func TestAbortMakesRoomForTheSameNumber(t *testing.T) {
	mem := vfstest.NewMem()
	b := mustBench(t, mem)
	w := b.create(t, 1, 1)
	if err := errors.Join(w.Write(recorder.Audio{}, testAccount(0)), w.Abort(), w.Abort()); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(mem, w.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the spool file of an aborted segment: %v, want it gone", err)
	}
	again := b.create(t, 1, 1)
	if err := again.Write(testAudio(1, 0), nil); err != nil {
		t.Error(err)
	}
}

func TestManifestFile(t *testing.T) {
	b := mustBench(t, vfstest.NewMem())
	m := testAccount(3)
	p, err := SealManifest(b.key, testPrefix, m)
	if err != nil {
		t.Fatal(err)
	}
	got, head, err := OpenManifest(context.Background(), blobOf(p), b.sealer)
	if err != nil || cmp.Diff(m, got) != "" || head.Prefix != testPrefix {
		t.Fatalf("OpenManifest = %+v, %+v, %v", got, head, err)
	}
	for i := range p {
		bad := slices.Clone(p)
		bad[i] ^= 4
		if _, _, err := OpenManifest(context.Background(), blobOf(bad), b.sealer); err == nil {
			t.Fatalf("byte %d of %d flipped: not found", i, len(p))
		}
		if _, _, err := OpenManifest(context.Background(), blobOf(p[:i]), b.sealer); err == nil {
			t.Fatalf("cut to %d of %d bytes: not found", i, len(p))
		}
	}
	m.ID = "another"
	if p, err = SealManifest(b.key, testPrefix, m); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenManifest(context.Background(), blobOf(p), b.sealer); !errors.Is(err, recorder.ErrTampered) {
		t.Errorf("a key of another recording: %v, want ErrTampered", err)
	}
}

// TestAnyWrites writes random runs of audio and accounts and reads them back.
func TestAnyWrites(t *testing.T) {
	b := mustBench(t, vfstest.NewMem())
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		w, err := Create(WriterConfig{FS: b.fsys, Store: b.store, Key: b.key, Dir: testDir, Info: testInfo(n), SyncEvery: rapid.IntRange(0, 20).Draw(t, "syncEvery")})
		if err != nil {
			t.Fatal(err)
		}
		info := testInfo(n)
		var want []recorder.Audio
		var account *recorder.Manifest
		pos := int64(0)
		for range rapid.IntRange(0, 12).Draw(t, "writes") {
			var a recorder.Audio
			if rapid.Bool().Draw(t, "audio") {
				pos += rapid.Int64Range(0, 2).Draw(t, "leap") * 20
				ms := rapid.Int64Range(1, 1000).Draw(t, "ms")
				a = recorder.Audio{
					RealMS: info.RealMS + pos*2, AudioMS: info.AudioMS + pos, SegMS: pos, Samples: int(ms) * 8,
					Data: rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "data"),
				}
				pos += ms
				want = append(want, a)
			}
			var m *recorder.Manifest
			if rapid.Bool().Draw(t, "account") {
				m = testAccount(rapid.Int().Draw(t, "i"))
				account = m
			}
			if err := w.Write(a, m); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Finish(nil); err != nil {
			t.Fatal(err)
		}
		blob, err := b.store.Open(context.Background(), testPrefix+"/"+FileName(n))
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, blob.Size())
		if _, err := blob.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		got, last, err := readAll(p, b.sealer, Want{testRec, n})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) || cmp.Diff(account, last) != "" {
			t.Fatalf("%d frames, want %d; account %s", len(got), len(want), cmp.Diff(account, last))
		}
		for i := range want {
			if !bytes.Equal(got[i].Data, want[i].Data) || got[i].SegMS != want[i].SegMS || got[i].RealMS != want[i].RealMS || got[i].Samples != want[i].Samples {
				t.Fatalf("frame %d = %+v, want %+v", i, got[i], want[i])
			}
		}
	})
}

func BenchmarkWrite500ms(b *testing.B) {
	for _, c := range []struct {
		name  string
		bytes int
		acc   *recorder.Manifest
	}{{"opus", 4000, nil}, {"pcm16", 16000, nil}, {"opus+account", 4000, testAccount(1)}} {
		b.Run(c.name, func(b *testing.B) {
			mb := mustBench(b, vfstest.NewMem())
			bind := newBinding([]byte("head"))
			data := make([]byte, c.bytes)
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				a := recorder.Audio{Samples: 4000, Data: data}
				var err error
				if buf, err = appendFrame(buf[:0], mb.key, &bind, 1, frameAudio, appendAudio(nil, a)); err != nil {
					b.Fatal(err)
				}
				if c.acc != nil {
					p, err := encodeAccount(c.acc)
					if err != nil {
						b.Fatal(err)
					}
					if buf, err = appendFrame(buf, mb.key, &bind, 1, frameAccount, p); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
