package main

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
)

// TestEvidence goes the whole way with the commands: a recording gets its place in
// the log of the daemon, is handed out and verified by a stranger, each access
// leaves a trace, and what is done to the store afterwards is named.
func TestEvidence(t *testing.T) {
	dir, file, cfg := mustSite(t)
	id := mustRecord(t, dir, cfg)
	var manifest string
	_ = filepath.WalkDir(cfg.Storage.Dir, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Base(path) == segment.ManifestFile {
			manifest = path
		}
		return err
	})
	prefix, err := filepath.Rel(cfg.Storage.Dir, filepath.Dir(manifest))
	if err != nil {
		t.Fatal(err)
	}
	// As if the log could not have been written when it was published.
	if err := os.MkdirAll(filepath.Join(cfg.Storage.Spool, "unlinked"), 0o700); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(cfg.Storage.Spool, "unlinked", id+".json"), `{"recording":"`+id+`","prefix":"`+filepath.ToSlash(prefix)+`"}`)
	fine := func(args ...string) string {
		t.Helper()
		r := command(t, append(args, "--config", file)...)
		if r.code != exitFine {
			t.Fatalf("%v: %d, %s %s", args, r.code, r.out, r.errOut)
		}
		return r.out
	}
	fine("show", id) // without the daemon: its trace waits in the inbox
	fine("ls", "--trunk", "carrier-x")
	if r := command(t, "audit", "ls", "--config", file); r.code != exitFailed {
		t.Errorf("a log that nobody has begun: %+v", r)
	}
	if w := audit.OpenDir(nil, cfg.Audit.Dir).Waiting(); len(w) == 0 || w[len(w)-1].Kind != audit.KindAudit {
		t.Errorf("reading the log without the daemon leaves no trace: %+v", w)
	}
	stop := serving(t, file, cfg)
	deadline := time.Now().Add(liveReadyLimit)
	for !strings.Contains(fine("audit", "ls", "--kind", "recording.published"), id) {
		if time.Now().After(deadline) {
			t.Fatalf("no link: %s", fine("audit", "ls"))
		}
		time.Sleep(50 * time.Millisecond)
	}
	if r := command(t, "audit", "ls", "--limit", "1", "--config", file); r.code != exitFine || !strings.Contains(r.errOut, "may have more") {
		t.Errorf("a log that is not shown to its end: %+v", r)
	}
	if r := command(t, "audit", "ls", "--config", file); r.errOut != "" {
		t.Errorf("a log that is shown to its end: %+v", r)
	}
	key := strings.TrimSpace(fine("audit", "keys"))
	bundle := filepath.Join(dir, "bundle.zip")
	if r := command(t, "export", id, "--bundle", "-o", bundle, "--config", file); r.code != exitFine {
		_, log := stop()
		t.Fatal(r.errOut, log)
	}
	fine("export", id, "--bundle", "--entries", "-o", bundle)
	if out := fine("verify", "--key", key); !strings.Contains(out, "1 recordings") || !strings.Contains(out, "0 findings") {
		t.Error(out)
	}
	for _, c := range []struct {
		args []string
		code int
	}{{[]string{"verify", bundle, "--key", key}, exitFine}, {[]string{"verify", bundle, "--key", "rec-a+01234567+AbCd"}, exitFailed}, {[]string{"verify", id}, exitUsage}} {
		if r := command(t, c.args...); r.code != c.code {
			t.Errorf("%v: %d, %s %s", c.args, r.code, r.out, r.errOut)
		}
	}
	stripped := filepath.Join(dir, "stripped.zip")
	mustStrip(t, bundle, stripped, "SHA256SUMS.sig")
	if r := command(t, "verify", stripped, "--key", key); r.code != exitUnread || !strings.Contains(r.errOut, "nobody signed for the file") {
		t.Errorf("whose list somebody took the signature from: %d, %s %s", r.code, r.out, r.errOut)
	}
	log := fine("audit", "ls")
	for _, want := range []string{"access.get", "command line", "0 recordings; filters: limit, trunk", "access.bundle", "access.verify", "verify.done", "daemon.started", "config.loaded"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in the log:\n%s", want, log)
		}
	}
	if strings.Contains(log, "carrier-x") {
		t.Error("what was searched for is in the log")
	}
	fine("audit", "export", "-o", filepath.Join(dir, "log.jsonl"))
	if code, log := stop(); code != exitFine {
		t.Fatal(log)
	}
	fine("audit", "verify", "--key", key)
	if err := os.RemoveAll(filepath.Dir(manifest)); err != nil {
		t.Fatal(err)
	}
	r := command(t, "verify", "--offline", "--json", "--config", file)
	var report struct {
		Findings []struct{ Recording, Fault string }
	}
	if err := json.Unmarshal([]byte(r.out), &report); err != nil || r.code != exitFailed || len(report.Findings) == 0 || report.Findings[0].Recording != id || report.Findings[0].Fault != "missing" {
		t.Errorf("removed: %d %s %s", r.code, r.out, r.errOut)
	}
}

// mustStrip copies a bundle without one of its files.
func mustStrip(t *testing.T, from, to, without string) {
	t.Helper()
	r, err := zip.OpenReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }() // only read
	f := must(os.Create(to))(t)
	w := zip.NewWriter(f)
	for _, e := range r.File {
		if e.Name == without {
			continue
		}
		if err := w.Copy(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}
