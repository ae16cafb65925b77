package b2bua

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTableOfDescriptorsHasRoom(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const calls = 150
	if limit.Cur < calls*descriptorsPerCall {
		t.Skipf("the limit of open files is %d", limit.Cur)
	}
	makeRoom(calls)
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	size := 0
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "FDSize:"); ok {
			if _, err := fmt.Sscan(rest, &size); err != nil {
				t.Fatal(err)
			}
		}
	}
	if size < calls*descriptorsPerCall {
		t.Errorf("room for %d descriptors", size)
	}
}
