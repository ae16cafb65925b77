package archive

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
)

// feeder sends by a schedule: it catches up when it was late.
type feeder struct {
	next  time.Time
	ticks int
}

type everyCall struct{ plan recorder.Plan }

func (p everyCall) Plan(media.Session) (recorder.Plan, bool) { return p.plan, true }

// cpuUsed is the CPU time of this process, user and system.
func cpuUsed() (user, system time.Duration) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, 0
	}
	return time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())
}

// BenchmarkCalls is what recording costs a packet while a number of calls goes
// on, in real time and on a real disk: a packet of 20 ms G.711 for each side of
// each call. What the feeding costs is measured before, with taps that nobody
// reads, and taken off. It runs for b.N seconds of all calls; use -benchtime 5x.
func BenchmarkCalls(b *testing.B) {
	for _, format := range []string{recorder.FormatWAVPCMU, recorder.FormatOggOpus} {
		for _, calls := range []int{100, 500, 1000} {
			b.Run(fmt.Sprintf("%s/calls=%d", format, calls), func(b *testing.B) { benchmarkCalls(b, format, calls) })
		}
	}
}

func benchmarkCalls(b *testing.B, format string, calls int) {
	r, a := liveRecorder(b, format)
	rings := make([]media.Tap, 2*calls)
	for i := range rings {
		rings[i] = media.NewRing(64<<10, time.Now())
	}
	idle := feeder{next: time.Now()}
	idleUser, idleSystem := idle.feed(rings, 1)
	heap := heapInUse()
	feeds, sessions := startCalls(b, r, calls, 0)
	f := feeder{next: time.Now()}
	f.feed(feeds, 2) // until the first frames are written and memory has grown
	b.ResetTimer()
	user, system := f.feed(feeds, b.N)
	b.StopTimer()
	b.ReportMetric(float64(heapInUse()-heap)/float64(calls)/1024, "KiB/call")
	n := float64(b.N * 100 * calls)
	user -= time.Duration(b.N) * idleUser
	system -= time.Duration(b.N) * idleSystem
	b.ReportMetric(float64(user.Nanoseconds())/n/1e3, "user-us/packet")
	b.ReportMetric(float64(system.Nanoseconds())/n/1e3, "sys-us/packet")
	b.ReportMetric(0, "ns/op")
	u0, s0 := cpuUsed()
	for _, s := range sessions {
		s.Ended(time.Now(), media.CauseBye)
	}
	closeRecorder(b, r, a, calls)
	u1, s1 := cpuUsed()
	b.ReportMetric(float64((u1-u0+s1-s0).Microseconds())/float64(calls), "end-us/call")
}

// liveRecorder returns a recorder that writes to a disk, as the daemon has it.
func liveRecorder(b *testing.B, format string) (*recorder.Recorder, *Archive) {
	dir := b.TempDir()
	a, err := Open(Config{
		StoreDir: filepath.Join(dir, "store"), SpoolDir: filepath.Join(dir, "spool"), CatalogPath: filepath.Join(dir, "c.db"),
		KeyFile: filepath.Join(dir, "keys.json"), SyncPeriod: 250 * time.Millisecond,
	})
	if err != nil {
		b.Fatal(err)
	}
	plan := recorder.DefaultPlan()
	plan.SampleRate = 8000
	plan.Kind, plan.Format = recorder.KindTrunk, format
	r, err := recorder.New(recorder.Config{Policy: everyCall{plan}, NewSink: a.NewSink, Workers: runtime.NumCPU()})
	if err != nil {
		b.Fatal(err)
	}
	return r, a
}

// closeRecorder ends what goes on and checks that all calls are published.
func closeRecorder(b *testing.B, r *recorder.Recorder, a *Archive, calls int) {
	if err := r.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	if n := r.Stats().Published.Load(); n != int64(calls) {
		b.Fatalf("%d of %d recordings published", n, calls)
	}
	if err := a.Close(); err != nil {
		b.Fatal(err)
	}
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// startCalls begins calls with a stream of each side.
func startCalls(b *testing.B, r *recorder.Recorder, calls, first int) ([]media.Tap, []media.SessionTap) {
	feeds, sessions := make([]media.Tap, 0, 2*calls), make([]media.SessionTap, calls)
	for i := range sessions {
		now := time.Now()
		id := media.SessionID(fmt.Sprint("call-", first+i), "a", now)
		tap, err := r.SessionStarted(context.Background(), media.Session{
			ID: id, Trunk: "a", SIPCallID: id, Direction: media.Inbound, From: "sip:+49301234567@carrier.example",
			To: "sip:100@pbx.example", Start: now,
			Parties: []media.Participant{{Side: media.External, URI: "sip:+49301234567@carrier.example"}, {Side: media.Internal, URI: "sip:100@pbx.example"}},
		})
		if err != nil {
			b.Fatal(err)
		}
		sessions[i] = tap
		tap.Answered(now)
		for _, s := range []media.Side{media.External, media.Internal} {
			feeds = append(feeds, tap.StreamStarted(media.Stream{
				ID: media.StreamID(s), Side: s, At: now, Sending: true, Formats: []media.Format{{PayloadType: 0, Name: "PCMU", ClockRate: 8000}},
			}))
		}
	}
	return feeds, sessions
}

// feed gives each tap 50 packets a second, a quarter of them every 5 ms, and
// returns the CPU time of the process meanwhile.
func (f *feeder) feed(taps []media.Tap, seconds int) (user, system time.Duration) {
	wire := make([]byte, 172)
	wire[0] = 0x80
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range wire[12:] {
		wire[12+i] = byte(rng.Uint32())
	}
	u0, s0 := cpuUsed()
	for n := range seconds * 200 {
		f.next = f.next.Add(5 * time.Millisecond)
		if d := time.Until(f.next); d > 0 {
			<-time.After(d)
		}
		now := time.Now()
		seq := uint32(f.ticks) / 4
		f.ticks++
		binary.BigEndian.PutUint16(wire[2:], uint16(seq))
		binary.BigEndian.PutUint32(wire[4:], seq*160)
		for i := n % 4; i < len(taps); i += 4 {
			binary.BigEndian.PutUint32(wire[8:], uint32(i))
			taps[i].Put(now, wire)
		}
	}
	u1, s1 := cpuUsed()
	return u1 - u0, s1 - s0
}

// BenchmarkShortCalls is the CPU time that a recording costs beside its audio:
// calls that begin, are answered and end, published and listed. Compare runs on a
// tmpfs: ext4 is slow after many deletions, such as those of the run before.
func BenchmarkShortCalls(b *testing.B) {
	r, a := liveRecorder(b, recorder.FormatWAVPCMU)
	user, system := cpuUsed()
	b.ResetTimer()
	const atOnce = 100
	for n := 0; n < b.N; n += atOnce {
		_, sessions := startCalls(b, r, min(atOnce, b.N-n), n)
		for _, s := range sessions {
			s.Ended(time.Now(), media.CauseBye)
		}
		for r.Stats().Published.Load() < int64(n) {
			<-time.After(time.Millisecond)
		}
	}
	closeRecorder(b, r, a, b.N)
	b.StopTimer()
	u, s := cpuUsed()
	b.ReportMetric(float64((u-user).Microseconds())/float64(b.N), "user-us/call")
	b.ReportMetric(float64((s-system).Microseconds())/float64(b.N), "sys-us/call")
	b.ReportMetric(0, "ns/op")
}
