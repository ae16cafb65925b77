package config

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"

	yaml "github.com/goccy/go-yaml"
)

// Example is a commented file with every key. It is written by generate from
// the table; a test holds the two together.
//
//go:embed example.yaml
var Example string

const exampleHead = `# The configuration of trunktap, with every key.
#
# A line that ends in "# default" says what is taken when the key is left out.
# A key that stands in a comment has no fixed default, or is a list that is empty
# unless it is given.
# The smallest working file:
#
#   trunks:
#     - name: carrier-a
#       external: {next_hops: ["sip:198.51.100.10:5060"]}
#       internal: {next_hops: ["sip:10.0.0.5:5060"]}
#
# trunktap check --config FILE names every fault of a file at once. On SIGHUP
# the file is read again: what is marked "at start" waits for a restart, all
# else applies to calls that begin from then on.
`

const docWidth = 100 // columns

// generate writes the example file.
func generate() string {
	var b strings.Builder
	b.WriteString(exampleHead)
	for _, f := range table(&Config{}).fields {
		b.WriteString("\n")
		exampleOf(&b, f, "", false)
	}
	return b.String()
}

// exampleOf writes one key. In a comment everything is commented out.
func exampleOf(b *strings.Builder, n *node, indent string, first bool) {
	lead := indent
	if first {
		lead = strings.TrimSuffix(indent, "  ") + "- "
		indent = lead[:len(lead)-2] + "  "
	}
	if n.kind == listKind && n.proto().kind == objectKind && !n.required && !n.live || n.aside {
		exampleAside(b, n, indent)
		return
	}
	doc := n.doc
	if n.kind == leafKind || n.kind == mapKind || n.kind == listKind && (n.proto().kind == leafKind || n.live) {
		doc += " Allowed: " + n.allowed() + "."
	}
	if n.restart && n.kind != objectKind {
		doc += " At start."
	}
	comment(b, strings.Replace(lead, "- ", "  ", 1), doc)
	switch {
	case n.kind == objectKind:
		fmt.Fprintf(b, "%s%s:\n", lead, n.key)
		for _, f := range n.fields {
			exampleOf(b, f, indent+"  ", false)
		}
	case n.kind == listKind && n.proto().kind == objectKind && !n.live:
		exampleItem(b, n, lead)
	case n.quiet:
		fmt.Fprintf(b, "%s# %s: %s\n", indent, n.key, n.def)
	case n.def != "":
		fmt.Fprintf(b, "%s%s: %s # default\n", lead, n.key, n.def)
	case n.required || n.live:
		fmt.Fprintf(b, "%s%s: %s\n", lead, n.key, n.example)
	default:
		fmt.Fprintf(b, "%s# %s: %s\n", indent, n.key, n.example)
	}
}

// exampleItem writes a list of mappings with one element.
func exampleItem(b *strings.Builder, n *node, lead string) {
	fmt.Fprintf(b, "%s%s:\n", lead, n.key)
	if n.names != nil {
		fmt.Fprintf(b, "%s  %s:\n", lead, n.example)
		for _, f := range n.proto().fields {
			exampleOf(b, f, lead+"    ", false)
		}
		return
	}
	for i, f := range n.proto().fields {
		exampleOf(b, f, strings.Replace(lead, "- ", "  ", 1)+"    ", i == 0)
	}
}

// exampleAside writes a list or an object that may be left out: all of it in a comment.
func exampleAside(b *strings.Builder, n *node, indent string) {
	doc := n.doc
	if n.restart {
		doc += " At start."
	}
	comment(b, indent, doc)
	var item strings.Builder
	if n.kind == listKind {
		exampleItem(&item, n, indent)
	} else {
		whole := *n
		whole.aside, whole.doc = false, ""
		exampleOf(&item, &whole, indent, false)
	}
	for line := range strings.Lines(item.String()) {
		b.WriteString(indent + "# " + strings.TrimPrefix(line, indent))
	}
}

// comment writes words as comment lines of bounded width.
func comment(b *strings.Builder, indent, words string) {
	if words == "" {
		return
	}
	line := indent + "#"
	for _, w := range strings.Fields(words) {
		if len(line)+1+len(w) > docWidth {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + w
	}
	b.WriteString(line + "\n")
}

// defaultValue returns the default of a key as JSON knows it.
func defaultValue(n *node) (any, bool) {
	if n.def == "" {
		return nil, false
	}
	var v any
	if err := yaml.Unmarshal([]byte(n.def), &v); err != nil {
		panic(fmt.Sprintf("config: default of %s: %v", n.key, err))
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("config: default of %s: %v", n.key, err))
	}
	return json.RawMessage(text), true
}
