package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoDumps: no handler of core dumps gets the memory of the daemon, whatever limit it
// was started with, and whether or not it may change that.
func TestNoDumps(t *testing.T) {
	if how := os.Getenv("TRUNKTAP_TEST_DUMPS"); how != "" {
		dumped(t, how)
		return
	}
	for how, want := range map[string]string{
		"as it is": "limit 1 1",
		"none":     "limit 0 0, not dumped",
	} {
		c := exec.Command(os.Args[0], "-test.run=^TestNoDumps$", "-test.v")
		c.Env = append(os.Environ(), "TRUNKTAP_TEST_DUMPS="+how)
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "dumps: "+want+"\n") {
			t.Errorf("%s: %v, want %q:\n%s", how, err, want, out)
		}
	}
}

// dumped tells what becomes of dumps of this process, in which nothing else runs.
func dumped(t *testing.T, how string) {
	runtime.LockOSThread()
	if how == "none" {
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
			t.Fatal(err)
		}
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&head, &data[0]); err != nil {
			t.Fatal(err)
		}
		data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		if err := unix.Capset(&head, &data[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := noDumps(); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		t.Fatal(err)
	}
	state := fmt.Sprintf("limit %d %d", limit.Cur, limit.Max)
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || n == 0 {
		state += ", not dumped"
	}
	fmt.Printf("dumps: %s\n", state)
}
