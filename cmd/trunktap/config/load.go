package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	yaml "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds of the text, checked before it is parsed: the time that the YAML
// parser takes grows with the square of the nesting.
const (
	fileBytesMax = 8 << 20
	signsMax     = 1_500_000 // each begins a token, of which the parser makes about a kilobyte
	nestingMax   = 64
	indentMax    = 128 // columns
)

// Check holds what packages demand that this one does not know. It is called for a
// Config that may have faults: keys that were faulty themselves are zero, and
// another fault at such a key is left out.
type Check func(c *Config, fault func(key, problem, allowed string))

// Load reads a configuration file. Either there are no faults or the Config is nil.
func Load(path string, checks ...Check) (*Config, Faults) {
	data, err := readFile(path)
	if err != nil {
		return nil, Faults{{File: path, Problem: err.Error()}}
	}
	return Parse(path, data, checks...)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unwrapPath(err)
	}
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	if err != nil {
		return nil, unwrapPath(err)
	}
	return data, nil
}

// unwrapPath drops the path from an error, since the fault names it already.
func unwrapPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("cannot be read: %w", p.Err)
	}
	return fmt.Errorf("cannot be read: %w", err)
}

// Parse reads a configuration; file names it in faults.
func Parse(file string, data []byte, checks ...Check) (*Config, Faults) {
	body, faults := syntax(file, data)
	if faults != nil {
		return nil, faults
	}
	c := &Config{}
	root := table(c)
	applyDefaults(root)
	d := &decoder{file: file, at: map[string]position{}, anchors: anchors(body)}
	d.value(root, "", body, 0)
	d.check(c)
	known := d.faults
	for _, check := range checks {
		check(c, func(key, problem, allowed string) {
			if !slices.ContainsFunc(known, func(f Fault) bool { return f.Key == key }) {
				d.faultAt(key, problem, allowed)
			}
		})
	}
	if len(d.faults) > 0 {
		d.faults.sort()
		return nil, d.faults
	}
	c.derive(filepath.Dir(file))
	return c, nil
}

// syntax parses the YAML. A syntax error is reported alone.
func syntax(file string, data []byte) (body ast.Node, faults Faults) {
	one := func(line, column int, problem, allowed string) Faults {
		return Faults{{File: file, Line: line, Column: column, Problem: problem, Allowed: allowed}}
	}
	if len(data) > fileBytesMax {
		return nil, one(0, 0, "the file is too large", "8 MiB")
	}
	if line, problem := nested(data); problem != "" {
		return nil, one(line, 1, problem, "")
	}
	defer func() { // the parser is not ours and panics on some inputs
		if recover() != nil {
			body, faults = nil, one(1, 1, "this is no YAML", "")
		}
	}()
	f, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var e yaml.Error
		if errors.As(err, &e) && e.GetToken() != nil && e.GetToken().Position != nil {
			p := e.GetToken().Position
			return nil, one(max(p.Line, 1), max(p.Column, 1), "YAML syntax: "+e.GetMessage(), "")
		}
		return nil, one(1, 1, "this is no YAML", "")
	}
	var docs []ast.Node
	for _, doc := range f.Docs {
		if doc.Body != nil {
			docs = append(docs, doc.Body)
		}
	}
	switch len(docs) {
	case 0:
		return nil, one(1, 1, "the file is empty", "at least one trunk with its two next_hops")
	case 1:
		return docs[0], nil
	}
	at := where(docs[1])
	return nil, one(at.line, at.column, "a second YAML document begins here", "one document")
}

// nested bounds nesting before the parser sees the text. It counts brackets
// in strings too, which no real file has dozens of.
func nested(data []byte) (line int, problem string) {
	if !utf8.Valid(data) {
		return 1, "the file is not UTF-8"
	}
	open, signs := 0, 0
	for i, text := range strings.Split(string(data), "\n") {
		lead := len(text) - len(strings.TrimLeft(text, " \t-?:!&"))
		if strings.HasPrefix(strings.TrimSpace(text), "#") {
			continue
		}
		for k := range len(text) {
			if strings.IndexByte("[]{},:-?&*!'\"", text[k]) >= 0 {
				signs++
			}
		}
		if signs++; signs > signsMax {
			return i + 1, "the file holds too much"
		}
		open = max(0, open+strings.Count(text, "[")+strings.Count(text, "{"))
		if open > nestingMax || lead > indentMax {
			return i + 1, "the file is nested too deeply"
		}
		open = max(0, open-strings.Count(text, "]")-strings.Count(text, "}"))
	}
	return 0, ""
}

// anchors finds all anchors of a document. Of a name that is given twice the
// last one counts.
func anchors(body ast.Node) map[string]ast.Node {
	found := map[string]ast.Node{}
	for _, n := range ast.Filter(ast.AnchorType, body) {
		if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
			found[a.Name.GetToken().Value] = a
		}
	}
	return found
}

// applyDefaults gives every key below n its default. The table is ours: a
// default that does not parse is a bug.
func applyDefaults(n *node) {
	if n.def != "" {
		body, faults := syntax("default", []byte(n.def))
		d := &decoder{file: "default", at: map[string]position{}}
		if faults == nil {
			d.value(n, "", body, 0)
		}
		if len(faults)+len(d.faults) > 0 {
			panic(fmt.Sprintf("config: default of %s: %v %v", n.key, faults, d.faults))
		}
	}
	for _, f := range n.fields {
		applyDefaults(f)
	}
}
