package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/catalog/pgtest"
)

// TestBackupRestore backs up the catalogue beside the running daemon, loses it
// and brings it back, in either engine and from one to the other.
func TestBackupRestore(t *testing.T) {
	dir, file, cfg := mustSite(t)
	mustRecord(t, dir, cfg)
	want := mustRun(t, "ls", "--json", "--config", file)
	checkStored(t, file, cfg.Storage.Dir)
	backup, twin := filepath.Join(dir, "backup.jsonl"), filepath.Join(dir, "copy.db")
	stop := serving(t, file, cfg)
	if out := mustRun(t, "backup", "--config", file, "-o", backup); out != "1 recordings in the backup\n" {
		t.Error(out)
	}
	mustRun(t, "backup", "--config", file, "-o", twin, "--copy")
	if r := command(t, "restore", "--config", file, backup); r.code != exitFailed || !strings.Contains(r.errOut, "another trunktap") {
		t.Errorf("restore beside the daemon: %+v", r)
	}
	if r := command(t, "backup", "--config", file, "-o", backup); r.code != exitFailed {
		t.Errorf("a backup was overwritten: %+v", r)
	}
	stop()
	for _, name := range []string{backup, twin} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: others may read it: %v", name, err)
		}
	}
	restored := func(file string) {
		t.Helper()
		if out := mustRun(t, "restore", "--config", file, backup); out != "1 recordings restored\n" {
			t.Error(out)
		}
		if d := cmp.Diff(want, mustRun(t, "ls", "--json", "--config", file)); d != "" {
			t.Error(d)
		}
		checkStored(t, file, cfg.Storage.Dir)
	}
	if err := os.Remove(cfg.Catalog.Path); err != nil {
		t.Fatal(err)
	}
	restored(file)
	moved := mustMove(t, file, cfg.Catalog.URL, "sqlite://"+twin)
	if d := cmp.Diff(want, mustRun(t, "ls", "--json", "--config", moved)); d != "" {
		t.Errorf("the copy: %s", d)
	}
	pg, err := pgtest.Start("")
	if errors.Is(err, pgtest.ErrMissing) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pg.Close() }()
	url, err := pg.NewDatabase()
	if err != nil {
		t.Fatal(err)
	}
	moved = mustMove(t, file, cfg.Catalog.URL, url)
	restored(moved)
	if out := mustRun(t, "rebuild", "--config", moved); out != "1 recordings in the catalogue\n" {
		t.Error(out)
	}
	if d := cmp.Diff(want, mustRun(t, "ls", "--json", "--config", moved)); d != "" {
		t.Errorf("rebuilt: %s", d)
	}
	checkStored(t, moved, cfg.Storage.Dir)
}

// TestBackupTrace: a backup has who called whom of every recording: it leaves its
// trace before it is written, and without a log there is none.
func TestBackupTrace(t *testing.T) {
	dir, file, cfg := mustSite(t)
	mustRecord(t, dir, cfg)
	backup := filepath.Join(dir, "backup.jsonl")
	mustRun(t, "backup", "--config", file, "-o", backup)
	if w := audit.OpenDir(nil, cfg.Audit.Dir).Waiting(); len(w) != 1 || w[0].Kind != audit.KindList || w[0].What != "backup of the catalogue" || w[0].Who == "" {
		t.Errorf("for the log: %+v", w)
	}
	if err := os.RemoveAll(cfg.Audit.Dir); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, cfg.Audit.Dir, "no directory")
	second := backup + ".2"
	r := command(t, "backup", "--config", file, "-o", second)
	if _, err := os.Stat(second); r.code != exitFailed || err == nil || !strings.Contains(r.errOut, "without a trace") {
		t.Errorf("without a log: %+v, %v", r, err)
	}
}

// oddCatalog is a catalogue that fails where it is told to.
type oddCatalog struct{ backup, close error }

func (c oddCatalog) Backup(_ context.Context, to io.Writer) (int64, error) {
	_, err := io.WriteString(to, "rows")
	return 3, errors.Join(err, c.backup)
}

func (c oddCatalog) CopyTo(_ context.Context, path string) error {
	return errors.Join(os.WriteFile(path, []byte("rows"), 0o600), c.backup)
}

func (c oddCatalog) Close() error { return c.close }

// TestBackupAgrees: what is printed, the exit code and the file say the same.
func TestBackupAgrees(t *testing.T) {
	bad := errors.New("write: broken pipe")
	for name, c := range map[string]struct {
		cat   oddCatalog
		whole bool
	}{
		"fine":             {oddCatalog{}, true},
		"half":             {oddCatalog{backup: bad}, false},
		"no leave taken":   {oddCatalog{close: bad}, true},
		"half, and closed": {oddCatalog{bad, bad}, false},
	} {
		for _, twin := range []bool{false, true} {
			file := filepath.Join(t.TempDir(), "backup")
			var out, errs bytes.Buffer
			e := &env{ctx: t.Context(), stdout: &out, stderr: &errs}
			code := e.exitCode((&backupCmd{Out: file, Copy: twin}).from(e, c.cat))
			_, err := os.Stat(file)
			if told := out.String() == "3 recordings in the backup\n"; (code == exitFine) != c.whole || (err == nil) != c.whole || told != (c.whole && !twin) {
				t.Errorf("%s, copy %t: exit %d, file %v, printed %q, %q", name, twin, code, err, &out, &errs)
			}
			if strings.Contains(errs.String(), bad.Error()) != (c.cat != oddCatalog{}) {
				t.Errorf("%s, copy %t: %q", name, twin, &errs)
			}
		}
	}
}

// mustMove writes the configuration with another catalogue.
func mustMove(t *testing.T, file, from, to string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.Replace(string(text), from, to, 1)
	name := filepath.Join(filepath.Dir(file), "moved.yaml")
	if moved == string(text) {
		t.Fatalf("%s is not in the configuration", from)
	}
	if err := os.WriteFile(name, []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// checkStored holds that the account is the sum of the bytes in the store.
func checkStored(t *testing.T, file, store string) {
	t.Helper()
	var have int64
	err := filepath.WalkDir(store, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.Contains(name, "/audit/") {
			return err // the audit log is nobody's recording
		}
		info, err := d.Info()
		if err == nil {
			have += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var out struct{ Usage []recorder.Usage }
	if err := json.Unmarshal([]byte(mustRun(t, "usage", "--json", "--config", file)), &out); err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, u := range out.Usage {
		sum += u.Bytes()
	}
	if sum != have || have == 0 {
		t.Errorf("the account says %d bytes, the store has %d: %+v", sum, have, out.Usage)
	}
}
