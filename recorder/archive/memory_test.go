package archive

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// BenchmarkOpenSinks is the memory that a recording holds here while it goes on,
// with frames of 500 ms of G.711, half of which are not durable yet; and the
// garbage that a frame makes.
func BenchmarkOpenSinks(b *testing.B) {
	const sinks = 1000
	dir := b.TempDir()
	a, err := Open(Config{
		StoreDir: filepath.Join(dir, "store"), SpoolDir: filepath.Join(dir, "spool"), CatalogPath: filepath.Join(dir, "c.db"),
		KeyFile: filepath.Join(dir, "keys.json"), SyncPeriod: 250 * time.Millisecond,
	})
	if err != nil {
		b.Fatal(err)
	}
	open := make([]recorder.Sink, sinks)
	writers := make([]recorder.SegmentWriter, sinks)
	_ = heapInUse() // pools give up their content at the second collection
	before := heapInUse()
	for i := range open {
		id := fmt.Sprintf("20261122T163608Z-%016x", i)
		prefix := "2026/11/22/" + id
		if open[i], err = a.NewSink(context.Background(), id, prefix); err != nil {
			b.Fatal(err)
		}
		if writers[i], err = open[i].Begin(recorder.SegmentInfo{
			Recording: id, Prefix: prefix, N: 1, Format: recorder.FormatWAVPCMU, SampleRate: 8000, Channels: 2, Start: epoch,
		}); err != nil {
			b.Fatal(err)
		}
	}
	data := make([]byte, 8000)
	frame := int64(0)
	write := func() {
		for i, w := range writers {
			if i%(sinks/2) == 0 {
				a.syncer.Round() // each period of 250 ms
			}
			ms := frame * 500
			if err := w.Write(recorder.Audio{RealMS: ms, AudioMS: ms, SegMS: ms, Samples: 4000, Data: data}, nil); err != nil {
				b.Fatal(err)
			}
		}
		frame++
	}
	write()
	write()
	held := heapInUse() - before
	b.ReportAllocs()
	for b.Loop() {
		write()
	}
	b.ReportMetric(float64(held)/sinks, "B/sink")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*sinks), "ns/frame")
	for _, s := range open {
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		b.Fatal(err)
	}
}
