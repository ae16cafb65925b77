package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// dropIn changes the unit of this systemd alone.
func (u *liveUnit) dropIn(name, text string) {
	u.t.Helper()
	cmd := u.command("sh", "-c", "cat > /etc/systemd/system/trunktap.service.d/"+name+".conf && systemctl daemon-reload")
	cmd.Stdin = strings.NewReader("[Service]\n" + text)
	if out, err := cmd.CombinedOutput(); err != nil {
		u.t.Fatalf("%v: %s", err, out)
	}
}

// edit replaces a part of the configuration, or appends to it where there is none.
func (d *liveDaemon) edit(old, with string) {
	d.t.Helper()
	text := string(must(os.ReadFile(d.config))(d.t))
	if old == "" {
		text += with
	} else if !strings.Contains(text, old) {
		d.t.Fatalf("%q is not in the configuration", old)
	}
	if old != "" {
		text = strings.Replace(text, old, with, 1)
	}
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil { // its owner stays
		d.t.Fatal(err)
	}
}

// logged waits until the log has a text.
func (d *liveDaemon) logged(text string) {
	d.t.Helper()
	d.within(liveReadyLimit, fmt.Sprintf("the log has %q", text), func() error {
		b, err := os.ReadFile(d.log)
		if err == nil && !strings.Contains(string(b), text) {
			err = errors.New("it has not")
		}
		return err
	})
}

// brief makes a call of a second and returns its recording, which is the nth.
func (d *liveDaemon) brief(agents [2]*siptest.Agent, nth int) *recorder.Manifest {
	d.t.Helper()
	c := d.call(agents, [2]float64{440, 1000})
	time.Sleep(time.Second)
	if err := c.bye(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	return d.recordings(nth)[c.external.ID()]
}

// TestLiveSystemdReload: a changed trunk is in force after a reload, by the same process
// and beside a call that goes on; of a change with a fault nothing is, and the log says why.
func TestLiveSystemdReload(t *testing.T) {
	u, dir := newLiveUnit(t)
	d, agents := u.daemon(dir, "user")
	d.start()
	pid := u.show("MainPID")
	long := d.call(agents[1], [2]float64{500, 1200})
	const opus = "format: " + recorder.FormatOggOpus
	d.edit("format: "+recorder.FormatWAVPCM16, opus+"\n      nonsense: 1")
	u.systemctl("reload", "trunktap")
	d.logged("the configuration was not reloaded")
	d.logged("nonsense")
	if m := d.brief(agents[0], 1); m == nil || m.Format != recorder.FormatWAVPCM16 {
		t.Errorf("after a reload that was refused: %+v", m)
	}
	d.edit(opus+"\n      nonsense: 1", opus)
	u.systemctl("reload", "trunktap")
	d.logged("the configuration was reloaded")
	if m := d.brief(agents[0], 2); m == nil || m.Format != recorder.FormatOggOpus {
		t.Errorf("after a reload: %+v", m)
	}
	if now := u.show("MainPID"); now != pid || u.show("ActiveState") != "active" {
		t.Errorf("process %s, it was %s; %s", now, pid, u.show("ActiveState"))
	}
	if err := long.bye(t.Context()); err != nil {
		t.Error(err)
	}
	d.stop()
}

// TestLiveSystemdDrain: a stop waits for a call for longer than the unit's own limit,
// until the call ends or the drain does; new calls are refused.
func TestLiveSystemdDrain(t *testing.T) {
	u, dir := newLiveUnit(t)
	u.dropIn("stop", "TimeoutStopSec=2s\n")
	d, agents := u.daemon(dir, "user")
	const drain = 6 * time.Second
	d.edit("", "shutdown: {drain: "+drain.String()+"}\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	want := map[string]string{}
	for _, cause := range []string{"bye", "shutdown"} {
		d.start()
		c := d.call(agents[0], [2]float64{500, 1200})
		want[c.external.ID()] = cause
		time.Sleep(500 * time.Millisecond)
		u.systemctl("stop", "--no-block", "trunktap")
		asked := time.Now()
		d.within(liveReadyLimit, "it stops", func() error {
			if s := u.show("ActiveState"); s != "deactivating" {
				return errors.New(s)
			}
			return nil
		})
		time.Sleep(200 * time.Millisecond)
		_, err := agents[1][0].Call(ctx, "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{})
		if refused := (*siptest.RejectedError)(nil); !errors.As(err, &refused) || refused.Response.Code != 503 || refused.Response.Get("Retry-After") == "" {
			t.Errorf("a new call: %v", err)
		}
		time.Sleep(time.Until(asked.Add(4 * time.Second))) // the unit's limit is over
		if err := c.internal.Media().Await(ctx, len(c.internal.Media().Received())+20); err != nil {
			t.Fatal(err)
		}
		if cause == "bye" {
			if err := c.bye(ctx); err != nil {
				t.Error(err)
			}
		}
		d.within(liveReadyLimit, "it has stopped", func() error {
			if s := u.show("ActiveState"); s != "inactive" {
				return errors.New(s)
			}
			return nil
		})
		took := time.Since(asked)
		if t.Logf("ended by %s: stopped after %s", cause, took); u.show("Result") != "success" || (cause == "bye") != (took < drain) || took > drain+5*time.Second {
			t.Errorf("ended by %s: %s after %s", cause, u.show("Result"), took)
		}
	}
	d.start()
	for id, m := range d.recordings(len(want)) {
		checkAccount(t, m)
		if m.Call.EndCause != want[id] {
			t.Errorf("end cause %q, want %q", m.Call.EndCause, want[id])
		}
	}
	d.stop()
}

// TestLiveSystemdPort: a port that others have is tried again, with pauses, until it is free.
func TestLiveSystemdPort(t *testing.T) {
	u, dir := newLiveUnit(t)
	d, _ := u.daemon(dir, "user")
	taken := must(net.ListenPacket("udp", d.via().String()))(t)
	u.systemctl("start", "--no-block", "trunktap")
	restarts := func() int { return must(strconv.Atoi(u.show("NRestarts")))(t) }
	began := time.Now()
	d.within(liveReadyLimit, "it is started again", func() error {
		if n := restarts(); n < 5 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	took := time.Since(began)
	t.Logf("5 starts in %s", took)
	if status := u.show("ExecMainStatus"); took < 5*100*time.Millisecond || status != "1" && status != "0" { // 0: it runs now
		t.Errorf("5 starts in %s, exit status %s", took, status)
	}
	d.logged("address already in use")
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	d.start()
	n := restarts()
	time.Sleep(time.Second)
	if u.show("ActiveState") != "active" || restarts() != n {
		t.Errorf("with the port free it is %s, after %d and %d restarts", u.show("ActiveState"), n, restarts())
	}
	d.stop()
}

// TestLiveSystemdShipped runs the unit with nothing changed but where the program and its
// configuration are: its own folders, pins in /sys/fs/bpf, the journal, all that is forbidden.
func TestLiveSystemdShipped(t *testing.T) {
	u, dir := newLiveUnit(t)
	d, agents := u.daemon(dir, "kernel")
	run := func(args ...string) string {
		t.Helper()
		out, err := u.command(args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	d.edit("pin: /run/bpf/pins", "pin: /sys/fs/bpf/trunktap")
	text := string(must(os.ReadFile(d.config))(t))
	if err := os.WriteFile(d.config, []byte(strings.ReplaceAll(text, dir+"/", "/var/lib/trunktap/")), 0o600); err != nil {
		t.Fatal(err)
	}
	run("rm", "/etc/systemd/system/trunktap.service.d/test.conf")
	u.dropIn("files", fmt.Sprintf("ExecStart=\nExecStart=%s/bin/trunktap serve --config %s\n", strings.TrimSuffix(dir, "/files"), d.config))
	d.cfg.Dir = "/proc/" + u.pid + "/root/var/lib/trunktap"
	d.start()
	journal := run("journalctl", "--no-pager", "--unit=trunktap", "--output=cat")
	kernel := strings.Contains(journal, "kernel engine") // where it can be had, its flows are to be pinned
	if !strings.Contains(journal, "msg=running") || strings.Contains(journal, "unpinned=") {
		t.Errorf("the journal has\n%s", journal)
	}
	p := d.call(agents[0], [2]float64{400, 1000})
	time.Sleep(1500 * time.Millisecond)
	u.systemctl("kill", "--signal", "KILL", "trunktap")
	d.within(liveReadyLimit, "another process is ready", func() error {
		if n := u.show("NRestarts"); n != "1" || u.show("ActiveState") != "active" {
			return fmt.Errorf("%s restarts, %s", n, u.show("ActiveState"))
		}
		return d.get("/readyz", nil)
	})
	if err := p.internal.Media().Await(t.Context(), len(p.internal.Media().Received())+50); err != nil {
		t.Fatal(err)
	}
	if err := p.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // what is under way arrives
	missing := len(p.external.Media().Sent()) - len(p.internal.Media().Received())
	if t.Logf("kernel engine: %t, %d packets missing", kernel, missing); kernel && missing != 0 {
		t.Errorf("%d packets are missing", missing)
	}
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		if m.Call.EndCause != "bye" || len(m.Segments) != 2 {
			t.Errorf("end cause %q, %d segments", m.Call.EndCause, len(m.Segments))
		}
	}
	d.stop()
	if modes := strings.Fields(run("stat", "--format=%a:%U", "/var/lib/trunktap")); modes[0] != "700:trunktap" {
		t.Errorf("StateDirectory is %s", modes[0])
	}
	out := run("systemd-analyze", "security", "--no-pager", "trunktap.service")
	level := regexp.MustCompile(`Overall exposure level[^0-9]*([0-9.]+)`).FindStringSubmatch(out)
	if level == nil {
		t.Fatalf("no figure in\n%s", out)
	}
	if t.Log(level[0]); must(strconv.ParseFloat(level[1], 64))(t) > 3 {
		t.Error(out)
	}
}
