package relay

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media"
)

// The sockets are edge-triggered: what a batch leaves behind raises no event.
func TestMoreThanABatchIsComeBackTo(t *testing.T) {
	l, s, carrier, pbx := still(t)
	e := env{T: t}
	const sent = 2*batchPackets + 10
	for i := range sent {
		e.send(carrier, s.Local(media.External), rtpPacket(1, uint16(i), 20))
	}
	for round, want := range []int{batchPackets, batchPackets, 10, 0} {
		got, _ := l.round(l.poll(0, true))
		if got != want {
			t.Fatalf("round %d: %d packets, want %d", round, got, want)
		}
		if more := len(l.again) > 0; more != (round < 2) {
			t.Fatalf("round %d: come back: %v", round, more)
		}
	}
	for i := range sent {
		e.want(pbx, s.Local(media.Internal), rtpPacket(1, uint16(i), 20))
	}
	e.send(carrier, s.Local(media.External), rtpPacket(1, sent, 20))
	if got, _ := l.round(l.poll(0, true)); got != 1 {
		t.Fatalf("%d packets after it was emptied", got)
	}
}

// A stream may be closed while the loop means to come back to its socket.
func TestComingBackToAClosedSocket(t *testing.T) {
	l, s, carrier, _ := still(t)
	e := env{T: t}
	for i := range batchPackets {
		e.send(carrier, s.Local(media.External), rtpPacket(1, uint16(i), 20))
	}
	l.round(l.poll(0, true))
	fd := s.socket(media.External).fd
	if len(l.again) != 1 || l.again[0] != int32(fd) {
		t.Fatalf("come back to %v, want %d", l.again, fd)
	}
	if err := l.socks.set(fd, nil); err != nil {
		t.Fatal(err)
	}
	if got, stop := l.round(0); got != 0 || stop || len(l.again) != 0 {
		t.Fatalf("%d packets, stop %v, again %v", got, stop, l.again)
	}
}

func TestAwait(t *testing.T) {
	l, s, carrier, _ := still(t)
	e := env{T: t}
	for _, l.short = range []bool{true, false} {
		e.send(carrier, s.Local(media.External), rtpPacket(1, 1, 20))
		if n := l.await(0, false); n != 1 {
			t.Fatalf("short %v: %d events, want the one", l.short, n)
		}
		e.eventually("a sleep that no signal of the scheduler ended", func() bool {
			begun := time.Now()
			e.send(carrier, s.Local(media.External), rtpPacket(1, 2, 20))
			if n := l.await(3*time.Millisecond, true); n != 1 {
				t.Fatalf("short %v: %d events after a sleep, want the one", l.short, n)
			}
			return time.Since(begun) >= 3*time.Millisecond
		})
	}
	l.short = true
	if n := l.await(0, true); n != 0 {
		t.Fatalf("%d events of nothing", n)
	}
	l.pace = pace{rate: 2 * paceFrom} // that never sleeps
	for range 3 {
		n := l.await(0, true)
		if !l.ticking || n > 1 || n == 1 && l.events[0].Fd != int32(l.tick) {
			t.Fatalf("%d events, ticking %v; want a tick", n, l.ticking)
		}
		if got, stop := l.round(n); got != 0 || stop {
			t.Fatalf("a tick brought %d packets, stop %v", got, stop)
		}
	}
	l.pace.rate = 0
	if l.await(0, true); l.ticking {
		t.Fatal("still ticking")
	}
	l.again = append(l.again, 0)
	if n := l.await(time.Hour, false); n != 0 {
		t.Fatalf("%d events of nothing", n)
	}
}

// crowded is a running relay whose only loop believes that it is busy.
func crowded(t *testing.T, cfg Config) (e env, s *Stream, carrier, pbx party) {
	e = realEnv(t)
	procs := runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))
	t.Cleanup(func() { runtime.GOMAXPROCS(procs) })
	cfg.PortMin, cfg.PortMax, cfg.Loops = 25000, 25999, 1
	e.relay = mustRelay(t, cfg)
	s, carrier, pbx = e.call()
	return e, s, carrier, pbx
}

// Media in order and the control calls that wait for the loop, while it sleeps
// between rounds and the collector runs.
func TestCoalescing(t *testing.T) {
	for _, bound := range []time.Duration{-1, time.Millisecond, 3 * time.Millisecond} {
		t.Run(bound.String(), func(t *testing.T) {
			e, s, carrier, pbx := crowded(t, Config{CoalesceMax: bound})
			const bursts, burst = 100, 100 // far above paceFull
			for b := range bursts {
				tap := &collector{}
				s.SetTap(media.External, tap)
				for i := range burst {
					e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, uint16(b*burst+i), 160))
				}
				for i := range burst {
					e.want(pbx.rtp, s.Local(media.Internal), rtpPacket(1, uint16(b*burst+i), 160))
				}
				e.eventually("tapped", func() bool { return tap.len() == burst })
				if b%10 == 0 {
					runtime.GC()
				}
			}
			if st := s.Stats()[media.External]; st.Forwarded != bursts*burst {
				t.Fatalf("%+v", st)
			}
		})
	}
}

func TestCPUs(t *testing.T) {
	var mine unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mine); err != nil {
		t.Fatal(err)
	}
	first := 0
	for !mine.IsSet(first) {
		first++
	}
	cfg := Config{PortMin: 26000, PortMax: 26099, CPUs: []int{first}}
	r := mustRelay(t, cfg)
	loops := r.engine.(*userEngine).loops
	if len(loops) != 1 || loops[0].cpu != first {
		t.Fatalf("%d loops, the first on CPU %d", len(loops), loops[0].cpu)
	}
	cfg.CPUs = []int{first, 1000}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "CPU 1000") {
		t.Fatalf("a CPU that is not there: %v", err)
	}
}

// Few streams keep one loop busy, many all.
func TestStreamsFillLoopsInTurn(t *testing.T) {
	r := mustRelay(t, Config{PortMin: 27000, PortMax: 28999, Loops: 2})
	loops := r.engine.(*userEngine).loops
	check := func(want ...int32) {
		t.Helper()
		for i, l := range loops {
			if n := l.streams.Load(); n != want[i] {
				t.Fatalf("loop %d has %d streams, want %v", i, n, want)
			}
		}
	}
	for i := range 2*streamsFew + 3 {
		s, err := r.Open(locals, Options{RTP: true})
		if err != nil {
			t.Fatal(err)
		}
		switch i {
		case 0:
			check(1, 0)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			check(0, 0)
		case streamsFew:
			check(streamsFew, 0)
		}
	}
	check(streamsFew+1, streamsFew+1)
}
