package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestGoldenScenarioTable holds that the documentation has what TestScenarios finds.
func TestGoldenScenarioTable(t *testing.T) {
	const name = "../../docs/scenarios.md"
	want := scenarioTable(append(scenarios(), recordingSession()))
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := must(os.ReadFile(name))(t)
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(string(got), "\n")); d != "" {
		t.Errorf("%s is not what the scenarios say; go test -run GoldenScenario -update rewrites it (-scenarios +file):\n%s", name, d)
	}
}

// scenarioTable is what the scenarios expect, for people to read.
func scenarioTable(all []scenario) string {
	var b strings.Builder
	b.WriteString(`# What is recorded

Each course of a call with the recordings that it leaves, as TestScenarios plays it through the daemon (19:
TestLiveSIPRECMetadata) and finds it in the store. Times are milliseconds from the answer of the first call. Everybody speaks a tone of their own, in Hz; an
interval has the tones that are heard in it, and nothing else is heard anywhere. All recordings of a course have one
conversation id.

| # | course | recordings | recording | span | external side | internal side | left out |
|---|---|---|---|---|---|---|---|
`)
	for _, sc := range all {
		first := fmt.Sprintf("| %s | %s | %s |", sc.number, sc.title(), sc.count())
		for _, w := range sc.want {
			fmt.Fprintf(&b, "%s %s | %d–%d | %s | %s | %s |\n", first, w, w.from, w.to, spans(w.channels[0]), spans(w.channels[1]), windows(w.windows))
			first = "| | | |"
		}
		if len(sc.want) == 0 {
			fmt.Fprintf(&b, "%s none | | | | |\n", first)
		}
	}
	return b.String()
}

func (sc scenario) title() string {
	out := sc.name
	if len(sc.keys) > 0 {
		out += " (`" + strings.Join(sc.keys, "`, `") + "`)"
	}
	return out
}

// count is how many recordings of each kind there are.
func (sc scenario) count() string {
	var order []string
	n := map[string]int{}
	for _, w := range sc.want {
		kind := string(w.kind)
		if n[kind] == 0 {
			order = append(order, kind)
		}
		n[kind]++
	}
	for i, kind := range order {
		order[i] = fmt.Sprintf("%s %d", kind, n[kind])
	}
	return strings.Join(order, ", ")
}

func spans(list []span) string {
	var out []string
	for _, sp := range list {
		var tones []string
		for _, f := range sp.tones {
			tones = append(tones, f.String())
		}
		out = append(out, fmt.Sprintf("%d–%d %s", sp.from, sp.to, strings.Join(tones, " + ")))
	}
	return strings.Join(out, "<br>")
}

func windows(list []wantWindow) string {
	var out []string
	for _, w := range list {
		text := fmt.Sprintf("%s %d–%d", w.reason, w.from, w.to)
		if w.channel >= 0 {
			text += fmt.Sprintf(", channel %d silent", w.channel)
		}
		out = append(out, text)
	}
	return strings.Join(out, "<br>")
}
