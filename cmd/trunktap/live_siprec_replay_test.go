package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/plain"
	"github.com/trunktap/trunktap/sip/siptest"
)

// captureSIPREC captures what recording clients send; nil where that cannot be.
func captureSIPREC(t *testing.T) *liveCapture {
	t.Helper()
	if _, err := exec.LookPath("tcpdump"); err != nil || os.Geteuid() != 0 {
		return nil
	}
	return newLiveCaptureOf(t, "lo", fmt.Sprintf("net %s/24", liveAddr(0)), 16384)
}

// replaySIPREC holds promise 3 for recording sessions: the capture of all dialects gives
// the recordings that the daemon made.
func replaySIPREC(t *testing.T, d *liveDaemon, capture *liveCapture, dialects []siptest.Dialect, live map[string]*recorder.Manifest) {
	if capture == nil {
		t.Skip("a capture needs tcpdump (make deps installs it) and root")
	}
	capture.stop()
	out := t.TempDir()
	d.command("replay", "--out", out, capture.file)
	files := must(filepath.Glob(filepath.Join(out, "*", plain.ManifestFile)))(t)
	if len(files) != len(dialects) {
		t.Fatalf("%d recordings replayed, %d live", len(files), len(dialects))
	}
	for _, file := range files {
		m := &recorder.Manifest{}
		if err := json.Unmarshal(must(os.ReadFile(file))(t), m); err != nil {
			t.Fatal(err)
		}
		var i int
		must(fmt.Sscanf(m.Call.SIPCallID, "call-%d-0", &i))(t)
		t.Run(dialects[i].Name, func(t *testing.T) {
			var pcm [2][]int16
			for _, s := range m.Segments {
				more := readPCM(t, filepath.Join(filepath.Dir(file), s.File))
				pcm[0], pcm[1] = append(pcm[0], more[0]...), append(pcm[1], more[1]...)
			}
			checkSIPREC(t, m, dialects[i])
			checkAccount(t, m)
			checkTones(t, pcm, dialects[i])
			compareSIPREC(t, live[m.Call.SIPCallID], m)
		})
	}
}

// compareSIPREC compares what two runs say, but for moments that a message took through
// the daemon.
func compareSIPREC(t *testing.T, live, again *recorder.Manifest) {
	t.Helper()
	if live == nil {
		t.Fatal("not recorded live")
	}
	const most = 100 // ms
	near := func(what string, a, b int64) {
		t.Helper()
		if max(a-b, b-a) > most {
			t.Errorf("%s: %d ms live, %d replayed", what, a, b)
		}
	}
	near("real time", live.RealMS, again.RealMS)
	near("audio", live.AudioMS, again.AudioMS)
	if len(live.Windows) != len(again.Windows) || len(live.Labels) != len(again.Labels) || len(live.RawMetadata) != len(again.RawMetadata) {
		t.Fatalf("live %d windows, %d labels, %d documents; replayed %d, %d, %d",
			len(live.Windows), len(live.Labels), len(live.RawMetadata), len(again.Windows), len(again.Labels), len(again.RawMetadata))
	}
	for i, w := range live.Windows {
		near("a window's begin", w.RealMS, again.Windows[i].RealMS)
		near("a window's end", w.EndRealMS, again.Windows[i].EndRealMS)
	}
	told := func(m *recorder.Manifest) (out []any) {
		for _, l := range m.Labels {
			l.AtMS = 0
			out = append(out, l)
		}
		for _, r := range m.RawMetadata {
			out = append(out, r.Type, r.Text, r.Why)
		}
		for _, c := range m.Channels {
			out = append(out, c.Side, c.Party)
		}
		return append(out, m.Trunk, m.Call.Direction, m.Call.From, m.Call.To, m.Call.EndCause, m.Attrs)
	}
	if diff := cmp.Diff(told(live), told(again)); diff != "" {
		t.Errorf("live and replayed are told otherwise:\n%s", diff)
	}
}
