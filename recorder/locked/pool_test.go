package locked

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// TestSlots: taken slots are zero and never overlap, whatever is given back when.
func TestSlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 150
		p := NewPool(64, most)
		taken := map[*byte][]byte{}
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			if len(taken) > 0 && rapid.IntRange(0, 2).Draw(t, "give") == 0 {
				for k, s := range taken {
					p.Give(s)
					if !bytes.Equal(s, make([]byte, 64)) {
						t.Fatal("what was given back is not wiped")
					}
					delete(taken, k)
					break
				}
				continue
			}
			s, err := p.Take()
			if full := len(taken) == most; full != errors.Is(err, ErrFull) || !full && err != nil {
				t.Fatalf("%d taken: %v", len(taken), err)
			}
			if err != nil {
				continue
			}
			if len(s) != 64 || cap(s) != 64 || !bytes.Equal(s, make([]byte, 64)) {
				t.Fatalf("slot of %d bytes: %x", len(s), s)
			}
			at := uintptr(unsafe.Pointer(&s[0]))
			for k := range taken {
				if d := at - uintptr(unsafe.Pointer(k)); d < 64 || -d < 64 {
					t.Fatal("slots overlap")
				}
			}
			for i := range s {
				s[i] = 0xa5
			}
			taken[&s[0]] = s
		}
		if n, of := p.Used(); n != len(taken) || of != most {
			t.Fatalf("Used = %d of %d, taken are %d", n, of, len(taken))
		}
	})
}

// TestMemoryIsLocked asks the kernel.
func TestMemoryIsLocked(t *testing.T) {
	if !Works {
		t.Skip("this system locks no memory")
	}
	before := lockedKB(t)
	p := NewPool(64, 1)
	if _, err := p.Take(); err != nil {
		t.Fatal(err)
	}
	if after := lockedKB(t); after == before {
		t.Errorf("VmLck is %s kB before and after", after)
	}
}

func lockedKB(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "VmLck:")
	if !ok {
		t.Fatal("no VmLck")
	}
	return strings.Fields(rest)[0]
}
