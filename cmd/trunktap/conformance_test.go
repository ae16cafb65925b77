package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestConformanceNamesTests holds that each test that docs/conformance.md names is there.
func TestConformanceNamesTests(t *testing.T) {
	have := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir("../..", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range function.FindAllSubmatch(text, -1) {
			have[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	doc := string(must(os.ReadFile("../../docs/conformance.md"))(t))
	names := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(doc, -1)
	if len(names) < 50 {
		t.Errorf("%d tests are named", len(names))
	}
	for _, n := range names {
		if !have[n[1]] {
			t.Errorf("docs/conformance.md names %s, which is nowhere", n[1])
		}
	}
	for line := range strings.Lines(doc) {
		if cells := strings.Split(strings.TrimSpace(line), "|"); len(cells) > 5 && strings.HasPrefix(cells[1], " ") &&
			!strings.Contains(cells[4], "`") && !strings.Contains(cells[4], "no test") && !strings.Contains(line, "| test |") {
			t.Errorf("a row without a test does not say so: %s", line)
		}
	}
}
