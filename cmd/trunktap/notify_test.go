package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// serviceManager listens as systemd does.
func serviceManager(t *testing.T, name string) chan string {
	t.Helper()
	conn := must(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"}))(t)
	told := make(chan string, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			told <- string(buf[:n])
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close() // only read
		<-ended
	})
	return told
}

// hears returns the next of what is told that has all those lines.
func hears(t *testing.T, told chan string, lines ...string) string {
	t.Helper()
	limit := time.After(liveReadyLimit)
	var other []string
	for {
		select {
		case got := <-told:
			if !slices.ContainsFunc(lines, func(l string) bool { return !strings.Contains("\n"+got, "\n"+l) }) {
				return got
			}
			other = append(other, got)
		case <-limit:
			t.Fatalf("%q was not told, but %q", lines, other)
		}
	}
}

func TestNotifier(t *testing.T) {
	env := map[string]string{}
	log := slog.New(slog.DiscardHandler)
	n := newNotifier(func(k string) string { return env[k] }, log)
	n.ready(live{calls: 1}) // to nobody
	n.update(live{calls: 2})
	n.reloading()
	n.stopping("x")
	n.draining(live{calls: 1})
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@trunktap-test-%d", os.Getpid())} {
		told := serviceManager(t, name)
		env["NOTIFY_SOCKET"] = name
		n = newNotifier(func(k string) string { return env[k] }, log)
		n.ready(live{calls: 3})
		hears(t, told, "READY=1", "STATUS=3 calls")
		n.update(live{calls: 3})
		n.update(live{calls: 4})
		if got := <-told; got != "STATUS=4 calls" {
			t.Errorf("told %q", got)
		}
		n.reloading()
		got := hears(t, told, "RELOADING=1", "MONOTONIC_USEC=")
		if usec, err := strconv.ParseInt(regexp.MustCompile(`MONOTONIC_USEC=(\d+)`).FindStringSubmatch(got)[1], 10, 64); err != nil || usec <= 0 {
			t.Errorf("told %q", got)
		}
	}
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"30000000", "", 30 * time.Second},
		{"30000000", strconv.Itoa(os.Getpid()), 30 * time.Second},
		{"30000000", "1", 0},
		{"x", "", 0},
		{"-1", "", 0},
	} {
		env["WATCHDOG_USEC"], env["WATCHDOG_PID"] = c.usec, c.pid
		if got := newNotifier(func(k string) string { return env[k] }, log).watchdog; got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	env["NOTIFY_SOCKET"] = "vsock:2:1"
	if newNotifier(func(k string) string { return env[k] }, log) != nil {
		t.Error("a socket of another kind is taken")
	}
}

// TestKeepWatch: nothing is told while a part hangs, and that which hangs is named once.
func TestKeepWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings atomic.Int64
		var log strings.Builder
		free := make(chan struct{})
		var hang atomic.Bool
		parts := []livePart{{name: "quick", probe: func() {}}, {name: "slow", probe: func() {
			if hang.Load() {
				<-free
			}
		}}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			keepWatch(ctx, 20*time.Second, parts, func() { pings.Add(1) }, slog.New(slog.NewTextHandler(&log, nil)))
		}()
		time.Sleep(time.Minute)
		if n := pings.Load(); n < 12 {
			t.Errorf("%d signs of life in a minute", n)
		}
		hang.Store(true)
		time.Sleep(10 * time.Second)
		before := pings.Load()
		time.Sleep(5 * time.Minute)
		if n := pings.Load(); n != before {
			t.Errorf("%d signs of life while a part hangs", n-before)
		}
		hang.Store(false)
		close(free)
		time.Sleep(20 * time.Second)
		if pings.Load() == before {
			t.Error("no sign of life after that")
		}
		cancel()
		<-ended
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "[slow]") {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
	})
}

// TestLiveNotify: a service manager hears when the daemon is ready, reads its
// configuration, lives, waits for its calls and stops.
func TestLiveNotify(t *testing.T) {
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16)
	d := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, More: "shutdown: {drain: 1m}\n"})
	name := filepath.Join(t.TempDir(), "notify")
	told := serviceManager(t, name)
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "4000000")
	d.start()
	hears(t, told, "READY=1", "STATUS=0 calls")
	hears(t, told, "WATCHDOG=1")
	p := d.call(agents[0], [2]float64{440, 1000})
	hears(t, told, "STATUS=1 calls")
	hears(t, told, "WATCHDOG=1")
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	hears(t, told, "RELOADING=1", "MONOTONIC_USEC=")
	hears(t, told, "READY=1", "STATUS=1 calls")
	d.kill()
	d.start()
	hears(t, told, "READY=1", "STATUS=1 calls") // the call is there before it is ready
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hears(t, told, "STOPPING=1", "STATUS=waiting for 1 calls to end")
	hears(t, told, "EXTEND_TIMEOUT_USEC=60000000")
	hears(t, told, "WATCHDOG=1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.bye(ctx); err != nil {
		t.Error(err)
	}
	hears(t, told, "STOPPING=1", "STATUS=ending all calls")
	d.ended()
}

// TestUnit holds the unit that is shipped to what docs/restart.md says of it, and to
// systemd.
func TestUnit(t *testing.T) {
	text := string(must(os.ReadFile("../../docs/trunktap.service"))(t))
	doc := string(must(os.ReadFile("../../docs/restart.md"))(t))
	keys := regexp.MustCompile("(?m)^\\| `([A-Z]+[a-z][A-Za-z]*=[^`]*)`").FindAllStringSubmatch(doc, -1)
	if len(keys) < 10 {
		t.Errorf("docs/restart.md explains %d keys", len(keys))
	}
	for _, k := range keys {
		if !strings.Contains(text, "\n"+k[1]) {
			t.Errorf("docs/restart.md explains %s, which the unit does not have", k[1])
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not here: what systemd thinks of the unit is not asked")
	}
	file := filepath.Join(t.TempDir(), "trunktap.service")
	mustWrite(t, file, strings.ReplaceAll(text, "/usr/local/bin/trunktap", "/bin/true")) // it wants to see the program
	out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), file) {
		t.Errorf("%v\n%s", err, out)
	}
}
