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

// golden is what testdata/vN.seg and testdata/vN.trm must open to under the
// keys of testdata/v1.kek.json; version 2 has the wrapped key in v2.key. The files were written once: a program that
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

func decodeGolden(t *testing.T, s Opener, seg, trm []byte) golden {
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
func encodeGolden(t *testing.T, g golden, key recorder.DataKey) (seg, trm []byte) {
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

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	s := goldenSealer(t)
	if *update {
		writeGolden(t, s)
	}
	var want golden
	if err := json.Unmarshal(mustRead(t, "v1.want.json"), &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, decodeGolden(t, s, mustRead(t, "v1.seg"), mustRead(t, "v1.trm"))); d != "" {
		t.Errorf("the golden files of version 1 open to something else (-want +got):\n%s", d)
	}
	rec, err := ParseKeyRecord(mustRead(t, "v2.key"))
	if err != nil {
		t.Fatal(err)
	}
	want.Header.Key = recorder.WrappedKey{}
	opener := Keyed(s, rec.Key)
	if d := cmp.Diff(want, decodeGolden(t, opener, mustRead(t, "v2.seg"), mustRead(t, "v2.trm"))); d != "" {
		t.Errorf("the golden files of version 2 open to something else (-want +got):\n%s", d)
	}

	// The other way round: sealing is randomised, and accounts may be deflated in
	// several ways, so what is sealed again is opened again.
	key, err := s.OpenKey(context.Background(), testRec, rec.Key)
	if err != nil {
		t.Fatal(err)
	}
	seg, trm := encodeGolden(t, want, key)
	if string(seg[:preambleBytes]) != string(mustRead(t, "v2.seg")[:preambleBytes]) {
		t.Errorf("written anew, the preamble is %q", seg[:preambleBytes])
	}
	if d := cmp.Diff(want, decodeGolden(t, opener, seg, trm)); d != "" {
		t.Errorf("written anew and read (-want +got):\n%s", d)
	}
}

// writeGolden makes the files of version 2 from what is wanted of version 1.
func writeGolden(t *testing.T, s recorder.Sealer) {
	t.Helper()
	var g golden
	if err := json.Unmarshal(mustRead(t, "v1.want.json"), &g); err != nil {
		t.Fatal(err)
	}
	key, err := s.NewKey(context.Background(), testRec)
	if err != nil {
		t.Fatal(err)
	}
	seg, trm := encodeGolden(t, g, key)
	at := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	rec, err := KeyRecord{Recording: testRec, Prefix: testPrefix, Key: key.Wrapped(), Created: at, Wrapped: at}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"v2.seg": seg, "v2.trm": trm, "v2.key": rec} {
		if err := os.WriteFile("testdata/"+name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
