package config

import (
	"os"
	"strings"
	"time"
)

// Audit is the tamper-evident log, and as whom the daemon signs it and what it
// publishes.
type Audit struct {
	Node       string // empty: the machine's name, see NodeName
	KeyFile    string
	Dir        string
	Checkpoint time.Duration
	LocalMax   int64 // bytes of entries that stay on this disk once the store has them
}

// NodeName returns the node's name: as configured, or that of the catalogue, or of the machine, in
// characters that a node's name may have.
func (c *Config) NodeName() string {
	if c.Audit.Node != "" {
		return c.Audit.Node
	}
	host := c.Catalog.Node
	if host == "" {
		var err error
		if host, err = os.Hostname(); err != nil {
			return "node"
		}
	}
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '-'
	}, strings.ToLower(host))
	if name = strings.TrimLeft(name, ".-"); name == "" {
		return "node"
	}
	return name[:min(len(name), nodeNameMax)]
}

const nodeNameMax = 63

func auditNode(target *string) *node {
	const want = "1 to 63 lower-case letters, digits, '-', '_' and '.', not beginning with '.'"
	schema := map[string]any{"type": "string", "pattern": "^[a-z0-9_-][a-z0-9._-]{0,62}$"}
	return leaf(target, want, schema, func(s scalar) (string, *wrong) {
		switch {
		case s.kind != stringScalar:
			return "", wrongf("%v is no text, put it into quotes", s)
		case s.text == "" || len(s.text) > nodeNameMax || s.text[0] == '.' || strings.Trim(s.text, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "":
			return "", wrongf("%v is no name of a node", s)
		}
		return s.text, nil
	})
}

func auditTable(a *Audit) *node {
	return key("audit", "The log of what was published, deleted and accessed, which cannot be altered unseen, and as whom the daemon signs. See docs/evidence.md.", object(
		key("node", "The name of this node, unlike any other's that uses the same storage. Without the key: the machine's name.", auditNode(&a.Node)).
			shown("rec-a"),
		key("key_file", "Its signing keys (Ed25519); made at the first start. Without the key: node-key.json beside the catalogue.", path(&a.KeyFile)).
			shown("/var/lib/trunktap/node-key.json"),
		key("dir", "Where it lies. Without the key: audit beside the catalogue.", path(&a.Dir)).shown("/var/lib/trunktap/audit"),
		key("checkpoint", "How often it is signed, and put into the storage, when there is something new in it.",
			duration(&a.Checkpoint, time.Second, 24*time.Hour)).is("1m"),
		key("local_max", "How much of it stays on this disk once the storage has it; the oldest goes first.",
			size(&a.LocalMax, "32MiB", "1TiB")).is("1GiB"),
	)).atStart()
}
