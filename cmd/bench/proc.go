package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// userHZ is the unit of the times in /proc, in ticks per second (proc(5)). It
// is 100 on every architecture that Go runs on.
const userHZ = 100

// cpuTimes are the columns of the first line of /proc/stat, in ticks.
type cpuTimes struct {
	User, System, Softirq uint64 // User holds that of niced processes, System that of hard interrupts too
	Idle, Steal           uint64 // Idle holds the wait for disks too
	CPUs                  int
}

// parseStat reads /proc/stat.
func parseStat(text []byte) (cpuTimes, error) {
	var t cpuTimes
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		if len(f) == 0 || !strings.HasPrefix(f[0], "cpu") {
			break
		}
		if f[0] != "cpu" {
			t.CPUs++
			continue
		}
		if len(f) < 9 {
			return t, fmt.Errorf("/proc/stat: %d columns, at least 9 are needed", len(f))
		}
		var v [8]uint64
		for i := range v {
			n, err := strconv.ParseUint(f[i+1], 10, 64)
			if err != nil {
				return t, fmt.Errorf("/proc/stat: column %d: %w", i+1, err)
			}
			v[i] = n
		}
		t.User, t.System, t.Idle, t.Softirq, t.Steal = v[0]+v[1], v[2]+v[5], v[3]+v[4], v[6], v[7]
	}
	if t.CPUs == 0 {
		return t, errors.New("/proc/stat names no processor")
	}
	return t, nil
}

// procTimes are what /proc/PID/stat tells of a process.
type procTimes struct {
	PID, Parent int
	Kernel      bool   // a thread of the kernel
	Ticks       uint64 // of its own and of the children it waited for
	Own         uint64 // its own alone
}

const flagKernelThread = 0x00200000 // PF_KTHREAD

// parseProc reads /proc/PID/stat. The name stands in parentheses and may hold anything.
func parseProc(text []byte) (procTimes, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return procTimes{}, errors.New("/proc/PID/stat: no name")
	}
	f := strings.Fields(string(text[end+1:]))
	if len(f) < 15 {
		return procTimes{}, errors.New("/proc/PID/stat: too short")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:open])))
	if err != nil {
		return procTimes{}, fmt.Errorf("/proc/PID/stat: %w", err)
	}
	// f[0] is the third column, the state.
	var v [7]uint64
	for i, column := range []int{1, 6, 11, 12, 13, 14} {
		if v[i], err = strconv.ParseUint(f[column], 10, 64); err != nil {
			return procTimes{}, fmt.Errorf("/proc/PID/stat: column %d: %w", column+3, err)
		}
	}
	return procTimes{
		PID: pid, Parent: int(v[0]), Kernel: v[1]&flagKernelThread != 0,
		Own: v[2] + v[3], Ticks: v[2] + v[3] + v[4] + v[5],
	}, nil
}

// sample is the state of the machine's CPU accounts at one moment.
type sample struct {
	at      time.Time
	cpu     cpuTimes
	foreign uint64 // ticks of processes that have nothing to do with us
	subject uint64 // ticks of the program under test
}

func takeSample(subject int) (sample, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return sample{}, err
	}
	s := sample{at: time.Now()}
	if s.cpu, err = parseStat(text); err != nil {
		return s, err
	}
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return s, err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		p, err := parseProc(text)
		if err != nil {
			return s, err
		}
		switch {
		case p.PID == subject:
			s.subject = p.Ticks
		case p.PID == os.Getpid(), p.Kernel:
		default:
			s.foreign += p.Ticks
		}
	}
	return s, nil
}

// usage is CPU time between two samples, in cores: 1 is one core, all the time.
type usage struct {
	Busy    float64 `json:"busy"`    // of the whole machine, without foreign processes
	User    float64 `json:"user"`    // the same by kind, in the proportions of the kernel's
	System  float64 `json:"system"`  // tick samples
	Softirq float64 `json:"softirq"` //
	Subject float64 `json:"subject"` // what the program under test was charged with
	Foreign float64 `json:"foreign"` // processes that have nothing to do with us
}

// usageBetween computes what was used. Busy is what is left of the wall-clock
// time of all processors when their idle time is taken away: the kernel measures
// idle time by the clock, but the other columns by sampling at its tick.
func usageBetween(a, b sample) usage {
	seconds := b.at.Sub(a.at).Seconds()
	if seconds <= 0 {
		return usage{}
	}
	cores := func(from, to uint64) float64 {
		if to < from {
			return 0 // the kernel lets idle time step back by a tick
		}
		return float64(to-from) / userHZ / seconds
	}
	u := usage{
		Busy:    float64(b.cpu.CPUs) - cores(a.cpu.Idle, b.cpu.Idle) - cores(a.cpu.Steal, b.cpu.Steal),
		Subject: cores(a.subject, b.subject),
		Foreign: cores(a.foreign, b.foreign),
	}
	user, system, softirq := cores(a.cpu.User, b.cpu.User), cores(a.cpu.System, b.cpu.System), cores(a.cpu.Softirq, b.cpu.Softirq)
	if sampled := user + system + softirq; sampled > 0 {
		scale := u.Busy / sampled
		u.User, u.System, u.Softirq = user*scale, system*scale, softirq*scale
	}
	// What is foreign is taken out of the kinds in proportion to user and system:
	// nothing tells them apart.
	if sum := u.User + u.System; sum > 0 {
		keep := max(0, 1-u.Foreign/sum)
		u.User, u.System = u.User*keep, u.System*keep
	}
	u.Busy = max(0, u.Busy-u.Foreign)
	return u
}

// minus takes a baseline away.
func (u usage) minus(base usage) usage {
	return usage{
		Busy: u.Busy - base.Busy, User: u.User - base.User, System: u.System - base.System, Softirq: u.Softirq - base.Softirq,
		Subject: u.Subject, Foreign: u.Foreign,
	}
}

// times scales all of it.
func (u usage) times(f float64) usage {
	return usage{u.Busy * f, u.User * f, u.System * f, u.Softirq * f, u.Subject * f, u.Foreign * f}
}

// residentBytes is the memory that a process holds.
func residentBytes(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseResident(text)
}

func parseResident(status []byte) (int64, error) {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("VmRSS: %w", err)
			}
			return n << 10, nil
		}
	}
	return 0, errors.New("no VmRSS in /proc/PID/status")
}
