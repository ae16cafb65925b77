package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// runOf is a run of 10 s that used so many cores and lost so many of its packets.
func runOf(s subject, calls, round int, busy, p99 float64, lost uint64) *result {
	sent := uint64(calls) * packetsPerSecond * 10
	return &result{
		Subject: s, Calls: calls, Round: round, Seconds: 10, P50: p99 / 10, P99: p99, P999: 2 * p99,
		Usage:     usage{Busy: busy, User: busy / 2, System: busy / 4, Softirq: busy / 4},
		Traffic:   &traffic{Sent: sent, Received: sent - lost},
		IdleBytes: 1 << 20, LoadBytes: 1<<20 + int64(calls)*32<<10,
	}
}

// sampleReport has two rounds of rtpengine and the kernel engine at 100 calls:
// 10 000 packets a second, so 0.1 core is 10 µs a packet.
func sampleReport() *report {
	kernel, direct := subject{"trunktap", "kernel", "wav-pcmu"}, subject{Program: directName}
	return &report{
		Machine: machine{Cores: 2, CPU: "test"}, Rounds: 2,
		Runs: []*result{
			runOf(direct, 100, 1, 0.05, 10, 0), runOf(kernel.peer(), 100, 1, 0.85, 1010, 0), runOf(kernel, 100, 1, 0.11, 25, 0),
			runOf(direct, 100, 2, 0.05, 10, 0), runOf(kernel.peer(), 100, 2, 0.65, 2010, 0), runOf(kernel, 100, 2, 0.13, 25, 0),
		},
		Signalling: &signallingReport{Runs: []*signallingResult{
			{Subject: direct, Round: 1, Rate: 500, Calls: 3000, SetUp: usage{Busy: 0.1}, InviteP99: 100, RingP99: 100},
			{
				Subject: subject{Program: "trunktap", Format: "wav-pcmu"}, Round: 1, Rate: 500, Calls: 3000, SetUp: usage{Busy: 0.35},
				InviteP99: 700, RingP99: 500, LoadBytes: 3000 << 10,
			},
		}},
		Pipeline: parseGoBenchmarks(goBenchText),
	}
}

const goBenchText = `goos: linux
pkg: github.com/trunktap/trunktap/recorder
BenchmarkPipeline/wav-pcmu-2         	   10000	      2164 ns/op	 147.86 MB/s	       0 B/op	       0 allocs/op
PASS
ok  	github.com/trunktap/trunktap/recorder	1.2s
pkg: github.com/trunktap/trunktap/media
BenchmarkRing 	   10000	      12.5 ns/op	       0 B/op	       1 allocs/op
BenchmarkBroken	x
`

func TestParseGoBenchmarks(t *testing.T) {
	want := []goBenchmark{
		{"recorder", "Pipeline/wav-pcmu", map[string]float64{"ns/op": 2164, "MB/s": 147.86, "B/op": 0, "allocs/op": 0}},
		{"media", "Ring", map[string]float64{"ns/op": 12.5, "B/op": 0, "allocs/op": 1}},
	}
	if d := cmp.Diff(want, parseGoBenchmarks(goBenchText)); d != "" {
		t.Error(d)
	}
}

func TestRows(t *testing.T) {
	rows := sampleReport().rows()
	if len(rows) != 2 {
		t.Fatalf("%d rows", len(rows))
	}
	peer, kernel := rows[0], rows[1]
	if !near(peer.busy.Median, 70) || !near(peer.busy.Min, 60) || !near(peer.busy.Max, 80) || peer.ratio.Median != 0 {
		t.Errorf("%+v", peer)
	}
	if !near(kernel.busy.Median, 7) || !near(kernel.ratio.Min, 6.0/80) || !near(kernel.ratio.Max, 8.0/60) || !near(kernel.p99.Median, 15) {
		t.Errorf("%+v", kernel)
	}
	if !near(kernel.callsCore.Median, (1e6/600+1e6/800)/2) || !near(kernel.memory.Median, 32) {
		t.Errorf("%v calls a core, %v KiB", kernel.callsCore, kernel.memory)
	}
}

// TestRowsWithoutBaseline: what cannot be compared is left out, not guessed.
func TestRowsWithoutBaseline(t *testing.T) {
	r := sampleReport()
	r.Runs = r.Runs[1:3]
	if rows := r.rows(); len(rows) != 0 {
		t.Errorf("%+v", rows)
	}
}

func TestCarried(t *testing.T) {
	s := subject{"trunktap", "user", ""}
	r := &report{Runs: []*result{
		runOf(s, 100, 1, 1, 1, 0), runOf(s, 500, 1, 1, 1, 10), runOf(s, 500, 2, 1, 1, 0), runOf(s, 1000, 1, 1, 1, 0), runOf(s, 1000, 2, 1, 1, 5000),
	}}
	if got := r.carriedMax(s); got != 500 {
		t.Errorf("%d calls", got)
	}
	r.Runs[1].Fault = "not all was published"
	if got := r.carriedMax(s); got != 100 {
		t.Errorf("%d calls", got)
	}
}

func TestGoals(t *testing.T) {
	got := map[string]string{}
	for _, g := range sampleReport().goals() {
		c := g.cells()
		got[c[0]] = c[2] + "|" + c[3]
	}
	for what, want := range map[string]string{
		"kernel engine, relay + sealed G.711: CPU against userspace rtpengine + pcap, 100 calls": "0.10|not met", // 0.1042
		"the same, added latency p99 / p99.9, 100 calls":                                         "15.0 / 30.0 µs|met",
		"kernel engine, relay + sealed G.711: CPU against userspace rtpengine + pcap, 500 calls": "|not measured",
		"recorded G.711 calls per core, no loss":                                                 "1458 (kernel engine, from 100 calls)|not met",
		"calls set up per second per core, recorded":                                             "2000 (at 500/s)|met",
		"post-dial delay added, p99 of INVITE + p99 of 180, recorded, 500 calls/s":               "1.00 ms|met",
		"allocations per packet in relay and pipeline":                                           "media/Ring: 1 |not met",
	} {
		if got[what] != want {
			t.Errorf("%s: %q, want %q", what, got[what], want)
		}
	}
}

func TestTables(t *testing.T) {
	l := sampleReport().tables()
	text, md := l.text(), l.markdown()
	for _, want := range []string{"rtpengine (userspace), relay + pcap", "trunktap kernel, relay + wav-pcmu", "70.0 (60.0–80.0)", "Goals"} {
		if !strings.Contains(text, want) || !strings.Contains(md, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, table := range l {
		for _, line := range table.cells {
			if len(line) != len(table.header) {
				t.Errorf("%s: %d cells below %d heads", table.title, len(line), len(table.header))
			}
		}
	}
}

func TestInsertResults(t *testing.T) {
	page := "a\n" + resultsBegin + "old\n" + resultsEnd + "b\n"
	want := "a\n" + resultsBegin + "\nnew\n" + resultsEnd + "b\n"
	if got := insertResults(page, "new\n"); got != want {
		t.Errorf("%q", got)
	}
	if got := insertResults(want, "new\n"); got != want {
		t.Errorf("again: %q", got)
	}
	for _, other := range []string{"", "a\n", "a\n" + resultsBegin + "old\n"} {
		if got := insertResults(other, "new\n"); got != "new\n" {
			t.Errorf("%q: %q", other, got)
		}
	}
}

// TestPutOff: a cost of which a part was put off is no cost of a call.
func TestPutOff(t *testing.T) {
	for name, spoil := range map[string]func(*result){
		"behind":    func(x *result) { x.Behind = 1 },
		"saturated": func(x *result) { x.Usage.Busy = 1.9 },
		"lossy":     func(x *result) { x.Traffic.Received -= 1000 },
		"faulty":    func(x *result) { x.Fault = "not published" },
	} {
		r := sampleReport()
		spoil(r.Runs[2])
		for _, g := range r.goals() {
			if g.what == "recorded G.711 calls per core, no loss" && g.known {
				t.Errorf("%s: %s", name, g.measured)
			}
		}
		for _, w := range r.rows() {
			if w.subject.Program == "trunktap" && name != "lossy" && w.marks() == "" {
				t.Errorf("%s: no mark", name)
			}
		}
	}
}

// TestJSON: a report survives its file.
func TestJSON(t *testing.T) {
	r := sampleReport()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again report
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r.tables().text(), again.tables().text()); d != "" {
		t.Error(d)
	}
}

// TestCollapsed: figures of a run in which hardly anything arrived mean nothing.
func TestCollapsed(t *testing.T) {
	r := sampleReport()
	for _, x := range r.Runs {
		if x.Subject.Program == "trunktap" {
			x.Traffic.Received = x.Traffic.Sent / 3
		}
	}
	if rows := r.rows(); len(rows) != 1 {
		t.Errorf("%d rows", len(rows))
	}
}

// TestPlot: it is XML, with a line for each program, and places within the picture.
func TestPlot(t *testing.T) {
	text := sampleReport().plot()
	paths, circles := 0, 0
	for dec := xml.NewDecoder(strings.NewReader(text)); ; {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			for _, a := range e.Attr {
				if a.Name.Local == "fill" && a.Value == "none" {
					paths++
				}
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("%s=%q", a.Name.Local, a.Value)
				}
			}
			if e.Name.Local == "circle" {
				circles++
			}
		}
	}
	if paths != 4 || circles != 4 {
		t.Errorf("%d lines, %d points", paths, circles)
	}
	if empty := (&report{}).plot(); strings.Contains(empty, "NaN") {
		t.Error(empty)
	}
}

func TestAxis(t *testing.T) {
	a := newAxis([]float64{4, 80}, 0, 100)
	if a.low != 1 || a.high != 100 || !near(a.place(10), 50) || len(a.ticks()) != 7 {
		t.Errorf("%+v %v", a, a.ticks())
	}
	if same := newAxis([]float64{10}, 0, 1); same.low != 10 || same.high != 100 {
		t.Errorf("%+v", same)
	}
}

func TestManifest(t *testing.T) {
	r := recorded{GapMS: map[string]int{}}
	for _, text := range []string{
		`{"audio_ms": 1000, "segments": [{"bytes": 10}, {"bytes": 5}], "gaps": [{"cause": "overrun", "duration_ms": 40}, {"cause": "loss", "duration_ms": 20}]}`,
		`{"audio_ms": 500, "gaps": [{"cause": "overrun", "duration_ms": 2}]}`,
	} {
		if err := r.addManifest([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	want := recorded{AudioMS: 1500, Bytes: 15, GapMS: map[string]int{"overrun": 42, "loss": 20}, OverrunMS: 42}
	if d := cmp.Diff(want, r); d != "" {
		t.Error(d)
	}
	if err := r.addManifest([]byte("{")); err == nil {
		t.Error("no error")
	}
}

func TestSubjects(t *testing.T) {
	var names []string
	for _, s := range subjects([]string{"user", "kernel"}) {
		names = append(names, s.String()+" / "+s.peer().String())
	}
	want := []string{
		"rtpengine (userspace), relay / rtpengine (userspace), relay",
		"trunktap user, relay / rtpengine (userspace), relay",
		"trunktap kernel, relay / rtpengine (userspace), relay",
		"rtpengine (userspace), relay + pcap / rtpengine (userspace), relay + pcap",
		"trunktap user, relay + wav-pcmu / rtpengine (userspace), relay + pcap",
		"trunktap kernel, relay + wav-pcmu / rtpengine (userspace), relay + pcap",
		"trunktap user, relay + ogg-opus / rtpengine (userspace), relay + pcap",
		"trunktap kernel, relay + ogg-opus / rtpengine (userspace), relay + pcap",
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
}
