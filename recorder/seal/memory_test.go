package seal

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/recorder/locked"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// places looks for 16 bytes of a key in everything that this process can write.
// The key comes masked, so that the search does not find itself.
func places(t *testing.T, masked [16]byte) (found []string) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip("no /proc/self/maps: the memory cannot be searched here")
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Skipf("/proc/self/mem: %v", err)
	}
	defer func() { _ = mem.Close() }()
	buf := make([]byte, 1<<20+15) // written by us: it holds what was read
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var perm string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perm); err != nil || !strings.HasPrefix(perm, "rw") {
			continue
		}
		for at := from; at < to; at += 1 << 20 {
			n, _ := mem.ReadAt(buf[:min(uint64(len(buf)), to-at)], int64(at)) // pages may be away
			for i := 0; i+16 <= n; i++ {
				if buf[i]^0x5a != masked[0] || !same(buf[i:i+16], masked) {
					continue
				}
				found = append(found, fmt.Sprintf("%x (%s)", at+uint64(i), strings.TrimSpace(line)))
			}
		}
		clear(buf)
	}
	return found
}

func same(b []byte, masked [16]byte) bool {
	for i, m := range masked {
		if b[i]^0x5a != m {
			return false
		}
	}
	return true
}

// TestNoKeyInMemoryAfterClose searches the whole process for the two halves of a
// data key, which AES also keeps as the first of its round keys.
func TestNoKeyInMemoryAfterClose(t *testing.T) {
	if !locked.Works {
		t.Skip("this system locks no memory")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // nothing is cleared by accident
	for name, source := range map[string]func(*testing.T) *Envelope{
		"local":        func(t *testing.T) *Envelope { return mustOpen(t, vfstest.NewMem(), "/k/kek.json").Envelope },
		"intermediate": func(t *testing.T) *Envelope { return started(t, &fakeKEK{}, Caching{}) },
	} {
		t.Run(name, func(t *testing.T) {
			e := source(t)
			k, err := e.NewKey(context.Background(), rec)
			if err != nil {
				t.Fatal(err)
			}
			d := k.(*dataKey)
			var halves [2][16]byte
			_ = d.plain(func(p []byte) error {
				for i := range 16 {
					halves[0][i], halves[1][i] = p[5+i]^0x5a, p[21+i]^0x5a
				}
				return nil
			})
			opened, err := e.OpenKey(context.Background(), rec, k.Wrapped())
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := k.Seal(bytes.Repeat([]byte("speech"), 1000), []byte("bind"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := opened.Open(sealed, []byte("bind")); err != nil {
				t.Fatal(err)
			}
			for i, half := range halves {
				if len(places(t, half)) == 0 {
					t.Fatalf("half %d is not found while the key is open: the search finds nothing", i)
				}
			}
			k.Close()
			opened.Close()
			runtime.KeepAlive(d)
			for i, half := range halves {
				for _, p := range places(t, half) {
					t.Errorf("half %d is still at %s", i, p)
				}
			}
		})
	}
}
