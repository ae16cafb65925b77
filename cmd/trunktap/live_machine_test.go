package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip/siptest"
)

// What the live tests share with whatever else runs on their machine: its ports
// and its time.

// Ports of the live tests: above those of media, below those that Linux gives to
// others. An address of their network is theirs alone, so a port that was given
// here once is taken by nobody; on other addresses it may be.
const (
	livePortFirst = 20_000
	livePortLast  = 31_999
	livePortStep  = 4 // RTP, RTCP, and what SIPp takes beside them
)

var livePorts atomic.Uint32

// freeUDP and freeTCP are addresses with a port that is even and, as the three
// behind it, given to nobody else in this process.
func freeUDP(t *testing.T, host netip.Addr) netip.AddrPort {
	t.Helper()
	return freeAddr(t, host, func(at netip.AddrPort) error {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err == nil {
			_ = c.Close() // nothing was sent
		}
		return err
	})
}

func freeTCP(t *testing.T, host netip.Addr) netip.AddrPort {
	t.Helper()
	return freeAddr(t, host, func(at netip.AddrPort) error {
		c, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err == nil {
			_ = c.Close() // nothing was sent
		}
		return err
	})
}

func freeAddr(t *testing.T, host netip.Addr, try func(netip.AddrPort) error) netip.AddrPort {
	t.Helper()
	const ports = (livePortLast - livePortFirst + 1) / livePortStep
	start := (uint32(liveNet[0])<<8 | uint32(liveNet[1])) % ports // another one in each process
	var err error
	for range ports {
		at := netip.AddrPortFrom(host, uint16(livePortFirst+livePortStep*((start+livePorts.Add(1))%ports)))
		if err = try(at); err == nil {
			return at
		}
	}
	t.Fatalf("no port of %s is free: %v", host, err)
	return netip.AddrPort{}
}

// livePins is where one daemon's kernel engine may leave its own.
func livePins(t *testing.T) string {
	dir := fmt.Sprintf("/sys/fs/bpf/trunktap-test-%d-%d", os.Getpid(), livePinned.Add(1))
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a daemon that was killed leaves them
	return dir
}

var livePinned atomic.Uint32

// liveClient asks daemons that come and go: a connection to the one before says
// nothing of the next.
var liveClient = &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}

// awaitPort waits until another process listens at an address: one that tells
// nobody when it does.
func awaitPort(t *testing.T, network string, at netip.AddrPort) {
	t.Helper()
	file, addr := "/proc/net/"+network, ""
	if at.Addr().Is4() {
		b := at.Addr().As4()
		addr = fmt.Sprintf("%02X%02X%02X%02X:%04X", b[3], b[2], b[1], b[0], at.Port()) // in the order of this machine's bytes
	} else {
		file += "6"
		b := at.Addr().As16()
		for i := 0; i < 16; i += 4 {
			addr += fmt.Sprintf("%02X%02X%02X%02X", b[i+3], b[i+2], b[i+1], b[i])
		}
		addr += fmt.Sprintf(":%04X", at.Port())
	}
	await(t, "listener at "+at.String(), func() bool {
		for line := range strings.Lines(string(must(os.ReadFile(file))(t))) {
			if f := strings.Fields(line); len(f) > 3 && f[1] == addr && (network == "udp" || f[3] == "0A") {
				return true
			}
		}
		return false
	})
}

// machineStops are the times in which this process was not run although it wanted
// to be.
type machineStops struct {
	mu    sync.Mutex
	stops [][2]time.Time
}

const (
	machineEvery = 10 * time.Millisecond
	machineLate  = 30 * time.Millisecond // that a wake-up may be late
)

// machine watches from its first use on, until the tests end.
var machine = sync.OnceValue(func() *machineStops {
	m := &machineStops{}
	go func() {
		for at := time.Now(); ; {
			time.Sleep(machineEvery)
			now := time.Now()
			if now.Sub(at) > machineEvery+machineLate {
				m.mu.Lock()
				m.stops = append(m.stops, [2]time.Time{at.Add(machineEvery), now})
				m.mu.Unlock()
			}
			at = now
		}
	}()
	return m
})

// stood is how long the machine stood still in [from, to), in all.
func (m *machineStops) stood(from, to time.Time) (sum time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.stops {
		a, b := s[0], s[1]
		if a.Before(from) {
			a = from
		}
		if b.After(to) {
			b = to
		}
		sum += max(0, b.Sub(a))
	}
	return sum
}

// steadiness tells how long processes were kept from running.
type steadiness struct {
	from   time.Time
	waited map[int]time.Duration // by process
}

// steady begins to watch the daemon as it runs now, and others.
func (d *liveDaemon) steady(others ...int) steadiness {
	machine()
	s := steadiness{from: time.Now(), waited: map[int]time.Duration{}}
	for _, pid := range append(others, d.cmd.Process.Pid) {
		s.waited[pid] = waited(pid)
	}
	return s
}

// stood is for how long since then the machine stood still, or had no processor for
// one of the processes. They must run yet.
func (s steadiness) stood() time.Duration {
	sum := machine().stood(s.from, time.Now())
	for pid, before := range s.waited {
		sum += max(0, waited(pid)-before)
	}
	return sum
}

// arrived waits until the last packet that one end has sent has come to the other.
// It is false when it does not come: on hold it may be lost.
func arrived(from, to *siptest.Call, limit time.Duration) bool {
	last := ""
	for _, p := range from.Media().Sent() {
		if !p.RTCP {
			last = string(p.Wire[2:12]) // sequence, timestamp and source
		}
	}
	for deadline, seen := time.Now().Add(limit), 0; last != ""; time.Sleep(time.Millisecond) {
		got := to.Media().Received()
		for ; seen < len(got); seen++ {
			if len(got[seen].Wire) >= 12 && string(got[seen].Wire[2:12]) == last {
				return true
			}
		}
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
