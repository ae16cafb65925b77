package relay

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay/kernel"
	"github.com/trunktap/trunktap/media/relay/kernel/kerneltest"
)

// BenchmarkCopies is the way of a copy from the kernel's ring into the ring of a
// recording: 500 calls, whose packets of 10 ms are fetched at once.
func BenchmarkCopies(b *testing.B) {
	const calls, turn = 500, 500
	r, err := New(Config{
		PortMin: 27000, PortMax: 29999, Loops: 1, Engine: EngineKernel, Quarantine: -1,
		Kernel: kernel.Config{Interfaces: []string{"lo"}, Rings: 1, DrainInterval: time.Hour},
	})
	if errors.Is(err, kernel.ErrUnsupported) {
		b.Skip(err)
	}
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	listen := func(at string) *net.UDPConn { return (&kerneltest.Host{}).Listen(b, at) }
	froms := [2]*net.UDPConn{listen("127.0.1.1:0"), listen("127.0.1.2:0")}
	for _, c := range froms {
		_ = c.SetReadBuffer(1)
	}
	var streams [calls]*Stream
	var rings [2 * calls]*media.Ring
	for i := range streams {
		if streams[i], err = r.Open(locals, Options{RTP: true}); err != nil {
			b.Fatal(err)
		}
		for side, c := range froms {
			streams[i].SetRemote(media.Side(side), Remote{RTP: addrOf(c), PayloadTypes: []uint8{0}})
			rings[2*i+side] = media.NewRing(64<<10, time.Now())
			streams[i].SetTap(media.Side(side), rings[2*i+side])
		}
	}
	seq := 0
	send := func(k int) {
		to := streams[k/2].Local(media.Side(k % 2))
		if _, err := froms[k%2].WriteToUDPAddrPort(rtpPacket(uint32(k), uint16(seq), 160), to); err != nil {
			b.Fatal(err)
		}
	}
	for ; seq < 8; seq++ { // until the kernel has them all
		for k := range rings {
			send(k)
		}
		<-time.After(50 * time.Millisecond)
	}
	engine := r.offload.(kernelOffload).Engine
	engine.Drain()
	had := r.Totals().Kernel
	var spent time.Duration
	for n := 0; b.Loop(); seq++ {
		b.StopTimer()
		for range turn {
			send(n * 7919 % len(rings))
			n++
		}
		for _, ring := range rings {
			for ok := true; ok; {
				_, _, _, ok = ring.Next()
			}
		}
		b.StartTimer()
		begin := time.Now()
		engine.Drain()
		spent += time.Since(begin)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*turn), "ns/packet")
	if n := r.Totals(); n.Kernel-had != uint64(b.N*turn) || n.Untapped != 0 {
		b.Fatalf("%d of %d packets by the kernel; %+v", n.Kernel-had, b.N*turn, n)
	}
}
