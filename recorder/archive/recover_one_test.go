package archive

import (
	"context"
	"io/fs"
	"slices"
	"testing"

	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
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

// TestRecoverBesideTemps: temporary files of a process before are gone when the
// archive is open; those that come then (a probe, a key that is replaced) are in use
// while recovery runs.
func TestRecoverBesideTemps(t *testing.T) {
	mem := vfstest.NewMem()
	tmp := func(name string) string { return "/data/spool/" + vfs.TempPrefix + name }
	write := func(name string) {
		if err := vfs.WriteFile(mem, name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := vfs.MkdirAll(mem, "/data/spool"); err != nil {
		t.Fatal(err)
	}
	write(tmp("before"))
	a := mustOpenOn(t, mem, newMemCatalog())
	write(tmp("now"))
	if _, err := a.Recover(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := mem.Files(); !slices.Equal(got, []string{tmp("now")}) {
		t.Errorf("files: %v", got)
	}
}
