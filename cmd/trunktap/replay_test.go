package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
)

func mustReplay(t *testing.T, args ...string) []recorder.Manifest {
	t.Helper()
	var out []recorder.Manifest
	for line := range strings.Lines(mustRun(t, append([]string{"replay"}, args...)...)) {
		var m recorder.Manifest
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, m)
	}
	return out
}

// files returns the content of all files below a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out[rel] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestReplay(t *testing.T) {
	dir := t.TempDir()
	capture, out := filepath.Join(dir, "call.pcap"), filepath.Join(dir, "out")
	writeCall(t, capture)
	ms := mustReplay(t, "--out", out, capture)
	if len(ms) != 1 {
		t.Fatalf("%d recordings", len(ms))
	}
	m := ms[0]
	if m.Format != "wav-pcm16" || m.RealMS != 3000 || m.AudioMS != 3000 || m.Call.Direction != "inbound" || m.Trunk != "trunk" || len(m.Segments) != 1 || len(m.Streams) != 2 {
		t.Errorf("%+v", m)
	}
	first := files(t, out)
	var written recorder.Manifest
	if err := json.Unmarshal([]byte(first[m.ID+"/recording.json"]), &written); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m, written); d != "" {
		t.Errorf("printed and written manifests differ: %s", d)
	}
	if len(first) != 2 || len(first[m.ID+"/0001.wav"]) < 3*8000*4 {
		t.Errorf("%d files", len(first))
	}
	again := filepath.Join(dir, "again")
	mustReplay(t, "--out", again, capture)
	mustReplay(t, "--out", out, capture) // over what is there
	for _, other := range []string{again, out} {
		if d := cmp.Diff(first, files(t, other)); d != "" {
			t.Errorf("two runs differ: %d bytes of difference", len(d))
		}
	}
}

func TestReplaySettings(t *testing.T) {
	dir := t.TempDir()
	capture, cfg := filepath.Join(dir, "call.pcap"), filepath.Join(dir, "c.yaml")
	writeCall(t, capture)
	mustWrite(t, cfg, `
recording: {segment_max: 1s}
trunks:
  - name: other
    external: {next_hops: ["sip:192.0.2.1"]}
    internal: {next_hops: ["sip:192.0.2.2"]}
  - name: carrier-a
    external: {peers: [10.0.0.0/8], next_hops: ["sip:10.0.0.5"]}
    internal: {peers: [198.51.100.0/24], next_hops: ["sip:198.51.100.7"]}
`)
	m := mustReplay(t, "--config", cfg, "--out", filepath.Join(dir, "1"), capture)[0]
	if m.Trunk != "carrier-a" || m.Call.Direction != "outbound" || m.Format != "ogg-opus" || len(m.Segments) != 3 {
		t.Errorf("%+v", m)
	}
	m = mustReplay(t, "--config", cfg, "--external", "198.51.100.7", "--format", "wav-pcma", "--out", filepath.Join(dir, "2"), capture)[0]
	if m.Call.Direction != "inbound" || m.Format != "wav-pcma" {
		t.Errorf("%+v", m)
	}
	mustWrite(t, cfg, "trunks:\n  - name: a\n    external: {next_hops: [\"sip:192.0.2.1\"]}\n    internal: {next_hops: [\"sip:192.0.2.2\"]}\n    recording: {enabled: false}\n")
	r := command(t, "replay", "--config", cfg, "--out", filepath.Join(dir, "3"), capture)
	if r.code != exitFine || r.out != "" || !strings.Contains(r.errOut, "none of them recorded") {
		t.Errorf("%+v", r)
	}
}

func TestReplaySignals(t *testing.T) {
	dir := t.TempDir()
	capture, signals := filepath.Join(dir, "call.pcap"), filepath.Join(dir, "s.jsonl")
	writeCall(t, capture)
	mustWrite(t, signals, `{"event":"pause.end","at":2.1,"sip_call_id":"test-call@198.51.100.7"}

{"event":"pause.start","at":"`+captureStart.Add(1100*time.Millisecond).Format(time.RFC3339Nano)+`","sip_call_id":"test-call@198.51.100.7"}
{"event":"pause.start","at":1000,"sip_call_id":"test-call@198.51.100.7"}
{"event":"pause.start","at":1,"sip_call_id":"nobody"}
`)
	for _, mode := range []string{"cut", "silence"} {
		r := command(t, "replay", "--signals", signals, "--suppressed", mode, "--out", filepath.Join(dir, mode), capture)
		var m recorder.Manifest
		if err := json.Unmarshal([]byte(r.out), &m); err != nil || r.code != exitFine {
			t.Fatalf("%+v %v", r, err)
		}
		audio := map[string]int64{"cut": 2000, "silence": 3000}[mode]
		if len(m.Windows) != 1 || m.Windows[0].Reason != "pause" || m.Windows[0].RealMS != 1000 || m.Windows[0].EndRealMS != 2000 || m.AudioMS != audio {
			t.Errorf("%s: %d ms of audio, windows %+v", mode, m.AudioMS, m.Windows)
		}
		if !strings.Contains(r.errOut, "2 signals met no call") {
			t.Error(r.errOut)
		}
	}
}

func TestReplayBadSignals(t *testing.T) {
	dir := t.TempDir()
	capture, signals, out := filepath.Join(dir, "call.pcap"), filepath.Join(dir, "s.jsonl"), filepath.Join(dir, "out")
	writeCall(t, capture)
	for name, c := range map[string]struct{ content, want string }{
		"event":    {`{"event":"pause.start","at":1}` + "\n" + `{"event":"pause","at":1}`, signals + ":2: event: is not known"},
		"no JSON":  {"\n\npause\n", signals + ":3: not JSON"},
		"no time":  {`{"event":"pause.start"}`, signals + ":1: at: is missing"},
		"too long": {`{"event":"` + strings.Repeat("x", 300<<10) + `"}`, signals + ":1: "},
	} {
		mustWrite(t, signals, c.content)
		r := command(t, "replay", "--signals", signals, "--out", out, capture)
		if r.code != exitUsage || !strings.HasPrefix(r.errOut, c.want) || r.out != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := command(t, "replay", "--signals", signals+"x", "--out", out, capture); r.code != exitUsage {
		t.Errorf("missing: %+v", r)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("something was written")
	}
}

func TestReplayOddCaptures(t *testing.T) {
	dir := t.TempDir()
	whole, odd := filepath.Join(dir, "call.pcap"), filepath.Join(dir, "odd.pcap")
	writeCall(t, whole)
	content, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		content    string
		code       int
		recordings int
		want       string
	}{
		{"breaks off", string(content[:len(content)*2/3]), exitFailed, 1, odd},
		{"breaks off at the first packet", string(content[:30]), exitFailed, 0, odd},
		{"header alone", string(content[:24]), exitFine, 0, "no calls in 0 packets"},
		{"empty", "", exitFailed, 0, odd},
		{"no capture", strings.Repeat("hello ", 1000), exitFailed, 0, odd},
	} {
		mustWrite(t, odd, c.content)
		r := command(t, "replay", "--out", filepath.Join(dir, c.name), odd)
		if r.code != c.code || strings.Count(r.out, "\n") != c.recordings || !strings.Contains(r.errOut, c.want) {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}
