package archive

import (
	"context"
	"io/fs"
	"testing"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// leaving is a file system whose spool loses a folder once it was listed.
type leaving struct {
	vfs.FS
	t *testing.T
}

func (l leaving) ReadDir(name string) ([]fs.DirEntry, error) {
	out, err := l.FS.ReadDir(name)
	if name == "/data/spool" {
		if err := vfs.RemoveAll(l.FS, spooled); err != nil {
			l.t.Fatal(err)
		}
	}
	return out, err
}

// TestRecoverPublishedMeanwhile: a recording whose call went on after the restart, and
// which was published between the listing of the spool and its turn, is no fault.
func TestRecoverPublishedMeanwhile(t *testing.T) {
	mem := crashed(t, 2)
	a := mustOpenOn(t, leaving{mem, t}, newMemCatalog())
	if got, err := a.Recover(context.Background()); err != nil || len(got) != 0 {
		t.Errorf("Recover: %+v, %v", got, err)
	}
}
