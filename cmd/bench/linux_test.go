//go:build linux

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
)

// TestDaemonConfig: the daemon takes what we give it.
func TestDaemonConfig(t *testing.T) {
	for _, format := range append(formats, "") {
		dir := t.TempDir()
		name, err := (&trunktap{engine: "user", format: format}).writeConfig(dir)
		if err != nil {
			t.Fatal(err)
		}
		cfg, faults := config.Load(name)
		if faults != nil {
			t.Fatal(faults)
		}
		if r := cfg.Trunks[0].Recording; r.Enabled != (format != "") || format != "" && r.Format != format {
			t.Errorf("%q: %+v", format, r)
		}
		if cfg.Storage.Dir != filepath.Join(dir, "recordings") || cfg.Limits.CallsMax < scaleCalls[len(scaleCalls)-1] {
			t.Errorf("%+v %+v", cfg.Storage, cfg.Limits)
		}
	}
}

func TestOptions(t *testing.T) {
	good := func() options { return options{engine: "all", rounds: 1, measure: 2e9, rate: 1} }
	o := good()
	if err := o.parse("100, 500", "media,pipeline"); err != nil || len(o.calls) != 2 || !o.parts["pipeline"] || o.parts["signalling"] {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []struct{ calls, parts, engine string }{
		{"0", "media", "all"},
		{"x", "media", "all"},
		{"100000", "media", "all"},
		{"1", "video", "all"},
		{"1", "media", "warp"},
	} {
		o := good()
		o.engine = bad.engine
		if err := o.parse(bad.calls, bad.parts); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

func TestGroupOf(t *testing.T) {
	v1 := "4:memory:/a\n2:cpu,cpuacct:/b:c\n0::/d\n"
	for controller, want := range map[string]string{"cpu": "/b:c", "cpuacct": "/b:c", "": "/d"} {
		if got, ok := groupOf(v1, controller); got != want || !ok {
			t.Errorf("%q: %q", controller, got)
		}
	}
	if got, ok := groupOf("0::/\n", "cpu"); ok {
		t.Errorf("%q", got)
	}
}

func TestRefusal(t *testing.T) {
	got := refusal(`x check: exit status 2: f.yaml:5:11: media.engine: "kernel" is not supported by this version`)
	if got != `"kernel" is not supported by this version` {
		t.Errorf("%q", got)
	}
}

func TestKeyValue(t *testing.T) {
	name := filepath.Join(t.TempDir(), "os-release")
	if err := os.WriteFile(name, []byte("NAME=\"X\"\nPRETTY_NAME=\"X 12 (y)\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := keyValue(name, "PRETTY_NAME", "="); got != "X 12 (y)" {
		t.Errorf("%q", got)
	}
	if got := keyValue(name, "NONE", "=") + keyValue(name+"x", "NAME", "="); got != "" {
		t.Errorf("%q", got)
	}
}

// TestRingAndSender: what a sender sends over a link arrives in the ring with
// its time. It needs root, for two interfaces of its own.
func TestRingAndSender(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	unlock, err := lockRun()
	if err != nil {
		t.Skip("a benchmark runs: ", err)
	}
	defer unlock()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 6)) // as run does
	ctx := t.Context()
	if err := removeLeftovers(ctx); err != nil {
		t.Fatal(err)
	}
	if err := buildTopology(ctx); err != nil {
		if strings.Contains(err.Error(), "not permitted") || strings.Contains(err.Error(), "executable file not found") {
			t.Skip("no network namespaces here: ", err)
		}
		t.Fatal(err)
	}
	defer func() {
		if err := removeLeftovers(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	b := &bench{voice: newVoice(), opt: options{}}
	res, err := b.run(ctx, subject{Program: directName}, 10, 1, timings{warmUp: 2e8, measure: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	// A loaded machine delays packets, but the link loses none.
	if res.Traffic.Sent < 800 || res.Traffic.Received != res.Traffic.Sent || res.Traffic.Damaged != 0 || res.P50 <= 0 {
		t.Errorf("%+v, p50 %v µs", res.Traffic, res.P50)
	}
}
