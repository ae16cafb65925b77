package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// peerPackages are the Debian packages of the programs that tests look for.
var peerPackages = map[string]string{
	"baresip": "baresip-core", "espeak-ng": "espeak-ng", "ffmpeg": "ffmpeg", "flac": "flac", "initdb": "postgresql", "ip": "iproute2",
	"kamailio": "kamailio", "linphonec": "linphone-cli", "openssl": "openssl", "opusdec": "opus-tools", "opusinfo": "opus-tools",
	"sipp": "sip-tester", "softhsm2-util": "softhsm2", "tcpdump": "tcpdump", "tshark": "tshark",
	"systemd-analyze": "", // a machine with systemd has it; no other gets systemd for a test
}

// TestPeersAreInstalled: a test whose peer is missing is skipped without a word in
// what make test prints, so what make deps installs has to have all of them.
func TestPeersAreInstalled(t *testing.T) {
	deps := string(must(os.ReadFile("../../.ci/deps.sh"))(t))
	m := regexp.MustCompile(`(?m)^\s*\[test\]="([^"]*)"`).FindStringSubmatch(deps)
	if m == nil {
		t.Fatal("no packages of the tests in .ci/deps.sh")
	}
	installed, found := strings.Fields(m[1]), map[string]bool{}
	program := regexp.MustCompile(`exec\.LookPath\("([^"]+)"\)`)
	err := filepath.WalkDir("../..", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, "../../cmd/bench") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range program.FindAllSubmatch(text, -1) {
			found[string(m[1])] = true
			pkg, known := peerPackages[string(m[1])]
			if !known {
				t.Errorf("%s looks for %s, of no known package", name, m[1])
			} else if pkg != "" && !slices.Contains(installed, pkg) {
				t.Errorf("%s looks for %s, and .ci/deps.sh does not install %s", name, m[1], pkg)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < len(peerPackages) {
		t.Errorf("only %d of %d programs are looked for: %v", len(found), len(peerPackages), found)
	}
}
