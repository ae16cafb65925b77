package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLiveSRTP makes the call of TestLiveBaresip with SRTP on one side and plain RTP
// on the other, or SRTP on both: both hear each other, and nothing of the daemon's
// holds a key.
func TestLiveSRTP(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	sdes, dtls := sdesMedia, dtlsMedia
	for name, with := range map[string][2]baresipMedia{
		"SDES to plain": {sdes, {}},
		"plain to SDES": {{}, sdes},
		"SDES on both":  {sdes, sdes},
		"DTLS to plain": {dtls, muxMedia},
		"plain to DTLS": {muxMedia, dtls},
	} {
		t.Run(name, func(t *testing.T) {
			d := baresipCall(t, with)
			d.stop()
			noKeys(t, d)
		})
	}
}

// noKeys looks for the lines that hold keys in all that the daemon has written.
func noKeys(t *testing.T, d *liveDaemon) {
	t.Helper()
	looked := 0
	err := filepath.WalkDir(d.cfg.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		looked++
		if strings.Contains(string(b), "inline:") {
			t.Errorf("%s holds a key", e.Name())
		}
		return err
	})
	if err != nil || looked == 0 {
		t.Fatal(looked, err)
	}
}
