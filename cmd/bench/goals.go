package main

import (
	"fmt"
	"slices"
	"strings"
)

// goal is one line of what we aim at.
type goal struct {
	what, aim, measured string
	met                 bool
	known               bool
}

func (g goal) cells() []string {
	verdict := "not measured"
	switch {
	case g.known && g.met:
		verdict = "met"
	case g.known:
		verdict = "not met"
	}
	return []string{g.what, g.aim, g.measured, verdict}
}

// goalsTable compares what was measured with what we aim at.
func (r *report) goalsTable() table {
	t := table{title: "Goals", header: []string{"", "goal", "measured", ""}, left: 4}
	for _, g := range r.goals() {
		t.cells = append(t.cells, g.cells())
	}
	return t
}

func (r *report) goals() []goal {
	rows := map[string]row{}
	for _, w := range r.rows() {
		rows[fmt.Sprint(w.subject, w.calls)] = w
	}
	at := func(s subject, calls int) (row, bool) {
		w, ok := rows[fmt.Sprint(s, calls)]
		return w, ok
	}
	kernel, user := subject{"trunktap", "kernel", "wav-pcmu"}, subject{"trunktap", "user", ""}
	out := kernelGoals(at, kernel)
	out = append(out, r.perCoreGoals()...)
	g := goal{what: "user engine, relay: CPU against userspace rtpengine, 500 calls; p99 not above its", aim: "≤ 0.9"}
	if w, ok := at(user, 500); ok {
		p, _ := at(user.peer(), 500)
		g.known, g.met = true, w.ratio.Median <= 0.9 && w.p99.Median <= p.p99.Median
		g.measured = fmt.Sprintf("%s; %s against %s µs", number(w.ratio.Median), number(w.p99.Median), number(p.p99.Median))
	}
	out = append(out, g)
	out = append(out, r.recordingGoals(at)...)
	return append(out, r.signallingGoals()...)
}

// kernelGoals are those of the kernel engine with recording.
func kernelGoals(at func(subject, int) (row, bool), s subject) (out []goal) {
	for _, c := range []struct {
		calls int
		aim   float64
	}{{100, 0.1}, {500, 0.2}, {1000, 0.2}} {
		g := goal{what: fmt.Sprintf("kernel engine, relay + sealed G.711: CPU against userspace rtpengine + pcap, %d calls", c.calls), aim: "≤ " + number(c.aim)}
		l := goal{what: fmt.Sprintf("the same, added latency p99 / p99.9, %d calls", c.calls), aim: "≤ 20 / ≤ 150 µs"}
		if w, ok := at(s, c.calls); ok {
			g.known, g.met, g.measured = w.ratio.Median > 0, w.ratio.Median <= c.aim, number(w.ratio.Median)
			l.known, l.met = true, w.p99.Median <= 20 && w.p999.Median <= 150
			l.measured = fmt.Sprintf("%s / %s µs", number(w.p99.Median), number(w.p999.Median))
		}
		out = append(out, g, l)
	}
	return out
}

// perCoreGoals take the best that any engine and any number of calls gave with
// nothing lost or put off.
func (r *report) perCoreGoals() (out []goal) {
	for _, c := range []struct {
		what, format string
		aim          float64
	}{{"recorded G.711 calls per core, no loss", "wav-pcmu", 2000}, {"recorded to live Opus, calls per core", "ogg-opus", 300}} {
		g := goal{what: c.what, aim: "≥ " + number(c.aim)}
		var best row
		for _, w := range r.rows() {
			sound := w.loss.Max <= lossMax && w.overrunMS == 0 && !w.saturated && !w.behind && w.faults == 0
			if w.subject.Format == c.format && w.subject.Program == "trunktap" && sound && w.callsCore.Median > best.callsCore.Median {
				best = w
			}
		}
		if best.rounds > 0 {
			g.known, g.met = true, best.callsCore.Median >= c.aim
			g.measured = fmt.Sprintf("%s (%s engine, from %d calls)", number(best.callsCore.Median), best.subject.Engine, best.calls)
		}
		out = append(out, g)
	}
	return out
}

// ringsKiB is what the tap rings of a call of G.711 take: one for about 4 s of each side.
const ringsKiB = 78

// recordingGoals compare recording on with off, and tell of memory.
func (r *report) recordingGoals(at func(subject, int) (row, bool)) []goal {
	on := goal{what: "p99 added by the relay, recording on against off, 500 calls", aim: "the same"}
	memory := goal{what: fmt.Sprintf("memory per recorded call beyond its rings (%d KiB)", ringsKiB), aim: "≤ 64 KiB"}
	var texts []string
	for _, engine := range []string{"user", "kernel"} {
		off, ok1 := at(subject{"trunktap", engine, ""}, 500)
		with, ok2 := at(subject{"trunktap", engine, "wav-pcmu"}, 500)
		if ok1 && ok2 {
			// Within noise: the ranges of the rounds overlap.
			same := with.p99.Min <= off.p99.Max
			on.met = same && (on.met || !on.known)
			on.known = true
			texts = append(texts, fmt.Sprintf("%s: %s against %s µs", engine, with.p99.ranged(), off.p99.ranged()))
		}
		if w, ok := at(subject{"trunktap", engine, "wav-pcmu"}, 1000); ok {
			beyond := w.memory.Median - ringsKiB
			memory.met = beyond <= 64 && (memory.met || !memory.known)
			memory.known = true
			memory.measured = strings.TrimPrefix(memory.measured+", "+engine+": "+number(beyond)+" KiB", ", ")
		}
	}
	on.measured = strings.Join(texts, "; ")
	allocs := goal{what: "allocations per packet in relay and pipeline", aim: "0"}
	for _, b := range r.Pipeline {
		if slices.Contains([]string{"Serve", "Pipeline", "Ring", "PushPop", "AppendSeal"}, strings.SplitN(b.Name, "/", 2)[0]) {
			n := b.Values["allocs/op"]
			allocs.met = n == 0 && (allocs.met || !allocs.known)
			allocs.known = true
			if n > 0 {
				allocs.measured += fmt.Sprintf("%s/%s: %.0f ", b.Package, b.Name, n)
			}
		}
	}
	if allocs.met {
		allocs.measured = "0"
	}
	return []goal{on, allocs, memory}
}

// signallingGoals take the cost of a call where the machine is loaded.
func (r *report) signallingGoals() (out []goal) {
	const rateText, delayText = "calls set up per second per core, %s", "post-dial delay added, p99 of INVITE + p99 of 180, %s, %s calls/s"
	if r.Signalling == nil {
		return []goal{{what: fmt.Sprintf(rateText, "recorded"), aim: "≥ 1000"}, {what: fmt.Sprintf(delayText, "recorded", "500"), aim: "≤ 2 ms"}}
	}
	rates := map[string]goal{}
	for _, w := range r.Signalling.rows() {
		how := "not recorded"
		if w.subject.records() {
			how = "recorded"
		}
		sum := (w.invite99.Median + w.ring99.Median) / 1000
		rates[how] = goal{
			what: fmt.Sprintf(rateText, how), aim: "≥ 1000", known: true, met: w.perSecondPerCore.Median >= 1000,
			measured: fmt.Sprintf("%s (at %s/s)", number(w.perSecondPerCore.Median), number(w.rate)),
		}
		out = append(out, goal{
			what: fmt.Sprintf(delayText, how, number(w.rate)), aim: "≤ 2 ms",
			known: true, met: sum <= 2, measured: number(sum) + " ms",
		})
	}
	for _, how := range []string{"not recorded", "recorded"} {
		if g, ok := rates[how]; ok {
			out = append([]goal{g}, out...)
		}
	}
	return out
}
