package segment

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

func testKeyRecord() KeyRecord {
	return KeyRecord{
		Version: 1, Recording: testRec, Prefix: testPrefix, Created: time.Unix(1, 0).UTC(), Wrapped: time.Unix(2, 0).UTC(),
		Key: recorder.WrappedKey{KEK: "vault:k:3", Bytes: []byte("wrapped"), Intermediate: []byte("inter"), Form: 2},
	}
}

// TestKeyRecord: what is written is read, and every flipped bit and every cut is found.
func TestKeyRecord(t *testing.T) {
	shredded := testKeyRecord()
	shredded.Key, shredded.Shredded = recorder.WrappedKey{}, &recorder.Shredded{At: time.Unix(3, 0).UTC(), Reason: "case 4711", By: "privacy"}
	for name, want := range map[string]KeyRecord{"key": testKeyRecord(), "shredded": shredded} {
		b, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseKeyRecord(b)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
		for i := range b {
			for bit := range 8 {
				bad := bytes.Clone(b)
				bad[i] ^= 1 << bit
				if _, err := ParseKeyRecord(bad); !errors.Is(err, ErrKeyFile) {
					t.Fatalf("%s: bit %d of byte %d flipped: %v", name, bit, i, err)
				}
			}
			if _, err := ParseKeyRecord(b[:i]); !errors.Is(err, ErrKeyFile) {
				t.Fatalf("%s: cut to %d bytes: %v", name, i, err)
			}
		}
	}
	for name, r := range map[string]KeyRecord{
		"nothing":    {Recording: testRec, Prefix: testPrefix},
		"both":       {Recording: testRec, Prefix: testPrefix, Key: testKeyRecord().Key, Shredded: shredded.Shredded},
		"id":         {Recording: "../x", Prefix: testPrefix, Key: testKeyRecord().Key},
		"no address": {Recording: testRec, Prefix: "../x", Key: testKeyRecord().Key},
	} {
		if _, err := r.Encode(); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func FuzzKeyRecord(f *testing.F) {
	b, err := testKeyRecord().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(summed([]byte(`{"version":1}`)))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, c := range [][]byte{content, summed(content)} {
			r, err := ParseKeyRecord(c)
			if err != nil {
				continue
			}
			if again, err := r.Encode(); err != nil {
				t.Errorf("read, and cannot be written: %v", err)
			} else if _, err := ParseKeyRecord(again); err != nil {
				t.Errorf("written, and cannot be read: %v", err)
			}
		}
	})
}

// TestKeyIsDurableWithTheFirstFrame: when a frame is acknowledged, the file beside
// survives whatever the machine does then.
func TestKeyIsDurableWithTheFirstFrame(t *testing.T) {
	want, err := testKeyRecord().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []int{0, 1, 100} { // 0: no Syncer
		disk := &failing{Mem: vfstest.NewMem(), fails: map[string]bool{}}
		b := mustBench(t, disk)
		cfg := WriterConfig{FS: disk, Store: b.store, Key: b.key, Dir: testDir, Info: testInfo(1)}
		if group > 0 {
			s, err := NewSyncer(disk, testDir)
			if err != nil {
				t.Fatal(err)
			}
			s.groupMin, cfg.Syncer = group, s
		}
		name := testDir + "/" + KeyFile
		if cfg.Beside, err = disk.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := cfg.Beside.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		w, err := Create(cfg)
		if err != nil {
			t.Fatal(err)
		}
		disk.fails["fsync"], disk.fails["syncfs"] = true, true
		if err := w.Write(testAudio(1, 0), nil); !errors.Is(err, syscall.EIO) || w.Entered() {
			t.Errorf("group %d: a frame whose key may be lost: %v", group, err)
		}
		clear(disk.fails)
		if err := w.Write(testAudio(1, 0), nil); err != nil || !w.Entered() {
			t.Fatal(err)
		}
		for seed := range uint64(20) {
			got, err := vfs.ReadFile(disk.CrashClone(seed), name, KeyFileBytesMax)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("group %d, seed %d: %q, %v", group, seed, got, err)
			}
		}
		w.Release()
	}
}
