package evidence

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

func testContent(t testing.TB) Content {
	t.Helper()
	id, err := audit.OpenIdentity(audit.IdentityConfig{Path: "/keys/node.json", Node: "rec-a", FS: vfstest.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	m := recorder.Manifest{Version: 1, ID: "r1", Format: "wav-pcmu", Segments: []recorder.Segment{{
		N: 1, File: "0001.seg", AudioSHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	}}, Call: recorder.Call{From: "sip:a@x", To: "sip:b@y", Start: time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)}}
	js, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return Content{
		Manifest: js, Ring: id.Ring(),
		Audio: func(w io.Writer, _ recorder.Segment) error {
			_, err := io.WriteString(w, "abc")
			return err
		},
		Sign: func(text string) ([]byte, error) {
			signed, err := id.Sign(text)
			if err != nil {
				return nil, err
			}
			_, _, sig, err := id.Ring().Open(signed)
			return sig, err
		},
	}
}

func mustWrite(t testing.TB, c Content) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func mustVerify(t testing.TB, b []byte) Report {
	t.Helper()
	r, err := Verify(context.Background(), bytes.NewReader(b), int64(len(b)), "")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestVerify(t *testing.T) {
	c := testContent(t)
	b := mustWrite(t, c)
	if r := mustVerify(t, b); !r.OK() || r.Recording != "r1" || r.Segments != 1 || len(r.Notes) != 2 {
		t.Errorf("%+v", r)
	}
	if !bytes.Equal(b, mustWrite(t, c)) {
		t.Error("the same content gives other bytes")
	}
	c.Audio = func(w io.Writer, _ recorder.Segment) error {
		_, err := io.WriteString(w, "abd")
		return err
	}
	// Whoever has the node's key can sign another list, not another recording.
	if r := mustVerify(t, mustWrite(t, c)); len(r.Findings) != 1 || r.Findings[0].Fault != FaultAltered || !strings.HasPrefix(r.Findings[0].File, audioDir) {
		t.Errorf("other audio: %+v", r.Findings)
	}
}

// TestVerifyUnsigned: a key that was given must have signed something. Who has the
// node's public keys alone can put them beside a recording that he made up.
func TestVerifyUnsigned(t *testing.T) {
	c := testContent(t)
	key := c.Ring.Active().VKey
	c.Playable, c.PlayableExt = func(w io.Writer) error { _, err := io.WriteString(w, "made up"); return err }, ".wav"
	verify := func(b []byte, key string) Report {
		r, err := Verify(t.Context(), bytes.NewReader(b), int64(len(b)), key)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := verify(mustWrite(t, c), key); !r.OK() || !r.Pinned || r.Unvouched != 0 {
		t.Errorf("signed: %+v", r)
	}
	c.Sign = nil
	b := mustWrite(t, c)
	if r := verify(b, key); r.OK() || r.Findings[0].Fault != FaultSignature {
		t.Errorf("nothing is signed, and the key that was given is said to have: %+v", r)
	}
	r := verify(b, "")
	if i := slices.IndexFunc(r.Notes, func(f Finding) bool { return f.File == "recording.wav" && f.Fault == FaultSignature }); !r.OK() || i < 0 || r.Unvouched != 1 {
		t.Errorf("nobody says that the sound to listen to is not vouched for: %+v", r)
	}
}

// TestVerifyContainers: other programs' ZIP files are none of ours.
func TestVerifyContainers(t *testing.T) {
	for what, fill := range map[string]func(*zip.Writer) error{
		"empty": func(*zip.Writer) error { return nil },
		"deflated": func(z *zip.Writer) error {
			w, err := z.Create(manifestFile)
			if err == nil {
				_, err = w.Write(make([]byte, 1<<20))
			}
			return err
		},
		"a link to elsewhere": func(z *zip.Writer) error {
			h := &zip.FileHeader{Name: manifestFile, Method: zip.Store}
			h.SetMode(os.ModeSymlink | 0o777)
			w, err := z.CreateHeader(h)
			if err == nil {
				_, err = io.WriteString(w, "/etc/passwd")
			}
			return err
		},
		"an absolute path": func(z *zip.Writer) error {
			_, err := z.CreateHeader(&zip.FileHeader{Name: "/etc/passwd", Method: zip.Store})
			return err
		},
		"a path upwards": func(z *zip.Writer) error {
			_, err := z.CreateHeader(&zip.FileHeader{Name: "../x", Method: zip.Store})
			return err
		},
		"twice": func(z *zip.Writer) error {
			_, err := z.CreateHeader(&zip.FileHeader{Name: manifestFile, Method: zip.Store})
			if err == nil {
				_, err = z.CreateHeader(&zip.FileHeader{Name: manifestFile, Method: zip.Store})
			}
			return err
		},
	} {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		if err := fill(z); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if r := mustVerify(t, b.Bytes()); r.OK() {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

// TestVerifyClaims: what a container says of its size costs nothing.
func TestVerifyClaims(t *testing.T) {
	whole := mustWrite(t, testContent(t))
	end := len(whole) - endBytes
	for what, at := range map[string]int{"length of the directory": end + 12, "its offset": end + 16} {
		b := bytes.Clone(whole)
		copy(b[at:], []byte{0xf0, 0xff, 0xff, 0xff})
		if r := mustVerify(t, b); r.OK() {
			t.Errorf("%s: %+v", what, r)
		}
	}
	b := bytes.Clone(whole)
	dir := bytes.Index(b, []byte("PK\x01\x02"))
	copy(b[dir+20:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) // a file of 4 GiB
	if r := mustVerify(t, b); r.OK() {
		t.Errorf("a file of 4 GiB: %+v", r)
	}
	r, err := Verify(context.Background(), bytes.NewReader(nil), 10<<30, "")
	if err != nil || r.OK() {
		t.Errorf("10 GiB: %+v, %v", r, err)
	}
}

func TestTooLarge(t *testing.T) {
	z := &zipWriter{w: io.Discard, off: bytesMax - 10}
	if err := z.file("link.txt", func(io.Writer) error { return nil }); err != ErrTooLarge {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	b := mustWrite(f, testContent(f))
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add([]byte("PK\x05\x06" + strings.Repeat("\x00", 18)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Verify(context.Background(), bytes.NewReader(b), int64(len(b)), "")
		if err != nil {
			t.Fatal(err)
		}
		if r.OK() && r.Recording == "" {
			t.Errorf("%q proves nothing and is fine", b)
		}
	})
}
