package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

const gib = 1 << 30

// TestLevels: a state ends only when there is clearly more room than where it began.
func TestLevels(t *testing.T) {
	c := SpaceConfig{Warn: Share{Percent: 20}, Low: Share{Bytes: 100}}
	for _, tt := range []struct {
		was  Level
		free int64
		want Level
	}{
		{LevelFine, 200, LevelFine},
		{LevelFine, 199, LevelWarned},
		{LevelFine, 99, LevelLow},
		{LevelWarned, 239, LevelWarned},
		{LevelWarned, 240, LevelFine},
		{LevelWarned, 99, LevelLow},
		{LevelLow, 119, LevelLow},
		{LevelLow, 120, LevelWarned},
		{LevelLow, 239, LevelWarned},
		{LevelLow, 1000, LevelFine},
	} {
		if got := c.level(tt.was, tt.free, 1000); got != tt.want {
			t.Errorf("%v with %d free: %v, want %v", tt.was, tt.free, got, tt.want)
		}
	}
	if got := (SpaceConfig{}).level(LevelFine, 0, 1000); got != LevelFine {
		t.Errorf("without limits: %v", got)
	}
}

// TestGiveWay: however the spool fares, as many give way as there are at most,
// those of less priority and more age before the others, and all come back.
func TestGiveWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := 0
		for i, c := range rapid.SliceOfN(rapid.SampledFrom([]crowd{crowdRoom, crowdHold, crowdFull}), 1, 50).Draw(t, "crowds") {
			all := rapid.IntRange(0, 40).Draw(t, fmt.Sprint("going", i))
			was := min(n, all)
			n = giveWay(n, all, c)
			if n < 0 || n > all || c == crowdFull && n <= was && n < all || c == crowdRoom && n >= was && was > 0 || c == crowdHold && n != was {
				t.Fatalf("from %d to %d of %d, %v", was, n, all, c)
			}
		}
		for n > 0 {
			n = giveWay(n, 40, crowdRoom)
		}
		list := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) going {
			return going{priority: recorder.Priority(rapid.IntRange(-1, 1).Draw(t, "p")), since: rapid.Uint64().Draw(t, "s")}
		}), 0, 20).Draw(t, "list")
		for i := range list {
			list[i].id = fmt.Sprint(i)
		}
		k := rapid.IntRange(0, len(list)).Draw(t, "k")
		gone := firstToGive(slices.Clone(list), k)
		if len(gone) != k {
			t.Fatalf("%d give way, want %d", len(gone), k)
		}
		for _, g := range list {
			for _, o := range list {
				if gone[g.id] && !gone[o.id] && (o.priority < g.priority || o.priority == g.priority && o.since < g.since) {
					t.Fatalf("%+v gives way before %+v", g, o)
				}
			}
		}
	})
}

// lowArchive is an archive on a disk of 1 TiB that tells of events.
func lowArchive(t *testing.T, c SpaceConfig) (*Archive, *vfstest.Mem, *[]string) {
	t.Helper()
	mem, events := vfstest.NewMem(), &[]string{}
	a, err := Open(Config{
		StoreDir: "/data/store", SpoolDir: "/data/spool", FS: mem, Sealer: testSealer(), Catalog: newMemCatalog(), Space: c,
		Notify: func(e string, data map[string]any) { *events = append(*events, fmt.Sprintf("%s %v", e, data["level"])) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, mem, events
}

// TestDiskLow: events before it hurts, then what is configured, until there is
// clearly more room.
func TestDiskLow(t *testing.T) {
	for _, do := range []string{"", DoStopNew, DoRefuseCalls, DoDeleteExpired} {
		a, mem, events := lowArchive(t, SpaceConfig{Warn: Share{Percent: 20}, Low: Share{Percent: 10}, Do: do})
		now := time.Now()
		look := func(freePercent int64) error {
			mem.SetFree(1 << 40 / 100 * freePercent)
			now = now.Add(time.Second)
			a.watchSpace(context.Background(), now)
			return a.Admit()
		}
		for _, p := range []int64{50, 21, 19, 21} {
			if err := look(p); err != nil {
				t.Fatalf("%s: %d %%: %v", do, p, err)
			}
		}
		for _, p := range []int64{9, 11} {
			var na *recorder.NotAdmitted
			if err := look(p); !errors.As(err, &na) || na.RefuseCall != (do == DoRefuseCalls) {
				t.Errorf("%s: %d %%: %v", do, p, err)
			}
		}
		for _, p := range []int64{13, 50} {
			if err := look(p); err != nil {
				t.Errorf("%s: %d %%: %v", do, p, err)
			}
		}
		want := []string{"storage.low warn", "storage.low low", "storage.recovered warn", "storage.recovered fine"}
		if !slices.Equal(*events, want) {
			t.Errorf("%s: %v", do, *events)
		}
	}
}

// TestSpoolFull: recordings give way by priority and age, one after the other, and
// come back when there is room.
func TestSpoolFull(t *testing.T) {
	a, mem, events := lowArchive(t, SpaceConfig{SpoolMax: Share{Bytes: 1000}})
	var ids []string
	for i, p := range []recorder.Priority{recorder.PriorityHigh, recorder.PriorityNormal, recorder.PriorityLow, recorder.PriorityLow} {
		id := fmt.Sprintf("%s%02d", testID[:len(testID)-2], i)
		ids = append(ids, id)
		sink, err := a.OpenSink(context.Background(), recorder.SinkInfo{Recording: id, Prefix: "2026/11/22/" + id, Priority: p})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = sink.Close() }() // nothing is promised
		k := &taking{c: newTestCall(id, codec.WAVPCM16), sink: sink}
		if err := k.frame(0); err != nil {
			t.Fatal(err)
		}
	}
	order := []string{ids[2], ids[3], ids[1], ids[0]}
	now := time.Now()
	thinned := func() (out []string) {
		now = now.Add(time.Second)
		a.watchSpace(context.Background(), now)
		for _, id := range order {
			if a.Room(id) != "" {
				out = append(out, id)
			}
		}
		return out
	}
	if used := a.Space().SpoolBytes; used < 4*16000 {
		t.Errorf("%d bytes are thought to be in the spool", used)
	}
	for since := now.Add(time.Second); now.Before(since.Add(thinAfter - time.Second)); { // memory has room meanwhile
		if got := thinned(); len(got) > 0 {
			t.Fatalf("%v give way after %s", got, now.Sub(since))
		}
	}
	for n := 1; n <= 5; n++ {
		if got := thinned(); !slices.Equal(got, order[:min(n, 4)]) {
			t.Errorf("round %d: %v give way, want %v", n, got, order[:min(n, 4)])
		}
	}
	a.cfg.Space.SpoolMax.Bytes = gib
	mem.SetFree(1 << 40)
	for n := 3; n >= 0; n-- {
		if got := thinned(); !slices.Equal(got, order[:n]) {
			t.Errorf("with room: %v give way, want %v", got, order[:n])
		}
	}
	if want := []string{"storage.low full", "storage.recovered full"}; !slices.Equal(*events, want) {
		t.Errorf("events %v", *events)
	}
	if s := a.Space(); s.Going != 4 || s.Thinned != 0 {
		t.Errorf("state %+v", s)
	}
}

// TestKeepLocal: segments that the store has are kept and played from here, for as
// long as configured, and go at once when the disk needs it.
func TestKeepLocal(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	r := newRemote(mem)
	a := mustOpenRemote(t, mem, cat, r, func(c *Config) { c.Uploads.KeepLocal = time.Hour; c.Space.Low = Share{Percent: 10} })
	m := record(t, a, newTestCall(testID, codec.WAVPCMU))
	drainUploads(t, a, "published")
	files := mem.Files()
	if len(files) != len(m.Segments) {
		t.Fatalf("kept: %v", files)
	}
	ops := r.ops
	tr := track{a: a, ctx: context.Background(), m: m, from: place{a.shelves[0], testPrefix}, bad: &findings{}}
	if _, err := tr.next(); err != nil || r.ops > ops+1 { // its key is the store's, which may have been shredded
		t.Errorf("%v, %d operations on the store", err, r.ops-ops)
	}
	tr.close()
	mem.SetFree(1)
	a.watchSpace(context.Background(), time.Now())
	if files := mem.Files(); len(files) > 0 {
		t.Errorf("kept on a disk that is low: %v", files)
	}
	mustVerify(t, a, "later")
}
