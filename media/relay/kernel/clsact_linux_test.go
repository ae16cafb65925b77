package kernel_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media/relay/kernel"
	"github.com/trunktap/trunktap/media/relay/kernel/kerneltest"
)

// tc runs a tc command in the namespace of the test; _ is a blank in a word.
func tc(t *testing.T, line string) string {
	t.Helper()
	args := strings.Fields(line)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "_", " ")
	}
	out, err := exec.Command("tc", args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("tc %s: %v: %s", line, err, out)
	}
	return string(out)
}

// filtersOf is the number of the engines' filters on lo.
func filtersOf(t *testing.T) int {
	t.Helper()
	return strings.Count(tc(t, "filter show dev lo ingress"), " direct-action ")
}

func byFilter() kernel.Config {
	cfg := config()
	cfg.Hook = kernel.HookClsact
	return cfg
}

// forwarded sends packets that the program is to take, and puts the flow there first.
func forwarded(t *testing.T, e *kernel.Engine, p pair) *kernel.Flow {
	t.Helper()
	f, err := e.Add(p.spec(), newSink())
	if err != nil {
		t.Fatal(err)
	}
	p.take(f)
	for i := 1; i < 20; i++ {
		p.send(rtp(i, 160))
		p.want(p.to, rtp(i, 160))
	}
	return f
}

// A filter does what a link does, and nothing of it stays.
func TestFilter(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	e, p := start(t, byFilter()), newPair(t)
	if e.Hook() != kernel.HookClsact || filtersOf(t) != 1 {
		t.Fatalf("hook %q, %d filters", e.Hook(), filtersOf(t))
	}
	if q, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress}); err == nil && len(q.Programs) > 0 {
		t.Fatal("there is a link as well")
	}
	f := forwarded(t, e, p)
	second := start(t, byFilter()) // beside the first
	if n := filtersOf(t); n != 2 {
		t.Fatalf("%d filters of two engines", n)
	}
	if err := second.Close(); err != nil || filtersOf(t) != 1 {
		t.Fatalf("%d filters of one engine; %v", filtersOf(t), err)
	}
	p.send(rtp(20, 160))
	p.want(p.to, rtp(20, 160))
	if n := f.Remove(); n.Packets != 20 {
		t.Fatalf("%+v", n)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if text := tc(t, "qdisc show dev lo"); strings.Contains(text, "clsact") {
		t.Fatalf("stays: %s", text)
	}
}

// What others have at the ingress is theirs.
func TestFilterBesideOthers(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	tc(t, "qdisc add dev lo clsact")
	e := start(t, byFilter())
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if text := tc(t, "qdisc show dev lo"); !strings.Contains(text, "clsact") {
		t.Fatal("another's queueing discipline is gone")
	}
	tc(t, "qdisc del dev lo clsact")
	if e = start(t, byFilter()); filtersOf(t) != 1 {
		t.Fatal("no filter")
	}
	tc(t, "filter add dev lo egress bpf bytecode 1,6_0_0_0")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if text := tc(t, "filter show dev lo egress"); !strings.Contains(text, " bpf ") || filtersOf(t) != 0 {
		t.Fatalf("another's filter is gone: %s", text)
	}
	tc(t, "qdisc del dev lo clsact")
	tc(t, "qdisc add dev lo ingress") // the older one takes filters as well
	e, p := start(t, byFilter()), newPair(t)
	forwarded(t, e, p)
}

// A process that dies leaves its filter. The next one takes over what is pinned,
// and removes what nobody can.
func TestFiltersOutliveTheirOwner(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	cfg := byFilter()
	cfg.PinDir = kerneltest.BPFFS(t) + "/trunktap"
	t.Run("pinned", func(t *testing.T) { outlive(t, cfg) })
	if n := filtersOf(t); n != 0 {
		t.Fatalf("%d filters stay", n)
	}
	t.Run("not pinned", func(t *testing.T) {
		living, p := start(t, byFilter()), newPair(t)
		dead := start(t, byFilter())
		dead.Die()
		pinned := start(t, cfg)
		if n := filtersOf(t); n != 2 { // the living one's and this
			t.Fatalf("%d filters beside a living engine", n)
		}
		forwarded(t, living, p)
		pinned.Die()
		if start(t, byFilter()); filtersOf(t) != 3 { // one may come back for the pinned one
			t.Fatalf("%d filters beside a living engine and pins", filtersOf(t))
		}
		start(t, cfg)
		if n := filtersOf(t); n != 3 { // it has come back
			t.Fatalf("%d filters", n)
		}
	})
	if n := filtersOf(t); n != 0 {
		t.Fatalf("%d filters stay", n)
	}
	t.Run("pins are gone", func(t *testing.T) {
		cfg.PinDir += "2"
		start(t, cfg).Die()
		if err := exec.Command("rm", "-r", cfg.PinDir).Run(); err != nil {
			t.Fatal(err)
		}
		tcx := config()
		if e := start(t, tcx); e.Hook() != kernel.HookTCX || filtersOf(t) != 0 {
			t.Fatalf("%s; %d filters", e.Hook(), filtersOf(t))
		}
	})
}

// Whoever may not have one takes the other, unless told not to.
func TestHookIsChosen(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	for _, c := range []struct {
		name    string
		asked   kernel.Hook
		refused error
		want    kernel.Hook
	}{
		{"tcx is there", kernel.HookAuto, nil, kernel.HookTCX},
		{"tcx is not there", kernel.HookAuto, ebpf.ErrNotSupported, kernel.HookClsact},
		{"tcx is not known", kernel.HookAuto, unix.EINVAL, kernel.HookClsact},
		{"tcx is not allowed", kernel.HookAuto, unix.EPERM, kernel.HookAuto},
		{"tcx is demanded", kernel.HookTCX, ebpf.ErrNotSupported, kernel.HookTCX},
		{"clsact is demanded", kernel.HookClsact, unix.EPERM, kernel.HookClsact},
	} {
		got, err := kernel.ChooseHook(start(t, config()), c.asked, c.refused)
		fails := c.want == kernel.HookAuto || c.want == kernel.HookTCX && c.refused != nil
		if got != c.want || (err != nil) != fails || fails && !errors.Is(err, kernel.ErrUnsupported) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	cfg := config()
	cfg.Hook = "xdp"
	if _, err := kernel.Open(cfg); err == nil || !strings.Contains(err.Error(), "tcx or clsact") {
		t.Errorf("a hook that does not exist: %v", err)
	}
}
