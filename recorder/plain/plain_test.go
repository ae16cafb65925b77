package plain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
)

const testID = "20261122T163608Z-1f0c9a3b5d7e8f60"

func info(n int, format string) recorder.SegmentInfo {
	return recorder.SegmentInfo{Recording: testID, N: n, Format: format, SampleRate: 8000, Channels: 2, AudioMS: int64(n-1) * 1000}
}

// take writes a recording of two segments with a leap in the first.
func take(t *testing.T, root, format string) *recorder.Manifest {
	t.Helper()
	sink, err := New(root).NewSink(context.Background(), testID, "ignored")
	if err != nil {
		t.Fatal(err)
	}
	m := &recorder.Manifest{Version: 1, ID: testID, Format: format, SampleRate: 8000, Attrs: map[string]string{"b": "2", "a": "1"}}
	for n := 1; n <= 2; n++ {
		w, err := sink.Begin(info(n, format))
		if err != nil {
			t.Fatal(err)
		}
		enc, err := codec.NewEncoder(format, 8000, codec.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ch := [2][]int16{make([]int16, 1600), make([]int16, 1600)}
		for i := range ch[0] {
			ch[0][i], ch[1][i] = int16(i*n), int16(-i)
		}
		first, err := enc.Encode(nil, ch)
		if err != nil {
			t.Fatal(err)
		}
		last, err := enc.Flush(nil, ch)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []recorder.Audio{{Samples: 1600, Data: first}, {}, {SegMS: 600, Samples: 1600, Data: last}} {
			if err := w.Write(a, m); err != nil {
				t.Fatal(err)
			}
		}
		s, err := w.Finish(m)
		if err != nil {
			t.Fatal(err)
		}
		if s.DurationMS != 800 {
			t.Errorf("%s: segment of %d ms, want 800", format, s.DurationMS)
		}
		m.Segments = append(m.Segments, s)
	}
	if err := errors.Join(sink.Publish(m), sink.Publish(m), sink.Close()); err != nil {
		t.Fatal(err)
	}
	return m
}

// tree returns the content of every file below a directory.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		out[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTree(t *testing.T) {
	for _, format := range []string{codec.WAVPCM16, codec.WAVPCMU, codec.WAVPCMA, codec.OggOpus} {
		root := filepath.Join(t.TempDir(), "out")
		m := take(t, root, format)
		got := tree(t, root)
		if len(got) != 3 {
			t.Errorf("%s: files %v", format, got)
		}
		for _, s := range m.Segments {
			b := got[filepath.Join(testID, s.File)]
			h := sha256.Sum256([]byte(b))
			if int64(len(b)) != s.Bytes || hex.EncodeToString(h[:]) != s.SHA256 {
				t.Errorf("%s: %s has %d bytes, sha256 %x; the segment says %d, %s", format, s.File, len(b), h, s.Bytes, s.SHA256)
			}
			if format == codec.WAVPCM16 && len(b) != 44+800*8*4 {
				t.Errorf("%s has %d bytes: the leap is not filled", s.File, len(b))
			}
		}
		var back recorder.Manifest
		if err := json.Unmarshal([]byte(got[filepath.Join(testID, ManifestFile)]), &back); err != nil || cmp.Diff(*m, back) != "" {
			t.Errorf("%s: recording.json: %v\n%s", format, err, cmp.Diff(*m, back))
		}
		// A second run gives the same, in place of the first.
		take(t, root, format)
		if d := cmp.Diff(got, tree(t, root)); d != "" {
			t.Errorf("%s: two runs differ:\n%s", format, d)
		}
	}
}

func TestNothingIsLeftUnpublished(t *testing.T) {
	root := t.TempDir()
	sink, err := New(root).NewSink(context.Background(), testID, "")
	if err != nil {
		t.Fatal(err)
	}
	w, err := sink.Begin(info(1, codec.WAVPCMU))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(recorder.Audio{Samples: 8, Data: make([]byte, 16)}, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Abort(), w.Abort(), sink.Close(), sink.Close()); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, root); len(got) != 0 {
		t.Errorf("left %v", got)
	}
	if err := w.Write(recorder.Audio{Samples: 8, Data: make([]byte, 16)}, nil); err == nil {
		t.Error("Write after Abort succeeded")
	}
	if _, err := w.Finish(nil); err == nil {
		t.Error("Finish after Abort succeeded")
	}
	if _, err := sink.Begin(info(2, codec.WAVPCMU)); err == nil {
		t.Error("Begin after Close succeeded")
	}
}

func TestRefuses(t *testing.T) {
	root := t.TempDir()
	for _, id := range []string{"", "../x", "a/b", ".hidden"} {
		if _, err := New(root).NewSink(context.Background(), id, ""); err == nil {
			t.Errorf("id %q accepted", id)
		}
	}
	sink, err := New(root).NewSink(context.Background(), testID, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []recorder.SegmentInfo{info(1, "mp3"), info(0, codec.WAVPCMU), {N: 1, Format: codec.WAVPCMU}} {
		if _, err := sink.Begin(i); err == nil {
			t.Errorf("segment %+v accepted", i)
		}
	}
	if err := sink.Publish(&recorder.Manifest{ID: "another"}); err == nil {
		t.Error("another's manifest accepted")
	}
	// A folder that holds something else is not removed.
	mine := filepath.Join(root, testID, "thesis.txt")
	if err := errors.Join(os.MkdirAll(filepath.Dir(mine), 0o755), os.WriteFile(mine, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := sink.Publish(&recorder.Manifest{ID: testID}); err == nil {
		t.Error("a folder with other files was replaced")
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
}

func TestFinishedSegmentsAreLetGo(t *testing.T) {
	out, err := New(t.TempDir()).NewSink(context.Background(), testID, "")
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 100; n++ {
		w, err := out.Begin(info(n, codec.WAVPCM16))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Finish(nil); err != nil {
			t.Fatal(err)
		}
	}
	if held := len(out.(*sink).open); held > 1 {
		t.Errorf("%d finished segments are held", held)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
}
