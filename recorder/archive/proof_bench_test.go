package archive

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// BenchmarkLinked tells what a short recording costs with and without a link:
// CPU time, and bytes and syncs of the log.
func BenchmarkLinked(b *testing.B) {
	for _, linked := range []bool{false, true} {
		b.Run(fmt.Sprintf("linked=%v", linked), func(b *testing.B) {
			dir := b.TempDir()
			a, err := Open(Config{StoreDir: dir + "/store", SpoolDir: dir + "/spool", Sealer: testSealer(), Catalog: newMemCatalog(), SyncPeriod: 250 * time.Millisecond})
			if err != nil {
				b.Fatal(err)
			}
			var l *audit.Log
			if linked {
				id, err := audit.OpenIdentity(audit.IdentityConfig{Path: dir + "/node-key.json", Node: "rec-a"})
				if err == nil {
					err = vfs.MkdirAll(vfs.OS{}, dir+"/audit")
				}
				if err == nil {
					l, err = audit.Open(audit.Config{Dir: dir + "/audit", Identity: id, Store: a.Store(), Durable: a.DurableIn(dir + "/audit")})
				}
				if err != nil {
					b.Fatal(err)
				}
				a.SetProof(l)
			}
			before := cpuOf()
			b.ResetTimer()
			for i := range b.N {
				c := newTestCall(fmt.Sprintf("20261122T163608Z-%016x", i), codec.WAVPCMU)
				c.kept, c.endMS = []span{{0, 500}}, 500
				record(b, a, c)
			}
			b.StopTimer()
			b.ReportMetric(float64((cpuOf()-before).Microseconds())/float64(b.N), "cpu-us/op")
			if l != nil {
				b.ReportMetric(float64(l.Stats().Commits.Load())/float64(b.N), "log-syncs/op")
				if err := l.Close(); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(bytesBelow(b, dir+"/audit"))/float64(b.N), "log-bytes/op")
			}
			if err := a.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func cpuOf() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it has no way to fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func bytesBelow(b *testing.B, dir string) (n int64) {
	b.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			n += bytesBelow(b, dir+"/"+e.Name())
			continue
		}
		info, err := e.Info()
		if err != nil {
			b.Fatal(err)
		}
		n += info.Size()
	}
	return n
}
