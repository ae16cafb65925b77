package segment

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

var update = flag.Bool("update", false, "write the golden vectors anew; never do that for a released version of the format")

// golden is what testdata/v1.seg and testdata/v1.trm must open to under the
// keys of testdata/v1.kek.json. The files were written once: a program that
// no longer reads them cannot read the recordings of its predecessors.
type golden struct {
	Header   Header             `json:"header"`
	Audio    []goldenAudio      `json:"audio"`
	Account  *recorder.Manifest `json:"account"`
	Manifest *recorder.Manifest `json:"manifest"`
}

type goldenAudio struct {
	RealMS, AudioMS, SegMS int64
	Samples                int
	DataHex                string
}

func goldenSealer(t *testing.T) recorder.Sealer {
	t.Helper()
	// A working copy has the modes of its owner; the key file must have its own.
	b, err := os.ReadFile("testdata/v1.kek.json")
	if err != nil {
		t.Fatal(err)
	}
	mem := vfstest.NewMem()
	if err := errors.Join(vfs.MkdirAll(mem, "/keys"), vfs.WriteFile(mem, "/keys/kek.json", b)); err != nil {
		t.Fatal(err)
	}
	s, err := seal.OpenLocal(seal.LocalConfig{Path: "/keys/kek.json", FS: mem, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func decodeGolden(t *testing.T, s recorder.Sealer, seg, trm []byte) golden {
	t.Helper()
	r, err := Open(context.Background(), blobOf(seg), s, Want{testRec, 3})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	g := golden{Header: r.Header()}
	for {
		a, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		g.Audio = append(g.Audio, goldenAudio{a.RealMS, a.AudioMS, a.SegMS, a.Samples, hex.EncodeToString(a.Data)})
	}
	g.Account = r.Account()
	if g.Manifest, _, err = OpenManifest(context.Background(), blobOf(trm), s); err != nil {
		t.Fatal(err)
	}
	return g
}

// encodeGolden seals what g tells.
func encodeGolden(t *testing.T, g golden, s recorder.Sealer, key recorder.DataKey) (seg, trm []byte) {
	t.Helper()
	mem := vfstest.NewMem()
	st, err := store.OpenDir(store.DirConfig{Root: "/store", FS: mem})
	if err != nil {
		t.Fatal(err)
	}
	if err := vfs.MkdirAll(mem, "/spool"); err != nil {
		t.Fatal(err)
	}
	h := g.Header
	w, err := Create(WriterConfig{FS: mem, Store: st, Key: key, Dir: "/spool", Info: recorder.SegmentInfo{
		Recording: h.Recording, Prefix: h.Prefix, N: h.N, Format: h.Format, SampleRate: h.SampleRate, Channels: h.Channels,
		RealMS: h.RealMS, AudioMS: h.AudioMS, Start: h.Start,
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range g.Audio {
		data, err := hex.DecodeString(a.DataHex)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(recorder.Audio{RealMS: a.RealMS, AudioMS: a.AudioMS, SegMS: a.SegMS, Samples: a.Samples, Data: data}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish(g.Account); err != nil {
		t.Fatal(err)
	}
	if seg, err = vfs.ReadFile(mem, "/store/"+h.Prefix+"/"+FileName(h.N), 1<<20); err != nil {
		t.Fatal(err)
	}
	if trm, err = SealManifest(key, h.Prefix, g.Manifest); err != nil {
		t.Fatal(err)
	}
	return seg, trm
}

func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	s := goldenSealer(t)
	var files [3][]byte
	for i, name := range []string{"testdata/v1.seg", "testdata/v1.trm", "testdata/v1.want.json"} {
		var err error
		if files[i], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	var want golden
	if err := json.Unmarshal(files[2], &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, decodeGolden(t, s, files[0], files[1])); d != "" {
		t.Errorf("the golden files open to something else (-want +got):\n%s", d)
	}

	// The other way round: sealing is randomised, and accounts may be deflated in
	// several ways, so what is sealed again is opened again.
	key, err := s.OpenKey(context.Background(), testRec, want.Header.Key)
	if err != nil {
		t.Fatal(err)
	}
	seg, trm := encodeGolden(t, want, s, key)
	if string(seg[:preambleBytes]) != string(files[0][:preambleBytes]) {
		t.Errorf("written anew: the preamble is %q, was %q", seg[:preambleBytes], files[0][:preambleBytes])
	}
	if d := cmp.Diff(want, decodeGolden(t, s, seg, trm)); d != "" {
		t.Errorf("written anew and read (-want +got):\n%s", d)
	}
}

func writeGolden(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove("testdata/v1.kek.json"); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	s, err := seal.OpenLocal(seal.LocalConfig{Path: "testdata/v1.kek.json"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.NewKey(context.Background(), testRec)
	if err != nil {
		t.Fatal(err)
	}
	g := golden{
		Header: Header{
			Recording: testRec, Prefix: testPrefix, Key: key.Wrapped(), N: 3, Format: "wav-pcma", SampleRate: 8000, Channels: 2,
			RealMS: 600_000, AudioMS: 540_000, Start: time.Date(2026, 11, 22, 16, 46, 8, 123456789, time.UTC),
		},
		Audio: []goldenAudio{
			{600_000, 540_000, 0, 4, "d5d5555580802a2a"},
			{600_001, 540_001, 1, 2, "00ff00ff"},
			{660_000, 540_060, 60, 1, "5501"},
		},
		Account:  &recorder.Manifest{Version: 1, ID: testRec, RealMS: 660_000, AudioMS: 540_060, Attrs: map[string]string{"case": "4711"}},
		Manifest: &recorder.Manifest{Version: 1, ID: testRec, Trunk: "carrier-a", RealMS: 660_061, AudioMS: 540_061},
	}
	seg, trm := encodeGolden(t, g, s, key)
	js, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"v1.seg": seg, "v1.trm": trm, "v1.want.json": append(js, '\n')} {
		if err := os.WriteFile("testdata/"+name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
