package archive

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// busyCatalog does something behind each row that it saves.
type busyCatalog struct {
	*memCatalog
	behind func()
}

func (c *busyCatalog) Save(ctx context.Context, r recorder.Row) error {
	err := c.memCatalog.Save(ctx, r)
	if err == nil && c.behind != nil {
		c.behind()
	}
	return err
}

// renameFS does something before each rename.
type renameFS struct {
	vfs.FS
	before func(name string)
}

func (f *renameFS) Rename(o, n string) error {
	if f.before != nil {
		f.before(n)
	}
	return f.FS.Rename(o, n)
}

// TestCatchUpBesideNote: a note that is being written is not taken for torn.
func TestCatchUpBesideNote(t *testing.T) {
	disk := &renameFS{FS: vfstest.NewMem()}
	a := mustOpenOn(t, disk, newMemCatalog())
	started, done := make(chan struct{}), make(chan error, 1)
	disk.before = func(string) {
		disk.before = nil
		go func() {
			close(started)
			_, err := a.CatchUp(context.Background())
			done <- err
		}()
		<-started
		for range 100 {
			runtime.Gosched() // it gets as far as it can
		}
	}
	if err := a.noteRow(testID, testPrefix, ""); err != nil {
		t.Errorf("note: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCatchUpNotedAgain: a recording that is noted while an older note of it is
// worked off keeps the newer note, whoever works it off.
func TestCatchUpNotedAgain(t *testing.T) {
	ctx := context.Background()
	for name, work := range map[string]func(*Archive, place) error{
		"catch up": func(a *Archive, _ place) error { _, err := a.CatchUp(ctx); return err },
		"save again": func(a *Archive, p place) error {
			defer a.lockKey(p.id())()
			return a.saveAgain(ctx, p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			mem, cat := vfstest.NewMem(), &busyCatalog{memCatalog: newMemCatalog()}
			a := mustOpenOn(t, mem, cat)
			c := newTestCall(testID, "wav-pcmu")
			record(t, a, c)
			drainUploads(t, a, name)
			p := place{a.shelves[0], c.prefix()}
			note := func() error { return a.noteRow(testID, p.prefix, "") }
			if err := note(); err != nil {
				t.Fatal(err)
			}
			var failed error
			cat.behind = func() { failed = errors.Join(failed, note()) }
			if err := work(a, p); err != nil || failed != nil {
				t.Fatal(err, failed)
			}
			if _, err := mem.Stat(a.spool(rowsDir, testID+".json")); err != nil {
				t.Errorf("the newer note is lost: %v", err)
			}
			cat.behind = nil
			if err := work(a, p); err != nil {
				t.Fatal(err)
			}
			if _, err := mem.Stat(a.spool(rowsDir, testID+".json")); err == nil {
				t.Error("a note that was worked off is still there")
			}
		})
	}
}
