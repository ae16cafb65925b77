//go:build linux

// Command bench measures trunktap and rtpengine side by side on this machine.
//
// It makes two network namespaces, the parties of the calls in one and the
// program under test in the other, runs the programs by turns under the same
// load, and prints what each costs. It needs root and cleans up after itself.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// options are the command line.
type options struct {
	trunktap  string
	engine    string
	calls     []int
	full      bool
	rounds    int
	warmUp    time.Duration
	measure   time.Duration
	rate      float64
	parts     map[string]bool
	json, svg string
	markdown  string
	profiles  string
	only      string
	repeats   int
	from      string
	cleanup   bool
}

// Parts of a benchmark, in the order in which they run.
var allParts = []string{"media", "signalling", "pipeline"}

// scaleCalls is the curve of -full.
var scaleCalls = []int{100, 250, 500, 1000, 1500, 2000, 3000, 4000}

func main() {
	var o options
	calls := flag.String("calls", "100,500,1000", "numbers of concurrent calls")
	parts := flag.String("parts", strings.Join(allParts, ","), "what is measured")
	flag.StringVar(&o.trunktap, "trunktap", "bin/trunktap", "the daemon's binary")
	flag.StringVar(&o.engine, "engine", "all", "engines of trunktap: user, kernel, auto, or all: user and kernel")
	flag.BoolVar(&o.full, "full", false, "also a scale curve from 100 to 4000 calls, each program as far as it gets")
	flag.IntVar(&o.rounds, "rounds", 3, "how often everything is repeated, the programs by turns")
	flag.DurationVar(&o.warmUp, "warm-up", 4*time.Second, "before each measurement")
	flag.DurationVar(&o.measure, "time", 10*time.Second, "of each measurement")
	flag.Float64Var(&o.rate, "rate", 200, "calls a second that are set up before a measurement")
	flag.StringVar(&o.json, "json", "", "file for all results")
	flag.StringVar(&o.svg, "svg", "", "file for the plot")
	flag.StringVar(&o.markdown, "markdown", "", "file for the tables in Markdown; a page that has marks for them keeps its text")
	flag.StringVar(&o.profiles, "profiles", "", "directory for CPU profiles of trunktap; measurements are worth nothing then")
	flag.IntVar(&o.repeats, "repeats", 1, "how often a run is repeated while other processes keep the machine busy; the quietest counts")
	flag.StringVar(&o.only, "only", "", "measure the programs whose name contains this alone, and their baseline")
	flag.StringVar(&o.from, "from", "", "write the report of an earlier run, from its -json file, and measure nothing")
	flag.BoolVar(&o.cleanup, "cleanup", false, "only remove what a run that crashed left behind")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends what does not heed the first
	err := o.parse(*calls, *parts)
	if err == nil {
		err = run(ctx, o)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parse checks the options that are lists.
func (o *options) parse(calls, parts string) error {
	for _, s := range strings.Split(calls, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 || n > callsMax {
			return fmt.Errorf("-calls %s: %q is no number from 1 to %d", calls, s, callsMax)
		}
		o.calls = append(o.calls, n)
	}
	o.parts = map[string]bool{}
	for _, s := range strings.Split(parts, ",") {
		o.parts[strings.TrimSpace(s)] = true
	}
	for p := range o.parts {
		if !strings.Contains(strings.Join(allParts, ","), p) {
			return fmt.Errorf("-parts: %q is none of %s", p, strings.Join(allParts, ", "))
		}
	}
	if o.rounds < 1 || o.measure < time.Second || o.warmUp < 0 || o.rate <= 0 {
		return errors.New("-rounds must be at least 1, -time at least 1s, -rate more than 0")
	}
	switch o.engine {
	case "all", "user", "kernel", "auto":
		return nil
	}
	return fmt.Errorf("-engine %s: it is user, kernel, auto or all", o.engine)
}

// callsMax is bounded by the ports of the relay: four a call.
const callsMax = (mediaLast - mediaFirst + 1) / 4

// filesMax is the limit of open files for us and what we start: four sockets a
// call, and a file or two.
const filesMax = 200_000

// raiseFiles raises the limit of open files as far as may be.
func raiseFiles() error {
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: filesMax, Max: filesMax}) == nil {
		return nil
	}
	// A container's root may not go beyond its hard limit.
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	have.Cur = have.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}

// writeAgain writes the report of an earlier run.
func writeAgain(o options) error {
	text, err := os.ReadFile(o.from)
	if err != nil {
		return err
	}
	rep := &report{}
	if err := json.Unmarshal(text, rep); err != nil {
		return fmt.Errorf("%s: %w", o.from, err)
	}
	return write(rep, o)
}

func run(ctx context.Context, o options) (err error) {
	if o.from != "" {
		return writeAgain(o)
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root: run it as root")
	}
	unlock, err := lockRun()
	if err != nil {
		return err
	}
	defer unlock()
	if err := removeLeftovers(ctx); err != nil {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	if o.cleanup {
		return nil
	}
	if o.trunktap, err = filepath.Abs(o.trunktap); err != nil {
		return err
	}
	if _, err := exec.LookPath(o.trunktap); err != nil {
		return fmt.Errorf("the daemon: %w; make build makes it", err)
	}
	leave, err := enterGroup()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: no control group of our own (%v): other processes will disturb the measurement more\n", err)
	} else {
		defer func() { err = errors.Join(err, leave()) }()
	}
	defer func() {
		// Also when ctx has ended.
		err = errors.Join(err, removeLeftovers(context.WithoutCancel(ctx)))
	}()
	if err := raiseFiles(); err != nil {
		return err
	}
	// The senders hold a processor of the Go scheduler each while they sleep, and
	// collecting garbage would delay them: a run makes little of it.
	runtime.GOMAXPROCS(runtime.NumCPU() + 6)
	debug.SetGCPercent(-1)
	work, err := newWork()
	if err != nil {
		return err
	}
	if err := buildTopology(ctx); err != nil {
		return fmt.Errorf("make the network: %w", err)
	}
	b := &bench{opt: o, voice: newVoice(), work: work, out: os.Stderr}
	rep, err := b.all(ctx)
	if rep == nil {
		return err
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: it ended early; what was measured so far:")
	}
	return errors.Join(err, write(rep, o))
}

// write prints the report and writes the files that are wanted.
func write(rep *report, o options) error {
	tables := rep.tables()
	fmt.Print(tables.text())
	var errs []error
	if o.json != "" {
		text, err := json.MarshalIndent(rep, "", " ")
		errs = append(errs, err, os.WriteFile(o.json, append(text, '\n'), 0o644))
	}
	if o.svg != "" {
		errs = append(errs, os.WriteFile(o.svg, []byte(rep.plot()), 0o644))
	}
	if o.markdown != "" {
		page, err := os.ReadFile(o.markdown)
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		errs = append(errs, err, os.WriteFile(o.markdown, []byte(insertResults(string(page), tables.markdown())), 0o644))
	}
	return errors.Join(errs...)
}

// lockRun lets one benchmark run at a time: two would measure each other.
func lockRun() (unlock func(), err error) {
	name := filepath.Join(os.TempDir(), "trunktap-bench.lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another benchmark runs (%s): %w", name, err), f.Close())
	}
	return func() { _ = f.Close() }, nil // ends the lock; the file stays
}
