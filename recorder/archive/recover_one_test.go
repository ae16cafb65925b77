package archive

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/trunktap/trunktap/media/codec"
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

// together is a file system on which nobody goes on with a recording before so many
// are begun.
type together struct {
	vfs.FS
	begun sync.WaitGroup
	seen  sync.Map // of recordings that are begun
}

func (g *together) ReadDir(name string) ([]fs.DirEntry, error) {
	if path.Dir(name) == "/data/spool" && strings.HasPrefix(path.Base(name), "2026") {
		if _, again := g.seen.LoadOrStore(name, true); !again {
			g.begun.Done()
			g.begun.Wait()
		}
	}
	return g.FS.ReadDir(name)
}

// TestRecoverAtOnce: recordings are held and recovered side by side, each as if alone, and told
// in their order.
func TestRecoverAtOnce(t *testing.T) {
	mem := vfstest.NewMem()
	a := mustOpenOn(t, mem, newMemCatalog())
	var ids []string
	for i := range 8 {
		c := newTestCall(fmt.Sprintf("20261122T1636%02dZ-1f0c9a3b5d7e8f60", i), codec.OggOpus)
		sink, err := a.NewSink(context.Background(), c.id, c.prefix())
		if err != nil {
			t.Fatal(err)
		}
		k := &taking{c: c, sink: sink}
		for n := range 2 {
			if err := k.frame(int64(n) * frameMS); err != nil {
				t.Fatal(err)
			}
		}
		ids = append(ids, c.id)
	}
	synctest.Test(t, func(t *testing.T) {
		g := &together{FS: mem.CrashClone(2)}
		g.begun.Add(len(ids))
		a := mustOpenOn(t, g, newMemCatalog())
		a.cfg.RecoverAtOnce = len(ids)
		held, err := a.Hold(context.Background(), func(string) bool { return true })
		if err != nil || len(held) != len(ids) {
			t.Fatalf("%d held, %v", len(held), err)
		}
		for i, h := range held {
			if h.ID != ids[i] || !a.isLive(h.ID) {
				t.Errorf("%s is held, want %s", h.ID, ids[i])
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		g := &together{FS: mem.CrashClone(1)}
		g.begun.Add(len(ids))
		a := mustOpenOn(t, g, newMemCatalog())
		a.cfg.RecoverAtOnce = len(ids)
		got, err := a.Recover(context.Background())
		if err != nil || len(got) != len(ids) {
			t.Fatalf("%d recovered, %v", len(got), err)
		}
		for i, r := range got {
			if r.ID != ids[i] || r.Err != nil || r.AudioMS == 0 {
				t.Errorf("%+v", r)
			}
		}
		mustVerify(t, a, "all at once")
	})
}
