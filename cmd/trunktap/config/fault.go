package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a configuration file.
type Fault struct {
	File    string
	Line    int    // from 1; 0: the file as a whole
	Column  int    // from 1, in characters
	Key     string // path of the key: "trunks[0].recording.format"; empty: the file
	Problem string // what is wrong
	Allowed string // what is allowed there; may be empty
}

// String returns the fault as file:line:column: key: what; allowed: what is
// allowed.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	if f.Key != "" {
		b.WriteString(": " + f.Key)
	}
	b.WriteString(": " + f.Problem)
	if f.Allowed != "" {
		b.WriteString("; allowed: " + f.Allowed)
	}
	return b.String()
}

// Faults are all faults of a file in the order of their positions.
type Faults []Fault

// Error returns one fault a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, x := range f {
		lines[i] = x.String()
	}
	return strings.Join(lines, "\n")
}

func (f Faults) sort() {
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// wrong is what the parser of a value returns. What is allowed, the table says.
type wrong struct{ problem string }

func (w *wrong) Error() string { return w.problem }

func wrongf(format string, a ...any) *wrong { return &wrong{problem: fmt.Sprintf(format, a...)} }

func unsupported(what string) *wrong { return wrongf("%s is not supported by this version", what) }
