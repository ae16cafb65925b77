package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder"
)

// mustReconfigure writes the configuration of a site anew, with further keys.
func mustReconfigure(t *testing.T, file, base, more string) *config.Config {
	t.Helper()
	mustWrite(t, file, base+more)
	cfg, faults := config.Load(file, keyChecks)
	if faults != nil {
		t.Fatal(faults)
	}
	return cfg
}

// TestUnsealed: what is recorded in mode none can be used like any other, says of
// itself what it is, and is not opened by a daemon that seals unless that is told to.
func TestUnsealed(t *testing.T) {
	dir, file, _ := mustSite(t)
	base := string(must(os.ReadFile(file))(t))
	cfg := mustReconfigure(t, file, base, "keys: {mode: none, i_understand: true}\n")
	c := archiveConfig(cfg)
	c.Sealing = sealing(t.Context(), cfg, false, nil)
	id := mustRecordIn(t, dir, cfg, c)

	uses := func(at string) {
		t.Helper()
		var m recorder.Manifest
		if err := json.Unmarshal([]byte(keysCommand(t, 0, "show", id, "--json", "-c", at)), &m); err != nil || !m.Unsealed {
			t.Errorf("unsealed: %v, %v", m.Unsealed, err)
		}
		keysCommand(t, 0, "verify", "-c", at)
		keysCommand(t, 0, "export", id, "-c", at, "-o", filepath.Join(t.TempDir(), "out.wav"))
	}
	uses(file)
	keysCommand(t, 0, "rebuild", "-c", file)
	uses(file)
	if _, err := os.Stat(filepath.Join(dir, "keys.json")); err == nil {
		t.Error("a key file was made")
	}
	stop := serving(t, file, cfg)
	uses(file)
	body := ""
	if resp, err := http.Get("http://" + cfg.API.Listen.String() + "/readyz"); err != nil {
		t.Error(err)
	} else {
		body = string(must(io.ReadAll(resp.Body))(t))
		_ = resp.Body.Close() // it was read
	}
	if !strings.Contains(body, `"warnings":["unsealed"]`) {
		t.Errorf("/readyz: %s", body)
	}
	if code, log := stop(); code != exitFine || !strings.Contains(log, "recordings are not sealed") {
		t.Errorf("exit %d, %s", code, log)
	}

	// A daemon that seals makes no keys of its own beside what others may have sealed,
	// and takes nothing unsealed unless it is told to.
	mustReconfigure(t, file, base, "")
	if out := keysCommand(t, exitFailed, "keys", "rewrap", "-c", file); !strings.Contains(out, "trunktap keys init") {
		t.Errorf("keys were made beside recordings: %s", out)
	}
	keysCommand(t, exitFine, "keys", "init", "-c", file)
	keysCommand(t, exitFailed, "keys", "init", "-c", file)
	out := keysCommand(t, exitFailed, "export", id, "-c", file, "-o", filepath.Join(t.TempDir(), "out.wav"))
	if !strings.Contains(out, "none:unsealed") || !strings.Contains(out, "keys.former") {
		t.Errorf("not named: %s", out)
	}
	mustReconfigure(t, file, base, "keys: {former: [none]}\n")
	uses(file)
	if out := keysCommand(t, exitFine, "keys", "rewrap", "-c", file); !strings.Contains(out, "1 rewrapped") {
		t.Errorf("rewrap: %s", out)
	}
	mustReconfigure(t, file, base, "") // it is not needed any more
	uses(file)
}

// TestProbe: check asks a key service when it is told to, and only then.
func TestProbe(t *testing.T) {
	_, file, _ := mustSite(t)
	base := string(must(os.ReadFile(file))(t))
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("hvs.x"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, file, base+"keys: {mode: vault, tries: 1, vault: {address: \"https://"+freeTCP(t, liveHost).String()+"\", token_file: "+secret+"}}\n")
	if out := keysCommand(t, exitFine, "check", "-c", file); !strings.Contains(out, ": fine") {
		t.Errorf("check: %s", out)
	}
	if out := keysCommand(t, exitFailed, "check", "--probe", "-c", file); !strings.Contains(out, "the key service does not answer") {
		t.Errorf("check --probe: %s", out)
	}
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	if out := keysCommand(t, exitFailed, "check", "-c", file); !strings.Contains(out, "keys.vault.token_file: ") || !bytes.Contains([]byte(out), []byte("this machine lacks")) {
		t.Errorf("check without the file: %s", out)
	}
}
