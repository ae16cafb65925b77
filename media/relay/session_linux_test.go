package relay

import (
	"errors"
	"net/netip"
	"runtime"
	"testing"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay/kernel"
)

// BenchmarkSession is what opening a session's stream, negotiating both its sides, taps
// and closing it cost, all threads of the process counted. heap-B/session is
// what an open one keeps.
func BenchmarkSession(b *testing.B) {
	for _, engine := range []Engine{EngineUser, EngineKernel} {
		b.Run(string(engine), func(b *testing.B) {
			cfg := Config{
				PortMin: 20000, PortMax: 60999, Loops: 2, Engine: engine, Quarantine: -1,
				Kernel: kernel.Config{Interfaces: []string{"lo"}},
			}
			r, err := New(cfg)
			if errors.Is(err, kernel.ErrUnsupported) {
				b.Skip(err)
			}
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = r.Close() }()
			open := func() *Stream {
				s, err := r.Open(locals, Options{RTP: true})
				if err != nil {
					b.Fatal(err)
				}
				for side, host := range []netip.Addr{carrierHost, pbxHost} {
					s.SetRemote(media.Side(side), Remote{RTP: netip.AddrPortFrom(host, 4000), PayloadTypes: []uint8{0, 8, 101}})
					s.SetTap(media.Side(side), nullTap{})
				}
				return s
			}
			const kept = 2000
			streams := make([]*Stream, 0, kept)
			before := heap()
			for range kept {
				streams = append(streams, open())
			}
			perSession := float64(heap()-before) / kept
			for _, s := range streams {
				_ = s.Close()
			}
			cpu := cpuTime()
			b.ReportAllocs()
			for b.Loop() {
				if err := open().Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1000/float64(b.N), "cpu-us/session")
			b.ReportMetric(perSession, "heap-B/session")
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
