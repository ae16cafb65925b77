package archive

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder/catalog"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// TestRewrapTotal: how many recordings a run will look at is known without a list of
// the store, and is what it looks at.
func TestRewrapTotal(t *testing.T) {
	c, err := catalog.OpenURL(context.Background(), "sqlite://"+filepath.Join(t.TempDir(), "c.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: vfstest.NewMem(), Sealer: testSealer(), Catalog: c})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	for i := range 3 {
		record(t, a, newTestCall(idOf(i), codec.WAVPCMU))
	}
	day := epoch.Truncate(24 * time.Hour)
	last := place{a.shelves[0], "2026/11/23/" + idOf(9)}
	for _, q := range []struct {
		query RewrapQuery
		want  int64
	}{
		{RewrapQuery{}, 3},
		{RewrapQuery{From: day, To: day.AddDate(0, 0, 1)}, 3},
		{RewrapQuery{From: day.AddDate(0, 0, 1)}, 0},
		{RewrapQuery{To: day}, 0},
		{RewrapQuery{Behind: place{a.shelves[0], "2026/11/22/" + idOf(1)}.mark()}, 3},
		{RewrapQuery{Behind: last.mark()}, 0},
	} {
		if n := a.rewrapTotal(context.Background(), q.query); n != q.want {
			t.Errorf("%+v: %d, want %d", q.query, n, q.want)
		}
	}
	var done, total int64
	q := RewrapQuery{PerSecond: 1000}
	if _, err := a.Rewrap(context.Background(), q, func(d, n int64) { done, total = d, n }); err != nil || done != 3 || total != 3 {
		t.Errorf("%d of %d, %v", done, total, err)
	}
}
