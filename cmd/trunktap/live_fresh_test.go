package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder/segment"
)

// TestFreshMachine: a node's machine is lost; store and keys alone go to another one,
// where a daemon goes on, with the node's signing keys, or without them under another
// name. What was signed before stays proved.
func TestFreshMachine(t *testing.T) {
	lost, file, _ := mustSite(t)
	base := string(must(os.ReadFile(file))(t))
	cfg := mustReconfigure(t, file, base, "audit: {node: rec-a}\n")
	id := mustRecord(t, lost, cfg)
	linkLater(t, cfg, id)
	stop := serving(t, file, cfg)
	await(t, "the recording's link", func() bool {
		return strings.Contains(keysCommand(t, exitFine, "audit", "ls", "--kind", "recording.published", "-c", file), id)
	})
	key := strings.TrimSpace(keysCommand(t, exitFine, "audit", "keys", "-c", file))
	if code, log := stop(); code != exitFine {
		t.Fatal(log)
	}
	for _, c := range []struct {
		name, node string
		signing    bool // its signing keys were kept
	}{
		{"with the signing keys", "rec-a", true},
		{"without them, under another name", "rec-b", false},
		{"without them, under the same name", "rec-a", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, file, _ := mustSite(t)
			base := string(must(os.ReadFile(file))(t))
			cfg := mustReconfigure(t, file, base, "audit: {node: "+c.node+"}\n")
			if err := os.CopyFS(cfg.Storage.Dir, os.DirFS(filepath.Join(lost, "recordings"))); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"keys.json", "node-key.json"} {
				if name == "keys.json" || c.signing {
					if err := os.WriteFile(filepath.Join(dir, name), must(os.ReadFile(filepath.Join(lost, name)))(t), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			keysCommand(t, exitFine, "rebuild", "-c", file)
			stop := serving(t, file, cfg)
			fine := func(args ...string) {
				t.Helper()
				if out := keysCommand(t, exitFine, append(args, "-c", file)...); args[0] == "verify" && !strings.Contains(out, "1 recordings") {
					t.Error(out)
				}
			}
			fine("verify")
			fine("verify", id)
			fine("export", id, "-o", filepath.Join(dir, "out.wav"))
			fine("export", id, "--bundle", "-o", filepath.Join(dir, "out.zip"))
			if code, log := stop(); code != exitFine {
				t.Fatal(log)
			}
			fine("verify", "--offline", "--key", key)
			fine("verify", "--offline", id)
			code := exitFine
			if !c.signing {
				code = exitUnread // nobody here can sign for what is made for listening
			}
			keysCommand(t, code, "verify", filepath.Join(dir, "out.zip"), "--key", key)
		})
	}
}

// linkLater leaves a recording as if the log could not have been written when it was
// published: the daemon gives it its link.
func linkLater(t *testing.T, cfg *config.Config, id string) {
	t.Helper()
	prefix := ""
	err := filepath.WalkDir(cfg.Storage.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == segment.ManifestFile {
			prefix, err = filepath.Rel(cfg.Storage.Dir, filepath.Dir(path))
		}
		return err
	})
	if err == nil {
		err = os.MkdirAll(filepath.Join(cfg.Storage.Spool, "unlinked"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	note := must(json.Marshal(map[string]string{"recording": id, "prefix": filepath.ToSlash(prefix)}))(t)
	mustWrite(t, filepath.Join(cfg.Storage.Spool, "unlinked", id+".json"), string(note))
}
