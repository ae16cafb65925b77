package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder/archive"
)

// TestSweepCommand: a torn file is told, and goes only with --delete.
func TestSweepCommand(t *testing.T) {
	dir, file, cfg := mustSite(t)
	a := must(openArchive(t.Context(), cfg, nil))(t)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	torn, old := filepath.Join(dir, "recordings", ".tmp-torn"), time.Now().Add(-48*time.Hour)
	mustWrite(t, torn, "x")
	if err := os.Chtimes(torn, old, old); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"sweep", "--config", file}, {"sweep", "--config", file, "--delete", "--dry-run"}} {
		if r := command(t, args...); r.code != exitFine || !strings.Contains(r.out, ".tmp-torn") || !strings.Contains(r.out, "temp 1; 0 deleted") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	r := command(t, "sweep", "--config", file, "--delete", "--json")
	var report archive.SweepReport
	if err := json.Unmarshal([]byte(r.out), &report); err != nil || r.code != exitFine || report.Deleted != 1 || !report.Strays[0].Deleted {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := os.Stat(torn); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}
