package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// report is everything that a benchmark found; the JSON output.
type report struct {
	When       time.Time         `json:"when"`
	Machine    machine           `json:"machine"`
	Rounds     int               `json:"rounds"`
	WarmUp     string            `json:"warm_up"`
	Measure    string            `json:"measure"`
	Idle       usage             `json:"idle"` // of the machine, before anything ran
	Notes      []string          `json:"notes"`
	Runs       []*result         `json:"runs"`
	Signalling *signallingReport `json:"signalling,omitempty"`
	Pipeline   []goBenchmark     `json:"pipeline,omitempty"`
}

func (r *report) note(format string, a ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, a...)) }

// machine describes where the figures come from.
type machine struct {
	CPU       string `json:"cpu"`
	Cores     int    `json:"cores"`
	MemoryMiB int    `json:"memory_mib"`
	Kernel    string `json:"kernel"`
	System    string `json:"system"`
	Virtual   string `json:"virtual"` // the hypervisor, when /proc/cpuinfo tells of one
	RTPEngine string `json:"rtpengine"`
	Trunktap  string `json:"trunktap"`
	Go        string `json:"go"`
}

// traffic is what the generator saw in the window.
type traffic struct {
	Sent      uint64  `json:"sent"`
	Unsent    uint64  `json:"unsent"` // not taken by the kernel
	Received  uint64  `json:"received"`
	Duplicate uint64  `json:"duplicate"`
	Reordered uint64  `json:"reordered"`
	Damaged   uint64  `json:"damaged"`               // wrong checksum, or at the wrong port
	RingDrops uint64  `json:"ring_drops"`            // lost by the receiver itself
	Late99    float64 `json:"generator_late_p99_us"` // how late packets were sent
	LateMax   float64 `json:"generator_late_max_us"`

	latency histogram
}

// recorded is what a run left behind.
type recorded struct {
	Files     int            `json:"files"`
	AudioMS   int64          `json:"audio_ms,omitempty"`
	Bytes     int64          `json:"bytes"`
	GapMS     map[string]int `json:"gap_ms,omitempty"` // by cause, over both channels
	OverrunMS int            `json:"overrun_ms"`       // gaps that the recorder itself is to blame for
}

// result is one measured run.
type result struct {
	Subject subject  `json:"subject"`
	Calls   int      `json:"calls"`
	Round   int      `json:"round"`
	Seconds float64  `json:"seconds"`
	Usage   usage    `json:"usage"` // of the machine, the generator included
	Traffic *traffic `json:"traffic"`

	// Latency from the packet's time of sending to its arrival, in microseconds.
	P50  float64 `json:"latency_p50_us"`
	P99  float64 `json:"latency_p99_us"`
	P999 float64 `json:"latency_p999_us"`

	SetUpSeconds float64  `json:"set_up_seconds"`
	IdleBytes    int64    `json:"resident_idle_bytes"` // of the program before the calls
	LoadBytes    int64    `json:"resident_load_bytes"` // at the end of the window
	Behind       float64  `json:"behind_cores"`        // what the program used when nothing had come for a while
	Recorded     recorded `json:"recorded"`
	Fault        string   `json:"fault,omitempty"` // what did not work, though there are figures
}

// loss is the share of packets that did not arrive.
func (r *result) loss() float64 {
	if r.Traffic.Sent == 0 {
		return 1
	}
	return max(0, float64(r.Traffic.Sent)-float64(r.Traffic.Received)) / float64(r.Traffic.Sent)
}

// cost is what a run says once the direct path of its round is taken away.
type cost struct {
	perPacket      usage // CPU microseconds per relayed packet
	p50, p99, p999 float64
	loss           float64
	memoryBytes    float64 // a call
	ratio          float64 // to rtpengine doing the same in the same round; 0: unknown
}

// find returns the run of a subject in a round.
func (r *report) find(s subject, calls, round int) *result {
	for _, x := range r.Runs {
		if x.Subject == s && x.Calls == calls && x.Round == round {
			return x
		}
	}
	return nil
}

// costOf computes the cost of a run; false without a direct run to compare with.
func (r *report) costOf(x *result) (cost, bool) {
	base := r.find(subject{Program: directName}, x.Calls, x.Round)
	if base == nil || x.Seconds == 0 || x.loss() > collapsedFrom {
		return cost{}, false
	}
	packets := float64(x.Traffic.Received) / x.Seconds
	c := cost{
		perPacket: x.Usage.minus(base.Usage).times(1e6 / packets),
		p50:       max(0, x.P50-base.P50), p99: max(0, x.P99-base.P99), p999: max(0, x.P999-base.P999),
		loss: x.loss(), memoryBytes: float64(x.LoadBytes-x.IdleBytes) / float64(x.Calls),
	}
	if peer := r.find(x.Subject.peer(), x.Calls, x.Round); peer != nil && peer != x {
		if p, ok := r.costOf(peer); ok && p.perPacket.Busy > 0 {
			c.ratio = c.perPacket.Busy / p.perPacket.Busy
		}
	}
	return c, true
}

// row sums up the rounds of one subject at one number of calls.
type row struct {
	subject                      subject
	calls, rounds                int
	busy, user, system, softirq  spread // CPU microseconds per packet
	ratio, p50, p99, p999        spread
	loss, memory, callsCore      spread
	overrunMS                    int
	saturated, lateSender, noisy bool
	behind                       bool
	faults                       int
}

// rows sums everything up, in the order of calls and subjects.
func (r *report) rows() []row {
	type key struct {
		s     subject
		calls int
	}
	runs := map[key][]*result{}
	var keys []key
	for _, x := range r.Runs {
		k := key{x.Subject, x.Calls}
		if x.Subject.direct() {
			continue
		}
		if runs[k] == nil {
			keys = append(keys, k)
		}
		runs[k] = append(runs[k], x)
	}
	order := subjects([]string{"user", "kernel", "auto"})
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.calls, b.calls), cmp.Compare(slices.Index(order, a.s), slices.Index(order, b.s)))
	})
	var out []row
	for _, k := range keys {
		if sum, ok := r.sumUp(runs[k]); ok {
			out = append(out, sum)
		}
	}
	return out
}

// sumUp makes a row of the runs of one subject.
func (r *report) sumUp(runs []*result) (row, bool) {
	out := row{subject: runs[0].Subject, calls: runs[0].Calls}
	var costs []cost
	for _, x := range runs {
		c, ok := r.costOf(x)
		if !ok {
			continue
		}
		costs = append(costs, c)
		out.overrunMS += x.Recorded.OverrunMS
		out.saturated = out.saturated || x.Usage.Busy > saturatedFrom*float64(r.Machine.Cores)
		out.behind = out.behind || x.Behind > behindFrom
		out.lateSender = out.lateSender || x.Traffic.Late99 > lateFrom
		out.noisy = out.noisy || x.Usage.Foreign > foreignMax
		if x.Fault != "" {
			out.faults++
		}
	}
	out.rounds = len(costs)
	of := func(f func(cost) float64) spread {
		var v []float64
		for _, c := range costs {
			v = append(v, f(c))
		}
		return spreadOf(v)
	}
	out.busy, out.user = of(func(c cost) float64 { return c.perPacket.Busy }), of(func(c cost) float64 { return c.perPacket.User })
	out.system, out.softirq = of(func(c cost) float64 { return c.perPacket.System }), of(func(c cost) float64 { return c.perPacket.Softirq })
	out.ratio = of(func(c cost) float64 { return c.ratio })
	out.p50, out.p99, out.p999 = of(func(c cost) float64 { return c.p50 }), of(func(c cost) float64 { return c.p99 }), of(func(c cost) float64 { return c.p999 })
	out.loss, out.memory = of(func(c cost) float64 { return c.loss }), of(func(c cost) float64 { return c.memoryBytes / 1024 })
	out.callsCore = of(func(c cost) float64 { return 1e6 / (packetsPerSecond * max(c.perPacket.Busy, 0.01)) })
	return out, len(costs) > 0
}

// Limits from which on a figure is marked.
const (
	saturatedFrom = 0.85 // of all cores; beyond, something already waits
	lateFrom      = 1000 // microseconds by which the generator sent its packets too late, p99
	foreignMax    = 0.10 // cores of foreign processes; such a run is repeated
	behindFrom    = 0.25 // cores still used a second after the last packet: work was put off
	lossMax       = 0.001
	collapsedFrom = 0.5 // loss from which on the other figures mean nothing
)

// disturbed is the share of the runs during which other processes used the machine.
func (r *report) disturbed() float64 {
	n := 0
	for _, x := range r.Runs {
		if x.Usage.Foreign > foreignMax {
			n++
		}
	}
	return float64(n) / float64(max(1, len(r.Runs)))
}

// carried tells whether the subject carried so many calls in all rounds.
func (r *report) carried(s subject, calls int) bool {
	n := 0
	for _, x := range r.Runs {
		if x.Subject != s || x.Calls != calls {
			continue
		}
		n++
		if x.loss() > lossMax || x.Fault != "" {
			return false
		}
	}
	return n > 0
}

// carriedMax is the largest number of calls that a subject carried.
func (r *report) carriedMax(s subject) int {
	best := 0
	for _, x := range r.Runs {
		if x.Subject == s && x.Calls > best && r.carried(s, x.Calls) {
			best = x.Calls
		}
	}
	return best
}

// signallingReport is what setting calls up costs.
type signallingReport struct {
	Runs []*signallingResult `json:"runs"`
}

// signallingResult is one run of it.
type signallingResult struct {
	Subject   subject `json:"subject"`
	Round     int     `json:"round"`
	Rate      float64 `json:"rate"` // calls a second
	Calls     int     `json:"calls"`
	SetUp     usage   `json:"set_up"`        // cores at the rate, the parties included
	HangUp    usage   `json:"hang_up"`       // the same of ending the calls
	InviteP50 float64 `json:"invite_p50_us"` // from the caller to the callee
	InviteP99 float64 `json:"invite_p99_us"`
	RingP50   float64 `json:"ring_p50_us"` // from the callee to the caller
	RingP99   float64 `json:"ring_p99_us"`
	Repeated  int     `json:"repeated"`            // requests that were sent again
	IdleBytes int64   `json:"resident_idle_bytes"` // as in result
	LoadBytes int64   `json:"resident_load_bytes"`
}

// signallingRow sums up the rounds of one subject.
type signallingRow struct {
	subject          subject
	rate             float64
	perCall, hangUp  spread // CPU microseconds
	perSecondPerCore spread // calls set up
	invite50         spread // added, microseconds
	invite99, ring50 spread
	ring99, memory   spread // memory in KiB
	repeated         int
	noisy            bool
}

// rows sums up what was measured, by rate and subject.
func (s *signallingReport) rows() []signallingRow {
	var out []signallingRow
	for _, x := range s.Runs {
		known := slices.ContainsFunc(out, func(w signallingRow) bool { return w.rate == x.Rate && w.subject == x.Subject })
		if !x.Subject.direct() && !known {
			out = append(out, s.sumUp(x.Subject, x.Rate))
		}
	}
	return out
}

// sumUp compares each run with the direct one of its round.
func (s *signallingReport) sumUp(subj subject, rate float64) signallingRow {
	v := map[string][]float64{}
	row := signallingRow{subject: subj, rate: rate}
	for _, x := range s.Runs {
		i := slices.IndexFunc(s.Runs, func(d *signallingResult) bool {
			return d.Subject.direct() && d.Round == x.Round && d.Rate == x.Rate
		})
		if x.Subject != subj || x.Rate != rate || i < 0 {
			continue
		}
		d := s.Runs[i]
		add := func(name string, f float64) { v[name] = append(v[name], f) }
		setUp := 1e6 * (x.SetUp.Busy - d.SetUp.Busy) / rate
		add("setup", setUp)
		add("hangup", 1e6*(x.HangUp.Busy-d.HangUp.Busy)/rate)
		add("rate", 1e6/max(setUp, 1))
		add("i50", x.InviteP50-d.InviteP50)
		add("i99", x.InviteP99-d.InviteP99)
		add("r50", x.RingP50-d.RingP50)
		add("r99", x.RingP99-d.RingP99)
		add("memory", float64(x.LoadBytes-x.IdleBytes)/float64(x.Calls)/1024)
		row.repeated += x.Repeated
		row.noisy = row.noisy || max(x.SetUp.Foreign, d.SetUp.Foreign) > foreignMax
	}
	row.perCall, row.hangUp, row.perSecondPerCore = spreadOf(v["setup"]), spreadOf(v["hangup"]), spreadOf(v["rate"])
	row.invite50, row.invite99 = spreadOf(v["i50"]), spreadOf(v["i99"])
	row.ring50, row.ring99, row.memory = spreadOf(v["r50"]), spreadOf(v["r99"]), spreadOf(v["memory"])
	return row
}
