package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// TestStoredProof: of each entry the store alone gives the proof, at each size of
// the log, and none of one that no checkpoint has.
func TestStoredProof(t *testing.T) {
	for n := range 12 {
		t.Run(fmt.Sprintf("%d links", n), func(t *testing.T) {
			mem, st := vfstest.NewMem(), &memStore{}
			l := mustLog(t, mem, func(c *Config) { c.Store = st })
			fill(t, l, n)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			logs, rings, err := Stored(context.Background(), st, "rec-a")
			if err != nil || len(logs) != 1 || len(rings) != 1 {
				t.Fatal(logs, rings, err)
			}
			size := l.Stats().Size.Load()
			for i := range size {
				line, p, err := logs[0].Prove(context.Background(), i)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := p.Check(rings[0], line); err != nil {
					t.Errorf("entry %d of %d: %v", i, size, err)
				}
				if e, err := ParseEntry(line); err != nil || e.N != i {
					t.Errorf("entry %d is %s", i, line)
				}
			}
			if _, _, err := logs[0].Prove(context.Background(), size); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("entry %d of %d: %v", size, size, err)
			}
		})
	}
}
