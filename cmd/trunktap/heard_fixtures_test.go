package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestHeardInFixtures compares recordings of captured calls with what the parties
// themselves, which have other decoders, have written of what they heard: pjsua, whose
// player stretches and drops pieces, and which smooths losses and joints.
func TestHeardInFixtures(t *testing.T) {
	for name, least := range map[string]float64{"pjsua_ilbc": 0.98, "pjsua_g729": 0.94, "pjsua_amrwb": 0.98} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(fixturesDir, "peers", name)
			if _, err := os.Stat(file + ".pcap"); err != nil {
				t.Skip("captures of other projects are not at ", fixturesDir)
			}
			calls := replayFixture(t, file+".pcap")
			if len(calls) != 1 {
				t.Fatalf("%d calls", len(calls))
			}
			c := calls[0]
			for ch, who := range []string{"callee", "caller"} {
				l := alike(c.pcm[ch], atRate(t, []string{file + "." + who + "_heard.wav"}, c.m.SampleRate), c.m.SampleRate)
				t.Logf("%s, heard by the %s: %s", c.codecs[ch], who, l)
				if l.correlation < least || l.seconds < 4 || l.torn > 0.5 {
					t.Errorf("the recording is not what the %s heard", who)
				}
			}
		})
	}
}
