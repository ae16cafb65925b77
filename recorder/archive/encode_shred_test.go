package archive

import (
	"context"
	"os"
	"path"
	"testing"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// hooked calls before a file is opened to be written.
type hooked struct {
	vfs.FS
	before func(name string)
}

func (h *hooked) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR) != 0 && h.before != nil {
		h.before(name)
	}
	return h.FS.OpenFile(name, flag, perm)
}

// TestShredWhileEncoding: a recording that is shredded while it is being coded anew
// does not come back into the catalogue with what its manifest tells.
func TestShredWhileEncoding(t *testing.T) {
	fsys, cat := &hooked{FS: vfstest.NewMem()}, newMemCatalog()
	a := mustDefer(t, fsys, cat, DeferredConfig{Options: func(*recorder.Manifest) (codec.Options, bool) { return codec.Options{}, true }})
	record(t, a, shortCall(testID, codec.WAVPCMU))
	shredded := false
	fsys.before = func(name string) {
		if shredded || path.Dir(name) != a.spool(deferredDir) {
			return // it is about to name its new segments
		}
		shredded = true
		if _, err := a.Shred(context.Background(), ShredOrder{Recording: testID, Reason: "the customer asked for it"}); err != nil {
			t.Error(err)
		}
	}
	encodeAll(context.Background(), a)
	if !shredded {
		t.Fatal("it was not shredded meanwhile")
	}
	if _, err := a.CatchUp(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantShredded(t, a, testID, "the customer asked for it")
	row, err := cat.Get(context.Background(), testID)
	if err != nil || row.Manifest.Shredded == nil || len(row.Manifest.Segments) > 0 {
		t.Errorf("the catalogue tells of %d segments, shredded %v: %v", len(row.Manifest.Segments), row.Manifest.Shredded, err)
	}
	if n, _ := a.DeferredQueue(); n != 0 {
		t.Errorf("%d wait", n)
	}
}
