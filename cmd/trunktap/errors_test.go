package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestErrorsName: what a command says of a fault has the words of its own flags, and
// names what is missing.
func TestErrorsName(t *testing.T) {
	dir := t.TempDir()
	cfg := filepath.Join(dir, "c.yaml")
	mustWrite(t, cfg, fmt.Sprintf("trunks: [{name: a, external: {next_hops: [\"sip:192.0.2.1\"]}, internal: {next_hops: [\"sip:10.0.0.5\"]}}]\n"+
		"storage: {url: \"file://%[1]s/rec\"}\ncatalog: {url: \"sqlite://%[1]s/catalog.db\"}\napi: {listen: none}\n", dir))
	mustRun(t, "rebuild", "-c", cfg) // makes what the others read
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"ls --mos-below x", "--mos-below: allowed: ", exitUsage},
		{"ls --duration-min 3s --duration-max 2s", "--duration-max: less than duration-min", exitUsage},
		{"audit ls", "no audit log yet", exitFailed},
	} {
		r := command(t, append(strings.Fields(c.args), "-c", cfg)...)
		if r.code != c.code || !strings.Contains(r.errOut, c.want) {
			t.Errorf("%s: exit %d, %s%s; want %d, %s", c.args, r.code, r.out, r.errOut, c.code, c.want)
		}
	}
}
