package main

import (
	"os"
	"regexp"
	"testing"
)

// TestRemedies: for every fault that verify finds it says what to do.
func TestRemedies(t *testing.T) {
	// Those are told in notes alone: they are no damage.
	notes := map[string]bool{"no-log": true, "sealed": true, "shredded": true, "deleted": true, "clock": true, "loss": true}
	constant := regexp.MustCompile(`(?m)^\s+Fault\w+\s+= "([a-z-]+)"`)
	n := 0
	for _, file := range []string{"../../recorder/archive/findings.go", "../../recorder/audit/check.go"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range constant.FindAllSubmatch(b, -1) {
			if n++; remedies[string(m[1])] == "" && !notes[string(m[1])] {
				t.Errorf("no remedy for %s", m[1])
			}
		}
	}
	if n < 20 {
		t.Errorf("%d faults: the test would hold nothing", n)
	}
}
