package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/plain"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// goldenSims are the simulated calls whose captures are kept as golden ones.
var goldenSims = []string{
	"both hold, old and new manner", "secure pause, late", "loss, jitter and reordering from outside", "new source in mid-call",
	"codec change by re-INVITE", "one side pauses its sending",
}

// TestGolden replays every capture of testdata and compares what came out with
// the .want beside it: streams, windows, gaps and a hash of each channel's
// samples. A line FILE.signals.jsonl beside it is passed as --signals.
//
// The captures named sim-* are written by -update from the simulated calls of
// TestSimLiveEqualsReplay; the others are of agents of other makers.
func TestGolden(t *testing.T) {
	dir := filepath.Join("..", "..", "testdata")
	if *update {
		writeSimCaptures(t, dir)
	}
	captures := must(filepath.Glob(filepath.Join(dir, "*.pcap")))(t)
	if len(captures) < 10 {
		t.Fatalf("%d golden captures in %s, want at least 10", len(captures), dir)
	}
	for _, name := range captures {
		t.Run(filepath.Base(name), func(t *testing.T) {
			got := goldenText(t, name)
			file := strings.TrimSuffix(name, ".pcap") + ".want"
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want := string(must(os.ReadFile(file))(t))
			if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); d != "" {
				t.Errorf("(-want +got; go test ./cmd/trunktap -run Golden -update rewrites)\n%s", d)
			}
		})
	}
}

// goldenText replays one capture and writes down what came out, without ids
// and absolute times.
func goldenText(t *testing.T, capture string) string {
	t.Helper()
	out := t.TempDir()
	args := []string{"replay", "--out", out}
	if s := strings.TrimSuffix(capture, ".pcap") + ".signals.jsonl"; exists(s) {
		args = append(args, "--signals", s)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), append(args, capture), &stdout, &stderr); code != exitFine {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	var b strings.Builder
	for line := range strings.Lines(stdout.String()) {
		var m recorder.Manifest
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		describeGolden(t, &b, &m, filepath.Join(out, m.ID))
	}
	return b.String()
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func describeGolden(t *testing.T, b *strings.Builder, m *recorder.Manifest, dir string) {
	t.Helper()
	fmt.Fprintf(b, "call %s %s real %d audio %d\n", m.Call.Direction, m.Call.EndCause, m.RealMS, m.AudioMS)
	for _, s := range m.Streams {
		fmt.Fprintf(b, "stream %d %08x %s packets %d lost %d late %d duplicate %d reordered %d\n", s.Channel, s.SSRC, s.Codec, s.Packets, s.Lost, s.Late, s.Duplicate, s.Reordered)
	}
	for _, w := range m.Windows {
		fmt.Fprintf(b, "window %s %d-%d at %d by %s late %d missed %d\n", w.Reason, w.RealMS, w.EndRealMS, w.AudioMS, w.Source, w.LateMS, w.MissedMS)
	}
	for _, g := range m.Gaps {
		fmt.Fprintf(b, "gap %d %s %d+%d at %d %s\n", g.Channel, g.Cause, g.RealMS, g.DurationMS, g.AudioMS, g.Detail)
	}
	digits := [2]int{}
	for _, d := range m.DTMF {
		digits[d.Channel]++
	}
	fmt.Fprintf(b, "digits %d %d\n", digits[0], digits[1])
	for _, s := range m.Segments {
		pcm := must(os.ReadFile(filepath.Join(dir, s.File)))(t)[44:]
		var ch [2][]byte
		for i := 0; i+4 <= len(pcm); i += 4 {
			ch[0], ch[1] = append(ch[0], pcm[i:i+2]...), append(ch[1], pcm[i+2:i+4]...)
		}
		fmt.Fprintf(b, "segment %d %d-%d %d ms external %s internal %s\n", s.N, s.RealMS, s.EndRealMS, s.DurationMS, hash(ch[0]), hash(ch[1]))
	}
}

func hash(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:12])
}

// writeSimCaptures makes the captures of simulated calls anew.
func writeSimCaptures(t *testing.T, dir string) {
	t.Helper()
	for _, s := range simScenarios() {
		for _, name := range goldenSims {
			if s.name != name {
				continue
			}
			base := filepath.Join(dir, "sim-"+strings.ReplaceAll(strings.ReplaceAll(name, ",", ""), " ", "-"))
			s.cfg.plan = simPlan()
			s.cfg.rec.NewSink = plain.New(t.TempDir()).NewSink
			inWorld(t, s.cfg, func(w *world) {
				s.run(w)
				w.ok(os.WriteFile(base+".pcap", w.capture.Bytes(), 0o644))
				var lines bytes.Buffer
				for _, sig := range w.signals {
					w.ok(json.NewEncoder(&lines).Encode(sig))
				}
				if lines.Len() > 0 {
					w.ok(os.WriteFile(base+".signals.jsonl", lines.Bytes(), 0o644))
				}
			})
		}
	}
}
