package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder/segment"
)

func TestPace(t *testing.T) {
	for _, c := range []struct {
		n, done, total int64
		took           time.Duration
		want           string
	}{
		{0, 256, 0, 0, "256 recordings"},
		{100, 356, 1000, time.Millisecond, "356 of 1000 recordings"},
		{100, 356, 0, 10 * time.Second, "356 recordings, 10 a second"},
		{100, 356, 1000, 10 * time.Second, "356 of 1000 recordings, 10 a second, 1m4s left"},
		{100, 1000, 1000, 10 * time.Second, "1000 of 1000 recordings, 10 a second"},
	} {
		if got := pace(c.n, c.done, c.total, c.took); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// TestOddStore: a pipe, a link to itself, garbage and an enormous manifest in the
// store are named, and the rest is verified and listed all the same.
func TestOddStore(t *testing.T) {
	dir, file, cfg := mustSite(t)
	id := mustRecord(t, dir, cfg)
	day := filepath.Join(cfg.Storage.Dir, "2026/11/22")
	odd := func(n int) (name, manifest string) {
		name = fmt.Sprintf("20261122T163608Z-00000000000000%02x", n)
		if err := os.MkdirAll(filepath.Join(day, name), 0o700); err != nil {
			t.Fatal(err)
		}
		return name, filepath.Join(day, name, segment.ManifestFile)
	}
	pipe, at := odd(1)
	if err := syscall.Mkfifo(at, 0o600); err != nil {
		t.Fatal(err)
	}
	loop, at := odd(2)
	if err := os.Symlink(segment.ManifestFile, at); err != nil {
		t.Fatal(err)
	}
	garbage, at := odd(3)
	mustWrite(t, at, "garbage")
	huge, at := odd(4)
	mustWrite(t, at, "")
	if err := os.Truncate(at, 1<<40); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"verify"}, {"rebuild"}, {"rebuild"}} {
		r := command(t, append(args, "--config", file)...)
		if r.code != exitFailed {
			t.Errorf("%v: %+v", args, r)
		}
		for _, name := range []string{pipe, loop, garbage, huge} {
			if !strings.Contains(r.out+r.errOut, name) {
				t.Errorf("%v does not name %s: %+v", args, name, r)
			}
		}
		if strings.Contains(strings.ReplaceAll(r.out+r.errOut, "note: "+id, ""), id+":") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if out := mustRun(t, "ls", "--config", file); !strings.Contains(out, id) {
		t.Errorf("ls: %s", out)
	}
}
