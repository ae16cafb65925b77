package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// liveUnit is a systemd in namespaces of its own, which runs the daemon by the
// unit in docs, as a user without rights.
type liveUnit struct {
	t   *testing.T
	cmd *exec.Cmd
	pid string // of systemd, as this machine counts
}

const (
	unitUser  = "977"
	unitGroup = "trunktap-systemd-test" // of control groups
)

// unitBoot makes a machine of its own for systemd: what it writes to, and what it
// would empty, is in memory. $1 is the folder of the daemon's files.
const unitBoot = `set -eu
mount --make-rprivate /
mount -t proc proc /proc
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
	umount /sys/fs/cgroup
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
	mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
	mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
	mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
	mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
fi
for d in /run /tmp /var/tmp /var/log /var/lib /etc/systemd/system; do mount -t tmpfs -o mode=755 tmpfs $d; done
chmod 1777 /tmp /var/tmp
mkdir -p /var/lib/systemd /var/log/journal /run/lock /run/bpf
mount -t bpf -o uid=` + unitUser + `,gid=` + unitUser + `,mode=0700 bpf /run/bpf
umount /sys/fs/bpf 2>/dev/null || true # this machine's: its pins are not ours
mount -t bpf -o nosuid,nodev,noexec,mode=0700 bpf /sys/fs/bpf # as systemd has it
for f in passwd group; do mount --bind "$1/etc/$f" /etc/$f; done
cp -r "$1"/units/. /etc/systemd/system/
for u in systemd-udevd systemd-udev-trigger systemd-resolved systemd-networkd systemd-logind systemd-timesyncd systemd-tmpfiles-setup \
	systemd-tmpfiles-setup-dev systemd-sysctl systemd-modules-load systemd-binfmt systemd-random-seed; do ln -sf /dev/null /etc/systemd/system/$u.service; done
for u in proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount \
	sys-kernel-tracing.mount tmp.mount; do ln -sf /dev/null /etc/systemd/system/$u; done
export container=other
exec /lib/systemd/systemd --system --unit=trunktap-test.target --show-status=0
`

// newLiveUnit boots systemd. Skipped unless make systemd asks for it: it needs root.
func newLiveUnit(t *testing.T) (u *liveUnit, dir string) {
	t.Helper()
	if os.Getenv("TRUNKTAP_SYSTEMD") == "" {
		t.Skip("TRUNKTAP_SYSTEMD is not set: make systemd runs it, as root")
	}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil || os.Getuid() != 0 {
		t.Skip("it needs root, and systemd")
	}
	dir = must(os.MkdirTemp("/srv", "trunktap"))(t) // the unit has a /tmp of its own
	root := dir
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, "bin", "trunktap")
	write("bin/trunktap", string(must(os.ReadFile(must(liveBinary())(t)))(t)))
	if err := os.Chmod(binary, 0o755); err != nil {
		t.Fatal(err)
	}
	write("etc/passwd", string(must(os.ReadFile("/etc/passwd"))(t))+"trunktap:x:"+unitUser+":"+unitUser+"::/var/lib/trunktap:/usr/sbin/nologin\n")
	write("etc/group", string(must(os.ReadFile("/etc/group"))(t))+"trunktap:x:"+unitUser+":\n")
	write("units/trunktap.service", string(must(os.ReadFile("../../docs/trunktap.service"))(t)))
	write("units/trunktap-test.target", "[Unit]\nRequires=basic.target\nAfter=basic.target\n")
	write("units/trunktap.service.d/test.conf", fmt.Sprintf("[Service]\nExecStart=\nExecStart=%s serve --config %[2]s/files/trunktap.yaml\nReadWritePaths=%[2]s/files /run/bpf\n"+
		"StandardOutput=append:%[2]s/files/log\nStandardError=inherit\nWatchdogSec=3s\n", binary, dir))
	u = &liveUnit{t: t}
	u.boot(dir)
	dir = filepath.Join(dir, "files")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return u, dir
}

// boot starts systemd in a control group and namespaces of its own. The network is this machine's.
func (u *liveUnit) boot(dir string) {
	u.t.Helper()
	groups := slices.DeleteFunc([]string{"/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"}, func(g string) bool {
		_, err := os.Stat(filepath.Join(g, "cgroup.procs"))
		return err != nil
	})
	enter := ""
	for _, g := range groups {
		enter += fmt.Sprintf("mkdir -p %[1]s/%[2]s; echo $$ > %[1]s/%[2]s/cgroup.procs; ", g, unitGroup)
	}
	u.cmd = exec.Command("sh", "-c", "set -e; "+enter+`exec unshare --pid --mount --uts --ipc --cgroup --fork --kill-child sh -c "$1" sh "$2"`, "sh", unitBoot, dir)
	log := must(os.Create(filepath.Join(dir, "boot.log")))(u.t)
	u.cmd.Stdout, u.cmd.Stderr = log, log
	if err := u.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		_ = u.cmd.Process.Kill() // takes systemd and all of its services along
		_ = u.cmd.Wait()
		for u.pid != "" {
			if _, err := os.Stat("/proc/" + u.pid); err != nil {
				break
			}
			time.Sleep(livePollEvery)
		}
		_ = log.Close()
		for _, g := range groups {
			_ = exec.Command("find", filepath.Join(g, unitGroup), "-depth", "-type", "d", "-delete").Run() // what is left is empty
		}
	})
	deadline := time.Now().Add(liveReadyLimit)
	for state := ""; state != "running" && state != "degraded"; {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name()) // what is there is shown
			u.t.Fatalf("systemd does not run (%s):\n%s", state, text)
		}
		time.Sleep(livePollEvery)
		if kids, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", u.cmd.Process.Pid)); err == nil {
			u.pid = strings.TrimSpace(string(kids))
		}
		if u.pid != "" {
			out, _ := u.command("systemctl", "is-system-running").Output() // fails while it starts
			state = strings.TrimSpace(string(out))
		}
	}
}

func (u *liveUnit) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", u.pid, "--all", "--"}, args...)...)
}

func (u *liveUnit) systemctl(args ...string) string {
	u.t.Helper()
	out, err := u.command(append([]string{"systemctl"}, args...)...).CombinedOutput()
	if err != nil {
		journal, _ := u.command("journalctl", "--no-pager", "--quiet", "--output=cat", "--lines=20", "_PID=1", "+", "_SYSTEMD_UNIT=trunktap.service").CombinedOutput() // what is there is shown
		u.t.Fatalf("systemctl %s: %v\n%s%s", strings.Join(args, " "), err, out, journal)
	}
	return strings.TrimSpace(string(out))
}

func (u *liveUnit) show(property string) string {
	u.t.Helper()
	return u.systemctl("show", "--value", "--property", property, "trunktap")
}

// daemon is one with two trunks that the unit runs.
func (u *liveUnit) daemon(dir, engine string) (*liveDaemon, [][2]*siptest.Agent) {
	trunks, agents := twoTrunks(u.t, recorder.FormatWAVPCM16, recorder.FormatOggOpus)
	d := newLiveDaemon(u.t, liveConfig{
		Dir: dir, Trunks: trunks, Listen: []string{"udp://" + freeUDP(u.t, liveHost).String()}, Ports: 32,
		Media: []string{"engine: " + engine, "kernel: {interfaces: [lo], pin: /run/bpf/pins}"},
	})
	u.adopt(d, dir)
	return d, agents
}

// adopt has the unit run a daemon.
func (u *liveUnit) adopt(d *liveDaemon, dir string) {
	u.t.Helper()
	d.unit = u
	if out, err := exec.Command("chown", "-R", unitUser+":"+unitUser, dir).CombinedOutput(); err != nil {
		u.t.Fatalf("%v: %s", err, out)
	}
}

// TestLiveSystemdHang: a daemon that hangs is killed by the watchdog, and calls go on.
func TestLiveSystemdHang(t *testing.T) {
	u, dir := newLiveUnit(t)
	d, agents := u.daemon(dir, "user")
	d.start()
	p := d.callAny(agents[0], [2]float64{400, 1000})
	pid := u.show("MainPID")
	d.within(liveReadyLimit, "the call is shown", func() error {
		if s := u.show("StatusText"); !strings.Contains(s, "1 call") {
			return fmt.Errorf("status %q", s)
		}
		return nil
	})
	u.systemctl("kill", "--signal", "STOP", "trunktap")
	d.within(liveReadyLimit, "another process runs", func() error {
		if now := u.show("MainPID"); now == pid || now == "0" || u.show("ActiveState") != "active" {
			return fmt.Errorf("process %s, %s", now, u.show("ActiveState"))
		}
		return nil
	})
	if n := u.show("NRestarts"); n != "1" {
		t.Errorf("%s restarts", n)
	}
	before := len(p.external.Media().Received())
	d.within(liveReadyLimit, "media goes on", func() error {
		if n := len(p.external.Media().Received()); n < before+100 {
			return fmt.Errorf("%d packets", n-before)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), liveReadyLimit)
	defer cancel()
	if err := p.external.Bye(ctx); err != nil {
		t.Error(err)
	}
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		if m.Call.EndCause != "bye" || !slices.ContainsFunc(m.Gaps, func(g recorder.Gap) bool { return g.Cause == recorder.GapRestart }) {
			t.Errorf("end cause %q, gaps %+v", m.Call.EndCause, m.Gaps)
		}
	}
	d.stop()
}

// TestLiveSystemdRefused: a configuration with a fault is refused once, and the log says why.
func TestLiveSystemdRefused(t *testing.T) {
	u, dir := newLiveUnit(t)
	d, _ := u.daemon(dir, "user")
	text := string(must(os.ReadFile(d.config))(t))
	if err := os.WriteFile(d.config, []byte(text+"nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := u.command("systemctl", "start", "trunktap").CombinedOutput(); err == nil {
		t.Fatalf("it started: %s", out)
	}
	log := string(must(os.ReadFile(d.log))(t))
	if u.show("ActiveState") != "failed" || u.show("NRestarts") != "0" || !strings.Contains(log, "nonsense") {
		t.Errorf("%s after %s restarts; log:\n%s", u.show("ActiveState"), u.show("NRestarts"), log)
	}
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	if s := u.show("ActiveState"); s != "active" {
		t.Errorf("with the fault mended it is %s", s)
	}
	d.stop()
}

// TestLiveSystemd runs the unit by a systemd: calls go on over its restart, a crash and
// a daemon that hangs.
func TestLiveSystemd(t *testing.T) {
	for _, engine := range []string{"user", "kernel"} {
		t.Run(engine, func(t *testing.T) {
			u, dir := newLiveUnit(t)
			d, agents := u.daemon(dir, engine)
			if engine == "kernel" && !canKernel(d) {
				t.Skip("the kernel engine cannot be had here")
			}
			liveRestartOf(d, engine, agents, 8, []func(){
				func() { u.systemctl("restart", "trunktap") },
				func() { u.systemctl("kill", "--signal", "KILL", "trunktap") },
			})
			if state := u.show("ActiveState"); state != "inactive" || u.show("Result") != "success" {
				t.Errorf("after stop it is %s, %s", state, u.show("Result"))
			}
		})
	}
}
