//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

func describeMachine(ctx context.Context, binary string) (m machine, err error) {
	m = machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	if m.RTPEngine, err = rtpengineVersion(ctx); err != nil {
		return m, err
	}
	if m.Trunktap, err = trunktapVersion(ctx, binary); err != nil {
		return m, err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("uname: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	m.System = keyValue("/etc/os-release", "PRETTY_NAME", "=")
	m.CPU = keyValue("/proc/cpuinfo", "model name", ":")
	if strings.Contains(keyValue("/proc/cpuinfo", "flags", ":"), " hypervisor") {
		m.Virtual = "virtual machine"
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return m, fmt.Errorf("sysinfo: %w", err)
	}
	m.MemoryMiB = int(si.Totalram * uint64(si.Unit) >> 20)
	return m, nil
}

// keyValue finds the first value of a key in a file of lines; empty when there
// is none.
func keyValue(file, key, separator string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, separator); ok && strings.TrimSpace(k) == key {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return ""
}
