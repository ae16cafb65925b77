package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notifier tells a service manager how the daemon is (sd_notify(3)). Without one, or
// nil, it tells nobody.
type notifier struct {
	addr     *net.UnixAddr
	watchdog time.Duration // within which it wants to hear of us; 0: it does not
	log      *slog.Logger

	status string // told last; of the goroutine of Run
}

// newNotifier reads what a service manager has put into the environment.
func newNotifier(getenv func(string) string, log *slog.Logger) *notifier {
	name := getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if name[0] != '/' && name[0] != '@' { // @: an abstract one
		log.Warn("the service manager's socket is of a kind that is not known", "socket", name)
		return nil
	}
	n := &notifier{addr: &net.UnixAddr{Name: name, Net: "unixgram"}, log: log}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if pid := getenv("WATCHDOG_PID"); err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

// tell sends assignments. Whoever manages the service finds out by itself when it
// hears nothing.
func (n *notifier) tell(assignments ...string) {
	if n == nil {
		return
	}
	c, err := net.DialUnix("unixgram", nil, n.addr)
	if err == nil {
		_, err = c.Write([]byte(strings.Join(assignments, "\n")))
		_ = c.Close() // what was sent is sent
	}
	if err != nil {
		n.log.Warn("the service manager was not told", "error", err)
	}
}

func (n *notifier) ready(calls live) { n.tell("READY=1", n.calls(calls)) }

// calls is the status of a daemon that takes calls.
func (n *notifier) calls(calls live) string {
	status := "STATUS=" + calls.String()
	if n != nil {
		n.status = status
	}
	return status
}

// update tells what is live when it has changed.
func (n *notifier) update(calls live) {
	if n == nil {
		return
	}
	if was := n.status; n.calls(calls) != was {
		n.tell(n.status)
	}
}

// reloading is told before the configuration is read again, and ready after it.
func (n *notifier) reloading() {
	if n == nil {
		return
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		n.log.Warn("the service manager was not told", "error", err)
		return
	}
	n.tell("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000), "STATUS=reading the configuration")
}

func (n *notifier) stopping(what string) { n.tell("STOPPING=1", "STATUS="+what) }

// draining asks for more time to stop: calls are waited for.
func (n *notifier) draining(calls live) {
	n.tell(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", drainExtend.Microseconds()), fmt.Sprintf("STATUS=waiting for %s to end", calls))
}

const (
	drainTell   = 10 * time.Second
	drainExtend = time.Minute
)

// run is the life of a daemon that has started.
func (d *daemon) run(ctx context.Context, path string) error {
	d.notify = newNotifier(os.Getenv, d.log)
	d.notify.ready(d.live())
	d.startWatchdog()
	d.drain(d.wait(ctx, path))
	close(d.stopping)
	d.log.Info("stopping", "left", d.live())
	d.notify.stopping("ending all calls")
	err := d.close()
	d.unwatch()
	return err
}

// livePart is something that must come by for the daemon to be alive.
type livePart struct {
	name  string
	probe func()        // returns when it has
	asked chan struct{} // closed when the latest probe has returned; nil: none is out
}

// watchdogTries is how often within its time the parts are asked.
const watchdogTries = 4

// keepWatch calls ping as long as all parts come by, until ctx ends. One that hangs is
// told once.
func keepWatch(ctx context.Context, within time.Duration, parts []livePart, ping func(), log *slog.Logger) {
	every := within / watchdogTries
	t := time.NewTicker(every)
	defer t.Stop()
	told := false
	for {
		hangs := askParts(ctx, parts, every)
		switch {
		case ctx.Err() != nil:
			return
		case len(hangs) == 0:
			ping()
			told = false
		case !told:
			told = true
			log.Error("a part of the daemon does not come by: the service manager will end it", "parts", hangs, "within", within)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// askParts returns those that do not come by in time.
func askParts(ctx context.Context, parts []livePart, within time.Duration) (hangs []string) {
	for i := range parts {
		p := &parts[i]
		if p.asked != nil {
			continue // the probe of before is still out
		}
		done := make(chan struct{})
		p.asked = done
		go func() { p.probe(); close(done) }() // ends with the part, or with the process
	}
	limit := time.NewTimer(within)
	defer limit.Stop()
	over := false
	for i := range parts {
		p := &parts[i]
		if !over {
			select {
			case <-p.asked:
			case <-limit.C:
				over = true
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-p.asked:
			p.asked = nil
		default:
			hangs = append(hangs, p.name)
		}
	}
	return hangs
}

// startWatchdog tells the service manager that the daemon lives: that its main loop, its
// SIP sockets and calls, the relay's loops and the recorder come by.
func (d *daemon) startWatchdog() {
	n := d.notify
	if n == nil || n.watchdog == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	parts := []livePart{
		{name: "main loop", probe: func() {
			select {
			case d.pulse <- struct{}{}:
			case <-d.stopping:
			case <-ctx.Done():
			}
		}},
		{name: "signalling", probe: d.b2bua.Alive},
		{name: "relay", probe: d.relay.Alive},
		{name: "recorder", probe: func() { _ = d.rec.Calls() }},
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		keepWatch(ctx, n.watchdog, parts, func() { n.tell("WATCHDOG=1") }, d.log)
	}()
	d.unwatch = func() { cancel(); <-ended }
}
