package relay

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay/kernel"
	"github.com/trunktap/trunktap/media/relay/kernel/kerneltest"
)

// Copies that do not fit the ring are counted where they are missing.
func TestKernelCountsWhatTheRingLost(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	s := twoCables(t)
	s.start(Config{Kernel: kernel.Config{RingBytes: 4096, Rings: 1, DrainInterval: time.Hour}})
	st, conns := s.call()
	tap := media.NewRing(1<<20, time.Now())
	st.SetTap(media.External, tap)
	const packets = 100
	for i := range packets {
		s.pass(st, media.External, conns[0], conns[1], rtpPacket(1, uint16(i), 160))
	}
	_ = st.Close()
	n := st.Stats()[0]
	if n.Untapped == 0 || tap.Dropped() != n.Untapped || uint64(tap.Len())+n.Untapped != packets || n.Forwarded != packets {
		t.Fatalf("%d in the tap, %d dropped; %+v", tap.Len(), tap.Dropped(), n)
	}
	if total := s.relay.Totals(); total.Untapped != n.Untapped || total.Kernel != n.Kernel {
		t.Fatalf("totals %+v", total)
	}
}

// Nothing stays behind.
func TestKernelClosesCleanly(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	s := twoCables(t)
	dir := kerneltest.BPFFS(t) + "/trunktap"
	var st *Stream
	sent := 0
	t.Run("open", func(t *testing.T) {
		s.T = t
		s.start(Config{Kernel: kernel.Config{PinDir: dir}})
		var conns [2]*net.UDPConn
		st, conns = s.call()
		sent = s.byKernel(st, conns, 0)
		if n := attached(t, "ra"); n != 1 || len(pins(t, dir)) < 5 {
			t.Fatalf("%d programs; pins %v", n, pins(t, dir))
		}
	})
	if n := attached(t, "ra"); n != 0 || len(pins(t, dir)) != 0 {
		t.Fatalf("%d programs are still there; pins %v", n, pins(t, dir))
	}
	if n := st.Stats()[0]; n.Packets != uint64(sent) || n.Kernel < 20 {
		t.Fatalf("the counts are gone: %+v", n)
	}
}

func attached(t *testing.T, name string) int {
	t.Helper()
	n, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	q, err := link.QueryPrograms(link.QueryOptions{Target: n.Index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		t.Fatal(err)
	}
	return len(q.Programs)
}

func pins(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// An engine that was asked for by name and cannot be had is an error; auto goes
// on without, and says why.
func TestEngineChoice(t *testing.T) {
	nowhere := kernel.Config{Interfaces: []string{"nowhere0"}}
	if r, err := New(Config{PortMin: 20000, PortMax: 20999, Engine: "fast"}); err == nil || !strings.Contains(err.Error(), "auto, kernel or user") {
		_ = r.Close()
		t.Errorf("an engine that does not exist: %v", err)
	}
	if _, err := New(Config{PortMin: 20000, PortMax: 20999, Engine: EngineKernel, Kernel: nowhere}); !errors.Is(err, kernel.ErrUnsupported) {
		t.Errorf("the kernel engine without an interface: %v", err)
	}
	var log bytes.Buffer
	r := mustRelay(t, Config{
		PortMin: 20000, PortMax: 20999, Engine: EngineAuto, Kernel: nowhere, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if text := log.String(); r.Engine() != EngineUser || !strings.Contains(text, "nowhere0") && !strings.Contains(text, "CAP_") {
		t.Errorf("%s: %s", r.Engine(), text)
	}
}

// Many streams on several rings: each tap gets its own, all of it, in order.
func TestKernelKeepsStreamsApart(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	s := twoCables(t)
	s.start(Config{Kernel: kernel.Config{Rings: 3, FlowsMax: 100}})
	const streams, packets = 40, 200
	type one struct {
		st    *Stream
		conns [2]*net.UDPConn
		taps  [2]*collector
	}
	var all []one
	for range streams {
		st, conns := s.call()
		o := one{st, conns, [2]*collector{{}, {}}}
		for side, tap := range o.taps {
			st.SetTap(media.Side(side), tap)
		}
		all = append(all, o)
	}
	wire := func(k, side, i int) []byte { return rtpPacket(uint32(2*k+side), uint16(i+packets*k), 20+i) }
	for i := range packets {
		for k, o := range all {
			s.pass(o.st, media.External, o.conns[0], o.conns[1], wire(k, 0, i))
			s.pass(o.st, media.Internal, o.conns[1], o.conns[0], wire(k, 1, i))
		}
	}
	for k, o := range all {
		_ = o.st.Close()
		for side, tap := range o.taps {
			want := &collector{}
			for i := range packets {
				want.Put(time.Time{}, wire(k, side, i))
			}
			if n := o.st.Stats()[side]; n.Kernel < packets/2 || tap.String() != want.String() {
				t.Fatalf("stream %d, side %d: the tap got other packets; %+v", k, side, n)
			}
		}
	}
}

// BenchmarkEngines is the processor time of the whole process, sending included,
// for one packet that goes over lo to a party that does not read: directly,
// through each engine, and through each with a tap. Softirqs count as far as the
// system charges them to whom they interrupt.
func BenchmarkEngines(b *testing.B) {
	for _, c := range []struct {
		name   string
		engine Engine
		tap    bool
	}{{"direct", "", false}, {"user", EngineUser, false}, {"user+tap", EngineUser, true}, {"kernel", EngineKernel, false}, {"kernel+tap", EngineKernel, true}} {
		b.Run(c.name, func(b *testing.B) { benchmarkEngine(b, c.engine, c.tap) })
	}
}

func benchmarkEngine(b *testing.B, engine Engine, tap bool) {
	listen := func(at string) *net.UDPConn { return (&kerneltest.Host{}).Listen(b, at) }
	from, to := listen("127.0.1.1:0"), listen("127.0.1.2:0")
	_ = to.SetReadBuffer(1)
	dest := addrOf(to)
	if engine != "" {
		r, err := New(Config{
			PortMin: 27000, PortMax: 27999, Loops: 1, Engine: engine,
			Kernel: kernel.Config{Interfaces: []string{"lo"}},
		})
		if errors.Is(err, kernel.ErrUnsupported) {
			b.Skip(err)
		}
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		s, err := r.Open(locals, Options{RTP: true})
		if err != nil {
			b.Fatal(err)
		}
		s.SetRemote(media.External, Remote{RTP: addrOf(from), PayloadTypes: []uint8{0}})
		s.SetRemote(media.Internal, Remote{RTP: dest, PayloadTypes: []uint8{0}})
		if tap {
			s.SetTap(media.External, nullTap{})
		}
		dest = s.Local(media.External)
		defer func() { b.ReportMetric(float64(s.Stats()[0].Kernel)/float64(b.N), "kernel/packet") }()
	}
	wire := rtpPacket(1, 1, 160)
	for i := range 10 {
		wire[3] = byte(i)
		_, _ = from.WriteToUDPAddrPort(wire, dest)
		<-time.After(time.Millisecond)
	}
	before := cpuTime()
	b.ResetTimer()
	for i := range b.N {
		wire[2], wire[3] = byte(i>>8), byte(i)
		_, _ = from.WriteToUDPAddrPort(wire, dest)
		if i%50 == 49 { // 50 streams of 20 ms packets
			<-time.After(20 * time.Millisecond / 50 * 1)
		}
	}
	b.StopTimer()
	<-time.After(20 * time.Millisecond)
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/packet")
}

type nullTap struct{}

func (nullTap) Put(time.Time, []byte) {}

func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
