package main

import (
	"fmt"
	"slices"
	"strings"
)

// tables writes the whole report.
func (r *report) tables() tableList {
	out := tableList{r.machineTable()}
	if len(r.Runs) > 0 {
		out = append(out, r.mediaTable(), r.carriedTable())
	}
	if r.Signalling != nil {
		out = append(out, r.Signalling.table())
	}
	if len(r.Pipeline) > 0 {
		out = append(out, pipelineTable(r.Pipeline))
	}
	return append(out, r.goalsTable())
}

func (r *report) machineTable() table {
	m := r.Machine
	t := table{title: "Machine", header: []string{"", ""}, left: 2, cells: [][]string{
		{"processor", strings.TrimSpace(fmt.Sprintf("%d × %s %s", m.Cores, m.CPU, m.Virtual))},
		{"memory", fmt.Sprintf("%d MiB", m.MemoryMiB)},
		{"system", m.System + ", Linux " + m.Kernel},
		{"rtpengine", m.RTPEngine + ", userspace (--table=-1)"},
		{"trunktap", m.Trunktap},
		{"measured", fmt.Sprintf("%s; %d rounds, %s each after %s", r.When.Format("2006-01-02 15:04 MST"), r.Rounds, r.Measure, r.WarmUp)},
		{"idle machine", fmt.Sprintf("%.3f cores, others %.3f", r.Idle.Busy, r.Idle.Foreign)},
	}}
	t.notes = slices.Clone(r.Notes)
	if d := r.disturbed(); d > 0 {
		t.notes = append(t.notes, fmt.Sprintf("Other processes used more than %g core in %.0f %% of the runs: the machine was shared.", foreignMax, 100*d))
	}
	return t
}

// marks names what is to be known of a row.
func (w row) marks() string {
	var out []string
	for _, m := range []struct {
		is   bool
		text string
	}{
		{w.saturated, "S"}, {w.behind, "B"}, {w.lateSender, "G"}, {w.noisy, "N"}, {w.faults > 0, "F"},
	} {
		if m.is {
			out = append(out, m.text)
		}
	}
	return strings.Join(out, " ")
}

func (r *report) mediaTable() table {
	t := table{
		title: "Relay and recording, G.711 20 ms",
		header: []string{
			"calls", "program", "µs CPU/packet", "user", "system", "softirq", "× rtpengine",
			"added p50 µs", "p99 µs", "p99.9 µs", "loss %", "KiB/call", "calls/core", "lost audio ms", "marks",
		},
		left: 2,
		notes: []string{
			"Median of the rounds, in parentheses the smallest and the largest. CPU of the whole machine per relayed packet, less the direct path at the same load. rtpengine is userspace rtpengine in every row.",
			"× rtpengine: against rtpengine doing the same (relay, or relay + pcap) in the same round. calls/core: 100 packets a second a call at that cost.",
			"Marks: S more than 85 % of the machine was in use in a run, B recording was behind when it ended, so that its cost is not all counted, G the generator sent late (p99 above 1 ms), N other processes used more than 0.1 core, F the recordings were not complete in time.",
		},
	}
	for _, w := range r.rows() {
		ratio, audio := "", ""
		if w.ratio.Median > 0 {
			ratio = w.ratio.ranged()
		}
		if w.subject.Program == "trunktap" && w.subject.records() {
			audio = fmt.Sprint(w.overrunMS)
		}
		t.cells = append(t.cells, []string{
			fmt.Sprint(w.calls), w.subject.String(), w.busy.ranged(), number(w.user.Median), number(w.system.Median), number(w.softirq.Median), ratio,
			w.p50.ranged(), w.p99.ranged(), w.p999.ranged(), number(100 * w.loss.Median), number(w.memory.Median), number(w.callsCore.Median), audio, w.marks(),
		})
	}
	return t
}

// carriedTable tells how far each program got.
func (r *report) carriedTable() table {
	t := table{
		title: "Calls that fit this machine, the generator included", header: []string{"program", "calls"}, left: 1,
		notes: []string{"The largest number measured with a loss below 0.1 % and nothing failing."},
	}
	var seen []subject
	for _, w := range r.rows() {
		if !slices.Contains(seen, w.subject) {
			seen = append(seen, w.subject)
			t.cells = append(t.cells, []string{w.subject.String(), fmt.Sprint(r.carriedMax(w.subject))})
		}
	}
	return t
}

func (s *signallingReport) table() table {
	t := table{
		title: "Signalling over UDP",
		header: []string{
			"calls/s", "program", "µs CPU to set up", "µs to end", "calls/s/core", "INVITE added p50 µs", "p99 µs", "180 added p50 µs", "p99 µs", "KiB/call", "repeated", "marks",
		},
		left: 2,
		notes: []string{
			"Less the same parties without anybody between them. The calls have no media; setting up is INVITE, 180, 200, ACK.",
			"A delay below zero, and the mark N (other processes used more than 0.1 core), tell of a machine too busy with other things for these figures.",
		},
	}
	for _, w := range s.rows() {
		marks := ""
		if w.noisy {
			marks = "N"
		}
		t.cells = append(t.cells, []string{
			number(w.rate), w.subject.signallingName(), w.perCall.ranged(), w.hangUp.ranged(), w.perSecondPerCore.ranged(), w.invite50.ranged(), w.invite99.ranged(),
			w.ring50.ranged(), w.ring99.ranged(), number(w.memory.Median), fmt.Sprint(w.repeated), marks,
		})
	}
	return t
}

func pipelineTable(list []goBenchmark) table {
	t := table{
		title: "Go benchmarks beside the code", header: []string{"package", "benchmark", "ns/op", "B/op", "allocs/op", "other"}, left: 2,
		notes: []string{"One short run of each: for changes compare with benchstat."},
	}
	for _, b := range list {
		var other []string
		for unit, v := range b.Values {
			if unit != "ns/op" && unit != "B/op" && unit != "allocs/op" {
				other = append(other, number(v)+" "+unit)
			}
		}
		slices.Sort(other)
		t.cells = append(t.cells, []string{
			b.Package, b.Name, number(b.Values["ns/op"]), fmt.Sprint(b.Values["B/op"]), fmt.Sprint(b.Values["allocs/op"]), strings.Join(other, ", "),
		})
	}
	return t
}
