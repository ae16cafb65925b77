package config

import (
	"strings"
	"testing"
	"time"
)

func TestAudit(t *testing.T) {
	c := mustParse(t, minimal+"audit: {node: rec-a.example, key_file: /etc/trunktap/node.json, dir: /srv/audit, checkpoint: 5s, local_max: 64MiB}\n")
	if c.NodeName() != "rec-a.example" || c.Audit != (Audit{"rec-a.example", "/etc/trunktap/node.json", "/srv/audit", 5 * time.Second, 64 << 20}) {
		t.Errorf("%+v", c.Audit)
	}
	if name := mustParse(t, minimal).NodeName(); name == "" || len(name) > nodeNameMax || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
		t.Errorf("of the machine: %q", name)
	}
	for _, bad := range []string{"audit: {node: Rec}", "audit: {node: ''}", "audit: {node: .x}", "audit: {node: 7}", "audit: {checkpoint: 0s}", "audit: {local_max: 1KiB}", "audit: {dir: x}"} {
		if _, faults := Parse("x.yaml", []byte(minimal+bad+"\n")); len(faults) != 1 || faults[0].Line == 0 {
			t.Errorf("%s: %v", bad, faults)
		}
	}
}
