package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keysCommand runs one command line and returns what it printed.
func keysCommand(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(context.Background(), args, &out, &errs); code != want {
		t.Errorf("trunktap %v: %d, want %d\n%s%s", args, code, want, &out, &errs)
	}
	return out.String() + errs.String()
}

// TestKeysByCommand rotates, rewraps and retires; then the store and the keys alone
// go to another machine; then the recording is shredded.
func TestKeysByCommand(t *testing.T) {
	dir, file, cfg := mustSite(t)
	id := mustRecord(t, dir, cfg)
	old := strings.Fields(strings.Split(keysCommand(t, 0, "keys", "ls", "-c", file), "\n")[1])[0]
	keysCommand(t, 1, "keys", "retire", old, "-c", file) // it is the active one
	keysCommand(t, 0, "keys", "rotate", "-c", file)
	keysCommand(t, 1, "keys", "retire", old, "-c", file) // a recording needs it
	if out := keysCommand(t, 0, "keys", "rewrap", "-c", file); !strings.Contains(out, "1 rewrapped") {
		t.Errorf("rewrap: %s", out)
	}
	unreadable := filepath.Join(dir, "calls.journal")
	if err := os.Mkdir(unreadable, 0o700); err != nil {
		t.Fatal(err)
	}
	if out := keysCommand(t, 1, "keys", "retire", old, "-c", file); !strings.Contains(out, "calls that go on") {
		t.Errorf("retire beside a journal that cannot be read: %s", out)
	}
	if err := os.Remove(unreadable); err != nil {
		t.Fatal(err)
	}
	keysCommand(t, 0, "keys", "retire", old, "-c", file)
	keysCommand(t, 0, "verify", "-c", file)

	fresh, there, _ := mustSite(t)
	if err := os.CopyFS(filepath.Join(fresh, "recordings"), os.DirFS(filepath.Join(dir, "recordings"))); err != nil {
		t.Fatal(err)
	}
	keys, err := os.ReadFile(filepath.Join(dir, "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(fresh, "keys.json"), keys, 0o600); err != nil {
		t.Fatal(err)
	}
	keysCommand(t, 0, "rebuild", "-c", there)
	keysCommand(t, 0, "verify", "-c", there)
	if out := keysCommand(t, 0, "ls", "-c", there); !strings.Contains(out, id) {
		t.Errorf("ls on the fresh machine: %s", out)
	}
	keysCommand(t, 0, "export", id, "-c", there, "-o", filepath.Join(fresh, "out.wav"))

	keysCommand(t, 0, "shred", id, "--reason", "case 4711", "-c", there)
	if out := keysCommand(t, 1, "export", id, "-c", there, "-o", filepath.Join(fresh, "again.wav")); !strings.Contains(out, "case 4711") {
		t.Errorf("export of a shredded recording: %s", out)
	}
	keysCommand(t, 0, "verify", "-c", there)
	keysCommand(t, 0, "rebuild", "-c", there)
}
