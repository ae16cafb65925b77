package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRotationOutlivesRestarts: what is due is done at the start, and counts from
// then on, however often the daemon starts.
func TestRotationOutlivesRestarts(t *testing.T) {
	dir, file, _ := mustSite(t)
	base := string(must(os.ReadFile(file))(t))
	cfg := mustReconfigure(t, file, base, "keys: {rotate: weekly}\n")
	starts := func() string {
		t.Helper()
		code, log := serving(t, file, cfg)()
		if code != exitFine {
			t.Fatalf("exit %d: %s", code, log)
		}
		return log
	}
	state := filepath.Join(dir, "keys-rotated.json")
	read := func() (last rotatedAt) {
		t.Helper()
		if err := json.Unmarshal(must(os.ReadFile(state))(t), &last); err != nil {
			t.Fatal(err)
		}
		return last
	}
	if log := starts(); strings.Contains(log, "key.rotated") {
		t.Errorf("a key that is new was rotated: %s", log)
	}
	first := read()
	long := first
	long.At = time.Now().AddDate(0, 0, -8)
	mustWrite(t, state, string(must(json.Marshal(long))(t)))
	if log := starts(); strings.Count(log, "key.rotated") != 1 {
		t.Errorf("not rotated after 8 days: %s", log)
	}
	second := read()
	if second.Key == first.Key || time.Since(second.At) > time.Hour {
		t.Errorf("%+v after %+v", second, first)
	}
	if log := starts(); strings.Contains(log, "key.rotated") {
		t.Errorf("rotated again: %s", log)
	}
	keysCommand(t, exitFine, "keys", "rotate", "-c", file) // by hand, without the daemon
	starts()
	if third := read(); third.Key == second.Key || third.At.Before(second.At) {
		t.Errorf("the rotation by hand was not noticed: %+v after %+v", third, second)
	}
	mustWrite(t, state, "{")
	if log := starts(); !strings.Contains(log, "it counts from now on") || time.Since(read().At) > time.Hour {
		t.Errorf("a torn state: %s", log)
	}
}
