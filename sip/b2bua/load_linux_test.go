package b2bua

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/suppress"
)

// blind is an observer that takes everything and looks at nothing.
type blind struct{}

func (blind) SessionStarted(context.Context, media.Session) (media.SessionTap, error) {
	return blind{}, nil
}
func (blind) StreamStarted(media.Stream) media.Tap  { return blind{} }
func (blind) StreamEnded(media.StreamID, time.Time) {}
func (blind) Answered(time.Time)                    {}
func (blind) Signal(suppress.Signal)                {}
func (blind) Ended(time.Time, media.Cause)          {}
func (blind) Put(time.Time, []byte)                 {}

// load is a B2BUA on real sockets with its parties in another process.
type load struct {
	tb     testing.TB
	b      *B2BUA
	orders io.Writer
	result *bufio.Scanner
	next   int // number of the next call
}

func newLoad(tb testing.TB) *load {
	was := runtime.GOMAXPROCS(5 * runtime.NumCPU()) // as in the daemon
	tb.Cleanup(func() { runtime.GOMAXPROCS(was) })
	l := &load{tb: tb, next: 1_000_000}
	caller, callee := l.startParties()
	r, err := relay.New(relay.Config{PortMin: 10000, PortMax: 59999, Quarantine: time.Second, Loops: runtime.NumCPU()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = r.Close() })
	host := func(a netip.AddrPort) sip.NextHop {
		return sip.NextHop{Host: a.Addr().String(), Port: int(a.Port()), Transport: "udp"}
	}
	l.b, err = New(Config{
		Listen: []sip.Listen{{Network: "udp", Addr: netip.MustParseAddrPort("127.0.0.9:0")}}, Relay: r, Observer: blind{},
		Trunks: []sip.Trunk{{Name: "load", Sides: [2]sip.Side{
			media.External: {MediaAddr: netip.MustParseAddr("127.0.0.3"), NextHops: []sip.NextHop{host(caller)}},
			media.Internal: {MediaAddr: netip.MustParseAddr("127.0.0.4"), NextHops: []sip.NextHop{host(callee)}},
		}}},
		CallsMax: 100_000,
	})
	if err != nil {
		tb.Fatal(err)
	}
	if err := l.b.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.b.Close() })
	return l
}

func (l *load) startParties() (caller, callee netip.AddrPort) {
	cmd := exec.CommandContext(l.tb.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), partiesEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		l.tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.tb.Fatal(err)
	}
	l.tb.Cleanup(func() { _, _ = in.Close(), cmd.Wait() }) // it ends with its input
	l.orders, l.result = in, bufio.NewScanner(out)
	var texts [2]string
	if !l.result.Scan() {
		l.tb.Fatal("the parties do not start")
	}
	if _, err := fmt.Sscan(l.result.Text(), &texts[0], &texts[1]); err != nil {
		l.tb.Fatal(err)
	}
	return netip.MustParseAddrPort(texts[0]), netip.MustParseAddrPort(texts[1])
}

// do lets the parties make calls.
func (l *load) do(o order) (res outcome) {
	o.Server, o.First = l.b.agent.Addrs()[0], l.next
	l.next += o.Calls
	text, err := json.Marshal(o)
	if err != nil {
		l.tb.Fatal(err)
	}
	if _, err := l.orders.Write(append(text, '\n')); err != nil {
		l.tb.Fatal(err)
	}
	if !l.result.Scan() {
		l.tb.Fatal("the parties are gone")
	}
	if err := json.Unmarshal(l.result.Bytes(), &res); err != nil {
		l.tb.Fatal(err)
	}
	if res.Ended != o.Calls {
		l.tb.Fatalf("%d of %d calls were made, %d refused", res.Ended, o.Calls, res.Refused)
	}
	return res
}

// usage is what this process has used so far.
type usage struct {
	cpu      time.Duration
	switches int64 // of threads, most of them by wake-ups
}

func used() usage {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail
	return usage{time.Duration(u.Utime.Nano() + u.Stime.Nano()), u.Nvcsw + u.Nivcsw}
}

// report writes what each of n calls cost since from.
func (from usage) report(b *testing.B) {
	now := used()
	perCall := float64(now.cpu-from.cpu) / float64(b.N)
	b.ReportMetric(perCall/1e3, "cpu-µs/call")
	b.ReportMetric(1e9/perCall, "calls/s/core")
	b.ReportMetric(float64(now.switches-from.switches)/float64(b.N), "switches/call")
}

// BenchmarkCall makes calls as fast as they go, a few at a time: INVITE, 100,
// 180, 200, ACK, BYE, 200. cpu-µs/call is the CPU time of this process, which the
// parties do not belong to; its reciprocal is what one core can do in a second.
func BenchmarkCall(b *testing.B) {
	l := newLoad(b)
	l.do(order{Calls: 200, Flight: 8})
	b.ReportAllocs()
	from := used()
	b.ResetTimer()
	res := l.do(order{Calls: b.N, Flight: 32})
	b.StopTimer()
	from.report(b)
	b.ReportMetric(float64(res.Repeated), "repeated")
}

// BenchmarkCallDelay makes calls at a rate and reports how long INVITE and 180
// take from the sender to the receiver.
func BenchmarkCallDelay(b *testing.B) {
	for _, rate := range []float64{100, 300, 500, 1000} {
		b.Run(fmt.Sprintf("%g", rate), func(b *testing.B) {
			l := newLoad(b)
			l.do(order{Calls: 200, Flight: 8})
			from := used()
			b.ResetTimer()
			res := l.do(order{Calls: b.N, Rate: rate, Flight: math.MaxInt, Hold: time.Second})
			b.StopTimer()
			us := func(d time.Duration, unit string) { b.ReportMetric(float64(d)/1e3, unit) }
			us(res.Invite.P50, "INVITE-p50-µs")
			us(res.Invite.P99, "INVITE-p99-µs")
			us(res.Invite.P999, "INVITE-p999-µs")
			us(res.Ring.P50, "180-p50-µs")
			us(res.Ring.P99, "180-p99-µs")
			from.report(b)
			b.ReportMetric(float64(res.Repeated), "repeated")
		})
	}
}

// BenchmarkCallMemory reports what a call holds: while it goes on, and for the
// time after it in which its transactions answer repetitions.
func BenchmarkCallMemory(b *testing.B) {
	const calls = 1000
	for b.Loop() {
		l := newLoad(b)
		l.do(order{Calls: 200, Flight: 8, Hold: -1})
		before, goroutines := memory(), runtime.NumGoroutine()
		l.do(order{Calls: calls, Flight: 8, Hold: -1})
		after := memory()
		b.ReportMetric(perCall(before.HeapAlloc, after.HeapAlloc, calls), "heap-B/call")
		b.ReportMetric(perCall(before.StackInuse, after.StackInuse, calls), "stack-B/call")
		b.ReportMetric(perCall(before.HeapObjects, after.HeapObjects, calls), "objects/call")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/calls, "goroutines/call")
		before = after
		l.do(order{Calls: calls, Flight: 8})
		after = memory()
		b.ReportMetric(perCall(before.HeapAlloc, after.HeapAlloc, calls), "over-heap-B/call")
		b.ReportMetric(perCall(before.StackInuse, after.StackInuse, calls), "over-stack-B/call")
	}
}

func memory() (m runtime.MemStats) {
	time.Sleep(100 * time.Millisecond) // the last messages are still being taken
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}

func perCall(before, after uint64, calls int) float64 {
	return (float64(after) - float64(before)) / float64(calls)
}
