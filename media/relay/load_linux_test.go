package relay

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media"
)

// BenchmarkLoad relays many calls between two network namespaces and tells what
// a packet costs and how long it takes. The parties are a process of their own
// (generator_linux_test.go). It needs root:
//
//	go test -run '^$' -bench Load -benchtime 1x ./media/relay
//
// own-us/packet is the processor time of the relay's process, cpu-us/packet that
// of both less what the generator needs without a relay; both hold the softirqs
// that ran in them. The times are from a packet's sending to its arrival.
// others-% is what anybody else took of the machine: above some 10 % the tails
// tell nothing.

var (
	loadSeconds = flag.Float64("load.seconds", 4, "how long BenchmarkLoad measures a case")
	loadBusy    = flag.Int("load.busy", 0, "goroutines that compute meanwhile")
	loadCalls   = flag.String("load.calls", "50,500,1000", "calls of BenchmarkLoad's cases")
)

var (
	labRelay = netip.MustParseAddr("10.231.77.1")
	labParty = netip.MustParseAddr("10.231.77.2")
)

const (
	labWarmUp = 700 * time.Millisecond
	labPort   = 30000 // first of the parties
)

func BenchmarkLoad(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("SKIPPED: network namespaces need root")
	}
	// As the daemon does: the loops wait for no goroutine that computes.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(5 * runtime.NumCPU()))
	for _, calls := range strings.Split(*loadCalls, ",") {
		for _, mode := range []struct {
			name string
			wait time.Duration
		}{{"nowait", -1}, {"1ms", time.Millisecond}} {
			b.Run(fmt.Sprintf("calls=%s/%s", calls, mode.name), func(b *testing.B) {
				var n int
				if _, err := fmt.Sscan(calls, &n); err != nil {
					b.Fatal(err)
				}
				for range b.N {
					benchLoad(b, n, Config{PortMin: 20000, PortMax: 29999, Loops: runtime.NumCPU(), CoalesceMax: mode.wait})
				}
			})
		}
	}
}

func benchLoad(b *testing.B, calls int, cfg Config) {
	lab := newLab(b)
	r := mustRelay(b, cfg)
	job := lab.job
	lab.do(func() { job.Calls = lab.open(r, calls) })
	base, _ := lab.run(loadJob{Calls: job.Calls, Seconds: *loadSeconds / 2, Direct: true})
	before := r.Totals()
	stop := make(chan struct{})
	for range *loadBusy {
		go compute(stop)
	}
	got, own := lab.run(loadJob{Calls: job.Calls, Seconds: *loadSeconds})
	close(stop)
	n := float64(got.Received)
	rest := 0.0 // of a generator that sends as much without a relay
	if base.Sent > 0 {
		rest = base.CPU.Seconds() / float64(base.Sent) * float64(got.Sent)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric((own.cpu.Seconds()+got.CPU.Seconds()-rest)*1e6/n, "cpu-us/packet")
	b.ReportMetric(own.cpu.Seconds()*1e6/n, "own-us/packet")
	b.ReportMetric(float64(own.switches)/got.Window.Seconds(), "switches/s")
	b.ReportMetric(float64(got.P50.Microseconds()), "p50-us")
	b.ReportMetric(float64(got.P99.Microseconds()), "p99-us")
	b.ReportMetric(float64(got.P999.Microseconds()), "p99.9-us")
	b.ReportMetric(float64(got.Sent-got.Received), "lost")
	b.ReportMetric(100*own.machine, "busy-%")
	b.ReportMetric(100*(own.machine-(own.cpu+got.CPU).Seconds()/got.Window.Seconds()/float64(runtime.NumCPU())), "others-%")
	if took := r.Totals().Packets - before.Packets; took < got.Received || got.Disordered > 0 {
		b.Fatalf("the parties got %d packets of %d that the relay took, %d out of order", got.Received, took, got.Disordered)
	}
}

// lab is the network: a namespace for the relay's sockets, one for the parties,
// and a veth pair between them.
type lab struct {
	b     *testing.B
	job   loadJob
	calls chan func() // to the thread in the relay's namespace
	in    *json.Encoder
	out   *bufio.Scanner
}

func newLab(b *testing.B) *lab {
	l := &lab{b: b, calls: make(chan func())}
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and the namespace with it
		failed <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range l.calls {
			f()
		}
	}()
	b.Cleanup(func() { close(l.calls) })
	if err := <-failed; err != nil {
		b.Skipf("SKIPPED: no network namespace: %v", err)
	}
	l.do(l.start)
	return l
}

// do runs f in the relay's namespace.
func (l *lab) do(f func()) {
	l.b.Helper()
	done := make(chan struct{})
	l.calls <- func() { defer close(done); f() }
	<-done
	if l.b.Failed() {
		l.b.FailNow()
	}
}

// start starts the parties in a namespace of their own and joins the two.
func (l *lab) start() {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), generatorEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := cmd.Start(); err1 != nil || err2 != nil || err != nil {
		l.b.Errorf("start the parties: %v %v %v", err1, err2, err)
		return
	}
	l.b.Cleanup(func() {
		_ = in.Close() // ends it
		if err := cmd.Wait(); err != nil {
			l.b.Errorf("the parties: %v", err)
		}
	})
	l.in, l.out = json.NewEncoder(in), bufio.NewScanner(out)
	for _, line := range []string{
		"ip link set lo up",
		fmt.Sprintf("ip link add relay0 type veth peer name party0 netns %d", cmd.Process.Pid),
		"ip addr add " + labRelay.String() + "/24 dev relay0",
		"ip link set relay0 up",
	} {
		f := strings.Fields(line)
		if text, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
			l.b.Errorf("%s: %v: %s", line, err, text)
			return
		}
	}
	mac := l.say(loadJob{})
	near, err := net.InterfaceByName("relay0")
	if err != nil {
		l.b.Error(err)
		return
	}
	if text, err := exec.Command("ip", "neigh", "replace", labParty.String(), "lladdr", mac.MAC, "dev", "relay0", "nud", "permanent").CombinedOutput(); err != nil {
		l.b.Errorf("neighbour: %v: %s", err, text)
	}
	l.say(loadJob{MAC: near.HardwareAddr.String()})
}

// open makes the calls.
func (l *lab) open(r *Relay, calls int) [][2]uint16 {
	var ports [][2]uint16
	for i := range calls {
		s, err := r.Open([2]netip.Addr{labRelay, labRelay}, Options{RTP: true})
		if err != nil {
			l.b.Error(err)
			return nil
		}
		for side := range 2 {
			s.SetRemote(media.Side(side), Remote{
				RTP: netip.AddrPortFrom(labParty, labPort+uint16(4*i+2*side)), PayloadTypes: []uint8{0},
			})
		}
		ports = append(ports, [2]uint16{s.Local(media.External).Port(), s.Local(media.Internal).Port()})
	}
	return ports
}

// say sends a job and reads one answer.
func (l *lab) say(j loadJob) (r loadResult) {
	if err := l.in.Encode(j); err != nil {
		l.b.Errorf("tell the parties: %v", err)
		return r
	}
	return l.answer()
}

func (l *lab) answer() (r loadResult) {
	if !l.out.Scan() {
		l.b.Errorf("the parties have ended: %v", l.out.Err())
		return r
	}
	if err := json.Unmarshal(l.out.Bytes(), &r); err != nil {
		l.b.Errorf("the parties say %q: %v", l.out.Text(), err)
	}
	return r
}

// usage is what this process used.
type usage struct {
	cpu      time.Duration
	switches int64
	machine  float64 // share of the machine's time that was not idle
}

// run lets the parties talk and returns what they saw, and what this process used meanwhile.
func (l *lab) run(j loadJob) (loadResult, usage) {
	l.say(j) // the window begins
	idle, total := machineTicks(l.b)
	cpu, switches := selfUsage(unix.RUSAGE_SELF)
	r := l.answer()
	cpu2, switches2 := selfUsage(unix.RUSAGE_SELF)
	idle2, total2 := machineTicks(l.b)
	if l.b.Failed() {
		l.b.FailNow()
	}
	return r, usage{cpu2 - cpu, switches2 - switches, 1 - float64(idle2-idle)/float64(total2-total)}
}

func selfUsage(who int) (cpu time.Duration, switches int64) {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), u.Nvcsw + u.Nivcsw
}

// machineTicks reads the first line of /proc/stat.
func machineTicks(b *testing.B) (idle, total uint64) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	var f [8]uint64
	if _, err := fmt.Sscanf(string(text), "cpu %d %d %d %d %d %d %d %d", &f[0], &f[1], &f[2], &f[3], &f[4], &f[5], &f[6], &f[7]); err != nil {
		b.Fatal(err)
	}
	for _, n := range f {
		total += n
	}
	return f[3] + f[4], total
}
