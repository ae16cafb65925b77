package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder/segment"
)

// mustLinked records a call whose recording gets its link from a daemon, which runs
// until the test ends; fine runs a command of the site.
func mustLinked(t *testing.T, dir, file string, cfg *config.Config) (id string, fine func(args ...string) string) {
	t.Helper()
	id = mustRecord(t, dir, cfg)
	var prefix string
	_ = filepath.WalkDir(cfg.Storage.Dir, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Base(path) == segment.ManifestFile {
			prefix, err = filepath.Rel(cfg.Storage.Dir, filepath.Dir(path))
		}
		return err
	})
	// As if the log could not have been written when it was published.
	if err := os.MkdirAll(filepath.Join(cfg.Storage.Spool, "unlinked"), 0o700); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(cfg.Storage.Spool, "unlinked", id+".json"), `{"recording":"`+id+`","prefix":"`+filepath.ToSlash(prefix)+`"}`)
	fine = func(args ...string) string {
		t.Helper()
		r := command(t, append(args, "--config", file)...)
		if r.code != exitFine {
			t.Fatalf("%v: %d, %s %s", args, r.code, r.out, r.errOut)
		}
		return r.out
	}
	stop := serving(t, file, cfg)
	t.Cleanup(func() { stop() })
	deadline := time.Now().Add(liveReadyLimit)
	for {
		if _, err := os.Stat(filepath.Join(cfg.Storage.Spool, "unlinked", id+".json")); errors.Is(err, fs.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no link: %s", fine("audit", "ls"))
		}
		time.Sleep(50 * time.Millisecond)
	}
	return id, fine
}

// mustLinkedBundle hands out such a recording, and the node's public key.
func mustLinkedBundle(t *testing.T) (zip, key, pem string) {
	t.Helper()
	dir, file, cfg := mustSite(t)
	id, fine := mustLinked(t, dir, file, cfg)
	zip = filepath.Join(dir, "bundle.zip")
	fine("export", id, "--bundle", "-o", zip)
	return zip, strings.TrimSpace(fine("audit", "keys")), fine("audit", "keys", "--pem")
}

func mustCopy(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestStranger: somebody who has the program, the bundle and the key, and nothing
// else: no configuration, no home, no network, an empty folder that he may not
// write to.
func TestStranger(t *testing.T) {
	binary, err := liveBinary()
	if err != nil {
		t.Fatal(err)
	}
	zip, key, _ := mustLinkedBundle(t)
	dir := t.TempDir()
	mustCopy(t, zip, filepath.Join(dir, "b.zip"))
	b, err := os.ReadFile(zip)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	if err := os.WriteFile(filepath.Join(dir, "altered.zip"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) }) // so that it can be removed
	alone := true
	verify := func(args ...string) (int, string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, append([]string{"verify"}, args...)...)
		cmd.Dir, cmd.Env = dir, []string{}
		if alone {
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET}
		}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			if alone {
				alone = false
				t.Logf("the network is there: this machine gives no empty one: %v", err)
				return -1, ""
			}
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	if code, _ := verify("b.zip"); code == -1 { // once more, with the network
		_, _ = verify("b.zip")
	}
	if code, out := verify("b.zip", "--key", key); code != exitFine || !strings.Contains(out, ": 0 findings") || !strings.Contains(out, "in the checkpoint of") || strings.Contains(out, "note:") {
		t.Errorf("%d %s", code, out)
	}
	for _, args := range [][]string{{"altered.zip", "--key", key}, {"b.zip", "--key", "rec-a+01234567+AbCd"}} {
		if code, out := verify(args...); code != exitFailed || strings.Contains(out, ": 0 findings") {
			t.Errorf("%v: %d %s", args, code, out)
		}
	}
}

var shBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// TestStrangerByHand runs the commands of docs/evidence.md as they stand there.
func TestStrangerByHand(t *testing.T) {
	for _, tool := range []string{"unzip", "openssl", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: what docs/evidence.md says of verifying by hand is not tried", tool)
		}
	}
	text, err := os.ReadFile("../../docs/evidence.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := shBlock.FindAllSubmatch(text, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of commands in docs/evidence.md, want two: to unpack, and to verify", len(blocks))
	}
	zip, _, pem := mustLinkedBundle(t)
	for _, c := range []struct {
		name string
		harm func(dir string) string // which file was altered; empty: none
	}{
		{"as it came", func(string) string { return "" }},
		{"another sound", func(dir string) string { return firstIn(t, dir, "audio/*") }},
		{"another manifest", func(string) string { return "manifest.json" }},
		{"another link", func(string) string { return "link.txt" }},
		{"another checkpoint", func(string) string { return "checkpoint.txt" }},
		{"another entry", func(string) string { return "entry.json" }},
		{"another key", func(string) string { return "KEY.pem" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			mustCopy(t, zip, filepath.Join(dir, "FILE.zip"))
			mustWrite(t, filepath.Join(dir, "KEY.pem"), pem)
			if out, err := sh(dir, string(blocks[0][1])); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			altered := c.harm(dir)
			if altered != "" {
				name := filepath.Join(dir, altered)
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				b[len(b)/2] ^= 1
				if err := os.WriteFile(name, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := sh(dir, string(blocks[1][1]))
			if (err != nil) != (altered != "") {
				t.Errorf("%s altered: %v\n%s", altered, err, out)
			}
		})
	}
}

func firstIn(t *testing.T, dir, pattern string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(all) == 0 {
		t.Fatal(pattern, err)
	}
	name, err := filepath.Rel(dir, all[0])
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// sh runs commands as a shell does that stops at the first that fails.
func sh(dir, script string) (string, error) {
	cmd := exec.Command("sh", "-eu", "-c", script)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}
