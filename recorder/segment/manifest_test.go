package segment

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// TestManifestLink: what stands behind a manifest is given back, and a file that
// is cut or longer is not taken.
func TestManifestLink(t *testing.T) {
	b := mustBench(t, vfstest.NewMem())
	sealed, err := SealManifest(b.key, testPrefix, testAccount(1))
	if err != nil {
		t.Fatal(err)
	}
	link := []byte("a link\n\n— signed\n")
	file, err := AppendLink(bytes.Clone(sealed), link)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ file, link []byte }{"with": {file, link}, "without": {sealed, nil}} {
		o, err := OpenLinked(context.Background(), blobOf(c.file), b.sealer)
		if err != nil || !bytes.Equal(o.Link, c.link) || o.Manifest.ID != testAccount(1).ID || len(o.JSON) == 0 {
			t.Errorf("%s: %q %v", what, o.Link, err)
		}
		gotSealed, gotLink, err := SplitManifest(c.file)
		if err != nil || !bytes.Equal(gotSealed, sealed) || !bytes.Equal(gotLink, c.link) {
			t.Errorf("%s: split: %q %v", what, gotLink, err)
		}
	}
	for n := range len(file) {
		if n == len(sealed) {
			continue // it is one without a link
		}
		_, _, err := OpenManifest(context.Background(), blobOf(file[:n]), b.sealer)
		_, _, serr := SplitManifest(file[:n])
		if !errors.Is(err, recorder.ErrTampered) || !errors.Is(serr, recorder.ErrTampered) {
			t.Fatalf("cut to %d bytes: %v, %v", n, err, serr)
		}
	}
	for _, more := range []string{"x", "\x05\x00\x00\x00\x00", string(file[len(sealed):])} {
		if _, _, err := OpenManifest(context.Background(), blobOf(append(bytes.Clone(file), more...)), b.sealer); !errors.Is(err, recorder.ErrTampered) {
			t.Errorf("%q behind it: %v", more, err)
		}
	}
	if _, err := AppendLink(sealed, nil); err == nil {
		t.Error("an empty link is taken")
	}
}

func FuzzSplitManifest(f *testing.F) {
	b := mustBench(f, vfstest.NewMem())
	sealed, err := SealManifest(b.key, testPrefix, testAccount(1))
	if err != nil {
		f.Fatal(err)
	}
	linked, err := AppendLink(bytes.Clone(sealed), []byte("x\n"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(linked)
	f.Add(linked[:len(linked)-1])
	f.Fuzz(func(t *testing.T, content []byte) {
		sealed, link, err := SplitManifest(content)
		if err != nil {
			return
		}
		again := bytes.Clone(sealed)
		if link != nil {
			if again, err = AppendLink(again, link); err != nil && len(link) > 0 {
				t.Fatal(err)
			}
		}
		if err == nil && !bytes.Equal(again, content) {
			t.Errorf("%q is not %q", again, content)
		}
	})
}
