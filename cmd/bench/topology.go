//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The two network namespaces: the parties in one, the program under test in the
// other. Both names are ours alone; what bears them is removed at every start.
const (
	partiesNS = "trunktap-bench-parties"
	relayNS   = "trunktap-bench-relay"
	workGlob  = "trunktap-bench-*" // directories below os.TempDir
	pinMount  = "bpf"              // in such a directory: a BPF file system of our own
)

// The veth pairs. Media of either side and signalling have one each to the
// program under test; the fifth joins the parties directly and is the baseline.
var pairs = []struct {
	near, far string // interface names: of the parties, of the relay
	net       string // the first three bytes; the relay is .1, the parties .2
	farNS     string
	media     bool // only generated packets, which only the generator's ring takes
}{
	{"ext0", "ext1", "10.231.1", relayNS, true},
	{"int0", "int1", "10.231.2", relayNS, true},
	{"sig0", "sig1", "10.231.3", relayNS, false},
	{"dir0", "dir1", "10.231.4", partiesNS, true},
}

// mac is the fixed address of a port of pair n.
func mac(n int, far bool) [6]byte {
	m := [6]byte{0x02, 0x74, 0x74, 0x62, byte(n), 0}
	if far {
		m[5] = 1
	}
	return m
}

// partyMAC is where packets to the parties are sent to. It is no address of any
// port: the stack of the parties drops them at first sight, after the ring of the
// generator has had them, and spends no time on them.
var partyMAC = [6]byte{0x02, 0x74, 0x74, 0x62, 0xFF, 0xFF}

func macText(m [6]byte) string { return net.HardwareAddr(m[:]).String() }

// command runs a program and returns what went wrong with what it printed.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// buildTopology makes namespaces and links. They are empty of routes but the
// connected ones, of filters and of anybody else's traffic.
func buildTopology(ctx context.Context) error {
	var script [][]string
	add := func(line string) { script = append(script, strings.Fields(line)) }
	for _, ns := range []string{partiesNS, relayNS} {
		add("ip netns add " + ns)
		add("ip -n " + ns + " link set lo up")
	}
	for n, p := range pairs {
		add(fmt.Sprintf("ip -n %s link add %s address %s type veth peer name %s address %s netns %s",
			partiesNS, p.near, macText(mac(n, false)), p.far, macText(mac(n, true)), p.farNS))
		add(fmt.Sprintf("ip -n %s link set %s up", partiesNS, p.near))
		add(fmt.Sprintf("ip -n %s link set %s up", p.farNS, p.far))
		if p.farNS == relayNS {
			add(fmt.Sprintf("ip -n %s addr add %s.1/24 dev %s", p.farNS, p.net, p.far))
		}
		if !p.media {
			add(fmt.Sprintf("ip -n %s addr add %s.2/24 dev %s", partiesNS, p.net, p.near))
			add(fmt.Sprintf("ip -n %s addr add %s.3/24 dev %s", partiesNS, p.net, p.near))
			continue
		}
		if p.farNS == relayNS {
			add(fmt.Sprintf("ip -n %s neigh replace %s.2 lladdr %s dev %s nud permanent", relayNS, p.net, macText(partyMAC), p.far))
		}
	}
	for _, args := range script {
		if err := command(ctx, args[0], args[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// newWork makes the directory of a benchmark with a BPF file system in it.
func newWork() (string, error) {
	work, err := os.MkdirTemp("", workGlob)
	if err != nil {
		return "", err
	}
	mount := filepath.Join(work, pinMount)
	if err := os.Mkdir(mount, 0o700); err != nil {
		return "", err
	}
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		return "", fmt.Errorf("mount a BPF file system on %s: %w", mount, err)
	}
	return work, nil
}

// removeLeftovers removes what a run made: its processes, namespaces and
// directories. It succeeds when there is nothing.
func removeLeftovers(ctx context.Context) error {
	var errs []error
	for _, ns := range []string{relayNS, partiesNS} {
		if _, err := os.Stat("/run/netns/" + ns); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := endProcessesIn(ctx, ns); err != nil {
			errs = append(errs, err)
		}
		errs = append(errs, command(ctx, "ip", "netns", "delete", ns))
	}
	if err := removeGroup(); err != nil {
		errs = append(errs, err)
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), workGlob))
	errs = append(errs, err)
	for _, d := range dirs {
		// Detached, with all that is pinned in it.
		if err := unix.Unmount(filepath.Join(d, pinMount), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s/%s: %w", d, pinMount, err))
		}
		errs = append(errs, os.RemoveAll(d))
	}
	return errors.Join(errs...)
}

// endProcessesIn kills what still runs in a namespace of ours.
func endProcessesIn(ctx context.Context, ns string) error {
	out, err := exec.CommandContext(ctx, "ip", "netns", "pids", ns).Output()
	if err != nil {
		return fmt.Errorf("processes in %s: %w", ns, err)
	}
	for _, field := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid == os.Getpid() {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end process %d in %s: %w", pid, ns, err)
		}
	}
	return nil
}

// within runs f in a network namespace. What f opens stays there. The thread is
// given up afterwards.
func within(ns string, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			result <- fmt.Errorf("namespace %s: %w", ns, err)
			return
		}
		err = unix.Setns(fd, unix.CLONE_NEWNET)
		_ = unix.Close(fd) // only read
		if err != nil {
			result <- fmt.Errorf("enter namespace %s: %w", ns, err)
			return
		}
		result <- f()
	}()
	return <-result
}

// process is a program under test that runs in the namespace of the relay.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // after exited
	log    string
}

// startProcess starts a program in the namespace of the relay. nsenter replaces
// itself, so the process is the program; unlike ip netns exec it keeps /sys as it
// is, and with it pinned maps. Ctrl-C is for us alone: the program is stopped by stop.
func startProcess(log, name string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the program has its own descriptor of it
	p := &process{exited: make(chan struct{}), log: log}
	p.cmd = exec.Command("nsenter", append([]string{"--net=/run/netns/" + relayNS, "--", name}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// running returns an error with the end of its log when the process has ended.
func (p *process) running() error {
	select {
	case <-p.exited:
		return fmt.Errorf("it has ended: %w\n%s", p.err, p.tail())
	default:
		return nil
	}
}

// tail returns the last lines of what the program printed.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// stop ends the process; after grace by force. Its exit status does not matter.
func (p *process) stop(sig unix.Signal) {
	_ = p.cmd.Process.Signal(sig) // it may have ended
	if !waitFor(p.exited, stopGrace) {
		_ = p.cmd.Process.Kill() // it may have ended just now
		<-p.exited
	}
}
