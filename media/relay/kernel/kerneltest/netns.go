//go:build linux

// Package kerneltest gives tests network namespaces of their own, joined by
// virtual cables.
package kerneltest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media/relay/kernel"
)

const inside = "TRUNKTAP_TEST_NAMESPACE"

// Enter runs the test that calls it once more, in a process with a network and a
// mount namespace of its own where lo is up, and returns true in there. Outside
// it returns false when that is through. Without the rights the test is skipped.
func Enter(t *testing.T) bool {
	t.Helper()
	return EnterAs(t, nil)
}

// EnterAs is like Enter, for a process with nothing but these capabilities.
func EnterAs(t *testing.T, caps []uintptr) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		if err := (&Host{}).TryIP("link set lo up"); err != nil {
			t.Skip(err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	args := []string{"-test.run=^" + regexp.QuoteMeta(t.Name()) + "$", "-test.v", "-test.timeout=100s"}
	cmd := exec.Command("/proc/self/exe", args...) // reachable for whom its directory is not
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if caps != nil {
		cmd.Dir = "/"
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		cmd.SysProcAttr.AmbientCaps = caps
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		t.Skipf("no network namespaces here: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
	text := string(out)
	if strings.Contains(text, "--- SKIP") {
		t.Logf("in part skipped:\n%s", text)
	} else if testing.Verbose() {
		t.Log(text)
	}
	return false
}

// Open starts an engine, or skips the test where that is not to be had.
func Open(t testing.TB, cfg kernel.Config) *kernel.Engine {
	t.Helper()
	e, err := kernel.Open(cfg)
	if errors.Is(err, kernel.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close the engine: %v", err)
		}
	})
	return e
}

// Host is a network namespace with a thread in it. The zero Host is the
// namespace of the test itself.
type Host struct {
	tid int
	do  chan func()
}

// NewHost makes an empty namespace.
func NewHost(t testing.TB) *Host {
	t.Helper()
	h := &Host{do: make(chan func())}
	ready := make(chan error)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		h.tid = unix.Gettid()
		ready <- err
		for f := range h.do {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	t.Cleanup(func() { close(h.do); <-done })
	h.IP(t, "link set lo up")
	return h
}

// In runs f on a thread of the namespace.
func (h *Host) In(f func()) {
	if h.do == nil {
		f()
		return
	}
	done := make(chan struct{})
	h.do <- func() { defer close(done); f() }
	<-done
}

// IP runs an ip command there.
func (h *Host) IP(t testing.TB, line string) {
	t.Helper()
	if err := h.TryIP(line); err != nil {
		t.Fatal(err)
	}
}

// TryIP runs an ip command there.
func (h *Host) TryIP(line string) (err error) {
	h.In(func() {
		out, e := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
		if e != nil {
			err = fmt.Errorf("ip %s: %w: %s", line, e, out)
		}
	})
	return err
}

// Cable joins two hosts: each gets an interface of that name, which is up.
func Cable(t testing.TB, a *Host, nameA string, b *Host, nameB string) {
	t.Helper()
	a.IP(t, fmt.Sprintf("link add %s type veth peer name %s netns %d", nameA, nameB, b.pid()))
	a.IP(t, "link set "+nameA+" up")
	b.IP(t, "link set "+nameB+" up")
}

func (h *Host) pid() int {
	if h.do == nil {
		return os.Getpid()
	}
	return h.tid
}

// Address gives an interface addresses.
func (h *Host) Address(t testing.TB, name string, addrs ...string) {
	t.Helper()
	for _, a := range addrs {
		h.IP(t, "addr add "+a+" dev "+name+" nodad")
	}
}

// Listen opens a UDP socket there.
func (h *Host) Listen(t testing.TB, at string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	var err error
	h.In(func() { c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at))) })
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadBuffer(8 << 20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// NoOffload makes an interface send complete checksums, so that the receiver
// verifies them (ETHTOOL_STXCSUM of linux/ethtool.h).
func (h *Host) NoOffload(t testing.TB, name string) {
	t.Helper()
	h.In(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		value := struct{ cmd, data uint32 }{0x17, 0}
		var req struct {
			name [16]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(req.name[:15], name)
		req.data = unsafe.Pointer(&value)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
			t.Fatalf("switch off checksums of %s: %v", name, errno)
		}
	})
}

// Counter reads one of the IP or UDP counters there, such as "Udp: InCsumErrors"
// or "Udp6InCsumErrors".
func (h *Host) Counter(t testing.TB, name string) (value int) {
	t.Helper()
	h.In(func() {
		if v6, err := os.ReadFile("/proc/thread-self/net/snmp6"); err == nil {
			for _, line := range strings.Split(string(v6), "\n") {
				if f := strings.Fields(line); len(f) == 2 && f[0] == name {
					_, _ = fmt.Sscan(f[1], &value)
				}
			}
		}
		b, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, line := range strings.Split(string(b), "\n") {
			f := strings.Fields(line)
			if len(f) == 0 {
				continue
			}
			if len(names) != len(f) || names[0] != f[0] {
				names = f
				continue
			}
			for i := range f {
				if f[0]+" "+names[i] == name {
					_, _ = fmt.Sscan(f[i], &value)
				}
			}
			names = nil
		}
	})
	return value
}

// Read reads a packet within a time.
func Read(c *net.UDPConn, within time.Duration) ([]byte, netip.AddrPort, error) {
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, netip.AddrPort{}, err
	}
	b := make([]byte, 65536)
	n, from, err := c.ReadFromUDPAddrPort(b)
	return b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
}

// BPFFS mounts a BPF file system for the time of the test, seen by this process alone.
func BPFFS(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skipf("mounts cannot be made private: %v", err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skipf("no BPF file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}
