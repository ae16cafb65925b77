package archive

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/evidence"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// bundleOf returns the evidence bundle of a recording, made by the daemon.
func bundleOf(t testing.TB, mem *vfstest.Mem, entries bool) []byte {
	t.Helper()
	a := mustOpenOn(t, mem, newMemCatalog())
	l := mustProve(t, a, mem)
	defer func() {
		if err := errors.Join(l.Close(), a.Close()); err != nil {
			t.Error(err)
		}
	}()
	b, err := a.Bundle(context.Background(), testID, ProofQuery{}, entries)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var out bytes.Buffer
	if err := b.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func mustVerifyBundle(t testing.TB, b []byte, key string) evidence.Report {
	t.Helper()
	r, err := evidence.Verify(context.Background(), bytes.NewReader(b), int64(len(b)), key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBundle(t *testing.T) {
	for _, format := range []string{codec.WAVPCMU, codec.WAVPCM16, codec.FLAC, codec.OggOpus} {
		mem := proven(t, newTestCall(testID, format), newTestCall(idOf(7), format))
		b := bundleOf(t, mem, true)
		key := mustIdentity(t, mem).Ring().Active().VKey
		r := mustVerifyBundle(t, b, key)
		if !r.OK() || len(r.Notes) > 0 || !r.Pinned || r.Segments != 3 || r.Recording != testID || r.Key != key || r.Checkpoint.IsZero() {
			t.Errorf("%s: %+v", format, r)
		}
		if format != codec.OggOpus && !bytes.Equal(bundleOf(t, mem, false), bundleOf(t, mem, false)) {
			t.Errorf("%s: two bundles of one recording differ", format)
		}
		if z, err := zip.NewReader(bytes.NewReader(b), int64(len(b))); err != nil || len(z.File) != r.Files {
			t.Errorf("%s: archive/zip: %v", format, err)
		}
		if r := mustVerifyBundle(t, b, ""); !r.OK() || len(r.Notes) != 1 || r.Pinned {
			t.Errorf("%s: without a key: %+v", format, r)
		}
		if r := mustVerifyBundle(t, b, mustIdentity(t, vfstest.NewMem()).Ring().Active().VKey); r.OK() {
			t.Errorf("%s: another key is taken", format)
		}
	}
}

// TestBundleByHand verifies a bundle as its README says.
func TestBundleByHand(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed: what the README says of it is not tried")
	}
	mem := proven(t, newTestCall(testID, codec.WAVPCMU))
	b := bundleOf(t, mem, false)
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	dir, pem := t.TempDir(), ""
	for _, f := range z.File {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if strings.HasSuffix(name, ".pem") {
			pem = name
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) error {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("%s %v: %s", name, args, out)
		}
		return err
	}
	if err := run("sha256sum", "-c", "--strict", "SHA256SUMS"); err != nil {
		t.Error(err)
	}
	verify := func(file string) error {
		return run(openssl, "pkeyutl", "-verify", "-pubin", "-inkey", pem, "-rawin", "-in", file+".txt", "-sigfile", file+".sig")
	}
	for _, file := range []string{"link", "checkpoint"} {
		if err := verify(file); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "link.txt"), []byte("trunktap link 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if verify("link") == nil {
		t.Error("openssl takes another text")
	}
}

// TestBundleEveryBit flips bits of a bundle in turn, cuts it at every length, and
// exchanges what is in it.
func TestBundleEveryBit(t *testing.T) {
	mem := tinyRecording(t)
	b := bundleOf(t, mem, true)
	step := 3
	if os.Getenv("TRUNKTAP_BITS") != "" {
		step = 1
	}
	var wg sync.WaitGroup
	const workers = 4
	for w := range workers {
		own := bytes.Clone(b)
		wg.Go(func() {
			for bit := w * step; bit < 8*len(own); bit += workers * step {
				own[bit/8] ^= 1 << (bit % 8)
				r, err := evidence.Verify(context.Background(), bytes.NewReader(own), int64(len(own)), "")
				own[bit/8] ^= 1 << (bit % 8)
				if err != nil || r.OK() {
					t.Errorf("bit %d of byte %d flipped: %v, nothing was found: %q", bit%8, bit/8, err, own[max(0, bit/8-20):bit/8+10])
				}
			}
		})
	}
	wg.Wait()
	for n := range len(b) {
		if r := mustVerifyBundle(t, b[:n], ""); r.OK() {
			t.Fatalf("cut to %d bytes: nothing was found", n)
		}
	}
	if r := mustVerifyBundle(t, append(bytes.Clone(b), 0), ""); r.OK() {
		t.Error("a byte behind it")
	}
}

// TestBundleDamaged: of a damaged recording there is no bundle that looks whole.
func TestBundleDamaged(t *testing.T) {
	mem := proven(t, newTestCall(testID, codec.WAVPCMU))
	alter(t, mem, 2, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	a := mustOpenOn(t, mem, newMemCatalog())
	defer func() { _ = a.Close() }() // only read
	b, err := a.Bundle(context.Background(), testID, ProofQuery{}, false)
	if err == nil {
		defer b.Close()
		err = b.Write(io.Discard)
	}
	if err == nil {
		t.Error("a bundle of a damaged recording")
	}
}

// TestBundleOfAnotherNode: a node hands out what another recorded on the same
// storage, with the proof of that one's log in the store; without it the bundle
// says so.
func TestBundleOfAnotherNode(t *testing.T) {
	mem := proven(t, newTestCall(testID, codec.WAVPCMU), newTestCall(idOf(7), codec.WAVPCMU))
	first := mustOpenOn(t, mem, newMemCatalog())
	defer func() { _ = first.Close() }() // only its store is used
	key := mustIdentity(t, mem).Ring().Active().VKey
	disk := vfstest.NewMem()
	bundle := func() (evidence.Report, []byte) {
		a, err := Open(Config{Store: first.Store(), SpoolDir: "/data/spool", FS: disk, Sealer: testSealer(), Catalog: newMemCatalog()})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Close() }() // only read
		id, err := audit.OpenIdentity(audit.IdentityConfig{Path: "/b.json", Node: "rec-b", FS: disk})
		if err != nil {
			t.Fatal(err)
		}
		l, err := audit.Open(audit.Config{Dir: "/b", FS: disk, Identity: id, Now: logNow})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }() // as above
		a.SetProof(l)
		b, err := a.Bundle(context.Background(), testID, ProofQuery{}, true)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var out bytes.Buffer
		if err := b.Write(&out); err != nil {
			t.Fatal(err)
		}
		return mustVerifyBundle(t, out.Bytes(), key), out.Bytes()
	}
	r, out := bundle()
	if !r.OK() || r.Node != "rec-a" || r.Key != key || r.Checkpoint.IsZero() || r.Entry != 1 || len(r.Notes) != 2 || bytes.Contains(out, []byte("NOT PROVED")) {
		t.Errorf("%+v", r)
	}
	for _, name := range mem.Files() {
		if strings.HasPrefix(name, "/data/store/audit/rec-a/2") {
			_ = mem.Remove(name) // it is missed below
		}
	}
	r, out = bundle()
	if !r.OK() || r.Key != key || !r.Checkpoint.IsZero() || len(r.Notes) != 3 || !bytes.Contains(out, []byte("NOT PROVED: that the recorder's audit log")) {
		t.Errorf("without the log: %+v", r)
	}
}
