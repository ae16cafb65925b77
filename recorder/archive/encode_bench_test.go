package archive

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// BenchmarkDeferred codes a minute of a conversation, one party speaking.
func BenchmarkDeferred(b *testing.B) {
	ch := [2][]int16{pcm(0, 60_000)[0], make([]int16, 60_000*8)}
	enc, err := codec.NewEncoder(codec.WAVPCMU, 8000, codec.Options{})
	if err != nil {
		b.Fatal(err)
	}
	opt := func(*recorder.Manifest) (codec.Options, bool) { return codec.Options{Complexity: 1}, true }
	mem := vfstest.NewMem()
	a := mustDefer(b, mem, newMemCatalog(), DeferredConfig{Options: opt})
	var cpu time.Duration
	for n := 0; b.Loop(); n++ {
		c := testCall{id: fmt.Sprint("r", n), format: codec.WAVPCMU, kept: []span{{0, 60_000}}, endMS: 60_000, segmentMax: 60_000}
		sink, err := a.NewSink(context.Background(), c.id, c.prefix())
		if err != nil {
			b.Fatal(err)
		}
		w, err := sink.Begin(recorder.SegmentInfo{Recording: c.id, Prefix: c.prefix(), N: 1, Format: c.format, SampleRate: 8000, Channels: 2, Start: epoch})
		if err != nil {
			b.Fatal(err)
		}
		for ms := int64(0); ms < 60_000; ms += frameMS {
			data, err := enc.Encode(nil, [2][]int16{ch[0][8*ms : 8*(ms+frameMS)], ch[1][8*ms : 8*(ms+frameMS)]})
			if err != nil {
				b.Fatal(err)
			}
			if err := w.Write(recorder.Audio{RealMS: ms, AudioMS: ms, SegMS: ms, Samples: frameMS * 8, Data: data}, nil); err != nil {
				b.Fatal(err)
			}
		}
		s, err := w.Finish(nil)
		if err != nil {
			b.Fatal(err)
		}
		s.EndRealMS = 60_000
		if err := errors.Join(sink.Publish(c.account(60_000, 60_000, []recorder.Segment{s})), sink.Close()); err != nil {
			b.Fatal(err)
		}
		begin := cpuTime()
		encodeAll(context.Background(), a)
		cpu += cpuTime() - begin
	}
	if n := a.DeferredStats().Done.Load(); n != int64(b.N) {
		b.Fatalf("%d of %d", n, b.N)
	}
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N)/3000, "cpu-us/20ms")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
