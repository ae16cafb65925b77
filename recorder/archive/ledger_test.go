package archive

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/vfs"
)

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestLedgerMemory holds verify to a fixed amount for each recording, whatever the
// log, the store and the catalogue say of it.
func TestLedgerMemory(t *testing.T) {
	const recordings, bytesMax = 300_000, 80
	before := heap()
	l := newLedger()
	n := l.number("rec-a/20261122T163608.000Z")
	for i := range recordings {
		id := idOf(i)
		l.take(n, audit.Entry{N: int64(i), At: epoch, Kind: audit.KindPublished, Recording: id, Link: &audit.EntryLink{SHA256: id}})
		l.mark(id, markStored, true)
		l.mark(id, markRow, true)
		l.seen(id)
	}
	per := (heap() - before) / recordings
	t.Logf("%d bytes for each recording", per)
	if per > bytesMax {
		t.Errorf("%d bytes for each recording, want at most %d", per, bytesMax)
	}
	if l.want(func(time.Time) bool { return true }) != 0 || l.rowless() {
		t.Error("recordings that are there are missed")
	}
	runtime.KeepAlive(&l)
}

func TestLedger(t *testing.T) {
	l := newLedger()
	a, b := l.number("rec-a/1"), l.number("rec-b/1")
	if a == b || l.number("rec-a/1") != a || l.log(b.at(7)) != "rec-b/1" || b.at(7).n() != 7 {
		t.Fatal("the numbers of logs")
	}
	for _, n := range []int64{-1, math.MaxInt64, math.MinInt64} { // of an altered log
		if l.log(b.at(n)) != "rec-b/1" {
			t.Errorf("entry %d is of log %s", n, l.log(b.at(n)))
		}
	}
	publish := func(log entryAt, n int64, id string) audit.Entry {
		e := audit.Entry{N: n, At: epoch, Kind: audit.KindPublished, Recording: id, Link: &audit.EntryLink{SHA256: "link of " + id}}
		l.take(log, e)
		return e
	}
	end := func(kind audit.Kind, result string, id string) {
		l.take(a, audit.Entry{N: 9, At: epoch, Kind: kind, Recording: id, Result: result})
	}
	gone := publish(b, 3, "gone")
	publish(a, 4, "seen")
	l.seen("seen")
	publish(a, 5, "deleted")
	end(audit.KindDeleted, audit.ResultDone, "deleted")
	publish(a, 6, "refused")
	end(audit.KindDeleted, audit.ResultFailed, "refused")
	publish(a, 7, "shredded")
	end(audit.KindShredded, audit.ResultDone, "shredded")
	end(audit.KindDeleted, audit.ResultBegun, "unlinked")
	end(audit.KindDeleted, audit.ResultDone, "unlinked")
	if w, logged := l.of("unlinked"); !logged || w.is&(markDeleted|markLeaving|markBegun) != markDeleted || w.entry != a.at(9) || !w.time().Equal(epoch.Truncate(time.Second)) {
		t.Errorf("deleted without a link: %+v, %v", w, logged)
	}
	for id, ago := range map[string]time.Duration{"leaving": time.Hour, "begun": leavingMost + time.Hour} {
		publish(b, 8, id)
		l.take(b, audit.Entry{N: 9, At: l.read.Add(-ago), Kind: audit.KindDeleted, Recording: id, Result: audit.ResultBegun})
	}
	l.mark("no log knows it", markStored, true)
	l.seen("nobody knows it")
	if n := l.want(func(p time.Time) bool { return p.After(epoch) }); n != 4 || !l.has("begun", markWanted) {
		t.Errorf("%d are gone, want gone, refused, shredded and begun", n)
	}
	if !l.wants(b, gone) || l.wants(a, gone) || l.wants(b, audit.Entry{N: 4, Recording: "gone"}) {
		t.Error("the entry of what is gone")
	}
	if _, logged := l.of("no log knows it"); logged || !l.rowless() {
		t.Error("what only a store knows")
	}
	l.mark("no log knows it", markRow, true)
	if l.rowless() {
		t.Error("it has a row")
	}
	if g := l.grave("shredded"); !g.told || l.log(g.entry) != "rec-a/1" {
		t.Error("a grave")
	}
	if one, again := l.digest("x"), l.digest("x"); one == 0 || one != again || one == l.digest("y") {
		t.Error("digests")
	}
	if other := newLedger(); other.digest("x") == l.digest("x") {
		t.Error("digests without salt can be made up")
	}
}

// BenchmarkReadLogs checks a log with an entry for each of b.N recordings, and tells
// what of it stays in memory: go test -run - -bench ReadLogs -benchtime 1000000x.
func BenchmarkReadLogs(b *testing.B) {
	dir := b.TempDir()
	a, err := Open(Config{StoreDir: dir + "/store", SpoolDir: dir + "/spool", Sealer: testSealer(), Catalog: newMemCatalog()})
	if err != nil {
		b.Fatal(err)
	}
	id, err := audit.OpenIdentity(audit.IdentityConfig{Path: dir + "/node-key.json", Node: "rec-a"})
	if err != nil {
		b.Fatal(err)
	}
	l, err := audit.Open(audit.Config{Dir: dir + "/audit", Identity: id, Store: a.Store(), Durable: func(vfs.File, ...string) error { return nil }})
	if err != nil {
		b.Fatal(err)
	}
	var writers sync.WaitGroup
	const writersMax = 256
	for w := range writersMax {
		writers.Go(func() {
			for i := w; i < b.N; i += writersMax {
				e := audit.Entry{Kind: audit.KindDeleted, Recording: fmt.Sprintf("20261122T163608Z-%016x", i), Result: audit.ResultDone}
				if err := l.Append(context.Background(), e); err != nil {
					b.Error(err)
				}
			}
		})
	}
	writers.Wait()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	before := heap()
	b.ResetTimer()
	v := &verification{a: a, ctx: context.Background(), query: VerifyQuery{FromID: "0"}, down: map[string]bool{}, led: newLedger()}
	if err := v.readLogs(ProofQuery{Dir: l.Dir(), Node: "rec-a", Ring: id.Ring()}); err != nil || len(v.found.list) > 0 {
		b.Fatal(err, v.found.list)
	}
	b.StopTimer()
	var peak runtime.MemStats
	runtime.ReadMemStats(&peak)
	if len(v.led.words) != b.N {
		b.Fatal(len(v.led.words), "recordings")
	}
	b.ReportMetric(float64(heap()-before)/float64(b.N), "kept-B/op")
	b.ReportMetric(float64(int64(peak.HeapInuse)-before)/float64(b.N), "heap-B/op")
	runtime.KeepAlive(v)
	if err := a.Close(); err != nil {
		b.Fatal(err)
	}
}
