package seal

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

const rec = "20261122T163608Z-1f0c9a3b5d7e8f60"

func mustOpen(t *testing.T, fsys vfs.FS, path string) *Local {
	t.Helper()
	l, err := OpenLocal(LocalConfig{Path: path, FS: fsys})
	if err != nil {
		t.Fatalf("OpenLocal: %v", err)
	}
	return l
}

func mustKey(t *testing.T, s recorder.Sealer, recording string) recorder.DataKey {
	t.Helper()
	k, err := s.NewKey(context.Background(), recording)
	if err != nil {
		t.Fatalf("NewKey: %v", err)
	}
	return k
}

func TestSealOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "kek.json")
	l := mustOpen(t, nil, path)
	k := mustKey(t, l, rec)
	sealed, err := k.Seal([]byte("speech"), []byte("frame 1"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(sealed), "speech") {
		t.Fatal("sealed bytes hold the plaintext")
	}

	// Another process, after a restart.
	again := mustOpen(t, nil, path)
	k2, err := again.OpenKey(context.Background(), rec, k.Wrapped())
	if err != nil {
		t.Fatalf("OpenKey: %v", err)
	}
	got, err := k2.Open(sealed, []byte("frame 1"))
	if err != nil || string(got) != "speech" {
		t.Fatalf("Open = %q, %v", got, err)
	}
	if _, err := k2.Open(sealed, []byte("frame 2")); !errors.Is(err, recorder.ErrTampered) {
		t.Errorf("Open with another bind: %v, want ErrTampered", err)
	}
	for i := range sealed {
		bad := append([]byte(nil), sealed...)
		bad[i] ^= 0x10
		if _, err := k2.Open(bad, []byte("frame 1")); !errors.Is(err, recorder.ErrTampered) {
			t.Fatalf("byte %d flipped: %v, want ErrTampered", i, err)
		}
	}
	k2.Close()
	if _, err := k2.Open(sealed, []byte("frame 1")); !errors.Is(err, recorder.ErrKey) {
		t.Errorf("Open after Close: %v, want ErrKey", err)
	}
	if _, err := k2.Seal(nil, nil); !errors.Is(err, recorder.ErrKey) {
		t.Errorf("Seal after Close: %v, want ErrKey", err)
	}
}

func TestWrappedKeyIsBoundToRecording(t *testing.T) {
	l := mustOpen(t, vfstest.NewMem(), "/k/kek.json")
	k := mustKey(t, l, rec)
	if _, err := l.OpenKey(context.Background(), rec+"x", k.Wrapped()); !errors.Is(err, recorder.ErrTampered) {
		t.Errorf("another recording: %v, want ErrTampered", err)
	}
	w := k.Wrapped()
	w.Bytes = append([]byte(nil), w.Bytes...)
	w.Bytes[len(w.Bytes)/2] ^= 1
	if _, err := l.OpenKey(context.Background(), rec, w); !errors.Is(err, recorder.ErrTampered) {
		t.Errorf("altered wrapping: %v, want ErrTampered", err)
	}
	w.Bytes = make([]byte, wrappedBytesMax+1)
	if _, err := l.OpenKey(context.Background(), rec, w); !errors.Is(err, recorder.ErrTampered) {
		t.Errorf("huge wrapping: %v, want ErrTampered", err)
	}
	if mustKey(t, l, rec).Wrapped().KEK != k.Wrapped().KEK {
		t.Error("two keys of one state name different key-encryption keys")
	}
	other := mustOpen(t, vfstest.NewMem(), "/k/kek.json")
	if _, err := other.OpenKey(context.Background(), rec, k.Wrapped()); !errors.Is(err, recorder.ErrKey) {
		t.Errorf("key file of another machine: %v, want ErrKey", err)
	}
}

func TestRotateKeepsOldKeysReadable(t *testing.T) {
	mem := vfstest.NewMem()
	l := mustOpen(t, mem, "/k/kek.json")
	elsewhere := mustOpen(t, mem, "/k/kek.json") // a process that does not know of the rotation
	old := mustKey(t, l, rec)
	name, err := l.Rotate(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	fresh := mustKey(t, l, rec)
	if fresh.Wrapped().KEK != name || name == old.Wrapped().KEK {
		t.Fatalf("after rotation: key %s, Rotate said %s, before %s", fresh.Wrapped().KEK, name, old.Wrapped().KEK)
	}
	for _, s := range []*Local{l, elsewhere, mustOpen(t, mem, "/k/kek.json")} {
		for _, k := range []recorder.DataKey{old, fresh} {
			if _, err := s.OpenKey(context.Background(), rec, k.Wrapped()); err != nil {
				t.Errorf("OpenKey of %s: %v", k.Wrapped().KEK, err)
			}
		}
	}
}

func TestKeyFileRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		perm os.FileMode
		text string
		want string
	}{
		{"readable by group", 0o640, "", "chmod 600"},
		{"readable by all", 0o604, "", "chmod 600"},
		{"empty", 0o600, "", "no Tink JSON keyset"},
		{"not JSON", 0o600, "secret", "no Tink JSON keyset"},
		{"no keys", 0o600, `{"primaryKeyId":1,"key":[]}`, "backup"},
		{"too long", 0o600, strings.Repeat(" ", keyFileBytesMax+1), "may read it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kek.json")
			if err := os.WriteFile(path, []byte(c.text), c.perm); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.perm); err != nil {
				t.Fatal(err)
			}
			_, err := OpenLocal(LocalConfig{Path: path})
			var kf *KeyFileError
			if !errors.As(err, &kf) {
				t.Fatalf("OpenLocal: %v, want *KeyFileError", err)
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %q lacks %q or the path", err, c.want)
			}
		})
	}
}

func TestReadOnlyMakesNoKeys(t *testing.T) {
	mem := vfstest.NewMem()
	_, err := OpenLocal(LocalConfig{Path: "/k/kek.json", FS: mem, ReadOnly: true})
	if !errors.Is(err, recorder.ErrKey) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("OpenLocal: %v, want ErrKey and ErrNotExist", err)
	}
	if f := mem.Files(); len(f) != 0 {
		t.Errorf("files made: %v", f)
	}
}

func TestKeyFileMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	mustOpen(t, nil, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o, want 0600", info.Mode().Perm())
	}
}

// TestKeyFileSurvivesFaults fails and crashes at every file operation of the
// first start and of a rotation. A data key that was given out must be
// readable afterwards; a start after a crash must need no help.
func TestKeyFileSurvivesFaults(t *testing.T) {
	for _, kind := range []vfstest.Kind{vfstest.Fail, vfstest.ShortWrite, vfstest.DoneButErr, vfstest.Crash} {
		for n := 1; ; n++ {
			mem := vfstest.NewMem()
			faults := &vfstest.Faults{FS: mem, At: n, Kind: kind, Err: fs.ErrPermission}
			var given []recorder.WrappedKey
			if l, err := OpenLocal(LocalConfig{Path: "/etc/tap/kek.json", FS: faults}); err == nil {
				given = append(given, mustKey(t, l, rec).Wrapped())
				if _, err := l.Rotate(context.Background()); err != nil {
					// The keys in use stay in use.
					t.Logf("%s: %v", faults.Hit(), err)
				} else {
					given = append(given, mustKey(t, l, rec).Wrapped())
				}
				given = append(given, mustKey(t, l, rec).Wrapped())
			}
			for seed := range uint64(4) {
				l := mustOpen(t, mem.CrashClone(seed), "/etc/tap/kek.json")
				for i, w := range given {
					if _, err := l.OpenKey(context.Background(), rec, w); err != nil {
						t.Fatalf("%s, seed %d: key %d: %v", faults.Hit(), seed, i, err)
					}
				}
			}
			if faults.Hit() == "" {
				break
			}
		}
	}
}

func BenchmarkSealFrame(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"opus-500ms", 4000}, {"pcm16-500ms", 16000}} {
		b.Run(size.name, func(b *testing.B) {
			l, err := OpenLocal(LocalConfig{Path: "/k/kek.json", FS: vfstest.NewMem()})
			if err != nil {
				b.Fatal(err)
			}
			k, err := l.NewKey(context.Background(), rec)
			if err != nil {
				b.Fatal(err)
			}
			plain, bind := make([]byte, size.bytes), make([]byte, 64)
			b.SetBytes(int64(size.bytes))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Seal(plain, bind); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkNewKey makes a data key by each way to wrap it.
func BenchmarkNewKey(b *testing.B) {
	l, err := OpenLocal(LocalConfig{Path: "/k/kek.json", FS: vfstest.NewMem()})
	if err != nil {
		b.Fatal(err)
	}
	service := NewEnvelope(EnvelopeConfig{Active: Source{"bench", l.KEK()}, Caching: Caching{KeysMax: 1 << 30}})
	service.Start(context.Background())
	defer func() { _ = service.Close() }() // never fails
	for _, way := range []struct {
		name   string
		sealer recorder.Sealer
	}{
		{"none", NewEnvelope(EnvelopeConfig{Active: Source{ModeNone, None{}}, Direct: true})}, {"local", l}, {"service", service},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k, err := way.sealer.NewKey(context.Background(), rec)
				if err != nil {
					b.Fatal(err)
				}
				k.Close()
			}
		})
	}
}
