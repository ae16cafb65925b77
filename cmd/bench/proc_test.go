package main

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

const statText = `cpu  1000 20 300 9000 50 7 60 8 0 0
cpu0 500 10 150 4500 25 3 30 4 0 0
cpu1 500 10 150 4500 25 4 30 4 0 0
intr 1 2 3
`

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte(statText))
	if want := (cpuTimes{User: 1020, System: 307, Softirq: 60, Idle: 9050, Steal: 8, CPUs: 2}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "intr 1", "cpu 1 2 3\ncpu0 1", "cpu a b c d e f g h i\n"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Skip("no /proc/stat here")
	}
	if real, err := parseStat(text); err != nil || real.Idle == 0 {
		t.Errorf("%+v, %v", real, err)
	}
}

func TestParseProc(t *testing.T) {
	line := "42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 11 12 13 14 20 0 1 0 100 1000 10\n"
	got, err := parseProc([]byte(line))
	if want := (procTimes{PID: 42, Parent: 7, Own: 23, Ticks: 50}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if kernel, err := parseProc([]byte(strings.Replace(line, "4194304", "2129984", 1))); err != nil || !kernel.Kernel {
		t.Errorf("a thread of the kernel: %+v, %v", kernel, err)
	}
	for _, bad := range []string{"", "42", "42 (a", "x (a) S 1 2", "42 (a) S 7 42 42 0 -1 x 100 0 0 0 11 12 13 14 20 0"} {
		if _, err := parseProc([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func FuzzParseProc(f *testing.F) {
	f.Add([]byte("42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 11 12 13 14 20 0 1 0 100 1000 10\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseProc(b) })
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

// TestUsage: ten seconds of two processors, of which 16 s were idle and one
// second belonged to somebody else.
func TestUsage(t *testing.T) {
	a := sample{at: time.Unix(100, 0), cpu: cpuTimes{CPUs: 2}}
	b := sample{at: time.Unix(110, 0), cpu: cpuTimes{User: 200, System: 100, Softirq: 50, Idle: 1600, CPUs: 2}, foreign: 100, subject: 120}
	u := usageBetween(a, b)
	// The samples say 350 ticks, the clock 400: kinds are scaled to the clock.
	if !near(u.Busy, 0.4-0.1) || !near(u.Foreign, 0.1) || !near(u.Subject, 0.12) || !near(u.Softirq, 0.4*50/350) {
		t.Errorf("%+v", u)
	}
	if !near(u.User+u.System+u.Softirq, u.Busy) {
		t.Errorf("the kinds sum up to %v of %v", u.User+u.System+u.Softirq, u.Busy)
	}
	less := u.minus(usage{Busy: 0.1, Softirq: 0.01}).times(10)
	if !near(less.Busy, 2) || !near(less.Softirq, (u.Softirq-0.01)*10) {
		t.Errorf("%+v", less)
	}
	if z := usageBetween(b, b); z != (usage{}) {
		t.Errorf("no time has passed: %+v", z)
	}
	// Idle time that steps back by a tick, and a foreign process that ended unseen.
	b.cpu.Idle, a.cpu.Idle, a.foreign = 1599, 1600, 200
	if u := usageBetween(a, b); u.Busy != 2 || u.Foreign != 0 {
		t.Errorf("%+v", u)
	}
}

func TestParseResident(t *testing.T) {
	if n, err := parseResident([]byte("Name:\tx\nVmRSS:\t  1234 kB\n")); n != 1234<<10 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, bad := range []string{"", "VmRSS: many kB\n"} {
		if _, err := parseResident([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
