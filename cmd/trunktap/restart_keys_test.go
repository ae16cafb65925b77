package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
)

// absent is a sealer whose key service is away.
type absent struct{ recorder.Sealer }

func (absent) NewKey(context.Context, string) (recorder.DataKey, error) {
	return nil, recorder.ErrKeyUnreachable
}

func (absent) OpenKey(context.Context, string, recorder.WrappedKey) (recorder.DataKey, error) {
	return nil, recorder.ErrKeyUnreachable
}

// memoryDir is a folder in memory for a test.
func memoryDir(t *testing.T) string {
	t.Helper()
	if err := inMemory("/dev/shm"); err != nil {
		t.Skipf("no memory file system: %v", err)
	}
	dir := must(os.MkdirTemp("/dev/shm", "trunktap-test-"))(t)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestJournalKeys: the key of the journal is found in memory or by the keys of recordings,
// and not where neither is at hand; nor when somebody else could have put it there.
func TestJournalKeys(t *testing.T) {
	sealer := must(seal.OpenLocal(seal.LocalConfig{Path: filepath.Join(t.TempDir(), "keys.json"), MayMake: func() error { return nil }}))(t)
	dir := memoryDir(t)
	for _, c := range []struct {
		name       string
		made, open recorder.Sealer
		dir        string // of who makes it
		harm       func(file string) error
		want       bool
	}{
		{name: "both", made: sealer, open: sealer, dir: dir, want: true},
		{name: "service away at the end", made: sealer, open: absent{}, dir: dir, want: true},
		{name: "service away at both", made: absent{}, open: absent{}, dir: dir, want: true},
		{name: "machine started anew", made: sealer, open: sealer, dir: dir, harm: os.Remove, want: true},
		{name: "machine started anew, service away", made: sealer, open: absent{}, dir: dir, harm: os.Remove},
		{name: "no place in memory", made: sealer, open: sealer, want: true},
		{name: "readable by others", made: absent{}, open: absent{}, dir: dir, harm: func(f string) error { return os.Chmod(f, 0o644) }},
		{name: "of another user", made: absent{}, open: absent{}, dir: dir, harm: func(f string) error { return os.Chown(f, 65534, 65534) }},
		{name: "a link", made: absent{}, open: absent{}, dir: dir, harm: func(f string) error {
			if err := os.Rename(f, f+"x"); err != nil {
				return err
			}
			return os.Symlink(f+"x", f)
		}},
		{name: "another key", made: absent{}, open: absent{}, dir: dir, harm: func(f string) error { return os.WriteFile(f, make([]byte, journalKeyBytes), 0o600) }},
		{name: "cut", made: absent{}, open: absent{}, dir: dir, harm: func(f string) error { return os.Truncate(f, 7) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := journalKeys{sealer: c.made, dir: c.dir, base: "journal", copies: &keyCopies{}}
			key, wrapped, err := k.New()
			if err != nil {
				t.Fatal(err)
			}
			if memory, own := k.copies.memory.Load(), k.copies.sealed.Load(); memory != (c.dir != "") || own != (c.made == sealer) {
				t.Errorf("copies: in memory %t, sealed %t", memory, own)
			}
			defer k.forget("")
			sealed := must(key.Seal([]byte("state"), []byte("bind")))(t)
			if c.harm != nil {
				if err := c.harm(k.path(runOf(wrapped))); err != nil {
					t.Fatal(err)
				}
			}
			k.sealer = c.open
			again, err := k.Open(wrapped)
			if err == nil {
				_, err = again.Open(sealed, []byte("other"))
				if err == nil {
					t.Error("the binding is not authenticated")
				}
				var plain []byte
				if plain, err = again.Open(sealed, []byte("bind")); err == nil && string(plain) != "state" {
					t.Errorf("%q", plain)
				}
			}
			if (err == nil) != c.want {
				t.Errorf("%v", err)
			}
			if strings.Contains(string(wrapped), "state") {
				t.Error("the key tells of the journal")
			}
		})
	}
	if left := must(os.ReadDir(dir))(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestJournalKeysOfBefore: a journal that a version before sealed by a data key is read.
func TestJournalKeysOfBefore(t *testing.T) {
	sealer := must(seal.OpenLocal(seal.LocalConfig{Path: filepath.Join(t.TempDir(), "keys.json"), MayMake: func() error { return nil }}))(t)
	key := must(sealer.NewKey(t.Context(), journalKeyName))(t)
	sealed := must(key.Seal([]byte("state"), nil))(t)
	wrapped := must(json.Marshal(key.Wrapped()))(t)
	again := must(journalKeys{sealer: sealer, dir: memoryDir(t)}.Open(wrapped))(t)
	if plain, err := again.Open(sealed, nil); err != nil || string(plain) != "state" {
		t.Errorf("%q, %v", plain, err)
	}
}

// TestJournalKeyPlaces: a key never lies beside the journal on a disk.
func TestJournalKeyPlaces(t *testing.T) {
	mem, disk := memoryDir(t), "/proc" // that is no memory file system either
	t.Setenv("RUNTIME_DIRECTORY", mem+":/other")
	for dir, want := range map[string]string{"auto": mem, "none": "", mem: mem, disk: "", "/nowhere": ""} {
		k, err := newJournalKeys(absent{}, dir, "calls.journal")
		if k.dir != want || (err != nil) != (want == "" && dir != "none") {
			t.Errorf("%s: %q, %v", dir, k.dir, err)
		}
	}
	a, _ := newJournalKeys(absent{}, mem, "/a/calls.journal")
	b, _ := newJournalKeys(absent{}, mem, "/b/calls.journal")
	_, wrapped, err := a.New()
	if err != nil {
		t.Fatal(err)
	}
	b.forget("")
	if _, err := a.Open(wrapped); err != nil {
		t.Errorf("another daemon's journal took it: %v", err)
	}
	_, next, err := a.New()
	if err != nil {
		t.Fatal(err)
	}
	a.forget(runOf(next))
	if _, err := a.Open(wrapped); err == nil {
		t.Error("the key of the journal before is still there")
	}
	if _, err := a.Open(next); err != nil {
		t.Error(err)
	}
}
