package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/recorder/api"
)

// eventWords are what events may be called by their families; whatever else has
// such a name is no event.
var (
	eventWords = regexp.MustCompile(`^(call|segment|recording|storage|store|upload|key|next_hop)\.[a-z_]+$`)
	noEvents   = []string{".json", ".key", ".hold", ".flac", ".ogg", ".trm", ".wav"} // they end the names of files
)

// emitted collects the kinds of events that occur in the sources. Those of the audit
// log are another vocabulary.
func emitted(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	for _, root := range []string{".", "../../recorder"} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if e.IsDir() && (e.Name() == "testdata" || e.Name() == "config" || e.Name() == "audit") || !e.IsDir() && filepath.Base(path) == "describe.go" {
				if e.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
			if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BasicLit:
					if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING && eventWords.MatchString(s) && !slices.Contains(noEvents, filepath.Ext(s)) {
						found[s] = true
					}
				case *ast.CompositeLit: // those of one word
					if s := typeOfEvent(n); s != "" {
						found[s] = true
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var kinds []string
	for k := range found {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	return kinds
}

// typeOfEvent is the Type of an Event literal.
func typeOfEvent(c *ast.CompositeLit) string {
	name, ok := c.Type.(*ast.Ident)
	if sel, is := c.Type.(*ast.SelectorExpr); is {
		name, ok = sel.Sel, true
	}
	if !ok || name.Name != "Event" {
		return ""
	}
	for _, e := range c.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		if key, ok := kv.Key.(*ast.Ident); !ok || key.Name != "Type" {
			continue
		}
		if lit, ok := kv.Value.(*ast.BasicLit); ok {
			s, _ := strconv.Unquote(lit.Value) // it was parsed
			return s
		}
	}
	return ""
}

// TestEventsAreDescribed: each kind of event that the sources know is described in
// the API, and nothing else is.
func TestEventsAreDescribed(t *testing.T) {
	var described []string
	for _, e := range api.Events {
		described = append(described, strings.Split(e.Kinds, ", ")...)
	}
	slices.Sort(described)
	got := emitted(t)
	for _, k := range got {
		if !slices.Contains(described, k) {
			t.Errorf("%s is told and not described: recorder/api Events", k)
		}
	}
	for _, k := range described {
		if !slices.Contains(got, k) {
			t.Errorf("%s is described and never told", k)
		}
	}
	if len(got) < 20 {
		t.Errorf("%d kinds were found: %v", len(got), got)
	}
}
