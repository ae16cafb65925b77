package archive

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// listedStore notes what is listed of it.
type listedStore struct {
	recorder.Store
	listed []string
}

func (s *listedStore) List(ctx context.Context, prefix string, f func(recorder.BlobInfo) error) error {
	s.listed = append(s.listed, prefix)
	return s.Store.List(ctx, prefix, f)
}

// TestLocateMadeUp: an id that nothing has costs the listing of one day at most.
func TestLocateMadeUp(t *testing.T) {
	a := mustOpenOn(t, vfstest.NewMem(), newMemCatalog())
	record(t, a, newTestCall(testID, "wav-pcmu"))
	drainUploads(t, a, "locate")
	for id, want := range map[string]string{
		"20260301T000000Z-0000000000000000":   "2026/03/01/",
		"20260301T000000Z-0000000000000000-1": "2026/03/01/",
		"20260230T000000Z-0000000000000000":   "",
		"20260301T":                           "",
		"made-up":                             "",
		"..":                                  "",
		"":                                    "",
	} {
		st := &listedStore{Store: a.shelves[0].store}
		a.shelves[0].store = st
		if _, err := a.Get(context.Background(), id); !errors.Is(err, recorder.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
		if got := strings.Join(st.listed, " "); got != want {
			t.Errorf("%q listed %q", id, got)
		}
	}
}

// TestLocateConversation: without a row a recording is found below its conversation.
func TestLocateConversation(t *testing.T) {
	cat := newMemCatalog()
	a := mustOpenOn(t, vfstest.NewMem(), cat)
	c := newTestCall("20261122T235959Z-1f0c9a3b5d7e8f60", "wav-pcmu")
	c.folder = recorder.Prefix(epoch, "conv", c.id)
	record(t, a, c)
	drainUploads(t, a, "locate")
	clear(cat.rows)
	if p, err := a.locate(context.Background(), c.id); err != nil || p.prefix != c.folder {
		t.Errorf("%q, %v", p.prefix, err)
	}
}
