package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// table is one table of the report.
type table struct {
	title  string
	notes  []string // below it
	header []string
	left   int // so many columns are text
	cells  [][]string
}

type tableList []table

// text writes the tables for a terminal.
func (l tableList) text() string {
	var b strings.Builder
	for _, t := range l {
		fmt.Fprintf(&b, "\n%s\n\n", t.title)
		widths := make([]int, len(t.header))
		all := append([][]string{t.header}, t.cells...)
		for _, line := range all {
			for i, c := range line {
				widths[i] = max(widths[i], utf8.RuneCountInString(c))
			}
		}
		for _, line := range all {
			var out strings.Builder
			for i, c := range line {
				pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
				if i < t.left {
					out.WriteString(c + pad + "  ")
				} else {
					out.WriteString(pad + c + "  ")
				}
			}
			b.WriteString(strings.TrimRight(out.String(), " ") + "\n")
		}
		for _, n := range t.notes {
			fmt.Fprintf(&b, "  %s\n", n)
		}
	}
	return b.String()
}

// markdown writes the same for a page of the documentation.
func (l tableList) markdown() string {
	var b strings.Builder
	for _, t := range l {
		fmt.Fprintf(&b, "## %s\n\n| %s |\n|", t.title, strings.Join(t.header, " | "))
		for i := range t.header {
			if i < t.left {
				b.WriteString("---|")
			} else {
				b.WriteString("---:|")
			}
		}
		b.WriteString("\n")
		for _, line := range t.cells {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
		}
		b.WriteString("\n")
		for _, n := range t.notes {
			fmt.Fprintf(&b, "- %s\n", n)
		}
		if len(t.notes) > 0 {
			b.WriteString("\n")
		}
	}
	return b.String()
}

// Marks in a page between which the results stand.
const (
	resultsBegin = "<!-- results -->\n"
	resultsEnd   = "<!-- end of results -->\n"
)

// insertResults puts results into a page in the place of the ones before; all of
// a page without marks is replaced.
func insertResults(page, results string) string {
	before, rest, ok := strings.Cut(page, resultsBegin)
	_, after, ended := strings.Cut(rest, resultsEnd)
	if !ok || !ended {
		return results
	}
	return before + resultsBegin + "\n" + results + resultsEnd + after
}

// number writes a figure with three digits that matter.
func number(f float64) string {
	switch a := max(f, -f); {
	case a >= 100:
		return fmt.Sprintf("%.0f", f)
	case a >= 10:
		return fmt.Sprintf("%.1f", f)
	default:
		return fmt.Sprintf("%.2f", f)
	}
}

// ranged writes a median with its extremes, when there are any.
func (s spread) ranged() string {
	if number(s.Min) == number(s.Max) {
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.Median), number(s.Min), number(s.Max))
}
