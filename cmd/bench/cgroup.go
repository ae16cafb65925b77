//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Weights of our control group against everything else on the machine, a hundred
// times the usual one: what else runs gets what we leave, while programs under
// test and generator stand to each other as they would alone.
const (
	groupName = "trunktap-bench"
	sharesV1  = "102400"
	weightV2  = "10000"

	realTimeMicros = "900000" // of every second, for the senders

	cgroupV1CPU = "/sys/fs/cgroup/cpu"
	cgroupV2    = "/sys/fs/cgroup"
)

// enterGroup puts this process, and so all that it starts, into a control group
// of its own. Without it Linux would weigh sessions against each other
// (autogroup), and a compiler in another one could keep the generator from
// sending in time.
func enterGroup() (leave func() error, err error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var parent string
	file, value := "cpu.shares", sharesV1
	if path, ok := groupOf(string(own), "cpu"); ok {
		parent = filepath.Join(cgroupV1CPU, path)
	} else {
		// Version 2: below the root, where processes may stand beside groups.
		parent, file, value = cgroupV2, "cpu.weight", weightV2
		if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+cpu"), 0); err != nil {
			return nil, err
		}
	}
	back := parent
	if file == "cpu.weight" {
		path, _ := groupOf(string(own), "")
		back = filepath.Join(cgroupV2, path)
	}
	dir := filepath.Join(parent, groupName)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	if file == "cpu.shares" {
		// A kernel that shares real time between groups too gives a new one none. Not
		// every kernel has the file; without it the senders are preferred only.
		_ = os.WriteFile(filepath.Join(dir, "cpu.rt_runtime_us"), []byte(realTimeMicros), 0)
	}
	if err := moveTo(dir); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return func() error { return errors.Join(moveTo(back), os.Remove(dir)) }, nil
}

// removeGroup removes the group that a run which crashed has left, unless this
// process is in it.
func removeGroup() error {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	dirs := []string{filepath.Join(cgroupV2, groupName)}
	if path, ok := groupOf(string(own), "cpu"); ok {
		dirs = append(dirs, filepath.Join(cgroupV1CPU, path, groupName))
	}
	for _, d := range dirs {
		if err := os.Remove(d); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}

func moveTo(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, os.Getpid()), 0)
}

// groupOf finds the group of a controller in /proc/PID/cgroup; the empty name
// is that of version 2 (cgroups(7)).
func groupOf(text, controller string) (path string, ok bool) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			if c == controller {
				return f[2], true
			}
		}
	}
	return "", false
}
