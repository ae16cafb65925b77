package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// prepareProcess keeps audio out of crash dumps, and the scheduler from making a
// relay loop wait: with as many busy goroutines as GOMAXPROCS a loop that wakes
// up waited up to 100 ms for its turn (measured; see relay's BenchmarkUnderLoad),
// so there are always more places than pipelines and encoders can fill.
func prepareProcess() error {
	if err := noDumps(); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(5 * runtime.NumCPU())
	}
	return nil
}

// noDumps keeps the memory of this process from every handler of core dumps. A limit of
// 0 does not: the kernel pipes all of it to a program that core_pattern names, unless
// the limit is 1 (core(5)), which is too small for a file, too. Who was started with 0
// and may not set 1 is made one that is never dumped.
func noDumps() error {
	err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1})
	if errors.Is(err, unix.EPERM) {
		return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	return err
}
